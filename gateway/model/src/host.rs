//! Host names and the patterns that select virtual hosts.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A DNS name in lower case, without port and without trailing dot.
///
/// One normal form for routing and TLS: a name that reached only one of them in another spelling has been a way
/// around per-host TLS settings before (CVE-2022-23632).
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(into = "String", try_from = "String")]
pub struct HostName(Box<str>);

/// Why a text is not a host name or a host pattern.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum InvalidHost {
    /// Nothing was left after taking away the port and the trailing dot.
    #[error("it is empty")]
    Empty,
    /// Longer than 253 bytes.
    #[error("it is longer than 253 characters")]
    TooLong,
    /// A label is empty, longer than 63 bytes, starts or ends with `-`, or has a character out of `[a-z0-9_-]`.
    #[error("`{0}` is not a DNS label")]
    Label(String),
    /// A `*` anywhere but as the whole first label.
    #[error("`*` may only stand for the whole first label")]
    Wildcard,
}

impl HostName {
    /// Parses a name as it is written in a manifest. Case and one trailing dot are ignored.
    ///
    /// Underscores are accepted although RFC 952 has none: real zones use them and clients send them.
    pub fn parse(text: &str) -> Result<Self, InvalidHost> {
        let text = text.strip_suffix('.').unwrap_or(text);
        if text.is_empty() {
            return Err(InvalidHost::Empty);
        }
        if text.len() > 253 {
            return Err(InvalidHost::TooLong);
        }
        for label in text.split('.') {
            let legal = !label.is_empty()
                && label.len() <= 63
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
            if !legal {
                if label.contains('*') {
                    return Err(InvalidHost::Wildcard);
                }
                return Err(InvalidHost::Label(label.chars().take(63).collect()));
            }
        }
        Ok(Self(text.to_ascii_lowercase().into_boxed_str()))
    }

    /// The name in its normal form.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name behind its first label: `b.c` for `a.b.c`, nothing for `c`.
    pub fn parent(&self) -> Option<&str> {
        self.0.split_once('.').map(|(_, rest)| rest)
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<HostName> for String {
    fn from(host: HostName) -> Self {
        host.0.into()
    }
}

impl TryFrom<String> for HostName {
    type Error = InvalidHost;

    fn try_from(text: String) -> Result<Self, InvalidHost> {
        Self::parse(&text)
    }
}

impl FromStr for HostName {
    type Err = InvalidHost;

    fn from_str(text: &str) -> Result<Self, InvalidHost> {
        Self::parse(text)
    }
}

/// How many labels a wildcard stands for.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum WildcardDepth {
    /// Exactly one, as in the Ingress API: `*.a.test` matches `x.a.test` and not `y.x.a.test`.
    One,
    /// One or more, as in the Gateway API. Written `**.a.test`.
    OneOrMore,
}

/// Which hosts an entry is for.
///
/// Written as text: `shop.test`, `*.shop.test` (one label), `**.shop.test` (one or more labels), `*` (every host).
/// Precedence: an exact name before wildcards, a longer wildcard before a shorter one, at equal length
/// [`WildcardDepth::One`] first, [`HostPattern::Any`] last.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(into = "String", try_from = "String")]
pub enum HostPattern {
    /// This name only.
    Exact(HostName),
    /// Names below a suffix.
    Wildcard {
        /// The part behind `*.`.
        suffix: HostName,
        /// How many labels may stand before it.
        depth: WildcardDepth,
    },
    /// Every host, also a request without one.
    Any,
}

impl HostPattern {
    /// Parses a pattern. The empty text is [`HostPattern::Any`], as in `spec.rules[].host` of an Ingress.
    pub fn parse(text: &str) -> Result<Self, InvalidHost> {
        if text.is_empty() || text == "*" {
            return Ok(Self::Any);
        }
        let (depth, rest) = match (text.strip_prefix("*."), text.strip_prefix("**.")) {
            (Some(rest), _) => (Some(WildcardDepth::One), rest),
            (None, Some(rest)) => (Some(WildcardDepth::OneOrMore), rest),
            (None, None) => (None, text),
        };
        let name = HostName::parse(rest)?;
        Ok(match depth {
            Some(depth) => Self::Wildcard {
                suffix: name,
                depth,
            },
            None => Self::Exact(name),
        })
    }

    /// Does `host` (in normal form) fall under this pattern?
    pub fn matches(&self, host: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(name) => name.as_str() == host,
            Self::Wildcard { suffix, depth } => host
                .strip_suffix(suffix.as_str())
                .and_then(|rest| rest.strip_suffix('.'))
                .is_some_and(|labels| {
                    !labels.is_empty()
                        && (*depth == WildcardDepth::OneOrMore || !labels.contains('.'))
                }),
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Exact(name) => name.fmt(f),
            Self::Wildcard {
                suffix,
                depth: WildcardDepth::One,
            } => write!(f, "*.{suffix}"),
            Self::Wildcard {
                suffix,
                depth: WildcardDepth::OneOrMore,
            } => write!(f, "**.{suffix}"),
        }
    }
}

impl From<HostPattern> for String {
    fn from(pattern: HostPattern) -> Self {
        pattern.to_string()
    }
}

impl TryFrom<String> for HostPattern {
    type Error = InvalidHost;

    fn try_from(text: String) -> Result<Self, InvalidHost> {
        Self::parse(&text)
    }
}

impl FromStr for HostPattern {
    type Err = InvalidHost;

    fn from_str(text: &str) -> Result<Self, InvalidHost> {
        Self::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_one_spelling() {
        for (text, want) in [
            ("Shop.Example.COM", Ok("shop.example.com")),
            ("shop.example.com.", Ok("shop.example.com")),
            ("a_b.test", Ok("a_b.test")),
            ("xn--bcher-kva.test", Ok("xn--bcher-kva.test")),
            ("", Err(InvalidHost::Empty)),
            (".", Err(InvalidHost::Empty)),
            ("a..b", Err(InvalidHost::Label(String::new()))),
            ("-a.test", Err(InvalidHost::Label("-a".into()))),
            ("a b.test", Err(InvalidHost::Label("a b".into()))),
            ("a.test:80", Err(InvalidHost::Label("test:80".into()))),
            ("a.*.test", Err(InvalidHost::Wildcard)),
        ] {
            assert_eq!(
                HostName::parse(text).as_ref().map(HostName::as_str),
                want.as_ref().copied(),
                "{text}"
            );
        }
        assert_eq!(HostName::parse(&"a".repeat(254)), Err(InvalidHost::TooLong));
    }

    #[test]
    fn wildcards_stand_for_labels() {
        for (pattern, host, want) in [
            ("*.foo.com", "bar.foo.com", true),
            ("*.foo.com", "baz.bar.foo.com", false),
            ("*.foo.com", "foo.com", false),
            ("*.foo.com", ".foo.com", false),
            ("*.foo.com", "barfoo.com", false),
            ("**.foo.com", "baz.bar.foo.com", true),
            ("**.foo.com", "foo.com", false),
            ("foo.com", "foo.com", true),
            ("foo.com", "a.foo.com", false),
            ("*", "anything", true),
            ("", "", true),
        ] {
            let parsed = HostPattern::parse(pattern).unwrap();
            assert_eq!(parsed.matches(host), want, "{pattern} {host}");
            assert_eq!(
                HostPattern::parse(&parsed.to_string()),
                Ok(parsed),
                "{pattern} prints as it parses"
            );
        }
    }
}
