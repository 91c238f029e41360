//! What a route demands of a request besides its path.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use model::{HeaderMatch, QueryMatch, RouteMatch, TextMatch};
use smallvec::SmallVec;

use crate::Lookup;
use crate::pattern::{Anchor, Pattern, Patterns};

/// All of these have to hold.
#[derive(Debug)]
pub(crate) struct Conditions {
    method: Option<Method>,
    headers: Box<[(HeaderName, Text)]>,
    query: Box<[(Box<str>, Text)]>,
}

#[derive(Debug)]
enum Text {
    Exact(Box<str>),
    Pattern(Arc<Pattern>),
}

impl Conditions {
    /// `None` when only the path counts.
    pub(crate) fn compile(
        matches: &RouteMatch,
        patterns: &mut Patterns,
    ) -> Result<Option<Box<Self>>, String> {
        let RouteMatch {
            path: _,
            method,
            headers,
            query,
        } = matches;
        if method.is_none() && headers.is_empty() && query.is_empty() {
            return Ok(None);
        }
        let method = method
            .as_deref()
            .map(|text| {
                Method::from_bytes(text.as_bytes())
                    .map_err(|_| format!("`{}` is not a method", text.escape_debug()))
            })
            .transpose()?;
        let headers = headers
            .iter()
            .map(|HeaderMatch { name, value }| {
                let header = HeaderName::try_from(name.as_str())
                    .map_err(|_| format!("`{}` is not a header name", name.escape_debug()))?;
                Ok((header, Text::compile(value, patterns)?))
            })
            .collect::<Result<_, String>>()?;
        let query = query
            .iter()
            .map(|QueryMatch { name, value }| {
                Ok((name.as_str().into(), Text::compile(value, patterns)?))
            })
            .collect::<Result<_, String>>()?;
        Ok(Some(Box::new(Self {
            method,
            headers,
            query,
        })))
    }

    pub(crate) fn hold(&self, request: &Lookup<'_>) -> bool {
        self.method
            .as_ref()
            .is_none_or(|method| method == request.method)
            && self
                .headers
                .iter()
                .all(|(name, value)| header_holds(request.headers.map(), name, value))
            && self.query.iter().all(|(name, value)| {
                let query = request.query.unwrap_or_default();
                parameter(query, name).is_some_and(|text| value.matches(text.as_bytes()))
            })
    }
}

impl Text {
    fn compile(text: &TextMatch, patterns: &mut Patterns) -> Result<Self, String> {
        match text {
            TextMatch::Exact(text) => Ok(Self::Exact(text.as_str().into())),
            TextMatch::Regex(text) => patterns
                .compile(Anchor::Whole, text)
                .map(Self::Pattern)
                .map_err(|fault| format!("regular expression `{text}`: {fault}")),
        }
    }

    fn matches(&self, text: &[u8]) -> bool {
        match self {
            Self::Exact(want) => want.as_bytes() == text,
            Self::Pattern(pattern) => pattern.matches(text),
        }
    }
}

/// A repeated field counts as its values joined with `,`.
fn header_holds(headers: &HeaderMap, name: &HeaderName, want: &Text) -> bool {
    let mut values = headers.get_all(name).iter();
    let Some(first) = values.next() else {
        return false;
    };
    let Some(second) = values.next() else {
        return want.matches(first.as_bytes());
    };
    // On the stack, as long as they are not unusually long.
    let mut joined = SmallVec::<[u8; 512]>::from_slice(first.as_bytes());
    for value in std::iter::once(second).chain(values) {
        joined.push(b',');
        joined.extend_from_slice(HeaderValue::as_bytes(value));
    }
    want.matches(&joined)
}

/// The value of the first query parameter called `name`; empty when it has no `=`.
fn parameter<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    query.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (key == name).then_some(value)
    })
}
