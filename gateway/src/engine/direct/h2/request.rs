//! A request as it came in HTTP/2.

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HOST};
use http::request::Parts;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Method, Request as Message, Uri, Version};
use http2::{Block, Head, Span};

use super::super::section::{self, Field, Section};
use crate::phases::original::{Headers, Original};

/// A request.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) method: Method,
    /// With the authority, if the client named one.
    pub(super) uri: Uri,
    pub(super) section: Section,
    target: Span,
    /// It has more fields than were kept.
    pub(super) too_large: bool,
}

impl Request {
    /// Nothing if its parts are not what they have to be (RFC 9113, 8.3.1).
    pub(super) fn of(head: Head) -> Option<Self> {
        let method = Method::from_bytes(head.method()).ok();
        let too_large = head.is_too_large();
        let target = head.path_span();
        let authority = head.authority_span();
        let (text, fields) = parts(head.into_fields(), is_for_us);
        let part = |span: Span| text.slice(span.0..span.1);
        let mut uri = http::uri::Parts::default();
        if target.1 > target.0 {
            uri.path_and_query = Some(PathAndQuery::from_maybe_shared(part(target)).ok()?);
        } else if too_large {
            uri.path_and_query = Some(PathAndQuery::from_static("/"));
        }
        if let Some(authority) = authority.filter(|_| !too_large) {
            uri.authority = Some(Authority::from_maybe_shared(part(authority)).ok()?);
            uri.scheme = uri.path_and_query.is_some().then_some(Scheme::HTTP);
        }
        let method = if too_large {
            method.unwrap_or_default()
        } else {
            method?
        };
        Some(Self {
            method,
            uri: Uri::from_parts(uri).ok()?,
            section: Section::new(text, fields),
            target,
            too_large,
        })
    }

    /// The request as the phases see it.
    pub(super) fn original(&self) -> Original<'_> {
        Original {
            method: &self.method,
            uri: &self.uri,
            version: Version::HTTP_2,
            headers: self.headers(),
        }
    }

    /// Its fields.
    pub(super) fn headers(&self) -> Headers<'_> {
        Headers::Section(&self.section)
    }

    /// The request target as it stands in a log; a `CONNECT` has none.
    pub(super) fn target(&self) -> &[u8] {
        section::get(self.section.bytes(), self.target)
    }

    /// Whom it is for.
    pub(super) fn host(&self) -> &[u8] {
        match self.uri.authority() {
            Some(authority) => authority.as_str().as_bytes(),
            None => self.headers().get(&HOST).unwrap_or_default(),
        }
    }

    /// Did the client say how long the content is?
    pub(super) fn gives_length(&self) -> bool {
        self.headers().has(&CONTENT_LENGTH)
    }

    /// The same for somebody who wants its fields in a map.
    pub(super) fn into_parts(self) -> Parts {
        let (mut parts, ()) = Message::new(()).into_parts();
        parts.headers = self.section.map().clone();
        parts.method = self.method;
        parts.uri = self.uri;
        parts.version = Version::HTTP_2;
        parts
    }
}

/// The text of a section and its fields. Those that are only for this connection are marked.
pub(super) fn parts(block: Block, is_for_us: impl Fn(&[u8]) -> bool) -> (Bytes, Vec<Field>) {
    let (text, lines) = block.into_parts();
    let fields = lines.iter().map(|line| {
        let name = section::get(&text, line.name);
        let mut field = Field::new(&text, line.name, line.value, !is_for_us(name));
        field.sensitive = line.sensitive;
        field
    });
    let fields = fields.collect();
    (text.into(), fields)
}

/// Does a field of a request concern this connection, or is it written in another way? Those that HTTP/2 does not have are
/// not in here.
fn is_for_us(name: &[u8]) -> bool {
    match name.len() {
        2 => name == b"te",
        4 => name == b"host",
        7 => name == b"trailer",
        14 => matches!(name, b"content-length" | b"http2-settings"),
        18 => name == b"proxy-authenticate",
        19 => name == b"proxy-authorization",
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(fields: &[(&str, &str)]) -> Option<Request> {
        let settings = http2::Settings::default();
        let client = http2::Connection::client(&settings);
        let server = http2::Connection::server(&settings);
        let _stream = client
            .open(true, |writer| {
                for (name, value) in fields {
                    writer.add(name.as_bytes(), value.as_bytes(), false);
                }
            })
            .unwrap();
        let mut octets = Vec::new();
        client.take_output(&mut octets);
        server.receive(&octets);
        Request::of(server.accept()?.0)
    }

    fn with_path(path: &str) -> Option<Request> {
        request(&[
            (":method", "GET"),
            (":scheme", "https"),
            (":authority", "a.test"),
            (":path", path),
        ])
    }

    #[test]
    fn what_would_be_another_request_in_http1_is_none() {
        for (path, want) in [
            ("/", true),
            ("/a?b", true),
            ("*", true),
            ("/a b", false),
            ("/a\tb", false),
            ("/\u{e9}", true),
        ] {
            assert_eq!(with_path(path).is_some(), want, "{path:?}");
        }
        let authority = |authority| {
            request(&[
                (":method", "GET"),
                (":scheme", "https"),
                (":authority", authority),
                (":path", "/"),
            ])
        };
        assert!(authority("a.test:8080").is_some());
        assert!(authority("a test").is_none());
        assert!(authority("").is_none());
    }

    #[test]
    fn what_is_only_for_this_connection_is_marked() {
        let fields = [
            (":method", "POST"),
            (":scheme", "https"),
            (":authority", "a.test"),
            (":path", "/a?b"),
            ("te", "trailers"),
            ("accept", "*/*"),
            ("content-length", "0"),
            ("http2-settings", "x"),
        ];
        let request = request(&fields).unwrap();
        assert_eq!(request.target(), b"/a?b");
        assert!(request.gives_length());
        let fields = request.section.fields().iter();
        let marks: Vec<bool> = fields.map(|field| field.end_to_end).collect();
        assert_eq!(marks, [false, true, false, false]);
        assert!(request.section.fields().iter().all(|field| field.usual));
        let parts = request.into_parts();
        assert_eq!(parts.headers.len(), 4);
        assert_eq!(parts.uri.authority().unwrap().as_str(), "a.test");
    }
}
