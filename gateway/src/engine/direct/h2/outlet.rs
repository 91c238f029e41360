//! The sending half of a stream, and a client's stream as a whole.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http::StatusCode;
use http2::{Block, Code, Stream, Writer};
use tokio::time::timeout;

use crate::connection::give;
use crate::error::Reason;

/// The stream has ended in a way that was not ours to choose.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gone;

/// What is to be sent on a stream. It holds one piece at a time: whoever fills it reads no more before that has gone.
pub(super) struct Outlet {
    pending: Bytes,
    then: Then,
}

/// What follows the content that is pending.
enum Then {
    /// More of it.
    Open,
    /// Nothing.
    Last,
    /// Trailers.
    Trailers(Block),
    /// The end has been sent.
    Sent,
}

impl Outlet {
    /// Nothing is pending; `ended` if there will be nothing at all.
    pub(super) fn new(ended: bool) -> Self {
        Self {
            pending: Bytes::new(),
            then: if ended { Then::Sent } else { Then::Open },
        }
    }

    /// Takes a piece of content; the last one ends the stream.
    pub(super) fn push(&mut self, content: Bytes, last: bool) {
        self.pending = content;
        if last {
            self.then = Then::Last;
        }
    }

    /// Ends the stream with trailers.
    pub(super) fn finish(&mut self, trailers: Option<Block>) {
        self.then = trailers.map_or(Then::Last, Then::Trailers);
    }

    /// Is there something that has not been handed over?
    pub(super) fn is_sending(&self) -> bool {
        !self.pending.is_empty() || matches!(self.then, Then::Last | Then::Trailers(_))
    }

    /// Has the end been handed over?
    pub(super) fn is_done(&self) -> bool {
        matches!(self.then, Then::Sent)
    }

    /// Sends as much as there is room for. Ready with how much that was when anything has moved, or nothing is left to be
    /// sent.
    pub(super) fn poll_send(
        &mut self,
        stream: &mut Stream,
        cx: &mut Context<'_>,
    ) -> Poll<Result<usize, Gone>> {
        let mut moved = 0;
        while !self.pending.is_empty() || matches!(self.then, Then::Last) {
            let last = matches!(self.then, Then::Last);
            match stream.poll_send(cx, &self.pending, last) {
                Poll::Ready(sent) => {
                    let sent = sent.map_err(|_| Gone)?;
                    moved += sent;
                    self.pending.advance(sent);
                }
                Poll::Pending if moved > 0 => return Poll::Ready(Ok(moved)),
                Poll::Pending => return Poll::Pending,
            }
            if last && self.pending.is_empty() {
                self.then = Then::Sent;
            }
        }
        if let Then::Trailers(trailers) = &self.then {
            stream.send_trailers(trailers).map_err(|_| Gone)?;
            self.then = Then::Sent;
        }
        Poll::Ready(Ok(moved))
    }

    /// Sends a piece of content, when nothing is pending. What there is no room for is copied, and pending then. Says how
    /// much has been sent.
    fn write(
        &mut self,
        stream: &mut Stream,
        cx: &mut Context<'_>,
        content: &[u8],
        last: bool,
    ) -> Result<usize, Gone> {
        let mut sent = 0;
        loop {
            let rest = content.get(sent..).unwrap_or_default();
            match stream.poll_send(cx, rest, last) {
                Poll::Ready(more) => sent += more.map_err(|_| Gone)?,
                Poll::Pending => {
                    self.push(Bytes::copy_from_slice(rest), last);
                    return Ok(sent);
                }
            }
            if sent == content.len() {
                if last {
                    self.then = Then::Sent;
                }
                return Ok(sent);
            }
        }
    }
}

/// How a stream ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum End {
    /// It was served.
    Done,
    /// The client gave it up before it was answered.
    TakenBack,
    /// It was no request.
    Malformed,
}

/// A client's stream.
pub(super) struct Client {
    stream: Stream,
    /// What has been taken out of the request's body before anybody wanted it.
    collected: BytesMut,
    outlet: Outlet,
    /// Pieces of content that the client has been given.
    given: Arc<AtomicU32>,
    /// The status that was sent.
    pub(super) status: Option<StatusCode>,
    /// Bytes of content that came.
    pub(super) received: usize,
    /// Bytes of content that were sent.
    pub(super) sent: usize,
    /// The client has given the stream up.
    pub(super) gone: bool,
}

impl Client {
    /// Nothing has been answered.
    pub(super) fn new(stream: Stream, given: Arc<AtomicU32>) -> Self {
        Self {
            stream,
            collected: BytesMut::new(),
            outlet: Outlet::new(false),
            given,
            status: None,
            received: 0,
            sent: 0,
            gone: false,
        }
    }

    /// Waits for a piece of the request's body, up to its end.
    pub(super) fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Gone>>> {
        let next = if self.collected.is_empty() {
            ready!(self.poll_stream(cx))
        } else {
            Some(Ok(self.collected.split().freeze()))
        };
        if let Some(Ok(content)) = &next {
            self.received += content.len();
        }
        Poll::Ready(next)
    }

    /// What came after the body.
    pub(super) fn take_trailers(&mut self) -> Option<Block> {
        self.stream.take_trailers()
    }

    /// Has all of the request's body been taken?
    pub(super) fn is_body_done(&self) -> bool {
        self.collected.is_empty() && self.stream.is_finished()
    }

    /// Waits until so much of the body is there, or all of it, and for each piece of it for so long.
    pub(super) async fn collect(&mut self, length: usize, piece: Duration) -> Result<(), Reason> {
        while self.collected.len() < length {
            let next = timeout(piece, poll_fn(|cx| self.poll_stream(cx))).await;
            let Some(content) = next.map_err(|_| Reason::ClientTimeout)? else {
                break;
            };
            self.collected.extend_from_slice(&content?);
        }
        Ok(())
    }

    fn poll_stream(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Gone>>> {
        let content = ready!(self.stream.poll_content(cx));
        Poll::Ready(content.map(|content| content.map_err(|_| self.is_gone())))
    }

    /// How it has ended, as far as the client is concerned.
    pub(super) fn end(&self) -> End {
        if self.gone && self.status.is_none() {
            End::TakenBack
        } else {
            End::Done
        }
    }

    /// Sends an informational response. One that cannot be sent is not missed.
    pub(super) fn inform(&mut self, status: StatusCode, fields: impl FnOnce(&mut Writer<'_>)) {
        let _ = self.stream.respond(status.as_u16(), false, fields);
    }

    /// Sends a header section.
    pub(super) fn begin(
        &mut self,
        status: StatusCode,
        end: bool,
        fields: impl FnOnce(&mut Writer<'_>),
    ) -> Result<(), Gone> {
        let sent = self.stream.respond(status.as_u16(), end, fields);
        sent.map_err(|_| self.is_gone())?;
        self.outlet = Outlet::new(end);
        self.status = Some(status);
        Ok(())
    }

    /// Takes a piece of content.
    pub(super) fn push(&mut self, content: Bytes, last: bool) {
        self.sent += content.len();
        self.outlet.push(content, last);
    }

    /// Sends a piece of content at once, as far as there is room for it; the rest is taken.
    pub(super) fn write(
        &mut self,
        cx: &mut Context<'_>,
        content: &[u8],
        last: bool,
    ) -> Result<(), Gone> {
        self.sent += content.len();
        let sent = self.outlet.write(&mut self.stream, cx, content, last);
        let sent = sent.map_err(|_| self.is_gone())?;
        self.gave(sent);
        Ok(())
    }

    /// Ends the response with trailers.
    pub(super) fn finish(&mut self, trailers: Option<Block>) {
        self.outlet.finish(trailers);
    }

    /// Is there something that has not been handed over?
    pub(super) fn is_sending(&self) -> bool {
        self.outlet.is_sending()
    }

    /// Has the response been handed over as a whole?
    pub(super) fn is_done(&self) -> bool {
        self.outlet.is_done()
    }

    /// Ready when there may be more content: as long as too much has not left, there is no point in having it.
    pub(super) fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.stream.poll_room(cx)
    }

    /// Sends as much as there is room for.
    pub(super) fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        let sent = ready!(self.outlet.poll_send(&mut self.stream, cx));
        let sent = sent.map_err(|_| self.is_gone())?;
        self.gave(sent);
        Poll::Ready(Ok(()))
    }

    fn gave(&self, sent: usize) {
        if sent > 0 {
            give(&self.given, sent);
        }
    }

    /// Ready when the client has given the stream up, or is not there any more.
    pub(super) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.outlet.is_done() {
            return Poll::Pending;
        }
        ready!(self.stream.poll_ended(cx));
        self.gone = true;
        Poll::Ready(())
    }

    /// Waits for `work` as long as the client does.
    pub(super) async fn or_gone<T>(
        &mut self,
        mut work: Pin<&mut impl Future<Output = T>>,
    ) -> Result<T, Gone> {
        poll_fn(|cx| match work.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(Ok(done)),
            Poll::Pending => self.poll_gone(cx).map(|()| Err(Gone)),
        })
        .await
    }

    /// Gives the stream up: a response that ends like this is known not to be whole.
    pub(super) fn reset(&mut self, code: Code) {
        if !self.outlet.is_done() {
            self.stream.reset(code);
        }
    }

    fn is_gone(&mut self) -> Gone {
        self.gone = true;
        Gone
    }
}

impl From<Gone> for Reason {
    /// Of a client.
    fn from(_: Gone) -> Self {
        Self::ClientClosed
    }
}
