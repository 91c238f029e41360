//! A request as it came, whoever stores it.

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, Version};
use smallvec::SmallVec;

use crate::section::{Section, get};

/// A request as it came.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Original<'a> {
    pub(crate) method: &'a Method,
    /// At least path and query.
    pub(crate) uri: &'a Uri,
    pub(crate) version: Version,
    pub(crate) headers: Headers<'a>,
}

impl<'a> Original<'a> {
    /// This request.
    pub(crate) fn of(parts: &'a Parts) -> Self {
        Self {
            method: &parts.method,
            uri: &parts.uri,
            version: parts.version,
            headers: Headers::Map(&parts.headers),
        }
    }
}

/// Header fields of a request.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Headers<'a> {
    /// As a map.
    Map(&'a HeaderMap),
    /// As text.
    Section(&'a Section),
}

impl<'a> From<&'a HeaderMap> for Headers<'a> {
    fn from(map: &'a HeaderMap) -> Self {
        Self::Map(map)
    }
}

impl<'a> Headers<'a> {
    /// All fields as a map. That costs more than to look for a few.
    pub(crate) fn map(self) -> &'a HeaderMap {
        match self {
            Self::Map(map) => map,
            Self::Section(section) => section.map(),
        }
    }

    /// The first value of a field.
    pub(crate) fn get(self, name: &HeaderName) -> Option<&'a [u8]> {
        match self {
            Self::Map(map) => map.get(name).map(HeaderValue::as_bytes),
            Self::Section(section) => {
                let field = section.named(name.as_str()).next()?;
                Some(get(section.bytes(), field.value))
            }
        }
    }

    /// The same as text; nothing if it has other bytes than those of ASCII that are seen.
    pub(crate) fn text(self, name: &HeaderName) -> Option<&'a str> {
        self.get(name).and_then(text)
    }

    /// The same, to be kept.
    pub(crate) fn value(self, name: &HeaderName) -> Option<HeaderValue> {
        match self {
            Self::Map(map) => map.get(name).cloned(),
            Self::Section(section) => section.value(section.named(name.as_str()).next()?),
        }
    }

    /// The first value of a field, and whether there are more.
    pub(crate) fn first(self, name: &HeaderName) -> Option<(&'a [u8], bool)> {
        match self {
            Self::Map(map) => {
                let mut values = map.get_all(name).iter();
                let first = values.next()?.as_bytes();
                Some((first, values.next().is_some()))
            }
            Self::Section(section) => {
                let mut fields = section.named(name.as_str());
                let first = get(section.bytes(), fields.next()?.value);
                Some((first, fields.next().is_some()))
            }
        }
    }

    /// All values of a field, in their order.
    pub(crate) fn all(self, name: &HeaderName) -> SmallVec<[&'a [u8]; 2]> {
        match self {
            Self::Map(map) => map
                .get_all(name)
                .iter()
                .map(HeaderValue::as_bytes)
                .collect(),
            Self::Section(section) => section
                .named(name.as_str())
                .map(|field| get(section.bytes(), field.value))
                .collect(),
        }
    }

    /// All values of a field as one.
    pub(crate) fn joined(self, name: &HeaderName) -> Option<HeaderValue> {
        let (_, more) = self.first(name)?;
        if !more {
            return self.value(name);
        }
        let joined = self.all(name).join(&b", "[..]);
        HeaderValue::from_maybe_shared(Bytes::from(joined)).ok()
    }

    /// Is there a field of this name?
    pub(crate) fn has(self, name: &HeaderName) -> bool {
        self.get(name).is_some()
    }

    /// How many fields there are.
    pub(crate) fn len(self) -> usize {
        match self {
            Self::Map(map) => map.len(),
            Self::Section(section) => section.fields().len(),
        }
    }

    /// How long all names and values are together.
    pub(crate) fn size(self) -> usize {
        match self {
            Self::Map(map) => map
                .iter()
                .map(|(name, value)| name.as_str().len() + value.len())
                .sum(),
            Self::Section(section) => section.size(),
        }
    }

    /// The names of fields for which something holds, whatever their spelling.
    pub(crate) fn names_that(self, holds: impl Fn(&[u8]) -> bool) -> SmallVec<[HeaderName; 4]> {
        match self {
            Self::Map(map) => map
                .keys()
                .filter(|name| holds(name.as_str().as_bytes()))
                .cloned()
                .collect(),
            Self::Section(section) => section
                .fields()
                .iter()
                .filter(|field| holds(get(section.bytes(), field.name)))
                .filter_map(|field| section.name(field))
                .collect(),
        }
    }
}

impl table::HeaderFields for Headers<'_> {
    fn map(&self) -> &HeaderMap {
        Headers::map(*self)
    }
}

/// As [`HeaderValue::to_str`] has it.
pub(crate) fn text(value: &[u8]) -> Option<&str> {
    let seen = |byte: &u8| matches!(byte, b' '..=b'~' | b'\t');
    let text = std::str::from_utf8(value).ok()?;
    value.iter().all(seen).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::section::Field;

    fn section(fields: &[(&str, &str)]) -> Section {
        let (mut bytes, mut places) = (Vec::new(), Vec::new());
        for (name, value) in fields {
            let start = bytes.len();
            bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
            let end = bytes.len() - 2;
            places.push(((start, start + name.len()), (end - value.len(), end)));
        }
        let fields = places
            .into_iter()
            .map(|(name, value)| Field::new(&bytes, name, value, true))
            .collect();
        Section::new(Bytes::from(bytes), fields)
    }

    #[test]
    fn a_section_says_what_a_map_of_it_says() {
        let section = section(&[
            ("Host", "a.test"),
            ("X-Forwarded-For", "1.1.1.1"),
            ("x-forwarded-for", "2.2.2.2"),
            ("X_Odd", ""),
            ("X", "caf\u{e9}"),
            ("Ab", "\t tab"),
            ("Accept", "*/*"),
            ("aCCEPT", "text/html"),
        ]);
        let from_text = Headers::Section(&section);
        let from_map = Headers::Map(section.map());
        assert_eq!(from_map.len(), 8);
        assert_eq!(from_text.len(), from_map.len());
        assert_eq!(from_text.size(), from_map.size());
        for name in [
            "host",
            "x-forwarded-for",
            "x_odd",
            "x",
            "ab",
            "accept",
            "accepts",
            "missing",
            "y",
        ] {
            let name = HeaderName::from_static(name);
            assert_eq!(from_text.get(&name), from_map.get(&name), "{name}");
            assert_eq!(from_text.value(&name), from_map.value(&name), "{name}");
            assert_eq!(from_text.all(&name), from_map.all(&name), "{name}");
            assert_eq!(from_text.first(&name), from_map.first(&name), "{name}");
            let all = from_map.all(&name);
            let first = all.first().map(|first| (*first, all.len() > 1));
            assert_eq!(from_text.first(&name), first, "{name}");
            assert_eq!(from_text.has(&name), from_map.has(&name), "{name}");
            let want = from_map
                .map()
                .get(&name)
                .and_then(|value| value.to_str().ok());
            assert_eq!(from_text.text(&name), want, "{name}");
        }
        let odd = |name: &[u8]| name.contains(&b'_') || name.len() == 2;
        assert_eq!(from_text.names_that(odd).as_slice(), ["x_odd", "ab"]);
        let mut names = from_map.names_that(odd);
        names.sort_by_key(ToString::to_string);
        assert_eq!(names.as_slice(), ["ab", "x_odd"]);
    }

    /// A field that a map would not take would be passed on without a phase that sees it.
    #[test]
    fn what_the_parser_takes_a_map_takes() {
        let (mut names, mut values) = (0, 0);
        for byte in 0..=u8::MAX {
            for (name, value) in [
                (&[byte][..], &b"v"[..]),
                (&[b'a', byte, b'c'], b"v"),
                (b"a", &[byte]),
                (b"a", &[b'v', byte, b'w']),
            ] {
                let text = [b"GET / HTTP/1.1\r\n", name, b":", value, b"\r\n\r\n"].concat();
                let mut fields = [httparse::EMPTY_HEADER; 4];
                let mut request = httparse::Request::new(&mut fields);
                if !matches!(request.parse(&text), Ok(httparse::Status::Complete(_))) {
                    continue;
                }
                for field in request.headers.iter() {
                    assert!(
                        HeaderName::from_bytes(field.name.as_bytes()).is_ok(),
                        "{byte}"
                    );
                    assert!(HeaderValue::from_bytes(field.value).is_ok(), "{byte}");
                    names += usize::from(name.contains(&byte));
                    values += usize::from(value.contains(&byte));
                }
            }
        }
        assert!(names > 100 && values > 300, "{names} {values}");
    }
}
