//! Header sections: where a message ends, and what is added to it.

use std::io;
use std::mem::MaybeUninit;

use ::http2::{Head, Line, Stream};
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
    /// It asks for another protocol.
    pub(crate) upgrades: bool,
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
            let is = |name: &str| field.name.eq_ignore_ascii_case(name);
            // Most fields are told from those that matter by how long their names are.
            match field.name.len() {
                4 if is("host") => framing.host = field.value,
                10 if is("connection") => framing.connection = Some(field.value),
                14 if is("content-length") => {
                    let length = std::str::from_utf8(field.value).map_err(unexpected)?;
                    framing.length = length.parse().map_err(unexpected)?;
                    framing.has_length = true;
                }
                17 if is("transfer-encoding") => return Err(unexpected("a body without a length")),
                _ => {}
            }
        }
        Ok(framing)
    }

    fn closes(&self) -> bool {
        self.says(b"close")
    }

    fn upgrades(&self) -> bool {
        self.says(b"upgrade")
    }

    fn says(&self, option: &[u8]) -> bool {
        self.connection
            .is_some_and(|value| value.eq_ignore_ascii_case(option))
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
    let upgrades = framing.upgrades();
    if let (true, Some(1), Some(lines)) = (
        framing.connection.is_none() || upgrades,
        parsed.version,
        whole
            .strip_suffix(b"\r\n")
            .filter(|lines| lines.ends_with(b"\r\n")),
    ) {
        out.extend_from_slice(lines);
    } else {
        // What is said about the connection to the client is not for the backend.
        begin(out, method.as_bytes(), path.as_bytes());
        for field in parsed.headers.iter() {
            if !field.name.eq_ignore_ascii_case("connection") {
                write(out, field.name.as_bytes(), field.value);
            }
        }
    }
    end(out, client, framing.host);
    Ok(Some(Request {
        section,
        body: framing.length,
        keep: parsed.version == Some(1) && !framing.closes(),
        bodyless: method == "HEAD",
        upgrades,
    }))
}

/// What is known about a request of HTTP/2.
#[derive(Default)]
pub(crate) struct Outline {
    pub(crate) is_grpc: bool,
    /// How long its body is has been said.
    pub(crate) has_length: bool,
    /// There is a field for the host.
    has_host: bool,
}

impl Outline {
    pub(crate) fn of(head: &Head) -> Self {
        let mut outline = Self::default();
        for (name, value, _) in head.fields().iter() {
            match name {
                b"host" => outline.has_host = true,
                b"content-type" => outline.is_grpc = value.starts_with(b"application/grpc"),
                b"content-length" => outline.has_length = true,
                _ => {}
            }
        }
        outline
    }

    /// Is it a request that can be passed on: all of it has come, it has a path, and its end is known?
    pub(crate) fn is_expected(&self, head: &Head, stream: &Stream) -> bool {
        let ends = self.is_grpc || self.has_length || stream.is_finished();
        ends && !head.is_too_large() && !head.path().is_empty()
    }
}

/// Writes the section for the backend of a request that came by HTTP/2.
pub(crate) fn write_request(head: Head, outline: &Outline, client: &Client, out: &mut Vec<u8>) {
    begin(out, head.method(), head.path());
    let authority = head.authority_span();
    let (text, lines) = head.into_fields().into_parts();
    let get = |(start, end)| text.get(start..end).unwrap_or_default();
    let is_host = |line: &&Line| get(line.name) == b"host";
    let host = authority.or_else(|| Some(lines.iter().find(is_host)?.value));
    let host = host.map(get).unwrap_or_default();
    write(out, b"Host", host);
    if outline.has_host {
        for line in lines.iter().filter(|line| !is_host(line)) {
            write(out, get(line.name), get(line.value));
        }
    } else if let Some(first) = lines.first() {
        // From there on it is the text of HTTP/1.1.
        out.extend_from_slice(get((first.name.0, text.len())));
    }
    end(out, client, host);
}

fn begin(out: &mut Vec<u8>, method: &[u8], path: &[u8]) {
    for part in [method, b" ", path, b" HTTP/1.1\r\n"] {
        out.extend_from_slice(part);
    }
}

fn write(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    for part in [name, b": ", value, b"\r\n"] {
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
pub(crate) fn answer(
    bytes: &[u8],
    head: bool,
    use_fields: impl FnOnce(&Answer, &[Header<'_>]) -> io::Result<()>,
) -> io::Result<Option<Answer>> {
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
    let bodyless = head || [101, 204, 304].contains(&status);
    if status < 200 && status != 101 || !bodyless && !framing.has_length {
        return Err(unexpected("a response whose end is not known"));
    }
    let answer = Answer {
        status,
        section,
        body: if bodyless { 0 } else { framing.length },
        keep: parsed.version == Some(1) && !framing.closes() && status != 101,
    };
    use_fields(&answer, parsed.headers)?;
    Ok(Some(answer))
}

#[cfg(test)]
mod tests {
    use ::http2::{Connection, Settings};

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
            let answer = answer(text.as_bytes(), head, |_, _| Ok(()))
                .unwrap()
                .unwrap();
            assert_eq!((answer.body, answer.keep), (body, keep), "{text}");
            assert_eq!(answer.section, text.len());
        }
    }

    /// A request as it arrives.
    fn arrive(ends: bool, fields: &[(&str, &str)]) -> (Head, Stream) {
        let settings = Settings::default();
        let (theirs, ours) = (Connection::client(&settings), Connection::server(&settings));
        let asked = theirs.open(ends, |out| {
            for (name, value) in fields {
                out.add(name.as_bytes(), value.as_bytes(), false);
            }
        });
        let mut octets = Vec::new();
        theirs.take_output(&mut octets);
        ours.receive(&octets);
        drop(asked);
        ours.accept().unwrap()
    }

    #[test]
    fn a_request_of_http2_is_passed_on_with_three_more_fields() {
        let added =
            "X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: a\r\n\r\n";
        let (a, b, length) = (("a", "1"), ("b", "2"), ("content-length", "7"));
        let (authority, host) = ((":authority", "a"), ("host", "a"));
        for (fields, left) in [
            (vec![authority], ""),
            (
                vec![authority, a, length, b],
                "a: 1\r\ncontent-length: 7\r\nb: 2\r\n",
            ),
            (vec![authority, a, ("host", "other"), b], "a: 1\r\nb: 2\r\n"),
            (vec![a, host, b], "a: 1\r\nb: 2\r\n"),
        ] {
            let first = [(":method", "POST"), (":scheme", "https"), (":path", "/x?y")];
            let ends = !fields.contains(&length);
            let (head, stream) = arrive(ends, &[&first, fields.as_slice()].concat());
            let outline = Outline::of(&head);
            assert!(outline.is_expected(&head, &stream), "{fields:?}");
            let mut out = Vec::new();
            write_request(head, &outline, &client(), &mut out);
            assert_eq!(
                String::from_utf8(out).unwrap(),
                format!("POST /x?y HTTP/1.1\r\nHost: a\r\n{left}{added}"),
                "{fields:?}"
            );
        }
    }

    #[test]
    fn requests_of_http2_that_cannot_be_passed_on_are_told_from_others() {
        let usual = [(":method", "POST"), (":scheme", "https"), (":path", "/")];
        let tunnel = [(":method", "CONNECT"), (":authority", "a")];
        let large = "x".repeat(70_000);
        let large = [usual.as_slice(), &[("large", &large)]].concat();
        let call = ("content-type", "application/grpc+proto");
        let call = [usual.as_slice(), &[call]].concat();
        for (ends, fields, is_expected, is_grpc) in [
            (true, usual.as_slice(), true, false),
            (false, &usual, false, false),
            (true, &tunnel, false, false),
            (true, &large, false, false),
            (false, &call, true, true),
        ] {
            let (head, stream) = arrive(ends, fields);
            let outline = Outline::of(&head);
            let found = (outline.is_expected(&head, &stream), outline.is_grpc);
            assert_eq!(found, (is_expected, is_grpc), "{:?}", head.path());
        }
    }
}
