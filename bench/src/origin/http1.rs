//! HTTP/1.1, by hand: measurements of a proxy should not measure its backend.

use std::fmt::Write as _;
use std::io;

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{Asked, Order, Site};

const MAX_HEAD: usize = 64 << 10;
const MAX_FIELDS: usize = 128;
/// What a client with prior knowledge of HTTP/2 begins with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n";

/// How a connection ended.
pub(super) enum End {
    /// It is closed.
    Closed,
    /// It turned out to speak HTTP/2; these bytes have been read.
    Http2(BytesMut),
}

/// How the end of a body is known.
#[derive(Clone, Copy)]
pub(super) enum Framing {
    Length(usize),
    Chunked,
}

struct Request {
    method: String,
    target: String,
    body: Body,
    expects_continue: bool,
    close: bool,
    headers: Vec<(String, String)>,
}

enum Body {
    Length(u64),
    Chunked,
}

/// A header block.
pub(super) fn head(status: u16, name: &str, framing: Framing, keep: bool) -> String {
    let reason = http::StatusCode::from_u16(status)
        .ok()
        .and_then(|status| status.canonical_reason())
        .unwrap_or("Unnamed");
    let mut head =
        format!("HTTP/1.1 {status} {reason}\r\nx-backend: {name}\r\ncontent-type: text/plain\r\n");
    // Writing to a string cannot fail.
    let _ = match framing {
        Framing::Length(length) => write!(head, "content-length: {length}\r\n"),
        Framing::Chunked => write!(head, "transfer-encoding: chunked\r\n"),
    };
    if !keep {
        head.push_str("connection: close\r\n");
    }
    head.push_str("\r\n");
    head
}

pub(super) async fn serve(stream: &mut TcpStream, site: &Site) -> io::Result<End> {
    let mut buffer = BytesMut::with_capacity(16 << 10);
    loop {
        let Some(request) = read_request(stream, &mut buffer).await? else {
            return Ok(End::Closed);
        };
        let Parsed::Request(request) = request else {
            return Ok(End::Http2(buffer));
        };
        let received = read_body(stream, &mut buffer, &request).await?;
        answer(stream, site, &request, received).await?;
        if request.close {
            return Ok(End::Closed);
        }
    }
}

enum Parsed {
    Request(Request),
    Http2,
}

/// The next request; `None` when the client has closed between two of them.
async fn read_request(stream: &mut TcpStream, buffer: &mut BytesMut) -> io::Result<Option<Parsed>> {
    loop {
        if !buffer.is_empty() {
            if buffer.starts_with(PREFACE) {
                return Ok(Some(Parsed::Http2));
            }
            if !PREFACE.starts_with(buffer)
                && let Some((request, length)) = parse(buffer)?
            {
                buffer.advance(length);
                return Ok(Some(Parsed::Request(request)));
            }
            if buffer.len() > MAX_HEAD {
                return Err(invalid("the header block is too large"));
            }
        }
        if !fill(stream, buffer).await? {
            return if buffer.is_empty() {
                Ok(None)
            } else {
                Err(io::ErrorKind::UnexpectedEof.into())
            };
        }
    }
}

fn parse(buffer: &[u8]) -> io::Result<Option<(Request, usize)>> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut parsed = httparse::Request::new(&mut fields);
    let httparse::Status::Complete(length) = parsed.parse(buffer).map_err(invalid)? else {
        return Ok(None);
    };
    let mut request = Request {
        method: parsed.method.unwrap_or_default().to_owned(),
        target: parsed.path.unwrap_or_default().to_owned(),
        body: Body::Length(0),
        expects_continue: false,
        close: parsed.version == Some(0),
        headers: Vec::new(),
    };
    // Copying the fields is only worth it when somebody asked to see them.
    let keep = Order::parse(&request.target).headers;
    for field in parsed.headers.iter() {
        let is = |name: &str| field.name.eq_ignore_ascii_case(name);
        let value = String::from_utf8_lossy(field.value);
        if is("content-length") {
            request.body = Body::Length(value.trim().parse().map_err(invalid)?);
        } else if is("transfer-encoding") {
            request.body = Body::Chunked;
        } else if is("expect") {
            request.expects_continue = value.eq_ignore_ascii_case("100-continue");
        } else if is("connection") {
            request.close |= value.eq_ignore_ascii_case("close");
        }
        if keep {
            request
                .headers
                .push((field.name.to_owned(), value.into_owned()));
        }
    }
    Ok(Some((request, length)))
}

/// Reads and drops the body; says how long it was.
async fn read_body(
    stream: &mut TcpStream,
    buffer: &mut BytesMut,
    request: &Request,
) -> io::Result<u64> {
    if request.expects_continue && buffer.is_empty() {
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
    }
    match request.body {
        Body::Length(length) => {
            skip(stream, buffer, length).await?;
            Ok(length)
        }
        Body::Chunked => {
            let mut received = 0;
            loop {
                let size = loop {
                    match httparse::parse_chunk_size(buffer) {
                        Ok(httparse::Status::Complete((line, size))) => {
                            buffer.advance(line);
                            break size;
                        }
                        Ok(httparse::Status::Partial) => more(stream, buffer).await?,
                        Err(_) => return Err(invalid("not a chunk size")),
                    }
                };
                if size == 0 {
                    skip_trailers(stream, buffer).await?;
                    return Ok(received);
                }
                received += size;
                skip(stream, buffer, size.saturating_add(2)).await?; // with the line's end
            }
        }
    }
}

async fn skip(stream: &mut TcpStream, buffer: &mut BytesMut, mut length: u64) -> io::Result<()> {
    loop {
        let here = buffer
            .len()
            .min(usize::try_from(length).unwrap_or(usize::MAX));
        buffer.advance(here);
        length -= here as u64;
        if length == 0 {
            return Ok(());
        }
        more(stream, buffer).await?;
    }
}

async fn skip_trailers(stream: &mut TcpStream, buffer: &mut BytesMut) -> io::Result<()> {
    loop {
        let line = loop {
            if let Some(end) = buffer.iter().position(|&byte| byte == b'\n') {
                break buffer.split_to(end + 1);
            }
            if buffer.len() > MAX_HEAD {
                return Err(invalid("the trailers are too large"));
            }
            more(stream, buffer).await?;
        };
        if matches!(&line[..], b"\r\n" | b"\n") {
            return Ok(());
        }
    }
}

async fn answer(
    stream: &mut TcpStream,
    site: &Site,
    request: &Request,
    received: u64,
) -> io::Result<()> {
    let bodiless = request.method == "HEAD";
    if let Some(standing) = &site.standing
        && !request.close
        && !bodiless
        && !request.target.contains('?')
    {
        return stream.write_all(standing).await;
    }
    let order = Order::parse(&request.target);
    if !order.delay.is_zero() {
        tokio::time::sleep(order.delay).await;
    }
    let asked = Asked {
        method: &request.method,
        target: &request.target,
        version: "HTTP/1.1",
        received,
        headers: request.headers.clone(),
    };
    let mut body = asked.body(site, &order);
    let bodiless = bodiless || matches!(order.status, 204 | 304);
    if order.parts.is_none() {
        let framing = Framing::Length(body.len());
        let head = head(order.status, site.name(), framing, !request.close);
        let mut message = head.into_bytes();
        if !bodiless {
            message.extend_from_slice(&body);
        }
        return stream.write_all(&message).await;
    }
    let head = head(order.status, site.name(), Framing::Chunked, !request.close);
    stream.write_all(head.as_bytes()).await?;
    if bodiless {
        return Ok(());
    }
    for (index, size) in order.parts_of(body.len()).enumerate() {
        if index > 0 && !order.every.is_zero() {
            tokio::time::sleep(order.every).await;
        }
        let part = body.split_to(size);
        // A chunk of no bytes would end the body.
        if !part.is_empty() {
            stream.write_all(format!("{size:x}\r\n").as_bytes()).await?;
            stream.write_all(&part).await?;
            stream.write_all(b"\r\n").await?;
        }
    }
    stream.write_all(b"0\r\n\r\n").await
}

async fn fill(stream: &mut TcpStream, buffer: &mut BytesMut) -> io::Result<bool> {
    buffer.reserve(4 << 10);
    Ok(stream.read_buf(buffer).await? > 0)
}

async fn more(stream: &mut TcpStream, buffer: &mut BytesMut) -> io::Result<()> {
    if fill(stream, buffer).await? {
        Ok(())
    } else {
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpStream;

    use super::*;
    use crate::origin::start;

    async fn talk(site: Site, request: &str) -> String {
        let address = start(site).await.unwrap();
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        let limit = std::time::Duration::from_secs(10);
        tokio::time::timeout(limit, stream.read_to_string(&mut text))
            .await
            .expect("the server closes the connection")
            .unwrap();
        text
    }

    #[tokio::test]
    async fn it_says_who_it_is_and_what_it_was_asked() {
        let text = talk(
            Site::new("blue", None),
            "GET /a/b?headers HTTP/1.1\r\nHost: a.test\r\nX-One: 1\r\nConnection: close\r\n\r\n",
        )
        .await;
        assert!(
            text.starts_with("HTTP/1.1 200 OK\r\nx-backend: blue\r\n"),
            "{text}"
        );
        assert!(text.contains("target: /a/b?headers\n"), "{text}");
        assert!(text.contains("> X-One: 1\n"), "{text}");
    }

    #[tokio::test]
    async fn requests_follow_each_other_whatever_their_bodies_look_like() {
        let text = talk(
            Site::new("blue", None),
            "POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello\
             POST /2 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n4\r\ndefg\r\n0\r\nx: y\r\n\r\n\
             GET /3?parts=3&size=10 HTTP/1.1\r\nHost: a\r\n\r\n\
             GET /4 HTTP/1.0\r\n\r\n",
        )
        .await;
        assert!(
            text.contains("target: /1\nversion: HTTP/1.1\nreceived: 5 bytes"),
            "{text}"
        );
        assert!(
            text.contains("target: /2\nversion: HTTP/1.1\nreceived: 7 bytes"),
            "{text}"
        );
        assert!(
            text.contains("chunked\r\n\r\n3\r\nxxx\r\n3\r\nxxx\r\n4\r\nxxxx\r\n0\r\n\r\n"),
            "{text}"
        );
        assert!(text.contains("target: /4\n"), "{text}");
    }

    #[tokio::test]
    async fn a_standing_answer_has_the_size_that_was_set() {
        let text = talk(
            Site::new("blue", Some(1024)),
            "GET / HTTP/1.1\r\nHost: a\r\n\r\nHEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        )
        .await;
        assert_eq!(
            text.matches("content-length: 1024\r\n").count(),
            2,
            "{text}"
        );
        let bodies = text.matches(&"x".repeat(1024)).count();
        assert_eq!(bodies, 1, "a body for GET and none for HEAD");
    }
}
