//! Paths and answers that a route changes.

use std::sync::Arc;

use http::HeaderValue;
use model::{Cors, ResponseRewrite, Rewrite};

use crate::pattern::{Anchor, Pattern, Patterns};

/// Changes the path of a request.
#[derive(Clone, Debug)]
pub struct CompiledRewrite {
    source: Rewrite,
    pattern: Arc<Pattern>,
    target: Groups,
    prefix: Option<Groups>,
}

impl PartialEq for CompiledRewrite {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl Eq for CompiledRewrite {}

/// What a rewrite makes of a path.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Rewritten {
    /// The path instead. Not in normal form: groups may have put anything together.
    pub path: String,
    /// The value for `X-Forwarded-Prefix`.
    pub prefix: Option<String>,
}

impl CompiledRewrite {
    pub(crate) fn compile(rewrite: &Rewrite, patterns: &mut Patterns) -> Result<Self, String> {
        let Rewrite {
            pattern,
            target,
            prefix,
        } = rewrite;
        Ok(Self {
            pattern: patterns
                .compile(Anchor::Start, pattern)
                .map_err(|fault| format!("regular expression `{pattern}`: {fault}"))?,
            target: Groups::parse(target),
            prefix: prefix.as_deref().map(Groups::parse),
            source: rewrite.clone(),
        })
    }

    /// The path instead of `path`; nothing where the pattern does not match.
    pub fn apply(&self, path: &str) -> Option<Rewritten> {
        let groups = self.pattern.captures(path.as_bytes())?;
        Some(Rewritten {
            path: self.target.fill(&groups),
            prefix: self.prefix.as_ref().map(|prefix| prefix.fill(&groups)),
        })
    }
}

/// A text with groups of a pattern in it.
#[derive(Clone, Debug)]
pub(crate) struct Groups(Vec<GroupPart>);

#[derive(Clone, Debug)]
enum GroupPart {
    Text(Box<str>),
    Group(usize),
}

impl Groups {
    /// `$1` to `$9` are groups; a digit more is text, as in nginx.
    pub(crate) fn parse(text: &str) -> Self {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut characters = text.chars().peekable();
        while let Some(character) = characters.next() {
            let digit = characters
                .peek()
                .and_then(|next| next.to_digit(10))
                .filter(|digit| character == '$' && *digit > 0)
                .and_then(|digit| usize::try_from(digit).ok());
            let Some(group) = digit else {
                literal.push(character);
                continue;
            };
            characters.next();
            if !literal.is_empty() {
                parts.push(GroupPart::Text(std::mem::take(&mut literal).into()));
            }
            parts.push(GroupPart::Group(group));
        }
        if !literal.is_empty() {
            parts.push(GroupPart::Text(literal.into()));
        }
        Self(parts)
    }

    /// A group that did not take part, or that there is not, is empty.
    pub(crate) fn fill(&self, groups: &regex::bytes::Captures<'_>) -> String {
        let mut text = String::new();
        for part in &self.0 {
            match part {
                GroupPart::Text(literal) => text.push_str(literal),
                GroupPart::Group(number) => {
                    let group = groups.get(*number).map(|group| group.as_bytes());
                    text.push_str(&String::from_utf8_lossy(group.unwrap_or_default()));
                }
            }
        }
        text
    }
}

/// Who may read responses from another origin.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CompiledCors {
    origins: Vec<OriginPattern>,
    /// `Access-Control-Allow-Methods`
    pub methods: HeaderValue,
    /// `Access-Control-Allow-Headers`
    pub headers: HeaderValue,
    /// `Access-Control-Expose-Headers`
    pub expose: Option<HeaderValue>,
    /// `Access-Control-Allow-Credentials: true`
    pub credentials: bool,
    /// `Access-Control-Max-Age`
    pub max_age: HeaderValue,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum OriginPattern {
    Any,
    /// In lower case.
    Exact(Box<str>),
    /// What stands before and behind one label, in lower case.
    Label(Box<str>, Box<str>),
}

impl CompiledCors {
    pub(crate) fn compile(cors: &Cors) -> Result<Self, String> {
        let Cors {
            origins,
            methods,
            headers,
            expose,
            credentials,
            max_age,
        } = cors;
        Ok(Self {
            origins: origins.iter().map(|text| origin(text)).collect(),
            methods: value(methods)?,
            headers: value(headers)?,
            expose: expose.as_deref().map(value).transpose()?,
            credentials: *credentials,
            max_age: HeaderValue::from(*max_age),
        })
    }

    /// `Access-Control-Allow-Origin` for a request from this origin; nothing where it may not read.
    pub fn allow(&self, origin: Option<&HeaderValue>) -> Option<HeaderValue> {
        if self.origins.contains(&OriginPattern::Any) {
            return Some(HeaderValue::from_static("*"));
        }
        let value = origin?;
        let text = value.to_str().ok()?.to_ascii_lowercase();
        self.origins
            .iter()
            .any(|pattern| match pattern {
                OriginPattern::Any => true,
                OriginPattern::Exact(exact) => **exact == *text,
                OriginPattern::Label(before, behind) => text
                    .strip_prefix(&**before)
                    .and_then(|rest| rest.strip_suffix(&**behind))
                    .is_some_and(|label| {
                        !label.is_empty()
                            && label
                                .bytes()
                                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
                    }),
            })
            .then(|| value.clone())
    }
}

fn origin(text: &str) -> OriginPattern {
    let text = text.to_ascii_lowercase();
    if text == "*" {
        return OriginPattern::Any;
    }
    match text.split_once('*') {
        Some((before, behind)) => OriginPattern::Label(before.into(), behind.into()),
        None => OriginPattern::Exact(text.into()),
    }
}

fn value(text: &str) -> Result<HeaderValue, String> {
    HeaderValue::from_str(text)
        .map_err(|_| format!("`{}` is not a header value", text.escape_debug()))
}

/// Checks that what is put into answers may stand there.
pub(crate) fn check_response_rewrite(rewrite: &ResponseRewrite) -> Result<(), String> {
    let ResponseRewrite {
        location,
        cookie_domain,
        cookie_path,
    } = rewrite;
    for (_, to) in [location, cookie_domain, cookie_path].into_iter().flatten() {
        value(to)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::intern::Interned;

    #[test]
    fn groups_of_the_path_go_into_the_target() {
        for (pattern, target, path, want) in [
            ("/something(/|$)(.*)", "/$2", "/something/a/b", "/a/b"),
            ("/something(/|$)(.*)", "/$2", "/something", "/"),
            ("/(a)/(b)", "/$2/$1", "/a/b", "/b/a"),
            ("/x", "/", "/x/y", "/"),
            ("/x", "/$1$9", "/x", "/"),
            ("(?i)/API/(v[0-9]+)", "/$10", "/api/v2", "/v20"),
            ("/x", "/$0$", "/x", "/$0$"),
        ] {
            let rewrite = Rewrite {
                pattern: pattern.to_owned(),
                target: target.to_owned(),
                prefix: Some("/p$1".to_owned()),
            };
            let compiled = CompiledRewrite::compile(&rewrite, &mut Interned::new()).unwrap();
            assert_eq!(
                compiled.apply(path).unwrap().path,
                want,
                "{pattern} {target} {path}"
            );
            assert_eq!(compiled.apply("/nothing/like/it"), None);
        }
    }

    #[test]
    fn origins_are_told_apart() {
        for (pattern, origin, want) in [
            ("*", None, Some("*")),
            ("*", Some("https://a.test"), Some("*")),
            (
                "https://a.test",
                Some("https://a.test"),
                Some("https://a.test"),
            ),
            (
                "https://a.test",
                Some("HTTPS://A.test"),
                Some("HTTPS://A.test"),
            ),
            ("https://a.test", Some("https://a.test:8443"), None),
            ("https://a.test", Some("http://a.test"), None),
            ("https://a.test", None, None),
            (
                "https://*.a.test",
                Some("https://b.a.test"),
                Some("https://b.a.test"),
            ),
            ("https://*.a.test", Some("https://c.b.a.test"), None),
            ("https://*.a.test", Some("https://.a.test"), None),
            ("https://*.a.test", Some("https://evil.test/.a.test"), None),
            (
                "http://*.a.test:81",
                Some("http://b.a.test:81"),
                Some("http://b.a.test:81"),
            ),
            ("null", Some("null"), Some("null")),
        ] {
            let cors = Cors {
                origins: vec![pattern.to_owned()],
                methods: "GET".to_owned(),
                headers: String::new(),
                expose: None,
                credentials: true,
                max_age: 1,
            };
            let compiled = CompiledCors::compile(&cors).unwrap();
            let origin = origin.map(HeaderValue::from_static);
            assert_eq!(
                compiled.allow(origin.as_ref()),
                want.map(HeaderValue::from_static),
                "{pattern} {origin:?}"
            );
        }
    }
}
