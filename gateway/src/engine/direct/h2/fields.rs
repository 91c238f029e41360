//! Header sections between HTTP/1.1 and HTTP/2.

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HOST};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::super::client::buffer;
use super::super::edits::{Edits, write_field};
use super::super::response::Outline;
use super::super::section::{self, Field};
use crate::context::RequestContext;
use crate::names;
use crate::phases::headers;
use crate::phases::original::Original;

/// The fields of a response that are for the client.
pub(super) fn map(bytes: &[u8], outline: &Outline, fields: &[Field]) -> HeaderMap {
    let section = Bytes::copy_from_slice(bytes.get(..outline.length).unwrap_or_default());
    let mut map = HeaderMap::with_capacity(fields.len() + 4);
    for field in fields.iter().filter(|field| field.end_to_end) {
        let name = names::name(section::get(&section, field.name));
        let (start, end) = field.value;
        let value = HeaderValue::from_maybe_shared(section.slice(start..end));
        if let (Some(name), Ok(value)) = (name, value) {
            map.append(name, value);
        }
    }
    map
}

/// The header section for an endpoint.
pub(super) fn section(
    context: &RequestContext,
    parts: &Parts,
    ended: bool,
    chunked: bool,
) -> Vec<u8> {
    let mut out = buffer(context.header_bytes + 640);
    out.extend_from_slice(parts.method.as_str().as_bytes());
    out.push(b' ');
    let changed = headers::target(context, &parts.uri);
    let target = changed.as_ref().unwrap_or(&parts.uri).path_and_query();
    out.extend_from_slice(target.map_or("/", |target| target.as_str()).as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    let mut edits = Edits::of(&parts.headers);
    headers::to_backend(context, Original::of(parts), &mut edits);
    if !edits.leaves_out(b"host") {
        let host = parts
            .uri
            .authority()
            .map(|authority| authority.as_str().as_bytes());
        let host = host.or_else(|| Some(parts.headers.get(HOST)?.as_bytes()));
        write_field(&mut out, b"Host", host.unwrap_or_default());
    }
    for (name, value) in &parts.headers {
        if !is_for_us(name) && !edits.leaves_out(name.as_str().as_bytes()) {
            write_field(&mut out, name.as_str().as_bytes(), value.as_bytes());
        }
    }
    edits.write(&mut out);
    let methods = [Method::POST, Method::PUT, Method::PATCH];
    match parts.headers.get(CONTENT_LENGTH) {
        _ if chunked => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
        Some(length) => write_field(&mut out, b"Content-Length", length.as_bytes()),
        // Some servers wait for a body where a method usually has one.
        None if ended && methods.contains(&parts.method) => {
            out.extend_from_slice(b"Content-Length: 0\r\n");
        }
        None => {}
    }
    out.extend_from_slice(b"\r\n");
    out
}

/// Does a field of a request concern this connection, or is it written in another way?
fn is_for_us(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "host"
            | "content-length"
            | "te"
            | "trailer"
            | "upgrade"
            | "connection"
            | "keep-alive"
            | "http2-settings"
            | "proxy-connection"
            | "transfer-encoding"
            | "proxy-authenticate"
            | "proxy-authorization"
    )
}
