//! Header sections: where a message ends, and what is added to it.

use std::io;
use std::mem::MaybeUninit;

use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use httparse::{Header, Status};

use crate::{Client, unexpected};

/// How many fields a section may have.
const MOST_FIELDS: usize = 128;

/// What is known about a request of HTTP/1.1.
pub(crate) struct Request {
    /// Bytes of its header section.
    pub(crate) section: usize,
    /// Bytes of its body.
    pub(crate) body: u64,
    /// Another one may follow.
    pub(crate) keep: bool,
    /// There will be no body in the answer.
    pub(crate) bodyless: bool,
}

/// What is known about a response of HTTP/1.1.
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Bytes of its header section.
    pub(crate) section: usize,
    /// Bytes of its body.
    pub(crate) body: u64,
    /// The connection can be used on.
    pub(crate) keep: bool,
}

/// The fields that matter.
#[derive(Default)]
struct Framing<'b> {
    length: u64,
    has_length: bool,
    connection: Option<&'b [u8]>,
    host: &'b [u8],
}

impl<'b> Framing<'b> {
    fn of(fields: &[Header<'b>]) -> io::Result<Self> {
        let mut framing = Self::default();
        for field in fields {
            let is = |name: HeaderName| field.name.eq_ignore_ascii_case(name.as_str());
            // Most fields are told from those that matter by how long their names are.
            match field.name.len() {
                4 if is(HOST) => framing.host = field.value,
                10 if is(CONNECTION) => framing.connection = Some(field.value),
                14 if is(CONTENT_LENGTH) => {
                    let length = std::str::from_utf8(field.value).map_err(unexpected)?;
                    framing.length = length.parse().map_err(unexpected)?;
                    framing.has_length = true;
                }
                17 if is(TRANSFER_ENCODING) => return Err(unexpected("a body without a length")),
                _ => {}
            }
        }
        Ok(framing)
    }

    fn closes(&self) -> bool {
        self.connection
            .is_some_and(|value| value.eq_ignore_ascii_case(b"close"))
    }
}

/// Reads a request's section and writes the one for the backend; nothing if it has not come as a whole.
pub(crate) fn request(
    bytes: &[u8],
    client: &Client,
    out: &mut Vec<u8>,
) -> io::Result<Option<Request>> {
    let mut fields = [const { MaybeUninit::uninit() }; MOST_FIELDS];
    let mut parsed = httparse::Request::new(&mut []);
    let status = parsed.parse_with_uninit_headers(bytes, &mut fields);
    let Status::Complete(section) = status.map_err(unexpected)? else {
        return Ok(None);
    };
    let framing = Framing::of(parsed.headers)?;
    let (Some(method), Some(path)) = (parsed.method, parsed.path) else {
        return Err(unexpected("no request"));
    };
    let whole = bytes.get(..section).unwrap_or_default();
    if let (None, Some(1), Some(lines)) = (
        framing.connection,
        parsed.version,
        whole
            .strip_suffix(b"\r\n")
            .filter(|lines| lines.ends_with(b"\r\n")),
    ) {
        out.extend_from_slice(lines);
    } else {
        // What is said about the connection to the client is not for the backend.
        begin(out, method, path);
        for field in parsed.headers.iter() {
            if !field.name.eq_ignore_ascii_case("connection") {
                write(out, field.name, field.value);
            }
        }
    }
    end(out, client, framing.host);
    Ok(Some(Request {
        section,
        body: framing.length,
        keep: parsed.version == Some(1) && !framing.closes(),
        bodyless: method == "HEAD",
    }))
}

/// Writes the section for the backend of a request that came by HTTP/2.
pub(crate) fn write_request(parts: &Parts, client: &Client, out: &mut Vec<u8>) {
    let path = parts.uri.path_and_query();
    begin(
        out,
        parts.method.as_str(),
        path.map_or("/", |path| path.as_str()),
    );
    let authority = parts.uri.authority();
    let host = authority.map(|authority| authority.as_str().as_bytes());
    let host = host.or_else(|| Some(parts.headers.get(HOST)?.as_bytes()));
    let host = host.unwrap_or_default();
    write(out, "Host", host);
    for (name, value) in &parts.headers {
        if name != HOST {
            write(out, name.as_str(), value.as_bytes());
        }
    }
    end(out, client, host);
}

fn begin(out: &mut Vec<u8>, method: &str, path: &str) {
    for part in [method, " ", path, " HTTP/1.1\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
}

fn write(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    for part in [name.as_bytes(), b": ", value, b"\r\n"] {
        out.extend_from_slice(part);
    }
}

fn end(out: &mut Vec<u8>, client: &Client, host: &[u8]) {
    for part in [client.fields.as_bytes(), host, b"\r\n\r\n"] {
        out.extend_from_slice(part);
    }
}

/// Reads a response's section, and lets its fields be used; nothing if it has not come as a whole. `head`: the request
/// was one that is answered without a body.
pub(crate) fn answer<T>(
    bytes: &[u8],
    head: bool,
    use_fields: impl FnOnce(&Answer, &[Header<'_>]) -> io::Result<T>,
) -> io::Result<Option<(Answer, T)>> {
    let mut fields = [const { MaybeUninit::uninit() }; MOST_FIELDS];
    let mut parsed = httparse::Response::new(&mut []);
    let status = httparse::ParserConfig::default().parse_response_with_uninit_headers(
        &mut parsed,
        bytes,
        &mut fields,
    );
    let Status::Complete(section) = status.map_err(unexpected)? else {
        return Ok(None);
    };
    let framing = Framing::of(parsed.headers)?;
    let status = parsed.code.unwrap_or_default();
    let bodyless = head || [204, 304].contains(&status);
    if status < 200 || !bodyless && !framing.has_length {
        return Err(unexpected("a response whose end is not known"));
    }
    let answer = Answer {
        status,
        section,
        body: if bodyless { 0 } else { framing.length },
        keep: parsed.version == Some(1) && !framing.closes(),
    };
    let used = use_fields(&answer, parsed.headers)?;
    Ok(Some((answer, used)))
}

/// The same as a response of HTTP/2, whose values stay where they are.
pub(crate) fn answer_map(
    bytes: &bytes::Bytes,
    head: bool,
) -> io::Result<Option<(Answer, Response<()>)>> {
    answer(bytes, head, |answer, fields| {
        let mut map = HeaderMap::with_capacity(fields.len());
        for field in fields {
            if field.name.eq_ignore_ascii_case("connection") {
                continue;
            }
            let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(unexpected)?;
            let value = HeaderValue::from_maybe_shared(bytes.slice_ref(field.value));
            map.append(name, value.map_err(unexpected)?);
        }
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::from_u16(answer.status).map_err(unexpected)?;
        *response.headers_mut() = map;
        Ok(response)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client() -> Client {
        Client::new(([192, 0, 2, 1], 5).into(), "http")
    }

    #[test]
    fn a_request_is_passed_on_with_three_more_fields() {
        let added =
            "X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: a\r\n\r\n";
        for (came, left, body, keep, why) in [
            (
                "GET /x HTTP/1.1\r\nHost: a\r\n",
                "GET /x HTTP/1.1\r\nHost: a\r\n",
                0,
                true,
                "as it came",
            ),
            (
                "POST / HTTP/1.1\r\nhost: a\r\nContent-Length: 7\r\n",
                "POST / HTTP/1.1\r\nhost: a\r\nContent-Length: 7\r\n",
                7,
                true,
                "with a body",
            ),
            (
                "GET / HTTP/1.1\r\nHost: a\r\nConnection: Close\r\nA: b\r\n",
                "GET / HTTP/1.1\r\nHost: a\r\nA: b\r\n",
                0,
                false,
                "the connection to the backend is kept",
            ),
            (
                "GET / HTTP/1.0\r\nHost: a\r\n",
                "GET / HTTP/1.1\r\nHost: a\r\n",
                0,
                false,
                "an old client",
            ),
            (
                "GET / HTTP/1.1\nHost: a\r\nA: b\n",
                "GET / HTTP/1.1\r\nHost: a\r\nA: b\r\n",
                0,
                true,
                "bare line ends",
            ),
        ] {
            // The last line's end is of the same kind as the line before it.
            let end = if came.ends_with("\r\n") { "\r\n" } else { "\n" };
            let mut out = Vec::new();
            let bytes = format!("{came}{end}next");
            let request = request(bytes.as_bytes(), &client(), &mut out);
            let request = request.unwrap().expect(why);
            assert_eq!(
                String::from_utf8(out).unwrap(),
                format!("{left}{added}"),
                "{why}"
            );
            assert_eq!(request.section, came.len() + end.len(), "{why}");
            assert_eq!((request.body, request.keep), (body, keep), "{why}");
        }
    }

    #[test]
    fn what_is_not_whole_is_waited_for_and_what_has_no_length_is_refused() {
        let read = |text: &str| request(text.as_bytes(), &client(), &mut Vec::new());
        assert!(read("GET / HTTP/1.1\r\nHost: a\r\n").unwrap().is_none());
        assert!(read("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n").is_err());
        assert!(read("POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n").is_err());
        let read = |text: &str, head| answer(text.as_bytes(), head, |_, _| Ok(()));
        assert!(read("HTTP/1.1 200 OK\r\n", false).unwrap().is_none());
        assert!(read("HTTP/1.1 200 OK\r\n\r\n", false).is_err());
        assert!(read("HTTP/1.1 100 Continue\r\n\r\n", false).is_err());
        assert!(
            read(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
                false
            )
            .is_err()
        );
    }

    #[test]
    fn an_answer_says_where_it_ends() {
        for (text, head, body, keep) in [
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n",
                false,
                12,
                true,
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n",
                true,
                0,
                true,
            ),
            (
                "HTTP/1.1 304 Not Modified\r\nContent-Length: 12\r\n\r\n",
                false,
                0,
                true,
            ),
            (
                "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\n",
                false,
                1,
                false,
            ),
        ] {
            let (answer, ()) = answer(text.as_bytes(), head, |_, _| Ok(()))
                .unwrap()
                .unwrap();
            assert_eq!((answer.body, answer.keep), (body, keep), "{text}");
            assert_eq!(answer.section, text.len());
        }
    }

    #[test]
    fn fields_of_an_answer_become_a_map() {
        let text = "HTTP/1.1 404 Not Found\r\nX-A: 1\r\nx-a: 2\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
        let (_, response) = answer_map(&text.into(), false).unwrap().unwrap();
        assert_eq!(response.status(), 404);
        let values: Vec<_> = response.headers().get_all("x-a").iter().collect();
        assert_eq!(values, ["1", "2"]);
        assert!(!response.headers().contains_key("connection"));
    }
}
