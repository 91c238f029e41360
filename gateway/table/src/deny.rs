//! Requests that are not served, compiled.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use http::header::COOKIE;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use model::{DenyRule, HeaderCondition, TextCondition};

use crate::networks::Networks;
use crate::pattern::{Anchor, Pattern, Patterns};

/// Requests that are answered with an error.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CompiledDeny {
    /// The answer.
    pub status: StatusCode,
    methods: Vec<Method>,
    except_methods: Vec<Method>,
    path: Option<Condition>,
    headers: Vec<(HeaderName, Condition, bool)>,
    from: Networks,
    anywhere: bool,
    except_from: Networks,
}

#[derive(Clone, Debug)]
enum Condition {
    Exact(Box<[u8]>),
    Prefix(Box<[u8]>),
    /// With its text, by which it is compared.
    Regex(Arc<Pattern>, Box<str>),
}

impl PartialEq for Condition {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Exact(a), Self::Exact(b)) | (Self::Prefix(a), Self::Prefix(b)) => a == b,
            (Self::Regex(_, a), Self::Regex(_, b)) => a == b,
            (Self::Exact(_) | Self::Prefix(_) | Self::Regex(..), _) => false,
        }
    }
}

impl Eq for Condition {}

impl Condition {
    fn compile(condition: &TextCondition, patterns: &mut Patterns) -> Result<Self, String> {
        Ok(match condition {
            TextCondition::Exact(text) => Self::Exact(text.as_bytes().into()),
            TextCondition::Prefix(text) => Self::Prefix(text.as_bytes().into()),
            TextCondition::Regex(text) => {
                let pattern = patterns.compile(Anchor::None, text);
                let pattern = pattern.map_err(|fault| format!("`{text}`: {fault}"))?;
                Self::Regex(pattern, text.as_str().into())
            }
        })
    }

    fn holds(&self, text: &[u8]) -> bool {
        match self {
            Self::Exact(want) => text == &**want,
            Self::Prefix(want) => text.starts_with(want),
            Self::Regex(pattern, _) => pattern.matches(text),
        }
    }

    /// Of a repeated field, one value is enough: nobody gets past a rule by sending it twice.
    fn holds_for_header(&self, headers: &HeaderMap, name: &HeaderName, not: bool) -> bool {
        // HTTP/2 may send cookies one by one, and they are one field all the same (RFC 9113, 8.2.3).
        let one = *name == COOKIE;
        let separator: &[u8] = if one { b"; " } else { b", " };
        let mut values = headers.get_all(name).iter().map(HeaderValue::as_bytes);
        let first = values.next().unwrap_or_default();
        let mut joined = Cow::Borrowed(first);
        let mut any = !one && self.holds(first) != not;
        for value in values {
            any |= !one && self.holds(value) != not;
            let text = joined.to_mut();
            text.extend_from_slice(separator);
            text.extend_from_slice(value);
        }
        any || self.holds(&joined) != not
    }

    fn holds_for_path(&self, path: &[u8]) -> bool {
        self.holds(path) || decoded_path(path).is_some_and(|path| self.holds(&path))
    }
}

impl CompiledDeny {
    pub(crate) fn compile(rule: &DenyRule, patterns: &mut Patterns) -> Result<Self, String> {
        let DenyRule {
            status,
            methods,
            except_methods,
            path,
            headers,
            from,
            except_from,
        } = rule;
        let status = match StatusCode::from_u16(*status) {
            Ok(code) if code.is_client_error() || code.is_server_error() => code,
            Ok(_) | Err(_) => return Err(format!("status {status} is not between 400 and 599")),
        };
        let mut compiled = Vec::with_capacity(headers.len());
        for HeaderCondition { name, value, not } in headers {
            let header = HeaderName::try_from(name.as_str())
                .map_err(|_| format!("`{}` is not a header name", name.escape_debug()))?;
            compiled.push((header, Condition::compile(value, patterns)?, *not));
        }
        Ok(Self {
            status,
            methods: parse_methods(methods)?,
            except_methods: parse_methods(except_methods)?,
            path: path
                .as_ref()
                .map(|path| Condition::compile(path, patterns))
                .transpose()?,
            headers: compiled,
            from: Networks::new(from),
            anywhere: from.is_empty(),
            except_from: Networks::new(except_from),
        })
    }

    /// Do all conditions hold?
    ///
    /// `path` is in its normal form. A rule holds for it as it is and for what it means without escapes.
    pub fn holds(&self, method: &Method, path: &str, headers: &HeaderMap, client: IpAddr) -> bool {
        (self.methods.is_empty() || self.methods.contains(method))
            && !self.except_methods.contains(method)
            && self
                .path
                .as_ref()
                .is_none_or(|condition| condition.holds_for_path(path.as_bytes()))
            && self
                .headers
                .iter()
                .all(|(name, condition, not)| condition.holds_for_header(headers, name, *not))
            && (self.anywhere || self.from.contains(client))
            && !self.except_from.contains(client)
    }
}

/// The path with its escapes taken off, where it has any. What is no escape stays.
///
/// Backends decode paths, so a rule for `/admin/` is meant for `/admin%2Fusers` as well.
pub fn decoded_path(path: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let byte = |high: u8, low: u8| u8::try_from(digit(high)? * 16 + digit(low)?).ok();
    if !path.contains(&b'%') {
        return None;
    }
    let mut text = Vec::with_capacity(path.len());
    let mut rest = path;
    while let [first, after @ ..] = rest {
        let escaped = match rest {
            [b'%', high, low, after @ ..] => byte(*high, *low).map(|byte| (byte, after)),
            _ => None,
        };
        let (byte, after) = escaped.unwrap_or((*first, after));
        text.push(byte);
        rest = after;
    }
    Some(text)
}

fn parse_methods(names: &[String]) -> Result<Vec<Method>, String> {
    let parse = |name: &String| {
        Method::from_bytes(name.as_bytes())
            .map_err(|_| format!("`{}` is not a method", name.escape_debug()))
    };
    names.iter().map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule() -> DenyRule {
        DenyRule {
            status: 403,
            methods: Vec::new(),
            except_methods: Vec::new(),
            path: None,
            headers: Vec::new(),
            from: Vec::new(),
            except_from: Vec::new(),
        }
    }

    #[test]
    fn all_conditions_have_to_hold() {
        type Change = fn(&mut DenyRule);
        let agent = |value: TextCondition, not| {
            vec![HeaderCondition {
                name: "User-Agent".to_owned(),
                value,
                not,
            }]
        };
        let rows: [(Change, bool, &str); 11] = [
            (|_| (), true, "a rule without conditions holds for all"),
            (
                |rule| rule.methods = vec!["PUT".to_owned(), "GET".to_owned()],
                true,
                "one of the methods",
            ),
            (
                |rule| rule.methods = vec!["get".to_owned()],
                false,
                "methods have one case",
            ),
            (
                |rule| rule.except_methods = vec!["GET".to_owned()],
                false,
                "the method is excepted",
            ),
            (
                |rule| rule.path = Some(TextCondition::Prefix("/adm".to_owned())),
                true,
                "a prefix is text",
            ),
            (
                |rule| rule.path = Some(TextCondition::Exact("/admin".to_owned())),
                false,
                "exact",
            ),
            (
                |rule| rule.path = Some(TextCondition::Regex("min/.$".to_owned())),
                true,
                "somewhere",
            ),
            (
                |rule| rule.from = vec!["192.0.2.0/24".parse().unwrap()],
                true,
                "a network",
            ),
            (
                |rule| rule.from = vec!["198.51.100.0/24".parse().unwrap()],
                false,
                "another network",
            ),
            (
                |rule| rule.except_from = vec!["192.0.2.7/32".parse().unwrap()],
                false,
                "the client is excepted",
            ),
            (
                |rule| {
                    rule.methods = vec!["GET".to_owned()];
                    rule.path = Some(TextCondition::Exact("/other".to_owned()));
                },
                false,
                "only one of two conditions",
            ),
        ];
        let mut headers = HeaderMap::new();
        headers.insert("user-agent", "some robot".parse().unwrap());
        let holds = |rule: &DenyRule| {
            let compiled = CompiledDeny::compile(rule, &mut Patterns::new()).unwrap();
            let client = "192.0.2.7".parse().unwrap();
            compiled.holds(&Method::GET, "/admin/x", &headers, client)
        };
        for (change, want, why) in rows {
            let mut changed = rule();
            change(&mut changed);
            assert_eq!(holds(&changed), want, "{why}");
        }
        for (value, not, why) in [
            (
                TextCondition::Regex("(?i)BOT".to_owned()),
                false,
                "its value",
            ),
            (TextCondition::Exact(String::new()), true, "it is there"),
        ] {
            let mut changed = rule();
            changed.headers = agent(value, not);
            assert!(holds(&changed), "{why}");
        }
    }

    #[test]
    fn a_header_that_is_sent_twice_passes_no_rule() {
        let exact = |text: &str| TextCondition::Exact(text.to_owned());
        let regex = |text: &str| TextCondition::Regex(text.to_owned());
        let mut cookies = HeaderMap::new();
        cookies.append("cookie", "a=1".parse().unwrap());
        cookies.append("cookie", "session=2".parse().unwrap());
        let session = Condition::compile(&regex("; session="), &mut Patterns::new()).unwrap();
        assert!(!session.holds_for_header(&cookies, &COOKIE, true));
        for (value, not, given, want) in [
            (exact("bad"), false, ["bad", "bad"], true),
            (exact("bad"), false, ["good", "bad"], true),
            (exact("bad"), false, ["good", "fine"], false),
            (exact("key"), true, ["wrong", "key"], true),
            (exact("key"), true, ["key", "wrong"], true),
            (exact(""), false, ["", "key"], true),
            (regex("^a, b$"), false, ["a", "b"], true),
        ] {
            let mut headers = HeaderMap::new();
            for text in given {
                headers.append("x-a", text.parse().unwrap());
            }
            let rule = DenyRule {
                headers: vec![HeaderCondition {
                    name: "X-A".to_owned(),
                    value: value.clone(),
                    not,
                }],
                ..rule()
            };
            let compiled = CompiledDeny::compile(&rule, &mut Patterns::new()).unwrap();
            let client = "192.0.2.7".parse().unwrap();
            let got = compiled.holds(&Method::GET, "/", &headers, client);
            assert_eq!(got, want, "{value:?} {not} {given:?}");
        }
    }

    #[test]
    fn a_path_is_also_what_it_means_without_escapes() {
        let prefix = |text: &str| TextCondition::Prefix(text.to_owned());
        for (path, given, want) in [
            (prefix("/admin/"), "/admin%2Fusers", true),
            (prefix("/admin/"), "/admin/users", true),
            (prefix("/a%20b"), "/a%20b/c", true),
            (TextCondition::Exact("/a b".to_owned()), "/a%20b", true),
            (
                TextCondition::Regex("^/caf\u{e9}$".to_owned()),
                "/caf%C3%A9",
                true,
            ),
            (TextCondition::Regex("\\.git".to_owned()), "/x%2F.git", true),
            (prefix("/admin/"), "/public%2Fadmin", false),
            (prefix("/admin/"), "/a%25", false),
        ] {
            let rule = DenyRule {
                path: Some(path.clone()),
                ..rule()
            };
            let compiled = CompiledDeny::compile(&rule, &mut Patterns::new()).unwrap();
            let client = "192.0.2.7".parse().unwrap();
            let got = compiled.holds(&Method::GET, given, &HeaderMap::new(), client);
            assert_eq!(got, want, "{path:?} {given}");
        }
    }

    #[test]
    fn what_cannot_be_compiled_is_said() {
        for (broken, want) in [
            (
                DenyRule {
                    status: 200,
                    ..rule()
                },
                "status 200",
            ),
            (
                DenyRule {
                    methods: vec!["A B".to_owned()],
                    ..rule()
                },
                "`A B` is not a method",
            ),
            (
                DenyRule {
                    path: Some(TextCondition::Regex("(".to_owned())),
                    ..rule()
                },
                "`(`: ",
            ),
        ] {
            let fault = CompiledDeny::compile(&broken, &mut Patterns::new()).unwrap_err();
            assert!(fault.contains(want), "{fault}");
        }
    }
}
