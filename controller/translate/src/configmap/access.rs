//! Settings about who may pass, and how often.

use std::sync::Arc;

use ipnet::IpNet;
use model::{DenyRule, ExternalAuth, Filter, HeaderCondition, TextCondition};

use super::Fault;
use crate::external::{self, ExternalValues};
use crate::report::quoted;
use crate::settings::Settings;
use crate::value;

/// Settings that decide who may pass: with a value that cannot be read, routes that depend on it are closed.
pub(super) const GUARDS: [&str; 13] = [
    "whitelist-source-range",
    "denylist-source-range",
    "global-auth-url",
    "global-auth-method",
    "global-auth-signin",
    "global-auth-signin-redirect-param",
    "global-auth-response-headers",
    "global-auth-request-redirect",
    "global-auth-always-set-cookie",
    "global-auth-cache-key",
    "global-auth-cache-duration",
    "global-auth-snippet",
    "no-auth-locations",
];

/// What follows for them.
pub(super) const CONSEQUENCE: &str =
    "routes whose Ingress has no value of its own answer 503 rather than without it";

/// Settings that no Ingress can take back: with a value that cannot be read, all routes are closed.
pub(super) const BLOCKS: [&str; 3] = ["block-cidrs", "block-referers", "block-user-agents"];

/// What follows for them.
pub(super) const ALL_CLOSED: &str = "all routes answer 503 rather than without it";

/// What follows from a firewall that is asked for.
pub(super) const NO_FIREWALL: &str = "routes whose Ingress says neither `lockgate.dev/accept-without-waf: \"true\"` nor `enable-modsecurity: \"false\"` answer 503 rather than without it";

/// A list of addresses, or that there is one which cannot be read.
pub(crate) type List = Result<Option<Vec<IpNet>>, ()>;

/// What applies to every route unless its Ingress says otherwise.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct GlobalAccess {
    pub(crate) allow: List,
    pub(crate) deny: List,
    /// In addition to what an Ingress denies.
    pub(crate) block: List,
    /// A regular expression for values of `User-Agent` that nobody may have.
    pub(crate) agents: Result<Option<String>, ()>,
    /// The same for `Referer`.
    pub(crate) referers: Result<Option<String>, ()>,
    /// Every request is to be inspected, which nothing here can do.
    pub(crate) firewall: bool,
    /// Who is asked about every request, or that it cannot be read who.
    pub(crate) external: Result<Option<Arc<ExternalAuth>>, ()>,
    /// Below these paths nobody has to say who it is.
    pub(crate) open: Vec<String>,
    pub(crate) rate_status: u16,
    pub(crate) concurrent_status: u16,
    /// In KiB per second; 0 is no limit.
    pub(crate) pace: u32,
    pub(crate) pace_after: u32,
}

impl Default for GlobalAccess {
    fn default() -> Self {
        Self {
            allow: Ok(None),
            deny: Ok(None),
            block: Ok(None),
            agents: Ok(None),
            referers: Ok(None),
            firewall: false,
            external: Ok(None),
            open: vec!["/.well-known/acme-challenge".to_owned()],
            rate_status: 503,
            concurrent_status: 503,
            pace: 0,
            pace_after: 0,
        }
    }
}

impl GlobalAccess {
    /// Does it ask for nothing?
    pub(crate) fn is_default(&self) -> bool {
        let lists = [&self.allow, &self.deny, &self.block];
        let texts = [&self.agents, &self.referers];
        self.pace == 0
            && self.external == Ok(None)
            && lists.iter().all(|list| **list == Ok(None))
            && texts.iter().all(|text| **text == Ok(None))
    }

    /// Is there a list that no Ingress can take back, and that cannot be read?
    pub(crate) fn is_unreadable(&self) -> bool {
        self.block.is_err() || self.agents.is_err() || self.referers.is_err()
    }

    /// What is answered with 403 before anything else is looked at.
    pub(crate) fn refusals(&self) -> Option<Filter> {
        let rule = |name: &str, text: &Result<Option<String>, ()>| {
            let value = TextCondition::Regex(text.clone().ok()??);
            Some(DenyRule {
                status: 403,
                methods: Vec::new(),
                except_methods: Vec::new(),
                path: None,
                headers: vec![HeaderCondition {
                    name: name.to_owned(),
                    value,
                    not: false,
                }],
                from: Vec::new(),
                except_from: Vec::new(),
            })
        };
        let agents = rule("User-Agent", &self.agents);
        let rules: Vec<_> = agents
            .into_iter()
            .chain(rule("Referer", &self.referers))
            .collect();
        (!rules.is_empty()).then_some(Filter::Deny(rules))
    }
}

impl GlobalAccess {
    /// Is this one of the paths where nobody has to say who it is? Whole segments count; of a regular expression, one
    /// that is as good as a text, since another one could match anything.
    pub(crate) fn is_open(&self, path: &str, regex: bool) -> bool {
        let literal = |byte: u8| {
            byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'.' | b'-' | b'_' | b'~')
        };
        if regex && !path.bytes().all(literal) {
            return false;
        }
        self.open.iter().any(|open| {
            let open = open.strip_suffix('/').unwrap_or(open);
            path.strip_prefix(open)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
    }
}

/// What the ConfigMap says about the server that is asked, as far as it has been read.
#[derive(Debug, Default)]
pub(super) struct Asked {
    values: ExternalValues,
    broken: bool,
}

impl Asked {
    /// All of it together.
    pub(super) fn together(&self, settings: &Settings) -> Result<Option<Arc<ExternalAuth>>, ()> {
        if self.broken {
            return Err(());
        }
        Ok(self.values.together(settings))
    }
}

/// Reads what begins with `global-auth-`.
pub(super) fn ask(asked: &mut Asked, key: &str, text: &str) -> Result<(), Fault> {
    let values = &mut asked.values;
    let read = match key {
        _ if text.trim().is_empty() => Ok(()),
        "url" => external::url(text).map(|url| values.url = Some(url)),
        "method" => external::method(text).map(|method| values.method = Some(method)),
        "signin" => external::signin(text).map(|url| values.signin = Some(url)),
        "signin-redirect-param" => value::name(text).map(|name| values.signin_param = Some(name)),
        "response-headers" => external::names(text).map(|names| values.response_headers = names),
        "request-redirect" => value::url(text).map(|url| values.request_redirect = Some(url)),
        "always-set-cookie" => value::boolean(text).map(|always| values.always_set_cookie = always),
        "cache-key" => external::cache_key(text).map(|key| values.cache_key = Some(key)),
        "cache-duration" => {
            external::durations(text).map(|durations| values.cache_durations = Some(durations))
        }
        "snippet" => Err("raw configuration is never executed".to_owned()),
        _ => return Err(Fault::Unknown),
    };
    asked.broken |= read.is_err();
    Ok(read?)
}

pub(super) fn set(access: &mut GlobalAccess, key: &str, text: &str) -> Result<(), Fault> {
    match key {
        "whitelist-source-range" => list(&mut access.allow, text)?,
        "denylist-source-range" => list(&mut access.deny, text)?,
        "block-cidrs" => list(&mut access.block, text)?,
        "block-user-agents" => values(&mut access.agents, text)?,
        "block-referers" => values(&mut access.referers, text)?,
        "enable-modsecurity" if text.trim().is_empty() => {}
        "enable-modsecurity" => {
            // Closed first.
            access.firewall = true;
            access.firewall = value::boolean(text)?;
            if access.firewall {
                return Err(Fault::Refused(format!(
                    "{}; {NO_FIREWALL}",
                    crate::setting::NO_FIREWALL
                )));
            }
        }
        "no-auth-locations" => {
            // Closed first: with what cannot be read, no path is open.
            access.open.clear();
            access.open = super::keys::locations(text)?;
        }
        "limit-req-status-code" => access.rate_status = status(text)?,
        "limit-conn-status-code" => access.concurrent_status = status(text)?,
        "limit-rate" => access.pace = value::number(text, 0, u32::MAX)?,
        "limit-rate-after" => access.pace_after = value::number(text, 0, u32::MAX)?,
        _ => return Err(Fault::Unknown),
    }
    Ok(())
}

fn list(list: &mut List, text: &str) -> Result<(), String> {
    if text.trim().is_empty() {
        return Ok(());
    }
    // Closed first.
    *list = Err(());
    *list = Ok(Some(value::networks(text)?));
    Ok(())
}

fn values(into: &mut Result<Option<String>, ()>, text: &str) -> Result<(), String> {
    if value::list(text).next().is_none() {
        return Ok(());
    }
    // Closed first.
    *into = Err(());
    *into = Ok(Some(expression(text)?));
    Ok(())
}

/// One regular expression for a list as `map` of nginx has them: texts that are compared without regard to case, regular
/// expressions after `~`, or after `~*` without regard to case.
fn expression(text: &str) -> Result<String, String> {
    let alternatives = value::list(text).map(|entry| {
        let entry = unquoted(entry);
        let (kind, expression) = match (entry.strip_prefix("~*"), entry.strip_prefix('~')) {
            (Some(expression), _) => ("i:", expression.to_owned()),
            (None, Some(expression)) => (":", expression.to_owned()),
            (None, None) => {
                let literal = entry.strip_prefix('\\').unwrap_or(entry);
                ("i:", format!("^{}$", regex_syntax::escape(literal)))
            }
        };
        regex_syntax::ParserBuilder::new()
            .utf8(false)
            .build()
            .parse(&expression)
            .map_err(|_| {
                format!(
                    "{} is not a regular expression of linear time",
                    quoted(entry)
                )
            })?;
        Ok(format!("(?{kind}{expression})"))
    });
    Ok(alternatives.collect::<Result<Vec<_>, String>>()?.join("|"))
}

fn unquoted(text: &str) -> &str {
    ['"', '\'']
        .into_iter()
        .find_map(|quote| text.strip_prefix(quote)?.strip_suffix(quote))
        .unwrap_or(text)
}

fn status(text: &str) -> Result<u16, String> {
    let status = value::number(text, 400, 599)?;
    u16::try_from(status).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocked_values_are_those_of_a_map_of_nginx() {
        for (text, want) in [
            ("curl", Some("(?i:^curl$)")),
            ("a.b, \"c d\"", Some(r"(?i:^a\.b$)|(?i:^c d$)")),
            ("~*bot", Some("(?i:bot)")),
            ("'~^Mozilla/4', x", Some("(?:^Mozilla/4)|(?i:^x$)")),
            (r"\default", Some("(?i:^default$)")),
            ("good, ~(", None),
            ("~(?=x)", None),
            ("~a)|(b", None),
        ] {
            assert_eq!(expression(text).ok().as_deref(), want, "{text}");
        }
        let mut list = Ok(None);
        assert!(values(&mut list, " , ").is_ok());
        assert_eq!(list, Ok(None), "nothing is asked for");
        assert!(values(&mut list, "a, ~[").is_err());
        assert_eq!(list, Err(()), "all routes are closed");
    }
}
