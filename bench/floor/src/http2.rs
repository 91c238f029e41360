//! HTTP/2 from the client, and HTTP/1.1 to the backend.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};

use ::http2::{Code, Connection, Ended, Head, Settings, Stream};
use futures::StreamExt as _;
use futures::future::Either;
use futures::stream::FuturesUnordered;
use httparse::Header;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};

use crate::section::{self, Answer, Outline};
use crate::socket::Io;
use crate::{Backend, Client, buffers, grpc, unexpected};

/// The same as Lockgate's.
const SETTINGS: Settings = Settings {
    max_streams: 128,
    stream_window: 256 * 1024,
    connection_window: 1024 * 1024,
    max_header_list: 64 * 1024,
};

/// Serves a connection until it ends. It is one task, and so are all its streams.
pub(crate) async fn serve<S>(socket: S, client: &Client, backend: &Backend) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let http2 = Connection::server(&SETTINGS);
    let mut io = Io::new(socket);
    let mut streams = FuturesUnordered::new();
    poll_fn(|cx| {
        loop {
            while let Poll::Ready(Some(())) = streams.poll_next_unpin(cx) {}
            let blocked = !http2.wants_input();
            match io.poll_in(cx, &http2) {
                Poll::Ready(Ok(())) => {
                    while let Some((head, mut stream)) = http2.accept() {
                        let outline = Outline::of(&head);
                        if !outline.is_expected(&head, &stream) {
                            stream.reset(Code::INTERNAL_ERROR);
                            continue;
                        }
                        // In a box, because its waker, which a connection to the backend may keep, keeps the room for it.
                        streams.push(Box::pin(if outline.is_grpc {
                            Either::Left(grpc::call(head, stream, client, backend))
                        } else {
                            Either::Right(forward(head, &outline, stream, client, backend))
                        }));
                    }
                }
                // A farewell, as far as the socket takes it.
                Poll::Ready(Err(error)) => return io.poll_out(cx, &http2).map(|_| Err(error)),
                // What all streams have ready leaves together.
                Poll::Pending => match io.poll_out(cx, &http2) {
                    // The peer has been told why.
                    Poll::Ready(Ok(())) if http2.over().is_some() => return Poll::Ready(Ok(())),
                    // It has taken what it had left lying.
                    Poll::Ready(Ok(())) if blocked => {}
                    Poll::Ready(Ok(())) | Poll::Pending => return Poll::Pending,
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                },
            }
        }
    })
    .await
}

/// Answers one request. What the future holds is copied to where it stays: it is not to be more than is needed.
fn forward<'a>(
    head: Head,
    outline: &Outline,
    mut stream: Stream,
    client: &Client,
    backend: &'a Backend,
) -> impl Future<Output = ()> + use<'a> {
    let bodyless = head.method() == b"HEAD";
    let has_body = outline.has_length;
    let mut out = buffers::take();
    section::write_request(head, outline, client, &mut out);
    async move {
        let done = exchange(out, has_body, bodyless, &mut stream, backend).await;
        if done.is_err() {
            stream.reset(Code::INTERNAL_ERROR);
        }
    }
}

async fn exchange(
    out: Vec<u8>,
    has_body: bool,
    bodyless: bool,
    stream: &mut Stream,
    backend: &Backend,
) -> io::Result<()> {
    let mut to = backend.pool.take().await?;
    to.write_all(&out).await?;
    buffers::put(out);
    while has_body && let Some(content) = poll_fn(|cx| stream.poll_content(cx)).await {
        to.write_all(&content.map_err(over)?).await?;
    }
    if pass_answer(&mut to, stream, bodyless).await? {
        backend.pool.put(to);
    }
    Ok(())
}

/// Passes on a response. Says whether its connection can be used on. `bodyless`: the request was one that is answered
/// without a body.
async fn pass_answer<R>(from: &mut R, stream: &mut Stream, bodyless: bool) -> io::Result<bool>
where
    R: AsyncRead + Unpin,
{
    // A section that comes in parts.
    let mut held = Vec::new();
    // What the windows had no room for.
    let mut left = Vec::new();
    let (keep, mut missing) = loop {
        let read = |cx: &mut Context<'_>| {
            buffers::poll_read(from, cx, |cx, bytes| {
                let bytes = if held.is_empty() {
                    bytes
                } else {
                    held.extend_from_slice(bytes);
                    &held
                };
                let found = section::answer(bytes, bodyless, |answer, fields| {
                    if answer.status == 101 {
                        return Err(unexpected("another protocol"));
                    }
                    respond(stream, answer, fields)
                })?;
                let Some(answer) = found else {
                    if held.is_empty() {
                        held = bytes.to_vec();
                    }
                    return Ok(None);
                };
                let content = bytes.get(answer.section..).unwrap_or_default();
                let missing = send_now(stream, cx, content, answer.body, &mut left)?;
                Ok(Some((answer.keep, missing)))
            })
        };
        let passed: io::Result<_> = poll_fn(read).await?;
        if let Some(passed) = passed? {
            break passed;
        }
    };
    send_left(stream, &mut left, missing).await?;
    while missing > 0 {
        let read = |cx: &mut Context<'_>| {
            buffers::poll_read(from, cx, |cx, content| {
                send_now(stream, cx, content, missing, &mut left)
            })
        };
        missing = poll_fn(read).await??;
        send_left(stream, &mut left, missing).await?;
    }
    Ok(keep)
}

/// Sends the header section of a response.
fn respond(stream: &mut Stream, answer: &Answer, fields: &[Header<'_>]) -> io::Result<()> {
    let sent = stream.respond(answer.status, answer.body == 0, |out| {
        for field in fields {
            if !field.name.eq_ignore_ascii_case("connection") {
                out.add(field.name.as_bytes(), field.value, false);
            }
        }
    });
    sent.map_err(over)
}

/// Sends what the windows have room for, and leaves the rest in `left`. Says what is missing of the body after that.
fn send_now(
    stream: &mut Stream,
    cx: &mut Context<'_>,
    content: &[u8],
    missing: u64,
    left: &mut Vec<u8>,
) -> io::Result<u64> {
    let missing = missing.checked_sub(content.len() as u64);
    let missing = missing.ok_or_else(|| unexpected("more than the response"))?;
    if !content.is_empty() {
        let sent = match stream.poll_send(cx, content, missing == 0) {
            Poll::Ready(sent) => sent.map_err(over)?,
            Poll::Pending => 0,
        };
        left.extend_from_slice(content.get(sent..).unwrap_or_default());
    }
    Ok(missing)
}

/// Sends that rest.
async fn send_left(stream: &mut Stream, left: &mut Vec<u8>, missing: u64) -> io::Result<()> {
    if !left.is_empty() {
        send(stream, left, missing == 0).await.map_err(over)?;
        left.clear();
    }
    Ok(())
}

/// Sends content as the windows allow.
pub(crate) async fn send(stream: &mut Stream, mut content: &[u8], last: bool) -> Result<(), Ended> {
    loop {
        let sent = poll_fn(|cx| stream.poll_send(cx, content, last)).await?;
        content = content.get(sent..).unwrap_or_default();
        if content.is_empty() {
            return Ok(());
        }
    }
}

/// A stream has come to its end too early.
pub(crate) fn over(why: Ended) -> io::Error {
    unexpected(format!("{why:?}"))
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    /// Hands over what each has for the other one. Says whether that was anything.
    fn pump(client: &Connection, server: &Connection) -> bool {
        let mut moved = false;
        for (from, to) in [(client, server), (server, client)] {
            let mut octets = Vec::new();
            moved |= from.take_output(&mut octets);
            to.receive(&octets);
        }
        moved
    }

    /// A request, as the client and as the server has it.
    fn request(window: u32) -> (Connection, Connection, Stream, Stream) {
        let settings = Settings {
            stream_window: window,
            ..Settings::default()
        };
        let (client, server) = (Connection::client(&settings), Connection::server(&SETTINGS));
        let asked = client.open(true, |fields| {
            fields.add(b":method", b"GET", false);
            fields.add(b":scheme", b"https", false);
            fields.add(b":path", b"/", false);
        });
        while pump(&client, &server) {}
        let (_, stream) = server.accept().unwrap();
        (client, server, asked.unwrap(), stream)
    }

    #[tokio::test]
    async fn responses_come_and_leave_in_pieces() {
        let content = "hello".repeat(100);
        let length = content.len();
        let text = format!(
            "HTTP/1.1 404 Not Found\r\nX-A: 1\r\nx-a: 2\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{content}"
        );
        for (size, window) in [(1, 1), (7, 64), (64, 7), (1024, 1), (1024, 1024)] {
            let (client, server, mut asked, mut stream) = request(window);
            let (mut backend, mut from) = duplex(size);
            let pass = async {
                let keep = pass_answer(&mut from, &mut stream, false).await.unwrap();
                assert!(!keep);
            };
            let look = async {
                let mut came = Vec::new();
                let head = poll_fn(|cx| {
                    pump(&client, &server);
                    cx.waker().wake_by_ref();
                    asked.poll_head(cx)
                });
                let head = head.await.unwrap();
                loop {
                    let part = poll_fn(|cx| {
                        pump(&client, &server);
                        cx.waker().wake_by_ref();
                        asked.poll_content(cx)
                    });
                    match part.await {
                        Some(part) => came.extend_from_slice(&part.unwrap()),
                        None => return (head, came),
                    }
                }
            };
            let (sent, (), (head, came)) =
                tokio::join!(backend.write_all(text.as_bytes()), pass, look);
            sent.unwrap();
            assert_eq!(head.status(), 404);
            let fields: Vec<_> = head
                .fields()
                .iter()
                .map(|(name, value, _)| (name, value))
                .collect();
            let digits = length.to_string();
            let expected: [(&[u8], &[u8]); 3] = [
                (b"x-a", b"1"),
                (b"x-a", b"2"),
                (b"content-length", digits.as_bytes()),
            ];
            assert_eq!(fields, expected, "{size}, {window}");
            assert_eq!(came, content.as_bytes(), "{size}, {window}");
        }
    }

    #[tokio::test]
    async fn more_than_a_response_is_no_response() {
        let (_, _, _, mut stream) = request(1024);
        let text = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nhello";
        assert!(
            pass_answer(&mut text.as_bytes(), &mut stream, false)
                .await
                .is_err()
        );
    }
}
