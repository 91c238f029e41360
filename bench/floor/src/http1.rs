//! HTTP/1.1 from the client, and to the backend.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::section::{self, Answer};
use crate::{Backend, Client, buffers, unexpected};

/// A request that has come, as far as it has.
struct Request {
    /// For the backend: the header section, and the beginning of the body.
    out: Vec<u8>,
    /// How much of the body is missing.
    missing: u64,
    keep: bool,
    bodyless: bool,
    upgrades: bool,
}

/// Serves a connection until it ends: one request after the other, of each first the request and then the response.
pub(crate) async fn serve<S>(mut stream: S, client: &Client, backend: &Backend) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    // What has come of the next request.
    let mut held = Vec::new();
    loop {
        let request = next_request(&mut stream, &mut held, client).await?;
        let mut to = backend.pool.take().await?;
        to.write_all(&request.out).await?;
        buffers::put(request.out);
        relay(&mut stream, &mut to, request.missing, &mut held).await?;

        let mut surplus = Vec::new();
        let (answer, missing) = pass_answer(&mut to, &mut stream, request.bodyless).await?;
        relay(&mut to, &mut stream, missing, &mut surplus).await?;
        // TLS may have records for which the socket had no room.
        stream.flush().await?;
        if answer.status == 101 {
            if !request.upgrades || !held.is_empty() {
                return Err(unexpected("another protocol"));
            }
            return tunnel(&mut stream, &mut to).await;
        }
        if !surplus.is_empty() {
            return Err(unexpected("more than the response"));
        }
        if answer.keep {
            backend.pool.put(to);
        }
        if !request.keep || !answer.keep {
            return stream.shutdown().await;
        }
    }
}

/// Waits for a request. What comes behind it is held.
async fn next_request<S>(stream: &mut S, held: &mut Vec<u8>, client: &Client) -> io::Result<Request>
where
    S: AsyncRead + Unpin,
{
    let mut found = find(held, client)?;
    while found.is_none() {
        let read = |cx: &mut Context<'_>| {
            buffers::poll_read(stream, cx, |_, bytes| {
                if held.is_empty() {
                    // Nearly always it has come as a whole.
                    let found = find(bytes, client)?;
                    let taken = found.as_ref().map_or(0, |(_, taken)| *taken);
                    held.extend_from_slice(bytes.get(taken..).unwrap_or_default());
                    return Ok(found.map(|(request, _)| (request, 0)));
                }
                held.extend_from_slice(bytes);
                find(held, client)
            })
        };
        found = poll_fn(read).await??;
    }
    let (request, taken) = found.ok_or_else(|| unexpected("no request"))?;
    held.drain(..taken);
    Ok(request)
}

/// The request that these bytes begin with, and how many of them belong to it; nothing if its header section has not
/// come as a whole.
fn find(bytes: &[u8], client: &Client) -> io::Result<Option<(Request, usize)>> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let mut out = buffers::take();
    let Some(request) = section::request(bytes, client, &mut out)? else {
        buffers::put(out);
        return Ok(None);
    };
    let (_, rest) = bytes.split_at(request.section);
    let (body, _) = rest.split_at(rest.len().min(as_size(request.body)));
    out.extend_from_slice(body);
    let taken = request.section + body.len();
    let request = Request {
        out,
        missing: request.body - as_length(body.len()),
        keep: request.keep,
        bodyless: request.bodyless,
        upgrades: request.upgrades,
    };
    Ok(Some((request, taken)))
}

/// Passes on a response as far as it comes with its header section. Says how much of its body is missing. `bodyless`: the
/// request was one that is answered without a body.
async fn pass_answer<R, W>(from: &mut R, to: &mut W, bodyless: bool) -> io::Result<(Answer, u64)>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    // A section that comes in parts.
    let mut held = Vec::new();
    // What the client did not take at once.
    let mut left = Vec::new();
    let passed = loop {
        let read = |cx: &mut Context<'_>| {
            buffers::poll_read(from, cx, |cx, bytes| {
                let bytes = if held.is_empty() {
                    bytes
                } else {
                    held.extend_from_slice(bytes);
                    &held
                };
                let Some(answer) = section::answer(bytes, bodyless, |_, _| Ok(()))? else {
                    if held.is_empty() {
                        held = bytes.to_vec();
                    }
                    return Ok(None);
                };
                let body = as_length(bytes.len() - answer.section);
                let missing = answer.body.checked_sub(body);
                let missing = missing.ok_or_else(|| unexpected("more than the response"))?;
                // It is passed on as it came.
                write_now(to, cx, bytes, &mut left)?;
                Ok(Some((answer, missing)))
            })
        };
        let passed: io::Result<_> = poll_fn(read).await?;
        if let Some(passed) = passed? {
            break passed;
        }
    };
    to.write_all(&left).await?;
    Ok(passed)
}

/// Passes on so many bytes. What comes behind them is held.
async fn relay<R, W>(
    from: &mut R,
    to: &mut W,
    mut length: u64,
    held: &mut Vec<u8>,
) -> io::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut left = Vec::new();
    while length > 0 {
        let read = |cx: &mut Context<'_>| {
            buffers::poll_read(from, cx, |cx, bytes| {
                let (bytes, behind) = bytes.split_at(bytes.len().min(as_size(length)));
                held.extend_from_slice(behind);
                write_now(to, cx, bytes, &mut left)?;
                Ok::<_, io::Error>(as_length(bytes.len()))
            })
        };
        length -= poll_fn(read).await??;
        to.write_all(&left).await?;
        left.clear();
    }
    Ok(())
}

/// Passes on whatever comes, in both directions, until one side ends. There is one system call to read it and one to write
/// it.
async fn tunnel<S>(client: &mut S, backend: &mut TcpStream) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut up, mut down) = (Vec::new(), Vec::new());
    poll_fn(|cx| {
        let upload = poll_pass(client, backend, cx, &mut up);
        let download = poll_pass(backend, client, cx, &mut down);
        if upload.is_ready() { upload } else { download }
    })
    .await
}

/// Passes on what comes in one direction, and is ready when that is over. What is not taken at once is left in `left`.
fn poll_pass<R, W>(
    from: &mut R,
    to: &mut W,
    cx: &mut Context<'_>,
    left: &mut Vec<u8>,
) -> Poll<io::Result<()>>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    loop {
        while !left.is_empty() {
            let written = ready!(Pin::new(&mut *to).poll_write(cx, left))?;
            left.drain(..written);
        }
        ready!(buffers::poll_read(from, cx, |cx, bytes| {
            write_now(to, cx, bytes, left)
        }))??;
    }
}

/// Writes what is taken at once, and leaves the rest in `left`.
fn write_now<W>(
    to: &mut W,
    cx: &mut Context<'_>,
    bytes: &[u8],
    left: &mut Vec<u8>,
) -> io::Result<()>
where
    W: AsyncWrite + Unpin,
{
    let written = match Pin::new(to).poll_write(cx, bytes) {
        Poll::Ready(written) => written?,
        Poll::Pending => 0,
    };
    left.extend_from_slice(bytes.get(written..).unwrap_or_default());
    Ok(())
}

fn as_size(length: u64) -> usize {
    usize::try_from(length).unwrap_or(usize::MAX)
}

fn as_length(size: usize) -> u64 {
    size as u64
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, duplex};

    use super::*;

    #[tokio::test]
    async fn requests_come_in_pieces() {
        let client = Client::new(([192, 0, 2, 1], 5).into(), "http");
        let first = "POST /first HTTP/1.1\r\nHost: a\r\nContent-Length: 7\r\n\r\nhello, ";
        let text = format!("{first}GET /last HTTP/1.1\r\nHost: a\r\n\r\n");
        for size in [1, 7, 64, 1024] {
            let (mut theirs, mut ours) = duplex(size);
            let serve = async {
                let mut held = Vec::new();
                let first = next_request(&mut ours, &mut held, &client).await.unwrap();
                let mut body = Vec::new();
                relay(&mut ours, &mut body, first.missing, &mut held)
                    .await
                    .unwrap();
                let last = next_request(&mut ours, &mut held, &client).await.unwrap();
                assert!(held.is_empty());
                [first.out, body, last.out].map(|part| String::from_utf8(part).unwrap())
            };
            let (sent, [first, body, last]) =
                tokio::join!(theirs.write_all(text.as_bytes()), serve);
            sent.unwrap();
            let first = first + &body;
            assert!(first.starts_with("POST /first "), "{size}: {first}");
            assert!(
                first.ends_with("-Host: a\r\n\r\nhello, "),
                "{size}: {first}"
            );
            assert!(last.starts_with("GET /last "), "{size}: {last}");
        }
    }

    #[tokio::test]
    async fn responses_come_and_leave_in_pieces() {
        let text = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
        for (in_size, out_size) in [(1, 1), (7, 64), (64, 7), (1024, 1024)] {
            let (mut backend, mut from) = duplex(in_size);
            let (mut to, mut client) = duplex(out_size);
            let pass = async {
                let (answer, missing) = pass_answer(&mut from, &mut to, false).await.unwrap();
                let mut surplus = Vec::new();
                relay(&mut from, &mut to, missing, &mut surplus)
                    .await
                    .unwrap();
                assert!(answer.keep && surplus.is_empty());
            };
            let mut passed = vec![0; text.len()];
            let (sent, read, ()) = tokio::join!(
                backend.write_all(text.as_bytes()),
                client.read_exact(&mut passed),
                pass
            );
            sent.unwrap();
            read.unwrap();
            assert_eq!(passed, text.as_bytes(), "{in_size}, {out_size}");
        }
    }

    #[tokio::test]
    async fn more_than_a_response_is_no_response() {
        let text = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nhello";
        let mut to = Vec::new();
        let passed = pass_answer(&mut text.as_bytes(), &mut to, false).await;
        assert!(passed.is_err() && to.is_empty());
    }
}
