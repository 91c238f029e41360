//! Reads the header section of a request.
//!
//! What two servers could read differently is refused here and never corrected. What is legal and rare is left to
//! Pingora, with every byte of it.

use std::cell::RefCell;

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::uri::PathAndQuery;
use http::{Method, Uri, Version};

use super::body::Body;
use super::client::buffer;
use super::edits::Edits;
use super::response::write_number_field;
use super::section::{self, Field, Section, Span, length_of, span};
use crate::context::RequestContext;
use crate::phases::headers;
use crate::phases::original::{Headers, Original};

/// Larger header sections are left to Pingora, and so are those with more fields.
pub(super) const MOST_BYTES: usize = 16 * 1024;
const MOST_FIELDS: usize = 100;

/// What the bytes so far are.
#[derive(Debug)]
pub(super) enum Found {
    /// The beginning of a header section.
    Partial,
    /// Nothing for this engine.
    Foreign,
    /// What is not answered but with 400.
    Refused,
    /// A request.
    Complete(Outline),
}

/// A header section whose parts are known by their place in it.
#[derive(Debug)]
pub(super) struct Outline {
    /// Length of the section.
    pub(super) length: usize,
    method: Method,
    target: Span,
    /// The body that follows.
    pub(super) body: Body,
    /// May the connection be used for another request?
    pub(super) keep: bool,
    /// Does the client wait for permission to send the body?
    pub(super) expects: bool,
    /// Does the client want to go on with the WebSocket protocol?
    upgrade: bool,
}

thread_local! {
    /// Room for fields, which requests of a thread hand on to each other: a connection that waits has none.
    static SPARE: RefCell<Vec<Vec<Field>>> = const { RefCell::new(Vec::new()) };
}

/// How many a thread keeps. One is out for each request that waits for its response.
const MOST_SPARE: usize = 64;
/// Room for more fields than these is not kept.
const USUAL: usize = 128;

/// A request.
#[derive(Debug, Default)]
pub(super) struct Head {
    pub(super) method: Method,
    /// Path and query.
    pub(super) uri: Uri,
    /// Does the client want to go on with the WebSocket protocol?
    pub(super) upgrade: bool,
    section: Section,
    target: Span,
    /// What has been read and not been taken over.
    fields: Vec<Field>,
}

impl Head {
    /// Looks at what has come. The fields are remembered for [`Head::fill`].
    pub(super) fn read(&mut self, bytes: &[u8]) -> Found {
        self.fields.clear();
        if self.fields.capacity() == 0
            && let Some(fields) = SPARE.with_borrow_mut(Vec::pop)
        {
            self.fields = fields;
        }
        let mut fields = section::uninit::<MOST_FIELDS>();
        let mut request = httparse::Request::new(&mut []);
        let length = match request.parse_with_uninit_headers(bytes, &mut fields) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) if bytes.len() < MOST_BYTES => return Found::Partial,
            Ok(httparse::Status::Partial) | Err(_) => return Found::Foreign,
        };
        let (Some(method), Some(target), Some(1)) = (request.method, request.path, request.version)
        else {
            return Found::Foreign;
        };
        let section = bytes.get(..length).unwrap_or_default();
        if !section::has_strict_lines(section) {
            return Found::Refused;
        }
        // The absolute form and the forms without a path; a fragment has no business here.
        if !target.starts_with('/') || target.contains('#') || method == "CONNECT" {
            return Found::Foreign;
        }
        let Ok(method) = Method::from_bytes(method.as_bytes()) else {
            return Found::Foreign;
        };
        let mut outline = Outline {
            length,
            method,
            target: span(bytes, target.as_bytes()),
            body: Body::Length(0),
            keep: true,
            expects: false,
            upgrade: false,
        };
        let mut given_length = None;
        let mut chunked = false;
        let mut wish = Wish::default();
        // Is it this one protocol that is named?
        let mut websocket = None;
        self.fields.reserve(request.headers.len());
        for field in request.headers.iter() {
            let kind = Kind::of(field.name.as_bytes());
            match kind {
                Kind::ContentLength => {
                    let length = length_of(field.value);
                    if given_length.is_some() || length.is_none() {
                        return Found::Refused;
                    }
                    given_length = length;
                }
                Kind::TransferEncoding => {
                    if chunked || !field.value.eq_ignore_ascii_case(b"chunked") {
                        return Found::Refused;
                    }
                    chunked = true;
                }
                Kind::Connection => {
                    if wish.add(field.value).is_none() {
                        return Found::Foreign;
                    }
                }
                Kind::Expect => {
                    if outline.expects || !field.value.eq_ignore_ascii_case(b"100-continue") {
                        return Found::Foreign;
                    }
                    outline.expects = true;
                }
                Kind::Upgrade => {
                    let named = field.value.eq_ignore_ascii_case(b"websocket");
                    websocket = Some(named && websocket.is_none());
                }
                Kind::HopByHop | Kind::EndToEnd => {}
            }
            let name = span(bytes, field.name.as_bytes());
            let value = span(bytes, field.value);
            let end_to_end = matches!(kind, Kind::EndToEnd | Kind::Expect);
            self.fields.push(Field::new(bytes, name, value, end_to_end));
        }
        // One of both would have to be ignored, and not everybody ignores the same one (RFC 9112, 6.1).
        if chunked && given_length.is_some() {
            return Found::Refused;
        }
        outline.body = if chunked {
            Body::chunked()
        } else {
            Body::Length(given_length.unwrap_or(0))
        };
        outline.keep = !wish.close;
        if wish.upgrade || websocket.is_some() {
            let alone = outline.body.is_done() && !outline.expects && outline.keep;
            let plain = outline.method == Method::GET && alone;
            if !(plain && wish.upgrade && websocket == Some(true)) {
                return Found::Foreign;
            }
            outline.upgrade = true;
        }
        Found::Complete(outline)
    }

    /// Takes over the section that was looked at last. `None`: it has something in it that `http` does not take, and
    /// the bytes are to be left to Pingora.
    pub(super) fn fill(&mut self, bytes: &Bytes, outline: &Outline) -> Option<()> {
        let bytes = bytes.slice(..outline.length);
        let target = bytes.slice(outline.target.0..outline.target.1);
        let target = PathAndQuery::from_maybe_shared(target).ok()?;
        self.method = outline.method.clone();
        self.uri = Uri::from(target);
        self.target = outline.target;
        self.upgrade = outline.upgrade;
        self.section = Section::new(bytes, std::mem::take(&mut self.fields));
        Some(())
    }

    /// As the phases want it.
    pub(super) fn original(&self) -> Original<'_> {
        Original {
            method: &self.method,
            uri: &self.uri,
            version: Version::HTTP_11,
            headers: Headers::Section(&self.section),
        }
    }

    /// The request target, byte by byte.
    pub(super) fn target(&self) -> &[u8] {
        section::get(self.section.bytes(), self.target)
    }

    /// How long the section is.
    pub(super) fn len(&self) -> usize {
        self.section.bytes().len()
    }

    /// Did the client say how long the body is?
    pub(super) fn gives_length(&self) -> bool {
        self.original().headers.has(&CONTENT_LENGTH)
    }

    /// The header section for the backend.
    pub(super) fn for_backend(&self, context: &RequestContext, body: Body) -> Vec<u8> {
        let mut out = buffer(self.len() + 512);
        out.extend_from_slice(self.method.as_str().as_bytes());
        out.push(b' ');
        match headers::target(context, &self.uri) {
            Some(target) => {
                let target = target
                    .path_and_query()
                    .map_or("/", |target| target.as_str());
                out.extend_from_slice(target.as_bytes());
            }
            None => out.extend_from_slice(self.target()),
        }
        out.extend_from_slice(b" HTTP/1.1\r\n");
        let mut edits = Edits::of(self.original().headers);
        headers::to_backend(context, self.original(), &mut edits);
        section::copy(
            &mut out,
            self.section.bytes(),
            self.section.fields(),
            &edits,
        );
        edits.write(&mut out);
        match body {
            Body::Length(length) if length > 0 || self.gives_length() => {
                write_number_field(&mut out, b"Content-Length: ", length);
            }
            Body::Length(_) => {}
            Body::Chunked(_) | Body::UntilClose => {
                out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
            }
        }
        if self.upgrade {
            out.extend_from_slice(section::TO_WEBSOCKET);
        }
        out.extend_from_slice(b"\r\n");
        out
    }

    /// Lets go of the request and of its memory.
    pub(super) fn clear(&mut self) {
        self.uri = Uri::default();
        let mut fields = std::mem::take(&mut self.section).into_memory();
        if fields.capacity() > USUAL {
            return;
        }
        fields.clear();
        SPARE.with_borrow_mut(|spare| {
            if spare.len() < MOST_SPARE {
                spare.push(fields);
            }
        });
    }
}

/// What a field of a request is to an intermediary.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    ContentLength,
    TransferEncoding,
    Connection,
    Expect,
    Upgrade,
    HopByHop,
    EndToEnd,
}

impl Kind {
    fn of(name: &[u8]) -> Self {
        let is = |other: &[u8]| name.eq_ignore_ascii_case(other);
        match name.len() {
            2 if is(b"te") => Self::HopByHop,
            6 if is(b"expect") => Self::Expect,
            7 if is(b"upgrade") => Self::Upgrade,
            7 if is(b"trailer") => Self::HopByHop,
            10 if is(b"connection") => Self::Connection,
            10 if is(b"keep-alive") => Self::HopByHop,
            14 if is(b"content-length") => Self::ContentLength,
            14 if is(b"http2-settings") => Self::HopByHop,
            16 if is(b"proxy-connection") => Self::HopByHop,
            17 if is(b"transfer-encoding") => Self::TransferEncoding,
            18 if is(b"proxy-authenticate") => Self::HopByHop,
            19 if is(b"proxy-authorization") => Self::HopByHop,
            _ => Self::EndToEnd,
        }
    }
}

/// What a client says about its connection.
#[derive(Debug, Default)]
struct Wish {
    close: bool,
    upgrade: bool,
}

impl Wish {
    /// Takes one more value of `Connection`. `None` when it names anything that is not known: what it names has to be
    /// taken out, and there are names that may not be.
    fn add(&mut self, value: &[u8]) -> Option<()> {
        if value.eq_ignore_ascii_case(b"keep-alive") {
            return Some(());
        }
        for word in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            if word.eq_ignore_ascii_case(b"close") {
                self.close = true;
            } else if word.eq_ignore_ascii_case(b"upgrade") {
                self.upgrade = true;
            } else if !word.is_empty() && !word.eq_ignore_ascii_case(b"keep-alive") {
                return None;
            }
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_websocket_is_asked_for_in_one_way() {
        const CONNECTION: &str = "Connection: Upgrade\r\n";
        const UPGRADE: &str = "Upgrade: websocket\r\n";
        const ASKED: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\n";
        let get = "GET / HTTP/1.1";
        for (first, fields, ours, why) in [
            (get, ASKED.to_owned(), true, "as browsers do"),
            (
                get,
                "upgrade: WebSocket\r\nconnection: keep-alive,\tUPGRADE\r\n".to_owned(),
                true,
                "as others do",
            ),
            (
                get,
                format!("{ASKED}Connection: keep-alive\r\nContent-Length: 0\r\n"),
                true,
                "without content",
            ),
            (get, CONNECTION.to_owned(), false, "to what?"),
            (get, UPGRADE.to_owned(), false, "for whom?"),
            (
                get,
                format!("{UPGRADE}Connection: keep-alive\r\n"),
                false,
                "for whom?",
            ),
            (get, format!("{ASKED}{UPGRADE}"), false, "twice"),
            (
                get,
                format!("{CONNECTION}Upgrade: h2c\r\n"),
                false,
                "something else",
            ),
            (
                get,
                format!("{CONNECTION}Upgrade: websocket, h2c\r\n"),
                false,
                "something else as well",
            ),
            (
                get,
                format!("{ASKED}Upgrade: h2c\r\n"),
                false,
                "something else as well",
            ),
            (
                get,
                format!("{UPGRADE}Connection: Upgrade, close\r\n"),
                false,
                "and not",
            ),
            (
                get,
                format!("{UPGRADE}Connection: Upgrade, X-A\r\n"),
                false,
                "a name to take out",
            ),
            (
                get,
                format!("{ASKED}Content-Length: 1\r\n"),
                false,
                "content",
            ),
            (
                get,
                format!("{ASKED}Transfer-Encoding: chunked\r\n"),
                false,
                "content",
            ),
            (
                get,
                format!("{ASKED}Expect: 100-continue\r\n"),
                false,
                "content that is not there",
            ),
            ("POST / HTTP/1.1", ASKED.to_owned(), false, "another method"),
            ("GET / HTTP/1.0", ASKED.to_owned(), false, "another version"),
        ] {
            let text = format!("{first}\r\nHost: a.test\r\n{fields}\r\n");
            let found = Head::default().read(text.as_bytes());
            match found {
                Found::Complete(outline) => assert!(ours && outline.upgrade, "{why}: {text}"),
                Found::Foreign => assert!(!ours, "{why}: {text}"),
                Found::Partial | Found::Refused => panic!("{why}: {found:?}"),
            }
        }
    }
}
