//! The annotations that Lockgate knows: one table for reading, for reports and for `docs/annotations.md`.
//!
//! Each annotation of ingress-nginx has an entry with a [`Verdict`] that its owner can see:
//!
//! | verdict | what happens |
//! | --- | --- |
//! | honoured | as ingress-nginx does |
//! | different | nearly; the entry says what differs |
//! | ignored | a warning; the entry says why it has no effect here |
//! | refused | the routes of the Ingress answer 503 rather than without what was asked for |
//!
//! A value that cannot be read is reported. Then the default applies, or, where the annotation [guards] a route,
//! the routes of the Ingress answer 503.
//!
//! [guards]: Annotation::guards

mod near;
mod read;
mod table;
mod values;

use std::fmt;
use std::sync::LazyLock;

pub(crate) use self::near::{current, distance};
pub(crate) use self::read::read;
pub(crate) use self::table::{conditions, switch};
pub(crate) use self::values::{
    AccessValues, Annotations, BackendTlsValues, Canary, Routing, Sessions, Traffic, Verify,
};

/// An annotation, without its prefix.
#[derive(Clone, Copy, Debug)]
pub struct Annotation {
    /// Its name without the prefix.
    pub name: &'static str,
    /// What it belongs to.
    pub group: Group,
    /// What its value looks like.
    pub value: Value,
    /// The value that stands for its absence; empty for none.
    pub default: &'static str,
    /// How far it reaches.
    pub scope: Scope,
    /// How much harm a hostile value could do.
    pub risk: Risk,
    /// It decides who may pass, or how often: a value that cannot be read closes the routes of the Ingress.
    pub guards: bool,
    /// What Lockgate makes of it.
    pub verdict: Verdict,
    /// What it does.
    pub about: &'static str,
    /// Lockgate's own: ingress-nginx does not have it.
    pub own: bool,
    /// The annotation with which an owner accepts to go without this one, where it is refused.
    pub waiver: Option<&'static str>,
    /// Values that ask for nothing, so that there is nothing to refuse or to ignore.
    harmless: &'static [&'static str],
    /// Values that the difference does not concern.
    alike: Option<fn(&str) -> bool>,
    /// What follows from a value that cannot be read, where it is not the default.
    otherwise: &'static str,
    read: Option<Read>,
}

/// Takes over a value, or says why it is none.
type Read = fn(&mut Annotations, &str) -> Result<(), String>;

/// What an annotation belongs to; the sections of `docs/annotations.md`.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Group {
    /// Routing, rewrites, redirects.
    Routing,
    /// Protocol and TLS towards backends.
    Backend,
    /// Timeouts, bodies, buffers, retries.
    Transfer,
    /// Who a user is.
    Authentication,
    /// Certificates of clients.
    ClientCertificates,
    /// Addresses and rates.
    Access,
    /// Cross-origin requests.
    Cors,
    /// Shares of traffic for a new version.
    Canary,
    /// Sessions and balancing.
    Affinity,
    /// Errors, headers, logs.
    Responses,
    /// TLS towards clients.
    Tls,
    /// Mirrors, firewalls, raw configuration.
    Raw,
    /// Lockgate's own.
    Own,
}

/// What Lockgate makes of an annotation.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// As ingress-nginx does.
    Honoured,
    /// Nearly; this is the difference.
    Different(&'static str),
    /// A warning is all that follows; this is why.
    Ignored(&'static str),
    /// The routes answer 503; this is why, and what to use instead.
    Refused(&'static str),
}

/// How far an annotation reaches.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Scope {
    /// The paths of its Ingress.
    Path,
    /// All hosts of its Ingress.
    Ingress,
    /// Its hosts, also where other Ingresses have paths on them.
    Host,
    /// The Services that its Ingress names.
    Backend,
}

/// How much harm a hostile value could do.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Risk {
    /// None beyond the route itself.
    Low,
    /// It sends requests or data elsewhere, or reads other objects.
    Medium,
    /// It acts on hosts of others, or opens what was closed.
    High,
    /// It is code.
    Critical,
}

/// What a value looks like.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Value {
    /// `true` or `false`.
    Boolean,
    /// `on` or `off`.
    Switch,
    /// A number in these limits.
    Number(u32, u32),
    /// A number of seconds from 1 on.
    Seconds,
    /// A number of bytes, with `k`, `m` or `g` for larger units.
    Size,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// A path, which may have `$1` to `$9` in it.
    Path,
    /// An absolute URL, or a path.
    Url,
    /// A host name, which may have variables in it.
    Host,
    /// Host names, separated by commas.
    Hosts,
    /// The name of a header, a cookie or a parameter.
    Name,
    /// Names of headers, separated by commas.
    Names,
    /// Statuses from 400 to 599, separated by commas.
    Statuses,
    /// Addresses and networks, separated by commas.
    Networks,
    /// `name` or `namespace/name` of an object.
    Object,
    /// A regular expression.
    Regex,
    /// Any text; this is what it means.
    Text(&'static str),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Boolean => f.write_str("`true` or `false`"),
            Self::Switch => f.write_str("`on` or `off`"),
            Self::Number(from, u32::MAX) => write!(f, "number from {from} on"),
            Self::Number(from, to) => write!(f, "number from {from} to {to}"),
            Self::Seconds => f.write_str("seconds, from 1 on"),
            Self::Size => f.write_str("bytes, or with `k`, `m`, `g`"),
            Self::OneOf(words) => {
                for (number, word) in words.iter().enumerate() {
                    let comma = if number == 0 { "" } else { ", " };
                    write!(f, "{comma}`{word}`")?;
                }
                Ok(())
            }
            Self::Path => f.write_str("path"),
            Self::Url => f.write_str("URL"),
            Self::Host => f.write_str("host name"),
            Self::Hosts => f.write_str("host names, by commas"),
            Self::Name => f.write_str("name"),
            Self::Names => f.write_str("header names, by commas"),
            Self::Statuses => f.write_str("statuses 400 to 599, by commas"),
            Self::Networks => f.write_str("addresses and networks, by commas"),
            Self::Object => f.write_str("`namespace/name`"),
            Self::Regex => f.write_str("regular expression"),
            Self::Text(what) => f.write_str(what),
        }
    }
}

/// Every annotation, in the order of the documentation.
pub fn all() -> impl Iterator<Item = &'static Annotation> {
    table::GROUPS.iter().copied().flatten()
}

/// The annotation of this name (without prefix).
pub fn find(name: &str) -> Option<&'static Annotation> {
    static BY_NAME: LazyLock<Vec<&'static Annotation>> = LazyLock::new(|| {
        let mut by_name: Vec<_> = all().collect();
        by_name.sort_unstable_by_key(|annotation| annotation.name);
        by_name
    });
    let place = BY_NAME
        .binary_search_by(|annotation| annotation.name.cmp(name))
        .ok()?;
    BY_NAME.get(place).copied()
}

/// The annotation that somebody probably means who writes a name that none has.
pub fn meant_by(name: &str) -> Option<&'static Annotation> {
    find(name)
        .is_none()
        .then(|| near::nearest(name))
        .flatten()
        .filter(|_| near::former(name).is_none())
}

/// Takes over what an annotation of this name would say.
pub(crate) fn set(into: &mut Annotations, name: &str, text: &str) -> Result<(), String> {
    match find(name).and_then(|annotation| annotation.read) {
        Some(read) => read(into, text),
        None => Err(format!("`{name}` is {PENDING}")),
    }
}

/// What is said of an annotation that will be honoured one day.
pub const PENDING: &str = "not supported yet";

impl Annotation {
    const fn new(name: &'static str, value: Value, verdict: Verdict, read: Option<Read>) -> Self {
        Self {
            name,
            group: Group::Own,
            value,
            default: "",
            scope: Scope::Path,
            risk: Risk::Low,
            guards: false,
            verdict,
            about: "",
            own: false,
            waiver: None,
            harmless: match value {
                Value::Boolean => &["false", "0", "f", "F", "FALSE", "False"],
                Value::Switch => &["off"],
                Value::Number(..)
                | Value::Seconds
                | Value::Size
                | Value::OneOf(_)
                | Value::Path
                | Value::Url
                | Value::Host
                | Value::Hosts
                | Value::Name
                | Value::Names
                | Value::Statuses
                | Value::Networks
                | Value::Object
                | Value::Regex
                | Value::Text(_) => &[],
            },
            alike: None,
            otherwise: "the default applies",
            read,
        }
    }

    /// What becomes of this value, as far as it can be used.
    pub fn verdict_on(&self, text: &str) -> Verdict {
        let text = text.trim();
        let as_there = match self.verdict {
            Verdict::Honoured => true,
            Verdict::Different(_) => self.alike.is_some_and(|alike| alike(text)),
            Verdict::Ignored(_) | Verdict::Refused(_) => self.harmless.contains(&text),
        };
        if as_there {
            Verdict::Honoured
        } else {
            self.verdict
        }
    }

    const fn honoured(name: &'static str, value: Value, read: Read) -> Self {
        Self::new(name, value, Verdict::Honoured, Some(read))
    }

    const fn different(
        name: &'static str,
        value: Value,
        read: Read,
        difference: &'static str,
    ) -> Self {
        Self::new(name, value, Verdict::Different(difference), Some(read))
    }

    const fn ignored(name: &'static str, value: Value, why: &'static str) -> Self {
        Self::new(name, value, Verdict::Ignored(why), None)
    }

    const fn refused(name: &'static str, value: Value, instead: &'static str) -> Self {
        Self::new(name, value, Verdict::Refused(instead), None)
    }

    const fn by_default(mut self, default: &'static str) -> Self {
        self.default = default;
        self
    }

    const fn scope(mut self, scope: Scope) -> Self {
        self.scope = scope;
        self
    }

    const fn risk(mut self, risk: Risk) -> Self {
        self.risk = risk;
        self
    }

    const fn otherwise(mut self, otherwise: &'static str) -> Self {
        self.otherwise = otherwise;
        self
    }

    /// The difference does not concern these values.
    const fn alike(mut self, alike: fn(&str) -> bool) -> Self {
        self.alike = Some(alike);
        self
    }

    /// The difference is in values that cannot be used, which are reported.
    const fn alike_if_readable(self) -> Self {
        self.alike(|_| true)
    }

    /// What asks for nothing here.
    const fn harmless(mut self, values: &'static [&'static str]) -> Self {
        self.harmless = values;
        self
    }

    /// Decides who may pass, or how often.
    const fn guarding(mut self) -> Self {
        self.guards = true;
        self
    }

    const fn waived_by(mut self, waiver: &'static str) -> Self {
        self.waiver = Some(waiver);
        self
    }

    const fn about(mut self, group: Group, about: &'static str) -> Self {
        self.group = group;
        self.about = about;
        self
    }

    const fn ours(mut self) -> Self {
        self.own = true;
        self
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_difference_is_said_of_values_that_it_concerns() {
        for (name, text, honoured) in [
            ("backend-protocol", "GRPC", true),
            ("backend-protocol", "grpcs", true),
            ("backend-protocol", "HTTPS", false),
            ("proxy-request-buffering", " off ", true),
            ("proxy-request-buffering", "on", false),
            ("proxy-buffer-size", "16k", true),
            ("proxy-buffer-size", "1m", false),
            ("proxy-next-upstream-tries", "3", true),
            ("proxy-next-upstream-tries", "0", false),
            ("proxy-next-upstream-tries", "9", false),
            ("permanent-redirect-code", "308", true),
            ("upstream-vhost", "a.test", true),
            ("upstream-vhost", "$service_name.test", false),
            ("preserve-trailing-slash", "false", false),
            ("use-port-in-redirects", "false", true),
            ("use-port-in-redirects", "true", false),
            ("opentelemetry-trust-incoming-span", "false", false),
            ("enable-modsecurity", "false", true),
            ("enable-modsecurity", "true", false),
            ("rewrite-target", "/$1", false),
        ] {
            let verdict = find(name).unwrap().verdict_on(text);
            assert_eq!(verdict == Verdict::Honoured, honoured, "{name}: {text}");
        }
    }

    #[test]
    fn every_annotation_of_ingress_nginx_has_one_entry() {
        let names: Vec<_> = all().filter(|a| !a.own).map(|a| a.name).collect();
        let distinct: BTreeSet<_> = all().map(|a| a.name).collect();
        assert_eq!(distinct.len(), all().count(), "no name twice");
        assert_eq!(names.len(), 137);
        for annotation in all() {
            assert!(find(annotation.name).is_some());
            assert!(!annotation.about.is_empty(), "{}", annotation.name);
            let waiver = annotation.waiver.map(find);
            assert!(waiver.is_none_or(|waiver| waiver.is_some_and(|own| own.own)));
        }
    }
}
