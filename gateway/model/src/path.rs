//! Paths: one normal form, and the three ways to match it.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Why a request path is refused (status 400), or why a path of a route cannot be used.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum InvalidPath {
    /// It does not start with `/`.
    #[error("it does not start with `/`")]
    Relative,
    /// A `%` without two hexadecimal digits behind it.
    #[error("it has a `%` that is not followed by two hexadecimal digits")]
    Escape,
    /// A control character, plain or as an escape; `%00` is the best known.
    #[error("it has a control character")]
    Control,
    /// A backslash, plain or as `%5C`: some backends read it as `/`.
    #[error("it has a backslash")]
    Backslash,
    /// Dot segments that lead above the root.
    #[error("its dot segments lead above the root")]
    AboveRoot,
    /// An encoded slash next to a dot segment: a backend that decodes it would see another path than we matched.
    #[error("it hides a dot segment behind an encoded slash")]
    HiddenDotSegment,
}

/// Brings the path of a request target into the one form that is matched and sent upstream.
///
/// Borrowed when nothing had to change, which is nearly always. The rules, in RFC 3986 terms:
///
/// | given | result | why |
/// | --- | --- | --- |
/// | `` (empty) | `/` | RFC 9110, 4.2.3 |
/// | `/a%62c`, `/%7Eu` | `/abc`, `/~u` | escapes of unreserved characters mean the character (RFC 3986, 6.2.2.2) |
/// | `/a%3fb`, `/%c3%a4` | `/a%3Fb`, `/%C3%A4` | other escapes stay, in upper case (6.2.2.1) |
/// | `/ä`, `/a"b` | `/%C3%A4`, `/a%22b` | bytes that a path may not have are escaped |
/// | `/a/./b/../c` | `/a/c` | dot segments are resolved (5.2.4); `%2e` is a dot |
/// | `/a//b` | `/a/b` | empty segments are merged, as nginx does |
/// | `/a%2Fb` | `/a%2Fb` | an encoded slash is a character of its segment and never separates |
/// | `/a/..%2fb`, `/a%2f..%2fb` | refused | a backend that decodes `%2F` would leave the matched prefix |
/// | `/../a` | refused | leads above the root |
/// | `/a\b`, `/a%5Cb` | refused | some backends read it as `/` |
/// | `/a%00`, `/a%0d` | refused | control characters have no business in a path |
/// | `/%zz`, `/%2` | refused | not an escape |
/// | `*`, `a/b` | refused | not a path |
pub fn normalise_path(path: &str) -> Result<Cow<'_, str>, InvalidPath> {
    if path.is_empty() {
        return Ok(Cow::Borrowed("/"));
    }
    let bytes = path.as_bytes();
    if bytes.first() != Some(&b'/') {
        return Err(InvalidPath::Relative);
    }
    if is_normal(bytes) {
        return Ok(Cow::Borrowed(path));
    }
    let decoded = canonical_escapes(bytes)?;
    resolve_segments(&decoded).map(Cow::Owned)
}

/// True when every byte may stand as it is and no segment is empty (but the last) or starts with a dot.
/// May say no to a path that is normal, never yes to one that is not.
fn is_normal(bytes: &[u8]) -> bool {
    let mut after_slash = false;
    for &byte in bytes {
        if !is_path_byte(byte) || (after_slash && matches!(byte, b'/' | b'.')) {
            return false;
        }
        after_slash = byte == b'/';
    }
    true
}

/// `pchar` of RFC 3986 without escapes, and `/`. Every byte of every path is looked up here.
#[inline]
fn is_path_byte(byte: u8) -> bool {
    const LEGAL: [bool; 256] = {
        let mut legal = [false; 256];
        let mut rest: &mut [bool] = &mut legal;
        let mut byte = 0;
        while let [first, tail @ ..] = rest {
            *first = is_pchar_or_slash(byte);
            byte = byte.wrapping_add(1);
            rest = tail;
        }
        legal
    };
    LEGAL.get(usize::from(byte)).is_some_and(|legal| *legal)
}

const fn is_pchar_or_slash(byte: u8) -> bool {
    is_unreserved(byte)
        || matches!(
            byte,
            b'/' | b'!'
                | b'$'
                | b'&'
                | b'\''
                | b'('
                | b')'
                | b'*'
                | b'+'
                | b','
                | b';'
                | b'='
                | b':'
                | b'@'
        )
}

const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

fn canonical_escapes(bytes: &[u8]) -> Result<String, InvalidPath> {
    let mut out = String::with_capacity(bytes.len() + 8);
    let mut rest = bytes;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        let (value, escaped) = if byte == b'%' {
            let (Some(high), Some(low)) = (
                tail.first().and_then(|b| char::from(*b).to_digit(16)),
                tail.get(1).and_then(|b| char::from(*b).to_digit(16)),
            ) else {
                return Err(InvalidPath::Escape);
            };
            rest = tail.get(2..).unwrap_or_default();
            (u8::try_from(high * 16 + low).unwrap_or_default(), true)
        } else {
            (byte, false)
        };
        match value {
            0..=0x1f | 0x7f => return Err(InvalidPath::Control),
            b'\\' => return Err(InvalidPath::Backslash),
            _ if is_unreserved(value) || (!escaped && is_path_byte(value)) => {
                out.push(char::from(value));
            }
            _ => push_escape(&mut out, value),
        }
    }
    Ok(out)
}

fn push_escape(out: &mut String, value: u8) {
    out.push('%');
    for digit in [value >> 4, value & 15] {
        out.push(
            char::from_digit(u32::from(digit), 16)
                .unwrap_or('0')
                .to_ascii_uppercase(),
        );
    }
}

fn resolve_segments(path: &str) -> Result<String, InvalidPath> {
    let mut out: Vec<&str> = Vec::new();
    let mut open = false; // does the result end with a slash?
    for segment in path.split('/').skip(1) {
        open = true;
        match segment {
            "" | "." => {}
            ".." => {
                out.pop().ok_or(InvalidPath::AboveRoot)?;
            }
            _ => {
                if segment.contains("%2F")
                    && segment.split("%2F").any(|part| matches!(part, "." | ".."))
                {
                    return Err(InvalidPath::HiddenDotSegment);
                }
                out.push(segment);
                open = false;
            }
        }
    }
    let mut joined = String::with_capacity(path.len());
    for segment in &out {
        joined.push('/');
        joined.push_str(segment);
    }
    if open || joined.is_empty() {
        joined.push('/');
    }
    Ok(joined)
}

/// A path in normal form: the result of [`normalise_path`].
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(into = "String", try_from = "String")]
pub struct NormalPath(Box<str>);

impl NormalPath {
    /// Normalises `text`.
    pub fn parse(text: &str) -> Result<Self, InvalidPath> {
        normalise_path(text).map(|path| Self(path.into()))
    }

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NormalPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<NormalPath> for String {
    fn from(path: NormalPath) -> Self {
        path.0.into()
    }
}

impl TryFrom<String> for NormalPath {
    type Error = InvalidPath;

    fn try_from(text: String) -> Result<Self, InvalidPath> {
        Self::parse(&text)
    }
}

/// How the path of a request is matched. It is always compared in its normal form.
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PathMatch {
    /// Equal, case included.
    Exact(NormalPath),
    /// Equal element by element from the start; a trailing slash of the prefix is ignored
    /// (Ingress API, `pathType: Prefix`).
    Prefix(NormalPath),
    /// A regular expression of the `regex` crate's syntax that has to match from the start of the path. Whether it
    /// also has to match up to the end is its own affair (`$`).
    Regex(String),
}

impl PathMatch {
    /// Matches every path.
    pub fn everything() -> Self {
        Self::Prefix(NormalPath("/".into()))
    }

    /// What tells its kind apart where it is shown, and the path or the expression.
    pub fn marked(&self) -> (&'static str, &str) {
        match self {
            Self::Exact(path) => ("= ", path.as_str()),
            Self::Prefix(path) => ("", path.as_str()),
            Self::Regex(pattern) => ("~ ", pattern),
        }
    }
}

impl fmt::Display for PathMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mark, path) = self.marked();
        write!(f, "{mark}{path}")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_path_has_one_spelling() {
        for (given, want, why) in [
            ("", Ok("/"), "an empty path is the root"),
            ("/", Ok("/"), ""),
            ("/a/b", Ok("/a/b"), ""),
            ("/a/b/", Ok("/a/b/"), "a trailing slash is kept"),
            ("/a%62c", Ok("/abc"), "unreserved characters are decoded"),
            ("/%7Euser", Ok("/~user"), "the tilde is unreserved"),
            (
                "/a%3fb",
                Ok("/a%3Fb"),
                "reserved characters stay encoded, in upper case",
            ),
            (
                "/caf%c3%a9",
                Ok("/caf%C3%A9"),
                "bytes above ASCII stay encoded",
            ),
            ("/café", Ok("/caf%C3%A9"), "and get encoded"),
            (
                "/a\"<b>",
                Ok("/a%22%3Cb%3E"),
                "as do others that may not stand in a path",
            ),
            ("/a b", Ok("/a%20b"), ""),
            ("/a/./b", Ok("/a/b"), ""),
            ("/a/../b", Ok("/b"), ""),
            ("/a/%2e%2E/b", Ok("/b"), "an encoded dot is a dot"),
            ("/a/..", Ok("/"), ""),
            ("/a/b/..", Ok("/a/"), "RFC 3986, 5.2.4"),
            ("/a/.", Ok("/a/"), ""),
            ("/a//b", Ok("/a/b"), "empty segments are merged"),
            ("//a", Ok("/a"), ""),
            ("/a//", Ok("/a/"), ""),
            (
                "/.well-known/x",
                Ok("/.well-known/x"),
                "a leading dot alone is a name",
            ),
            ("/a/...", Ok("/a/..."), "three dots are a name"),
            ("/a%2Fb", Ok("/a%2Fb"), "an encoded slash stays"),
            ("/a%2fb", Ok("/a%2Fb"), ""),
            (
                "/a/..%2fb",
                Err(InvalidPath::HiddenDotSegment),
                "a decoding backend would climb",
            ),
            ("/a%2f..%2fb", Err(InvalidPath::HiddenDotSegment), ""),
            ("/a%2f%2e%2e", Err(InvalidPath::HiddenDotSegment), ""),
            ("/a%2F..b", Ok("/a%2F..b"), "not a dot segment"),
            ("/..", Err(InvalidPath::AboveRoot), ""),
            ("/a/../../b", Err(InvalidPath::AboveRoot), ""),
            ("/%2e%2e/a", Err(InvalidPath::AboveRoot), ""),
            ("/a\\b", Err(InvalidPath::Backslash), ""),
            ("/a%5Cb", Err(InvalidPath::Backslash), ""),
            ("/a%00", Err(InvalidPath::Control), ""),
            ("/a%0d%0a", Err(InvalidPath::Control), ""),
            ("/a\u{1}", Err(InvalidPath::Control), ""),
            ("/a%7f", Err(InvalidPath::Control), ""),
            ("/%zz", Err(InvalidPath::Escape), ""),
            ("/%2", Err(InvalidPath::Escape), ""),
            ("/%", Err(InvalidPath::Escape), ""),
            ("/%+1", Err(InvalidPath::Escape), "a sign is not a digit"),
            ("*", Err(InvalidPath::Relative), ""),
            ("a/b", Err(InvalidPath::Relative), ""),
            ("/a%252e", Ok("/a%252e"), "decoded once, not twice"),
        ] {
            assert_eq!(
                normalise_path(given).as_deref(),
                want.as_ref().copied(),
                "{given}: {why}"
            );
        }
    }

    proptest! {
        #[test]
        fn normalising_twice_changes_nothing(text in "/[a-c./%2eEfF5\\\\ é]{0,24}") {
            if let Ok(once) = normalise_path(&text) {
                let twice = normalise_path(&once);
                prop_assert_eq!(twice.as_deref(), Ok(once.as_ref()));
            }
        }

        #[test]
        fn any_text_is_refused_or_ends_in_safe_bytes(text in ".{0,64}") {
            if let Ok(path) = normalise_path(&text) {
                prop_assert!(path.starts_with('/'));
                prop_assert!(path.bytes().all(|b| b.is_ascii_graphic()));
                prop_assert!(!path.contains("//") && !path.contains('\\'));
                prop_assert!(path.split('/').all(|s| s != "." && s != ".."));
            }
        }
    }
}
