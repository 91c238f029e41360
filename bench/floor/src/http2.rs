//! HTTP/2 from the client, and HTTP/1.1 to the backend.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::task::Poll;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::future::Either;
use futures::stream::FuturesUnordered;
use h2::server::{Builder, SendResponse};
use h2::{Reason, RecvStream, SendStream};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderMap, Method};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::held::Held;
use crate::{Backend, Client, buffers, grpc, section, unexpected};

/// The same as Lockgate's.
fn builder() -> Builder {
    let mut builder = Builder::new();
    builder
        .max_concurrent_streams(128)
        .initial_window_size(256 * 1024)
        .initial_connection_window_size(1024 * 1024)
        .max_header_list_size(64 * 1024)
        .max_send_buffer_size(64 * 1024);
    builder
}

/// Serves a connection until it ends. It is one task, and so are all its streams.
pub(crate) async fn serve<S>(stream: S, client: &Client, backend: &Backend) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let io = Held::new(stream);
    let mut handshake = pin!(builder().handshake::<_, Bytes>(io.clone()));
    let h2 = poll_fn(|cx| {
        let stands = handshake.as_mut().poll(cx);
        match io.poll_out(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) | Poll::Pending => stands.map_err(io::Error::other),
        }
    });
    let mut h2 = h2.await?;
    let mut streams = FuturesUnordered::new();
    poll_fn(|cx| {
        loop {
            while let Poll::Ready(Some(())) = streams.poll_next_unpin(cx) {}
            match h2.poll_accept(cx) {
                Poll::Ready(Some(Ok((request, respond)))) => {
                    let (parts, body) = request.into_parts();
                    streams.push(if is_grpc(&parts.headers) {
                        Either::Left(grpc::call(parts, body, respond, client, backend))
                    } else {
                        Either::Right(forward(&parts, body, respond, client, backend))
                    });
                }
                Poll::Ready(Some(Err(_)) | None) => {
                    // A farewell, as far as the socket takes it.
                    return io.poll_out(cx).map(|_| Ok(()));
                }
                Poll::Pending => {
                    // What all streams have ready leaves together.
                    return match io.poll_out(cx) {
                        Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                        Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
                    };
                }
            }
        }
    })
    .await
}

fn is_grpc(fields: &HeaderMap) -> bool {
    let kind = fields.get(CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

/// Answers one request. What the future holds is copied to where it stays: it is not to be more than is needed.
fn forward<'a>(
    parts: &Parts,
    body: RecvStream,
    mut respond: SendResponse<Bytes>,
    client: &Client,
    backend: &'a Backend,
) -> impl Future<Output = ()> + use<'a> {
    let bodyless = parts.method == Method::HEAD;
    let is_known = body.is_end_stream() || parts.headers.contains_key(CONTENT_LENGTH);
    let mut out = buffers::take();
    section::write_request(parts, client, &mut out);
    async move {
        let done = if is_known {
            exchange(out, body, bodyless, &mut respond, backend).await
        } else {
            Err(unexpected("a body without a length"))
        };
        if done.is_err() {
            respond.send_reset(Reason::INTERNAL_ERROR);
        }
    }
}

async fn exchange(
    out: Vec<u8>,
    mut body: RecvStream,
    bodyless: bool,
    respond: &mut SendResponse<Bytes>,
    backend: &Backend,
) -> io::Result<()> {
    let mut stream = backend.pool.take().await?;
    stream.write_all(&out).await?;
    buffers::put(out);
    while !body.is_end_stream()
        && let Some(content) = body.data().await
    {
        let content = content.map_err(io::Error::other)?;
        stream.write_all(&content).await?;
        let window = body.flow_control();
        window
            .release_capacity(content.len())
            .map_err(io::Error::other)?;
    }

    let mut came = read(&mut stream).await?;
    let (answer, response) = loop {
        if let Some(found) = section::answer_map(&came, bodyless)? {
            break found;
        }
        came = [came, read(&mut stream).await?].concat().into();
    };
    let content = came.split_off(answer.section);
    let mut missing = left(answer.body, &content)?;
    let sent = respond.send_response(response, answer.body == 0);
    let mut sender = sent.map_err(io::Error::other)?;
    if answer.body > 0 {
        // The first of it is small enough to be left to the `h2` crate, windows or not.
        sender
            .send_data(content, missing == 0)
            .map_err(io::Error::other)?;
    }
    while missing > 0 {
        let content = read(&mut stream).await?;
        missing = left(missing, &content)?;
        send(&mut sender, content, missing == 0).await?;
    }
    if answer.keep {
        backend.pool.put(stream);
    }
    Ok(())
}

/// What has come, copied out of the thread's buffer.
async fn read(stream: &mut TcpStream) -> io::Result<Bytes> {
    poll_fn(|cx| buffers::poll_read(stream, cx, |_, bytes| Bytes::copy_from_slice(bytes))).await
}

/// What is missing of a body after these bytes.
fn left(missing: u64, content: &Bytes) -> io::Result<u64> {
    let left = missing.checked_sub(content.len() as u64);
    left.ok_or_else(|| unexpected("more than the response"))
}

/// Hands over content as far as the windows allow.
async fn send(sender: &mut SendStream<Bytes>, mut content: Bytes, last: bool) -> io::Result<()> {
    while !content.is_empty() {
        sender.reserve_capacity(content.len());
        let room = poll_fn(|cx| sender.poll_capacity(cx)).await;
        let room = room.ok_or_else(|| unexpected("a stream that is gone"))?;
        let room = room.map_err(io::Error::other)?;
        let part = content.split_to(room.min(content.len()));
        let end = last && content.is_empty();
        sender.send_data(part, end).map_err(io::Error::other)?;
    }
    Ok(())
}
