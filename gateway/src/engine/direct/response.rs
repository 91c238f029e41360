//! Reads the header section of a response and writes it for the client.

use http::{HeaderMap, HeaderValue, Method, StatusCode};

use super::body::Body;
use super::edits::Edits;
use super::section::{self, Field, Span, length_of, list_has, span};
use crate::names;

/// How large a header section of a response may be.
const MOST_BYTES: usize = 256 * 1024;
const MOST_FIELDS: usize = 128;
/// As many fields as there may be; more than the usual ones are read in a second go.
const MOST_FIELDS_EVER: usize = 1024;

/// How many informational responses there may be before the final one.
pub(super) const MOST_INTERIM: u8 = 100;

/// What the bytes so far are.
#[derive(Debug)]
pub(super) enum Found {
    /// The beginning of a header section.
    Partial,
    /// Not one.
    Invalid,
    /// A header section.
    Complete(Outline),
}

/// A header section whose parts are known by their place in it.
#[derive(Debug)]
pub(super) struct Outline {
    /// Length of the section.
    pub(super) length: usize,
    /// The status.
    pub(super) status: StatusCode,
    phrase: Span,
    /// The body that follows.
    pub(super) body: Body,
    /// What `Content-Length` says, also where no body follows.
    pub(super) given_length: Option<u64>,
    /// May the connection be used for another request?
    pub(super) keep: bool,
    pub(super) has_date: bool,
    /// Does the connection go on with the WebSocket protocol?
    pub(super) switches: bool,
}

/// Looks at what has come and collects its fields.
pub(super) fn read(bytes: &[u8], method: &Method, fields: &mut Vec<Field>) -> Found {
    let mut usual = section::uninit::<MOST_FIELDS>();
    match parse(bytes, method, fields, &mut usual) {
        Err(httparse::Error::TooManyHeaders) => {
            let mut many = vec![std::mem::MaybeUninit::uninit(); MOST_FIELDS_EVER];
            parse(bytes, method, fields, &mut many).unwrap_or(Found::Invalid)
        }
        Ok(Found::Partial) if bytes.len() > MOST_BYTES => Found::Invalid,
        Ok(found) => found,
        Err(_) => Found::Invalid,
    }
}

fn parse<'b>(
    bytes: &'b [u8],
    method: &Method,
    fields: &mut Vec<Field>,
    room: &mut [std::mem::MaybeUninit<httparse::Header<'b>>],
) -> Result<Found, httparse::Error> {
    let mut response = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let parsed = config.parse_response_with_uninit_headers(&mut response, bytes, room)?;
    let httparse::Status::Complete(length) = parsed else {
        return Ok(Found::Partial);
    };
    let section = bytes.get(..length).unwrap_or_default();
    let status = response
        .code
        .and_then(|code| StatusCode::from_u16(code).ok());
    let (Some(status), true) = (status, section::has_strict_lines(section)) else {
        return Ok(Found::Invalid);
    };
    let modern = response.version == Some(1);
    let mut outline = Outline {
        length,
        status,
        phrase: span(bytes, response.reason.unwrap_or_default().as_bytes()),
        body: Body::UntilClose,
        given_length: None,
        keep: modern,
        has_date: false,
        switches: false,
    };
    // Is it this one protocol that is named?
    let mut websocket = None;
    let mut chunked = false;
    let mut nominates = false;
    fields.clear();
    fields.reserve(response.headers.len());
    for field in response.headers.iter() {
        let name = field.name.as_bytes();
        let is = |other: &[u8]| name.eq_ignore_ascii_case(other);
        let mut end_to_end = true;
        match name.len() {
            4 if is(b"date") => outline.has_date = true,
            7 if is(b"upgrade") => {
                end_to_end = false;
                let named = field.value.eq_ignore_ascii_case(b"websocket");
                websocket = Some(named && websocket.is_none());
            }
            7 if is(b"trailer") => end_to_end = false,
            10 if is(b"keep-alive") => end_to_end = false,
            10 if is(b"connection") => {
                end_to_end = false;
                if list_has(field.value, |word| word.eq_ignore_ascii_case(b"close")) {
                    outline.keep = false;
                }
                nominates |= !field.value.eq_ignore_ascii_case(b"keep-alive");
            }
            14 if is(b"content-length") => {
                end_to_end = false;
                let length = length_of(field.value);
                if length.is_none() || outline.given_length.is_some() {
                    return Ok(Found::Invalid);
                }
                outline.given_length = length;
            }
            16 if is(b"proxy-connection") => end_to_end = false,
            17 if is(b"transfer-encoding") => {
                end_to_end = false;
                if chunked || !modern || !field.value.eq_ignore_ascii_case(b"chunked") {
                    return Ok(Found::Invalid);
                }
                chunked = true;
            }
            _ => {}
        }
        let (name, value) = (span(bytes, name), span(bytes, field.value));
        fields.push(Field::new(bytes, name, value, end_to_end));
    }
    if chunked && outline.given_length.is_some() {
        return Ok(Found::Invalid);
    }
    if nominates {
        drop_nominated(bytes, fields);
    }
    let without_body = *method == Method::HEAD
        || status.is_informational()
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    outline.body = match outline.given_length {
        _ if without_body => Body::Length(0),
        _ if chunked => Body::chunked(),
        Some(length) => Body::Length(length),
        None => Body::UntilClose,
    };
    if outline.body == Body::UntilClose {
        outline.keep = false;
    }
    let switching = status == StatusCode::SWITCHING_PROTOCOLS;
    outline.switches = switching && modern && websocket == Some(true);
    Ok(Found::Complete(outline))
}

/// Takes out the fields that `Connection` names: they were meant for us.
fn drop_nominated(bytes: &[u8], fields: &mut [Field]) {
    for at in 0..fields.len() {
        let Some(field) = fields.get(at).copied() else {
            continue;
        };
        let name = section::get(bytes, field.name);
        let nominated = fields
            .iter()
            .filter(|other| section::get(bytes, other.name).eq_ignore_ascii_case(b"connection"))
            .any(|other| {
                list_has(section::get(bytes, other.value), |word| {
                    word.eq_ignore_ascii_case(name)
                })
            });
        if let Some(field) = fields.get_mut(at) {
            field.end_to_end &= !nominated;
        }
    }
}

/// The fields as a map, for whoever wants to look one up.
pub(super) fn map(bytes: &[u8], fields: &[Field]) -> HeaderMap {
    fields
        .iter()
        .filter(|field| field.end_to_end)
        .filter_map(|field| {
            let name = names::name(section::get(bytes, field.name))?;
            let value = HeaderValue::from_bytes(section::get(bytes, field.value)).ok()?;
            Some((name, value))
        })
        .collect()
}

/// Appends a header section for an HTTP/1.1 client.
pub(super) fn write<F: Fn() -> HeaderMap>(
    out: &mut Vec<u8>,
    bytes: &[u8],
    outline: &Outline,
    fields: &[Field],
    edits: &Edits<'_, F>,
    close: bool,
    date: impl FnOnce(&mut Vec<u8>),
) {
    write_status(
        out,
        outline.status,
        Some(section::get(bytes, outline.phrase)),
    );
    section::copy(out, bytes, fields, edits);
    edits.write(out);
    if outline.status.is_informational() {
        if outline.switches {
            out.extend_from_slice(section::TO_WEBSOCKET);
        }
        out.extend_from_slice(b"\r\n");
        return;
    }
    match outline.body {
        Body::Chunked(_) | Body::UntilClose => {
            out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
        }
        Body::Length(_) => {
            let length = outline
                .given_length
                .filter(|_| outline.status != StatusCode::NO_CONTENT);
            if let Some(length) = length {
                write_number_field(out, b"Content-Length: ", length);
            }
        }
    }
    if !outline.has_date {
        date(out);
    }
    write_end(out, close);
}

/// Appends the first line of a response.
pub(super) fn write_status(out: &mut Vec<u8>, status: StatusCode, phrase: Option<&[u8]>) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    let usual = || status.canonical_reason().unwrap_or_default().as_bytes();
    out.extend_from_slice(phrase.unwrap_or_else(usual));
    out.extend_from_slice(b"\r\n");
}

/// Appends what every header section for a client ends with.
pub(super) fn write_end(out: &mut Vec<u8>, close: bool) {
    out.extend_from_slice(if close {
        b"Connection: close\r\n\r\n"
    } else {
        b"Connection: keep-alive\r\n\r\n"
    });
}

/// Appends a field with a number.
pub(super) fn write_number_field(out: &mut Vec<u8>, name_and_colon: &[u8], number: u64) {
    out.extend_from_slice(name_and_colon);
    out.extend_from_slice(decimal(number, &mut [0; 20]));
    out.extend_from_slice(b"\r\n");
}

/// A number in decimal digits.
pub(super) fn decimal(mut number: u64, digits: &mut [u8; 20]) -> &[u8] {
    let mut at = digits.len();
    loop {
        at -= 1;
        if let Some(place) = digits.get_mut(at) {
            *place = b'0' + u8::try_from(number % 10).unwrap_or(0);
        }
        number /= 10;
        if number == 0 {
            return digits.get(at..).unwrap_or_default();
        }
    }
}
