//! Fields of a policy → what they mean, or why they cannot be used.

use std::collections::BTreeSet;

use crds::{
    CrossOrigin, DenyRule, HeaderCondition, HeaderEdits, PathCondition, PathRule, RateLimit,
};
use model::{HeaderChange, TextCondition};

use super::Fault;
use crate::annotation::{self, Annotations};
use crate::report::quoted;
use crate::value;

/// Reads the fields of one policy.
pub(super) struct Reader<'a> {
    pub(super) annotations: &'a mut Annotations,
    pub(super) faults: Vec<Fault>,
    /// The annotations that would say the same.
    pub(super) uses: BTreeSet<Box<str>>,
}

impl Reader<'_> {
    pub(super) fn fault(&mut self, field: &str, text: impl Into<String>) {
        self.faults.push(Fault {
            field: field.to_owned(),
            text: text.into(),
        });
    }

    /// Says it as the annotation does.
    pub(super) fn set(&mut self, field: &str, annotation: &str, text: &str) {
        self.uses.insert(annotation.into());
        if let Err(reason) = annotation::set(self.annotations, annotation, text) {
            self.fault(field, format!("{} cannot be used: {reason}", quoted(text)));
        }
    }

    pub(super) fn headers(&mut self, edits: &HeaderEdits, field: &str) -> Option<HeaderChange> {
        let HeaderEdits { remove, set, add } = edits;
        let mut change = HeaderChange::default();
        for (index, name) in remove.iter().enumerate() {
            let field = format!("{field}.remove[{index}]");
            change.remove.extend(self.header_name(name, &field));
        }
        for (list, what, into) in [(set, "set", &mut change.set), (add, "add", &mut change.add)] {
            for (index, header) in list.iter().enumerate() {
                let field = format!("{field}.{what}[{index}]");
                let name = self.header_name(&header.name, &format!("{field}.name"));
                let value = self.header_value(&header.value, &format!("{field}.value"));
                into.extend(name.zip(value));
            }
        }
        (change != HeaderChange::default()).then_some(change)
    }

    fn header_name(&mut self, text: &str, field: &str) -> Option<String> {
        header_name(text)
            .map_err(|reason| self.fault(field, format!("{}: {reason}", quoted(text))))
            .ok()
    }

    fn header_value(&mut self, text: &str, field: &str) -> Option<String> {
        if text.chars().any(|c| c.is_control() && c != '\t') {
            self.fault(
                field,
                format!("{} cannot be the value of a header", quoted(text)),
            );
            return None;
        }
        Some(text.to_owned())
    }

    pub(super) fn rule(&mut self, rule: &DenyRule, field: &str) -> Option<model::DenyRule> {
        let DenyRule {
            status,
            methods,
            except_methods,
            path,
            headers,
            from,
            except_from,
        } = rule;
        let before = self.faults.len();
        if *rule
            == (DenyRule {
                status: *status,
                ..DenyRule::default()
            })
        {
            self.fault(
                field,
                "a rule needs a condition; `path: {prefix: /}` is every request",
            );
        }
        let status = status.unwrap_or(403);
        if !(400..600).contains(&status) {
            let text = format!("{status} is not between 400 and 599");
            self.fault(&format!("{field}.status"), text);
        }
        for method in methods.iter().chain(except_methods) {
            if value::name(method).is_err() {
                let text = format!("{} is not a method", quoted(method));
                self.fault(&format!("{field}.methods"), text);
            }
        }
        let path = path
            .as_ref()
            .and_then(|path| self.path(path, &format!("{field}.path")));
        let mut conditions = Vec::new();
        for (index, header) in headers.iter().enumerate() {
            let field = format!("{field}.headers[{index}]");
            conditions.extend(self.header(header, &field));
        }
        let rule = model::DenyRule {
            status,
            methods: methods.clone(),
            except_methods: except_methods.clone(),
            path,
            headers: conditions,
            from: self.networks(from, &format!("{field}.from")),
            except_from: self.networks(except_from, &format!("{field}.exceptFrom")),
        };
        (self.faults.len() == before).then_some(rule)
    }

    fn path(&mut self, path: &PathCondition, field: &str) -> Option<TextCondition> {
        let PathCondition {
            exact,
            prefix,
            regex,
        } = path;
        match (exact, prefix, regex) {
            (Some(exact), None, None) => self.normal(exact, field).map(TextCondition::Exact),
            (None, Some(prefix), None) => self.normal(prefix, field).map(TextCondition::Prefix),
            (None, None, Some(regex)) => self.regex(regex, field),
            _ => {
                self.fault(field, "it is not exactly one of exact, prefix and regex");
                None
            }
        }
    }

    pub(super) fn path_rule(&mut self, rule: &PathRule, field: &str) -> Option<model::PathRule> {
        let PathRule {
            regex,
            to,
            redirect,
        } = rule;
        let before = self.faults.len();
        self.regex(regex, &format!("{field}.regex"));
        let target = match redirect {
            Some(_) if to.contains("://") => url_with_groups(to),
            Some(_) | None => value::path_with_groups(to),
        };
        let target = match target {
            Ok(target) => target,
            Err(reason) => {
                self.fault(&format!("{field}.to"), format!("{}: {reason}", quoted(to)));
                return None;
            }
        };
        if let Some(status) = redirect.filter(|status| !matches!(status, 301..=303 | 307 | 308)) {
            let text = format!("{status} is not 301, 302, 303, 307 or 308");
            self.fault(&format!("{field}.redirect"), text);
        }
        (self.faults.len() == before).then(|| model::PathRule {
            pattern: regex.clone(),
            target,
            redirect: *redirect,
        })
    }

    /// Requests are compared in their normal form, so the condition has to be in it as well.
    fn normal(&mut self, path: &str, field: &str) -> Option<String> {
        match model::normalise_path(path) {
            Ok(normal) => Some(normal.into_owned()),
            Err(reason) => {
                self.fault(field, format!("{} is no path: {reason}", quoted(path)));
                None
            }
        }
    }

    fn header(&mut self, header: &HeaderCondition, field: &str) -> Option<model::HeaderCondition> {
        let HeaderCondition {
            name,
            exact,
            regex,
            present,
            not,
        } = header;
        let name = match value::name(name) {
            Ok(name) if name.eq_ignore_ascii_case("host") => {
                // Not every request has it as a header.
                let text = "the host is told apart by the rules of the Ingress";
                self.fault(&format!("{field}.name"), text);
                return None;
            }
            Ok(name) => name,
            Err(reason) => {
                self.fault(
                    &format!("{field}.name"),
                    format!("{}: {reason}", quoted(name)),
                );
                return None;
            }
        };
        let not = not.unwrap_or_default();
        let (value, not) = match (exact, regex, present) {
            (Some(exact), None, None) => (TextCondition::Exact(exact.clone()), not),
            (None, Some(regex), None) => (self.regex(regex, field)?, not),
            // It is there if it is not empty.
            (None, None, Some(present)) => (TextCondition::Exact(String::new()), *present != not),
            _ => {
                self.fault(field, "it is not exactly one of exact, regex and present");
                return None;
            }
        };
        Some(model::HeaderCondition { name, value, not })
    }

    fn regex(&mut self, text: &str, field: &str) -> Option<TextCondition> {
        if let Err(error) = regex_syntax::ParserBuilder::new()
            .utf8(false)
            .build()
            .parse(text)
        {
            let reason = error.to_string();
            let reason = reason.lines().last().unwrap_or_default();
            let reason = reason.trim_start_matches("error: ").to_owned();
            self.fault(field, format!("{}: {reason}", quoted(text)));
            return None;
        }
        Some(TextCondition::Regex(text.to_owned()))
    }

    fn networks(&mut self, texts: &[String], field: &str) -> Vec<ipnet::IpNet> {
        let mut networks = Vec::new();
        for text in texts {
            match value::networks(text) {
                Ok(read) => networks.extend(read),
                Err(reason) => self.fault(field, reason),
            }
        }
        networks
    }

    pub(super) fn cors(&mut self, cors: &CrossOrigin) {
        let CrossOrigin {
            allow_origins,
            allow_methods,
            allow_headers,
            expose_headers,
            allow_credentials,
            max_age,
        } = cors;
        self.set("spec.cors", "enable-cors", "true");
        for (field, name, list) in [
            ("allowOrigins", "cors-allow-origin", allow_origins),
            ("allowMethods", "cors-allow-methods", allow_methods),
            ("allowHeaders", "cors-allow-headers", allow_headers),
            ("exposeHeaders", "cors-expose-headers", expose_headers),
        ] {
            if !list.is_empty() {
                self.set(&format!("spec.cors.{field}"), name, &list.join(", "));
            }
        }
        let credentials = allow_credentials.to_string();
        self.set(
            "spec.cors.allowCredentials",
            "cors-allow-credentials",
            &credentials,
        );
        if let Some(seconds) = max_age {
            self.set("spec.cors.maxAge", "cors-max-age", &seconds.to_string());
        }
    }

    pub(super) fn rate_limit(&mut self, limit: &RateLimit) {
        let RateLimit {
            requests_per_second,
            requests_per_minute,
            connections,
            burst,
        } = limit;
        let mut any = false;
        for (field, name, number) in [
            ("requestsPerSecond", "limit-rps", requests_per_second),
            ("requestsPerMinute", "limit-rpm", requests_per_minute),
            ("connections", "limit-connections", connections),
        ] {
            let field = format!("spec.rateLimit.{field}");
            match number {
                Some(0) => self.fault(&field, "a limit of nothing is no limit"),
                Some(number) => {
                    any = true;
                    self.set(&field, name, &number.to_string());
                }
                None => {}
            }
        }
        if !any {
            self.fault("spec.rateLimit", "it has no limit");
        }
        if let Some(burst) = burst {
            let text = burst.to_string();
            self.set("spec.rateLimit.burst", "limit-burst-multiplier", &text);
        }
    }
}

/// The name of a header that a route may change.
pub(crate) fn header_name(text: &str) -> Result<String, String> {
    // They delimit messages (RFC 9112, 11.2).
    const OWN: [&str; 8] = [
        "connection",
        "content-length",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ];
    let name = value::name(text)?;
    let is = |other: &&str| name.eq_ignore_ascii_case(other);
    if is(&"host") {
        return Err(
            "the host is not changed here; `upstream-vhost` says what backends get".to_owned(),
        );
    }
    if OWN.iter().any(is) {
        return Err("it belongs to the connection, and no route can change it".to_owned());
    }
    Ok(name)
}

/// A URL in which groups, and instead of scheme and host `$scheme` and `$host`, may stand.
fn url_with_groups(text: &str) -> Result<String, String> {
    let example = text
        .replacen("$scheme://", "https://", 1)
        .replacen("://$host", "://a.test", 1);
    value::url(&example)?;
    for rest in example.split('$').skip(1) {
        if !rest.starts_with(|c: char| ('1'..='9').contains(&c)) {
            return Err("only `$1` to `$9`, `$scheme` and `$host` stand for something".to_owned());
        }
    }
    Ok(text.trim().to_owned())
}
