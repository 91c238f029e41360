//! Snippets of nginx's configuration → the policy that says the same.
//!
//! Nothing is executed: a snippet that consists only of shapes that are known here becomes a policy, any other one is
//! refused as a whole, with the line that is not known.

mod condition;
mod question;

use crds::{
    DenyRule, HeaderEdits, HeaderField, PathCondition, PathRule, RedirectTo, RoutePolicySpec,
    TimeoutSeconds,
};

pub(crate) use self::question::question;
use super::nginx::{self, Directive};
use crate::annotation::Annotations;
use crate::report::quoted;

/// Where a snippet stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Snippet {
    /// `configuration-snippet`.
    Location,
    /// `server-snippet`.
    Server,
}

/// What the gateway does to requests anyway.
const ANYWAY: [(&str, &[&str]); 9] = [
    ("host", &["$host", "$http_host", "$best_http_host"]),
    ("x-real-ip", &["$remote_addr"]),
    (
        "x-forwarded-for",
        &[
            "$remote_addr",
            "$proxy_add_x_forwarded_for",
            "$full_x_forwarded_for",
        ],
    ),
    (
        "x-forwarded-host",
        &["$host", "$http_host", "$best_http_host"],
    ),
    (
        "x-forwarded-port",
        &["$server_port", "$pass_port", "$pass_server_port"],
    ),
    ("x-forwarded-proto", &["$scheme", "$pass_access_scheme"]),
    ("x-request-id", &["$request_id", "$req_id"]),
    ("upgrade", &["$http_upgrade"]),
    (
        "connection",
        &["", "upgrade", "Upgrade", "$connection_upgrade"],
    ),
];

/// Directives that say what is so anyway.
const SO_ANYWAY: [(&str, &str); 5] = [
    ("chunked_transfer_encoding", "on"),
    ("proxy_buffering", "off"),
    ("proxy_http_version", "1.1"),
    ("proxy_request_buffering", "off"),
    ("server_tokens", "off"),
];

/// The policy that says the same as a snippet, or the line that has none.
pub(crate) fn translate(text: &str, place: Snippet) -> Result<RoutePolicySpec, String> {
    let directives =
        nginx::parse(text).map_err(|fault| format!("line {}: {}", fault.line, fault.reason))?;
    let mut spec = RoutePolicySpec::default();
    let mut access = Access::default();
    for directive in &directives {
        let mut part = RoutePolicySpec::default();
        let rules = access.rules.len();
        match place {
            Snippet::Location => location(directive, &mut part, &mut access),
            Snippet::Server => server(directive, &mut part, &mut access),
        }
        .and_then(|()| {
            // What it says has to be usable, or its line is told.
            let rules = access.rules.get(rules..).unwrap_or_default();
            checked(&part)?;
            checked(&RoutePolicySpec {
                deny: rules.to_vec(),
                ..RoutePolicySpec::default()
            })
        })
        .map_err(|reason| {
            let shown = quoted(&directive.shown());
            format!("line {}, {shown}: {reason}", directive.line)
        })?;
        super::merge(&mut spec, part);
    }
    spec.deny.append(&mut access.rules);
    Ok(spec)
}

fn checked(spec: &RoutePolicySpec) -> Result<(), String> {
    match super::apply(spec, &mut Annotations::default()).first() {
        Some(fault) => Err(fault.text.clone()),
        None => Ok(()),
    }
}

/// Addresses that were allowed so far; the first rule that names a client counts.
#[derive(Debug, Default)]
struct Access {
    allowed: Vec<String>,
    everybody: bool,
    /// They come after what `if` and `return` say, wherever they stand.
    rules: Vec<DenyRule>,
    /// `return` has answered everything.
    returned: bool,
}

const UNKNOWN: &str = "there is no typed replacement for it";
const ELSEWHERE: &str = "only `break`, `permanent` and `redirect` can be translated; without them, nginx looks for another location";

fn server(
    directive: &Directive,
    spec: &mut RoutePolicySpec,
    access: &mut Access,
) -> Result<(), String> {
    let words: Vec<&str> = directive.words.iter().map(String::as_str).collect();
    let path = match words.as_slice() {
        ["location", "=", path] => PathCondition {
            exact: Some((*path).to_owned()),
            ..PathCondition::default()
        },
        ["location", "^~", path] | ["location", path] if path.starts_with('/') => PathCondition {
            prefix: Some((*path).to_owned()),
            ..PathCondition::default()
        },
        ["location", "~", regex] => PathCondition {
            regex: Some((*regex).to_owned()),
            ..PathCondition::default()
        },
        ["location", "~*", regex] => PathCondition {
            regex: Some(format!("(?i){regex}")),
            ..PathCondition::default()
        },
        [
            "add_header" | "more_set_headers" | "more_clear_headers" | "if" | "return" | "deny"
            | "allow" | "server_tokens",
            ..,
        ]
        | ["rewrite", _, _, "permanent" | "redirect"] => {
            return location(directive, spec, access);
        }
        _ => return Err(UNKNOWN.to_owned()),
    };
    // A location of its own answers by itself: what is not refused in it would be served from files.
    let inner = directive.block.as_deref().unwrap_or_default();
    let mut part = RoutePolicySpec::default();
    let mut inside = Access::default();
    for directive in inner {
        match directive.words.first().map(String::as_str) {
            Some("deny" | "allow" | "return") => location(directive, &mut part, &mut inside)?,
            Some("access_log" | "log_not_found") => {}
            _ => return Err(format!("{}: {UNKNOWN}", quoted(&directive.shown()))),
        }
    }
    part.deny.append(&mut inside.rules);
    let refuses = inside.everybody || inside.returned;
    if part.deny.is_empty() || part.redirect.is_some() || !refuses {
        return Err(
            "only a location that refuses everything, or all but some addresses, can be translated"
                .to_owned(),
        );
    }
    spec.deny.extend(part.deny.into_iter().map(|rule| DenyRule {
        path: Some(path.clone()),
        ..rule
    }));
    Ok(())
}

fn location(
    directive: &Directive,
    spec: &mut RoutePolicySpec,
    access: &mut Access,
) -> Result<(), String> {
    let words: Vec<&str> = directive.words.iter().map(String::as_str).collect();
    if let Some(block) = &directive.block {
        return match words.as_slice() {
            ["if", condition @ ..] => {
                let rule = condition::read(&condition.join(" "))?;
                let status = only_status(block)?;
                spec.deny.push(DenyRule {
                    status: Some(status),
                    ..rule
                });
                Ok(())
            }
            _ => Err(UNKNOWN.to_owned()),
        };
    }
    match words.as_slice() {
        ["proxy_set_header", name, value] => request_header(name, value, spec),
        ["proxy_hide_header", name] => {
            response(spec).remove.push((*name).to_owned());
            Ok(())
        }
        ["add_header", name, value] | ["add_header", name, value, "always"] => {
            let field = field(name, value)?;
            response(spec).add.push(field);
            Ok(())
        }
        ["more_set_headers", fields @ ..] if !fields.is_empty() => edits(fields, response(spec)),
        ["more_set_input_headers", fields @ ..] if !fields.is_empty() => {
            edits(fields, request(spec))
        }
        ["more_clear_headers", names @ ..] if !names.is_empty() => clear(names, response(spec)),
        ["more_clear_input_headers", names @ ..] if !names.is_empty() => {
            clear(names, request(spec))
        }
        ["allow", "all"] => {
            access.everybody = true;
            Ok(())
        }
        ["allow", address] if !access.everybody => {
            access.allowed.push((*address).to_owned());
            Ok(())
        }
        ["deny", address] if !access.everybody => {
            let all = *address == "all";
            access.everybody |= all;
            let path = (all && access.allowed.is_empty()).then(everything);
            access.rules.push(DenyRule {
                path,
                from: if all {
                    Vec::new()
                } else {
                    vec![(*address).to_owned()]
                },
                except_from: access.allowed.clone(),
                ..DenyRule::default()
            });
            Ok(())
        }
        ["allow" | "deny", _] => Ok(()), // Everybody has been decided about.
        ["return", rest @ ..] => returned(rest, spec, access),
        ["rewrite", regex, to, flag] => rewrite(regex, to, flag, spec),
        ["rewrite", _, _] => Err(ELSEWHERE.to_owned()),
        [
            name @ ("proxy_connect_timeout" | "proxy_read_timeout" | "proxy_send_timeout"),
            time,
        ] => {
            let seconds = Some(seconds(time)?);
            let timeouts = spec.timeouts.get_or_insert_with(TimeoutSeconds::default);
            match *name {
                "proxy_connect_timeout" => timeouts.connect = seconds,
                "proxy_read_timeout" => timeouts.read = seconds,
                _ => timeouts.send = seconds,
            }
            Ok(())
        }
        [name, value] if SO_ANYWAY.contains(&(*name, *value)) => Ok(()),
        _ => Err(UNKNOWN.to_owned()),
    }
}

fn everything() -> PathCondition {
    PathCondition {
        prefix: Some("/".to_owned()),
        ..PathCondition::default()
    }
}

fn request(spec: &mut RoutePolicySpec) -> &mut HeaderEdits {
    spec.request_headers
        .get_or_insert_with(HeaderEdits::default)
}

fn response(spec: &mut RoutePolicySpec) -> &mut HeaderEdits {
    spec.response_headers
        .get_or_insert_with(HeaderEdits::default)
}

fn request_header(name: &str, value: &str, spec: &mut RoutePolicySpec) -> Result<(), String> {
    let lower = name.to_ascii_lowercase();
    if ANYWAY
        .iter()
        .any(|(header, values)| *header == lower && values.contains(&value))
    {
        return Ok(());
    }
    if value.is_empty() {
        request(spec).remove.push(name.to_owned());
        return Ok(());
    }
    let field = field(name, value)?;
    request(spec).set.push(field);
    Ok(())
}

fn field(name: &str, value: &str) -> Result<HeaderField, String> {
    if value.contains('$') || name.contains('$') {
        return Err("there are no variables in values of headers".to_owned());
    }
    Ok(HeaderField {
        name: name.to_owned(),
        value: value.to_owned(),
    })
}

/// `Name: value` sets a header, `Name:` removes it.
fn edits(fields: &[&str], into: &mut HeaderEdits) -> Result<(), String> {
    for text in fields {
        if text.starts_with('-') {
            return Err(format!("`{text}` restricts it, which cannot be said here"));
        }
        match text.split_once(':') {
            Some((name, value)) if !value.trim().is_empty() => {
                into.set.push(field(name.trim(), value.trim())?);
            }
            Some((name, _)) => into.remove.push(name.trim().to_owned()),
            None => into.remove.push(text.trim().to_owned()),
        }
    }
    Ok(())
}

fn clear(names: &[&str], into: &mut HeaderEdits) -> Result<(), String> {
    for name in names {
        if name.starts_with('-') || name.contains('*') {
            return Err(format!("`{name}` is not the name of one header"));
        }
        into.remove.push(name.trim_end_matches(':').to_owned());
    }
    Ok(())
}

fn status(text: &str) -> Option<u16> {
    text.parse()
        .ok()
        .filter(|status| (400..600).contains(status))
}

/// The status with which a block refuses requests, if that is all it does.
fn only_status(block: &[Directive]) -> Result<u16, String> {
    let [only] = block else {
        return Err("only `return` with an error can stand in it".to_owned());
    };
    let words: Vec<&str> = only.words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["return", code] | ["return", code, _] if only.block.is_none() => status(code)
            .ok_or_else(|| format!("{}: only an error can be returned", quoted(&only.shown()))),
        ["deny", "all"] => Ok(403),
        _ => Err(format!("{}: {UNKNOWN}", quoted(&only.shown()))),
    }
}

fn returned(rest: &[&str], spec: &mut RoutePolicySpec, access: &mut Access) -> Result<(), String> {
    match rest {
        [code] | [code, _] if status(code).is_some() => {
            access.returned = true;
            spec.deny.push(DenyRule {
                status: status(code),
                path: Some(everything()),
                ..DenyRule::default()
            });
            Ok(())
        }
        [code @ ("301" | "302" | "303" | "307" | "308"), url] if !url.contains('$') => {
            spec.redirect = Some(RedirectTo {
                url: (*url).to_owned(),
                status: code.parse().ok(),
            });
            Ok(())
        }
        [url] if url.starts_with("http") && !url.contains('$') => {
            spec.redirect = Some(RedirectTo {
                url: (*url).to_owned(),
                status: Some(302),
            });
            Ok(())
        }
        // The same path on another host.
        [code @ ("301" | "302" | "303" | "307" | "308"), url]
            if moved(url).is_some_and(|to| !to.ends_with("://$host")) =>
        {
            spec.path_rules.push(PathRule {
                regex: "^(.*)$".to_owned(),
                to: format!("{}$1", moved(url).unwrap_or_default()),
                redirect: code.parse().ok(),
            });
            Ok(())
        }
        [_, url] if moved(url).is_some() => Err(
            "`force-ssl-redirect` sends clients to https; there are no variables in the URL of a redirect"
                .to_owned(),
        ),
        [_, url] if url.contains('$') => {
            Err("there are no variables in the URL of a redirect".to_owned())
        }
        _ => Err("only an error, or a redirect to a URL, can be returned".to_owned()),
    }
}

/// Where a redirect goes that keeps path and query.
fn moved(url: &str) -> Option<&str> {
    let to = url
        .strip_suffix("$request_uri")
        .or_else(|| url.strip_suffix("$uri$is_args$args"))?;
    to.contains("://").then_some(to)
}

fn rewrite(regex: &str, to: &str, flag: &str, spec: &mut RoutePolicySpec) -> Result<(), String> {
    let redirect = match flag {
        "break" => None,
        "permanent" => Some(301),
        "redirect" => Some(302),
        _ => return Err(ELSEWHERE.to_owned()),
    };
    if to.contains('?') {
        return Err("a query in it cannot be translated".to_owned());
    }
    if redirect.is_none() && to.contains("://") {
        return Err("nginx makes a redirect of it; say so with `redirect`".to_owned());
    }
    spec.path_rules.push(PathRule {
        regex: regex.to_owned(),
        to: to.to_owned(),
        redirect,
    });
    Ok(())
}

fn seconds(text: &str) -> Result<u32, String> {
    let (number, factor) = match text.strip_suffix('m') {
        Some(minutes) if !text.ends_with("ms") => (minutes, 60),
        _ => match text.strip_suffix('h') {
            Some(hours) => (hours, 3600),
            None => (text.strip_suffix('s').unwrap_or(text), 1),
        },
    };
    number
        .parse::<u32>()
        .ok()
        .and_then(|number| number.checked_mul(factor))
        .filter(|seconds| *seconds > 0)
        .ok_or_else(|| format!("`{text}` is not a number of seconds"))
}
