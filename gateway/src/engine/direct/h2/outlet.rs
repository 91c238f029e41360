//! The sending half of a stream, and a client's stream as a whole.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use h2::server::SendResponse;
use h2::{Reason as Code, RecvStream, SendStream};
use http::{HeaderMap, Response, StatusCode};
use tokio::time::timeout;

use super::backlog::Backlog;
use crate::error::Reason;

/// The stream has ended in a way that was not ours to choose.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gone;

/// Sends content as far as the windows of the stream and its connection allow. It holds one piece at a time: whoever
/// fills it reads no more before that has gone.
pub(super) struct Outlet {
    stream: SendStream<Bytes>,
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
    Trailers(HeaderMap),
    /// The end has been sent.
    Sent,
}

impl Outlet {
    /// Nothing is pending; `ended` if there will be nothing at all.
    pub(super) fn new(stream: SendStream<Bytes>, ended: bool) -> Self {
        Self {
            stream,
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
    pub(super) fn finish(&mut self, trailers: Option<HeaderMap>) {
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

    /// Sends as much as there is room for. Ready when anything has moved, or nothing is left to be sent.
    pub(super) fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        let mut moved = false;
        while !self.pending.is_empty() {
            let wanted = self.pending.len();
            self.stream.reserve_capacity(wanted);
            let mut room = self.stream.capacity();
            if room == 0 {
                room = match self.stream.poll_capacity(cx) {
                    Poll::Ready(Some(Ok(room))) => room,
                    Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(Err(Gone)),
                    Poll::Pending if moved => return Poll::Ready(Ok(())),
                    Poll::Pending => return Poll::Pending,
                };
            }
            let part = self.pending.split_to(room.min(wanted));
            let last = self.pending.is_empty() && matches!(self.then, Then::Last);
            self.stream.send_data(part, last).map_err(|_| Gone)?;
            if last {
                self.then = Then::Sent;
            }
            moved = true;
        }
        match std::mem::replace(&mut self.then, Then::Sent) {
            Then::Open => self.then = Then::Open,
            Then::Last => {
                self.stream
                    .send_data(Bytes::new(), true)
                    .map_err(|_| Gone)?;
            }
            Then::Trailers(trailers) => {
                self.stream.send_trailers(trailers).map_err(|_| Gone)?;
            }
            Then::Sent => {}
        }
        Poll::Ready(Ok(()))
    }

    /// Ready when the other side has given the stream up.
    pub(super) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.stream.poll_reset(cx).map(|_| ())
    }

    /// Gives the stream up.
    pub(super) fn reset(&mut self, code: Code) {
        self.stream.send_reset(code);
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
    /// The request's body.
    body: RecvStream,
    /// What has been taken out of it before anybody wanted it.
    collected: BytesMut,
    respond: SendResponse<Bytes>,
    outlet: Option<Outlet>,
    backlog: Arc<Backlog>,
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
    pub(super) fn new(
        body: RecvStream,
        respond: SendResponse<Bytes>,
        backlog: Arc<Backlog>,
    ) -> Self {
        Self {
            body,
            collected: BytesMut::new(),
            respond,
            outlet: None,
            backlog,
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

    /// Waits for what comes after the body.
    pub(super) fn poll_trailers(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<HeaderMap>, h2::Error>> {
        self.body.poll_trailers(cx)
    }

    /// Has all of the request's body been taken?
    pub(super) fn is_body_done(&self) -> bool {
        self.collected.is_empty() && self.body.is_end_stream()
    }

    /// Waits until so much of the body is there, or all of it, and for each piece of it for so long.
    pub(super) async fn collect(&mut self, length: usize, piece: Duration) -> Result<(), Reason> {
        while self.collected.len() < length {
            let next = timeout(piece, poll_fn(|cx| self.poll_stream(cx))).await;
            let Some(content) = next.map_err(|_| Reason::ClientTimeout)? else {
                break;
            };
            // Copied: a piece, however small, keeps all that was read together with it.
            self.collected.extend_from_slice(&content?);
        }
        Ok(())
    }

    fn poll_stream(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Gone>>> {
        match ready!(self.body.poll_data(cx)) {
            Some(Ok(content)) => {
                // It is read only when there is room for it, so that the window is the client's again.
                let _ = self.body.flow_control().release_capacity(content.len());
                Poll::Ready(Some(Ok(content)))
            }
            Some(Err(_)) => {
                self.gone = true;
                Poll::Ready(Some(Err(Gone)))
            }
            None => Poll::Ready(None),
        }
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
    pub(super) fn inform(&mut self, status: StatusCode, headers: HeaderMap) {
        let _ = self.respond.send_informational(response(status, headers));
    }

    /// Sends a header section.
    pub(super) fn begin(
        &mut self,
        status: StatusCode,
        headers: HeaderMap,
        end: bool,
    ) -> Result<(), Gone> {
        let sent = self.respond.send_response(response(status, headers), end);
        let stream = sent.map_err(|_| self.is_gone())?;
        self.outlet = Some(Outlet::new(stream, end));
        self.status = Some(status);
        Ok(())
    }

    /// Takes a piece of content.
    pub(super) fn push(&mut self, content: Bytes, last: bool) {
        self.sent += content.len();
        if let Some(outlet) = &mut self.outlet {
            outlet.push(content, last);
        }
    }

    /// Ends the response with trailers.
    pub(super) fn finish(&mut self, trailers: Option<HeaderMap>) {
        if let Some(outlet) = &mut self.outlet {
            outlet.finish(trailers);
        }
    }

    /// Is there something that has not been handed over?
    pub(super) fn is_sending(&self) -> bool {
        self.outlet.as_ref().is_some_and(Outlet::is_sending)
    }

    /// Has the response been handed over as a whole?
    pub(super) fn is_done(&self) -> bool {
        self.outlet.as_ref().is_some_and(Outlet::is_done)
    }

    /// Ready when there may be more content: as long as too much has not left, there is no point in having it.
    pub(super) fn poll_room(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.backlog.poll_room(cx)
    }

    /// Sends as much as there is room for.
    pub(super) fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        let Some(outlet) = &mut self.outlet else {
            return Poll::Ready(Ok(()));
        };
        let before = outlet.pending.len();
        let sent = ready!(outlet.poll_send(cx));
        self.backlog.add(before - outlet.pending.len());
        Poll::Ready(sent.map_err(|_| self.is_gone()))
    }

    /// Ready when the client has given the stream up, or is not there any more.
    pub(super) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        ready!(match &mut self.outlet {
            Some(outlet) if outlet.is_done() => Poll::Pending,
            Some(outlet) => outlet.poll_gone(cx),
            None => self.respond.poll_reset(cx).map(|_| ()),
        });
        self.gone = true;
        Poll::Ready(())
    }

    /// Waits for `work` as long as the client does.
    pub(super) async fn or_gone<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Gone> {
        let mut work = pin!(work);
        poll_fn(|cx| match work.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(Ok(done)),
            Poll::Pending => self.poll_gone(cx).map(|()| Err(Gone)),
        })
        .await
    }

    /// Gives the stream up: a response that ends like this is known not to be whole.
    pub(super) fn reset(&mut self, code: Code) {
        match &mut self.outlet {
            Some(outlet) if outlet.is_done() => {}
            Some(outlet) => outlet.reset(code),
            None => self.respond.send_reset(code),
        }
    }

    fn is_gone(&mut self) -> Gone {
        self.gone = true;
        Gone
    }
}

fn response(status: StatusCode, headers: HeaderMap) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

impl From<Gone> for Reason {
    /// Of a client.
    fn from(_: Gone) -> Self {
        Self::ClientClosed
    }
}
