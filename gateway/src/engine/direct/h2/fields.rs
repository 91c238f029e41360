//! Header sections between HTTP/1.1 and HTTP/2.

use http::header::{CONTENT_LENGTH, DATE};
use http::{HeaderMap, HeaderValue, Method, Uri};
use http2::{Block, Writer};

use super::super::client::buffer;
use super::super::date;
use super::super::edits::{Edits, write_field};
use super::super::section::{self, Field};
use super::request::Request;
use crate::context::RequestContext;
use crate::phases::headers;

/// Writes the fields of a response: those that go on, and what the phases want changed.
pub(super) fn copy<F: Fn() -> HeaderMap>(
    out: &mut Writer<'_>,
    bytes: &[u8],
    fields: &[Field],
    edits: &Edits<'_, F>,
) {
    for field in fields.iter().filter(|field| field.end_to_end) {
        let name = section::get(bytes, field.name);
        if !edits.leaves_out_marked(field.mark, name) {
            out.add(name, section::get(bytes, field.value), field.sensitive);
        }
    }
    for (name, value) in edits.added() {
        if !is_of_http1(name) {
            out.add(name.as_bytes(), value.as_bytes(), value.is_sensitive());
        }
    }
}

/// The fields of a map that HTTP/2 has.
fn of(fields: &HeaderMap) -> impl Iterator<Item = (&[u8], &HeaderValue)> {
    let fields = fields
        .iter()
        .filter(|(name, _)| !is_of_http1(name.as_str()));
    fields.map(|(name, value)| (name.as_str().as_bytes(), value))
}

/// Writes the fields of a map.
pub(super) fn write(out: &mut Writer<'_>, fields: &HeaderMap) {
    for (name, value) in of(fields) {
        out.add(name, value.as_bytes(), value.is_sensitive());
    }
}

/// Writes the `Date` of a response that has none.
pub(super) fn write_date(out: &mut Writer<'_>, context: &RequestContext) {
    let value = date::value(context.started_at);
    out.add(DATE.as_str().as_bytes(), value.as_bytes(), false);
}

/// Trailers that came in a map.
pub(super) fn trailers(fields: &HeaderMap) -> Block {
    let mut block = Block::default();
    for (name, value) in of(fields) {
        block.add(name, value.as_bytes(), value.is_sensitive());
    }
    block
}

/// Does a field belong to a connection of HTTP/1.1? HTTP/2 does not have it (RFC 9113, 8.2.2).
pub(super) fn is_of_http1(name: &str) -> bool {
    let is = |other: &str| name.eq_ignore_ascii_case(other);
    match name.len() {
        7 => is("upgrade"),
        10 => is("connection") || is("keep-alive"),
        16 => is("proxy-connection"),
        17 => is("transfer-encoding"),
        _ => false,
    }
}

/// What of a target goes to an endpoint: never a fragment.
pub(super) fn path(target: &Uri) -> &[u8] {
    let path = target.path_and_query();
    path.map_or("/", |path| path.as_str()).as_bytes()
}

/// The header section for an endpoint.
pub(super) fn section(
    context: &RequestContext,
    request: &Request,
    ended: bool,
    chunked: bool,
) -> Vec<u8> {
    let mut out = buffer(context.header_bytes + 640);
    out.extend_from_slice(request.method.as_str().as_bytes());
    out.push(b' ');
    let changed = headers::target(context, &request.uri);
    out.extend_from_slice(path(changed.as_ref().unwrap_or(&request.uri)));
    out.extend_from_slice(b" HTTP/1.1\r\n");
    let mut edits = Edits::of(request.headers());
    headers::to_backend(context, request.original(), &mut edits);
    if !edits.leaves_out(b"host") {
        write_field(&mut out, b"Host", request.host());
    }
    let bytes = request.section.bytes();
    section::copy(&mut out, bytes, request.section.fields(), &edits);
    edits.write(&mut out);
    let methods = [Method::POST, Method::PUT, Method::PATCH];
    match request.headers().get(&CONTENT_LENGTH) {
        _ if chunked => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
        Some(length) => write_field(&mut out, b"Content-Length", length),
        // Some servers wait for a body where a method usually has one.
        None if ended && methods.contains(&request.method) => {
            out.extend_from_slice(b"Content-Length: 0\r\n");
        }
        None => {}
    }
    out.extend_from_slice(b"\r\n");
    out
}
