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
use super::section::{self, Field, Most, Section, Span, length_of, list_has, span};
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
        };
        let mut given_length = None;
        let mut chunked = false;
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
                Kind::Connection => match connection(field.value) {
                    Some(keep) => outline.keep &= keep,
                    None => return Found::Foreign,
                },
                Kind::Expect => {
                    if outline.expects || !field.value.eq_ignore_ascii_case(b"100-continue") {
                        return Found::Foreign;
                    }
                    outline.expects = true;
                }
                Kind::Upgrade => return Found::Foreign,
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

    /// The header section.
    pub(super) fn section(&self) -> &Section {
        &self.section
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

/// Does this value of `Connection` let the connection live? `None` when it names anything but that: what it names has
/// to be taken out, and there are names that may not be.
fn connection(value: &[u8]) -> Option<bool> {
    if value.eq_ignore_ascii_case(b"keep-alive") {
        return Some(true);
    }
    let known = list_has(value, Most::All, |word| {
        word.is_empty()
            || word.eq_ignore_ascii_case(b"keep-alive")
            || word.eq_ignore_ascii_case(b"close")
    });
    known.then(|| !list_has(value, Most::Any, |word| word.eq_ignore_ascii_case(b"close")))
}
