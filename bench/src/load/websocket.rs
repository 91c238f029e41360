//! A client of the WebSocket protocol (RFC 6455) that exchanges messages one by one.

use std::fmt;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt as _;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::client::Body;
use super::{Answer, Failure, FailureKind};

const MAX_HEAD: usize = 16 << 10;
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
const FINAL: u8 = 0x80;
const OPCODE: u8 = 0x0f;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<Io: AsyncRead + AsyncWrite + Send + Unpin> Stream for Io {}

/// One connection; upgraded by the first message.
pub(super) struct WebSocket {
    stream: Box<dyn Stream>,
    buffer: BytesMut,
    open: bool,
}

impl fmt::Debug for WebSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebSocket").finish_non_exhaustive()
    }
}

impl WebSocket {
    pub(super) fn new(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Self {
        Self {
            stream: Box::new(stream),
            buffer: BytesMut::with_capacity(4 << 10),
            open: false,
        }
    }

    /// Sends the body as one message and waits for the next one.
    pub(super) async fn send(&mut self, request: Request<Body>) -> Result<Answer, Failure> {
        if !self.open {
            self.upgrade(&request).await?;
            self.open = true;
        }
        let Ok(body) = request.into_body().collect().await;
        self.write(&frame(&body.to_bytes())).await?;
        let message = self.message().await?;
        Ok(Answer {
            status: StatusCode::SWITCHING_PROTOCOLS,
            headers: HeaderMap::new(),
            length: message.len() as u64,
            start: message.slice(..message.len().min(Answer::KEPT)),
            trailers: HeaderMap::new(),
        })
    }

    async fn upgrade(&mut self, request: &Request<Body>) -> Result<(), Failure> {
        let uri = request.uri();
        let path = uri
            .path_and_query()
            .map_or("/", http::uri::PathAndQuery::as_str);
        let host = uri.authority().map_or("", http::uri::Authority::as_str);
        let head = format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        self.write(head.as_bytes()).await?;
        loop {
            if let Some(end) = self.buffer.windows(4).position(|part| part == b"\r\n\r\n") {
                let head = self.buffer.split_to(end + 4);
                if head.starts_with(b"HTTP/1.1 101 ") {
                    return Ok(());
                }
                let line = String::from_utf8_lossy(&head);
                let line = line.lines().next().unwrap_or_default();
                let text = format!("not upgraded: {line}");
                return Err(Failure::new(FailureKind::Protocol, text));
            }
            if self.buffer.len() > MAX_HEAD {
                let text = "the answer to the upgrade is too large";
                return Err(Failure::new(FailureKind::Protocol, text));
            }
            self.fill().await?;
        }
    }

    async fn message(&mut self) -> Result<Bytes, Failure> {
        let mut message = BytesMut::new();
        loop {
            let (first, length) = loop {
                match header(&self.buffer) {
                    Some((first, header, length)) if self.buffer.len() >= header + length => {
                        self.buffer.advance(header);
                        break (first, length);
                    }
                    _ => self.fill().await?,
                }
            };
            let payload = self.buffer.split_to(length);
            match first & OPCODE {
                CLOSE => {
                    let text = "the server has closed the socket";
                    return Err(Failure::new(FailureKind::Protocol, text));
                }
                // Pings and pongs carry nothing of the message.
                9..=15 => continue,
                _ => message.extend_from_slice(&payload),
            }
            if first & FINAL != 0 {
                return Ok(message.freeze());
            }
        }
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let failed = |error| Failure::new(FailureKind::Protocol, error);
        self.stream.write_all(bytes).await.map_err(failed)?;
        self.stream.flush().await.map_err(failed)
    }

    async fn fill(&mut self) -> Result<(), Failure> {
        self.buffer.reserve(4 << 10);
        match self.stream.read_buf(&mut self.buffer).await {
            Ok(0) => Err(Failure::new(FailureKind::Protocol, "closed by the server")),
            Ok(_) => Ok(()),
            Err(error) => Err(Failure::new(FailureKind::Protocol, error)),
        }
    }
}

/// A message in one frame, masked as clients have to.
fn frame(payload: &[u8]) -> BytesMut {
    let mut frame = BytesMut::with_capacity(payload.len() + 14);
    frame.put_u8(FINAL | BINARY);
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(length @ ..126), _) => frame.put_u8(0x80 | length),
        (_, Ok(length)) => {
            frame.put_u8(0x80 + 126);
            frame.put_u16(length);
        }
        _ => {
            frame.put_u8(0x80 + 127);
            frame.put_u64(payload.len() as u64);
        }
    }
    frame.put_slice(&MASK);
    frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(a, b)| a ^ b));
    frame
}

/// First byte, length of the header and of the payload of the next frame, once they are known.
fn header(mut bytes: &[u8]) -> Option<(u8, usize, usize)> {
    let first = bytes.try_get_u8().ok()?;
    // Servers do not mask.
    let (header, length) = match bytes.try_get_u8().ok()? & 0x7f {
        126 => (4, u64::from(bytes.try_get_u16().ok()?)),
        127 => (10, bytes.try_get_u64().ok()?),
        length => (2, u64::from(length)),
    };
    Some((first, header, usize::try_from(length).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers the upgrade, then repeats what came, each message in two frames with a ping between them.
    async fn echo(mut stream: tokio::io::DuplexStream, lengths: &[usize]) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        assert!(head.starts_with(b"GET /ws HTTP/1.1\r\nHost: a.test\r\n"));
        let upgraded = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n";
        stream.write_all(upgraded).await.unwrap();
        for &length in lengths {
            let mut sent = frame(&vec![7; length]).to_vec();
            sent.fill(0);
            stream.read_exact(&mut sent).await.unwrap();
            let start = sent.len() - length;
            let payload: Vec<u8> = sent[start..]
                .iter()
                .zip(sent[start - 4..start].iter().cycle())
                .map(|(a, b)| a ^ b)
                .collect();
            assert_eq!(payload, vec![7; length]);
            stream.write_all(&[BINARY, 1, 7]).await.unwrap();
            stream.write_all(&[FINAL | 9, 2, 0, 0]).await.unwrap();
            let mut rest = BytesMut::new();
            rest.put_slice(&[FINAL, 127]);
            rest.put_u64(length as u64 - 1);
            rest.put_slice(&payload[1..]);
            stream.write_all(&rest).await.unwrap();
        }
    }

    #[tokio::test]
    async fn messages_of_every_length_come_back() {
        let lengths = [1, 125, 126, 70_000];
        let (ours, theirs) = tokio::io::duplex(1 << 10);
        let mut socket = WebSocket::new(ours);
        let client = async {
            for length in lengths {
                let body = Body::new(Bytes::from(vec![7; length]));
                let request = Request::get("ws://a.test/ws").body(body).unwrap();
                let answer = socket.send(request).await.unwrap();
                assert_eq!(answer.length, length as u64);
                assert!(answer.start.iter().all(|byte| *byte == 7));
            }
        };
        tokio::join!(client, echo(theirs, &lengths));
    }
}
