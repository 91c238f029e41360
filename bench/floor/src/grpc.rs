//! Calls of gRPC: HTTP/2 on both sides.

use std::future::poll_fn;
use std::io;

use ::http2::{Code, Ended, Head, Stream, Writer};

use crate::http2::{over, send};
use crate::links::{Call, Links};
use crate::{Backend, Client};

/// Passes a call on: first the request, then the response. That is enough for calls of one message.
pub(crate) async fn call(head: Head, mut stream: Stream, client: &Client, backend: &Backend) {
    if exchange(&head, &mut stream, client, &backend.links)
        .await
        .is_err()
    {
        stream.reset(Code::INTERNAL_ERROR);
    }
}

async fn exchange(
    head: &Head,
    stream: &mut Stream,
    client: &Client,
    links: &Links,
) -> io::Result<()> {
    let ended = stream.is_finished();
    let call = links.open(ended, |out| write(out, head, client)).await?;
    let Call {
        stream: mut asked,
        lease: _lease,
    } = call;
    if !ended {
        relay(stream, &mut asked).await.map_err(over)?;
    }
    answer(&mut asked, stream).await.map_err(over)
}

/// Writes the header section for the backend.
fn write(out: &mut Writer<'_>, head: &Head, client: &Client) {
    out.add(b":method", head.method(), false);
    out.add(b":scheme", b"http", false);
    let host = head.authority().unwrap_or_default();
    out.add(b":authority", host, false);
    out.add(b":path", head.path(), false);
    for (name, value, sensitive) in head.fields().iter() {
        out.add(name, value, sensitive);
    }
    out.add(b"x-forwarded-for", client.address.as_bytes(), false);
    out.add(b"x-forwarded-proto", client.scheme.as_bytes(), false);
    out.add(b"x-forwarded-host", host, false);
}

async fn answer(from: &mut Stream, to: &mut Stream) -> Result<(), Ended> {
    let head = loop {
        let head = poll_fn(|cx| from.poll_head(cx)).await?;
        // What is not the answer yet is not needed.
        if head.status() >= 200 {
            break head;
        }
    };
    let ended = from.is_finished();
    to.respond(head.status(), ended, |out| {
        for (name, value, sensitive) in head.fields().iter() {
            out.add(name, value, sensitive);
        }
    })?;
    if ended { Ok(()) } else { relay(from, to).await }
}

/// Passes on content and trailers.
async fn relay(from: &mut Stream, to: &mut Stream) -> Result<(), Ended> {
    while let Some(content) = poll_fn(|cx| from.poll_content(cx)).await {
        let content = content?;
        let last = from.is_finished();
        send(to, &content, last).await?;
        if last {
            return Ok(());
        }
    }
    match from.take_trailers() {
        Some(trailers) => to.send_trailers(&trailers),
        None => send(to, &[], true).await,
    }
}
