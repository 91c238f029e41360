//! HTTP/1.1, by hand: measurements of a proxy should not measure its backend.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::pin::pin;

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::site::{Asked, Peer};
use super::{Closing, Fault, Order, Site, websocket};

const MAX_HEAD: usize = 64 << 10;
const MAX_FIELDS: usize = 128;
/// What a client with prior knowledge of HTTP/2 begins with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n";

/// How a connection ended.
pub(super) enum End {
    /// It is closed.
    Closed,
    /// It is to be closed without a word.
    Reset,
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
    /// In lower case; only kept where the answer may depend on them.
    headers: BTreeMap<String, Vec<String>>,
}

enum Body {
    Length(u64),
    Chunked,
}

/// What follows an answer.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Next {
    Request,
    Close,
    Reset,
}

/// A header block.
pub(super) fn head(status: u16, name: &str, kind: &str, framing: Framing, keep: bool) -> String {
    let reason = http::StatusCode::from_u16(status)
        .ok()
        .and_then(|status| status.canonical_reason())
        .unwrap_or("Unnamed");
    let mut head =
        format!("HTTP/1.1 {status} {reason}\r\nx-backend: {name}\r\ncontent-type: {kind}\r\n");
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

pub(super) async fn serve<Io>(
    stream: &mut Io,
    site: &Site,
    peer: &Peer,
    closing: Closing,
) -> io::Result<End>
where
    Io: AsyncRead + AsyncWrite + Unpin,
{
    let mut buffer = BytesMut::with_capacity(16 << 10);
    let mut told = closing.clone();
    let mut told = pin!(told.begun());
    loop {
        if buffer.is_empty() {
            tokio::select! {
                biased;
                filled = fill(stream, &mut buffer) => if !filled? {
                    return Ok(End::Closed);
                },
                () = &mut told => return Ok(End::Closed),
            }
        }
        let Parsed::Request(mut request) = read_request(stream, &mut buffer, site).await? else {
            return Ok(End::Http2(buffer));
        };
        let received = read_body(stream, &mut buffer, &request).await?;
        if path(&request.target) == websocket::PATH
            && let Some(answer) = websocket::accept(site.name(), &request.headers)
        {
            websocket::echo(stream, &answer, buffer, closing).await?;
            return Ok(End::Closed);
        }
        request.close |= closing.has_begun();
        match answer(stream, site, peer, request, received).await? {
            Next::Request => {}
            Next::Close => return Ok(End::Closed),
            Next::Reset => return Ok(End::Reset),
        }
    }
}

fn path(target: &str) -> &str {
    target.split_once('?').map_or(target, |(path, _)| path)
}

enum Parsed {
    Request(Request),
    Http2,
}

/// The rest of the request whose beginning has been read.
async fn read_request<Io>(stream: &mut Io, buffer: &mut BytesMut, site: &Site) -> io::Result<Parsed>
where
    Io: AsyncRead + Unpin,
{
    loop {
        if buffer.starts_with(PREFACE) {
            return Ok(Parsed::Http2);
        }
        if !PREFACE.starts_with(buffer)
            && let Some((request, length)) = parse(buffer, site)?
        {
            buffer.advance(length);
            return Ok(Parsed::Request(request));
        }
        if buffer.len() > MAX_HEAD {
            return Err(invalid("the header block is too large"));
        }
        more(stream, buffer).await?;
    }
}

fn parse(buffer: &[u8], site: &Site) -> io::Result<Option<(Request, usize)>> {
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
        headers: BTreeMap::new(),
    };
    let keep = !standing(site, &request);
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
            let values = request.headers.entry(field.name.to_ascii_lowercase());
            values.or_default().push(value.into_owned());
        }
    }
    Ok(Some((request, length)))
}

/// Reads and drops the body; says how long it was.
async fn read_body<Io>(stream: &mut Io, buffer: &mut BytesMut, request: &Request) -> io::Result<u64>
where
    Io: AsyncRead + AsyncWrite + Unpin,
{
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

async fn skip<Io>(stream: &mut Io, buffer: &mut BytesMut, mut length: u64) -> io::Result<()>
where
    Io: AsyncRead + Unpin,
{
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

async fn skip_trailers<Io>(stream: &mut Io, buffer: &mut BytesMut) -> io::Result<()>
where
    Io: AsyncRead + Unpin,
{
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

/// Whether this request gets the answer that was made beforehand.
fn standing(site: &Site, request: &Request) -> bool {
    site.standing.is_some()
        && !request.target.contains('?')
        && !matches!(
            request.target.as_str(),
            "/healthz" | "/readyz" | websocket::PATH
        )
}

async fn answer<Io>(
    stream: &mut Io,
    site: &Site,
    peer: &Peer,
    request: Request,
    received: u64,
) -> io::Result<Next>
where
    Io: AsyncWrite + Unpin,
{
    let keep = !request.close;
    let next = if keep { Next::Request } else { Next::Close };
    if let Some(answer) = &site.standing
        && keep
        && request.method != "HEAD"
        && standing(site, &request)
    {
        stream.write_all(answer).await?;
        stream.flush().await?;
        return Ok(next);
    }
    let mut order = Order::parse(&request.target, site.name());
    if let Some(status) = site.probe(path(&request.target)) {
        order.status = status;
    }
    if !order.delay.is_zero() {
        tokio::time::sleep(order.delay).await;
    }
    match order.fault {
        Some(Fault::Close) => return Ok(Next::Close),
        Some(Fault::Reset) => return Ok(Next::Reset),
        Some(Fault::Garbage) => {
            stream.write_all(b"This is not HTTP.\r\n\r\n").await?;
            stream.flush().await?;
            return Ok(Next::Close);
        }
        Some(Fault::Half) | None => {}
    }
    let asked = Asked {
        method: &request.method,
        target: &request.target,
        host: request
            .headers
            .get("host")
            .and_then(|host| Some(host.first()?.as_str())),
        protocol: "HTTP/1.1",
        received,
        peer,
        headers: request.headers.clone(),
    };
    let super::site::Body { kind, mut data } = asked.body(site, &order);
    let bodiless = order.bodiless(&request.method);
    let length = data.len();
    let framing = match order.parts {
        None => Framing::Length(length),
        Some(_) => Framing::Chunked,
    };
    let half = order.fault == Some(Fault::Half);
    let mut message = head(order.status, site.name(), kind, framing, keep).into_bytes();
    if order.parts.is_none() {
        if !bodiless {
            message.extend_from_slice(&data.split_to(if half { length / 2 } else { length }));
        }
        stream.write_all(&message).await?;
    } else {
        stream.write_all(&message).await?;
        let mut sent = 0;
        for (index, size) in order.parts_of(length).enumerate() {
            if bodiless || (half && sent * 2 >= length) {
                break;
            }
            if index > 0 && !order.every.is_zero() {
                stream.flush().await?;
                tokio::time::sleep(order.every).await;
            }
            let part = data.split_to(size);
            sent += size;
            // A chunk of no bytes would end the body.
            if !part.is_empty() {
                stream.write_all(format!("{size:x}\r\n").as_bytes()).await?;
                stream.write_all(&part).await?;
                stream.write_all(b"\r\n").await?;
            }
        }
        if !bodiless && !half {
            stream.write_all(b"0\r\n\r\n").await?;
        }
    }
    stream.flush().await?;
    Ok(if half { Next::Close } else { next })
}

async fn fill<Io>(stream: &mut Io, buffer: &mut BytesMut) -> io::Result<bool>
where
    Io: AsyncRead + Unpin,
{
    buffer.reserve(4 << 10);
    Ok(stream.read_buf(buffer).await? > 0)
}

async fn more<Io>(stream: &mut Io, buffer: &mut BytesMut) -> io::Result<()>
where
    Io: AsyncRead + Unpin,
{
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
            "GET /a/b?q HTTP/1.1\r\nHost: a.test\r\nX-One: 1\r\nx-one: 2\r\nConnection: close\r\n\r\n",
        )
        .await;
        let (head, json) = text.split_once("\r\n\r\n").unwrap();
        assert!(
            head.starts_with("HTTP/1.1 200 OK\r\nx-backend: blue\r\n"),
            "{head}"
        );
        let told: serde_json::Value = serde_json::from_str(json).unwrap();
        assert_eq!(told["pod"], "blue");
        assert_eq!(told["path"], "/a/b");
        assert_eq!(told["query"], "q");
        assert_eq!(told["host"], "a.test");
        assert_eq!(told["headers"]["x-one"], serde_json::json!(["1", "2"]));
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
        let place = |wanted: &str| {
            text.find(wanted)
                .unwrap_or_else(|| panic!("no {wanted} in {text}"))
        };
        let places = [
            place("\"path\": \"/1\""),
            place("\"received\": 5,"),
            place("\"path\": \"/2\""),
            place("\"received\": 7,"),
            place("chunked\r\n\r\n3\r\nxxx\r\n3\r\nxxx\r\n4\r\nxxxx\r\n0\r\n\r\n"),
            place("\"path\": \"/4\""),
        ];
        assert!(places.is_sorted(), "{text}");
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
