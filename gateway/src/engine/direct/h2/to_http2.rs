//! A stream of HTTP/2 to an endpoint that speaks HTTP/2 without TLS: gRPC for the most part. Content passes as it
//! came, without a copy, and so do trailers in both directions.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use h2::client::ResponseFuture;
use h2::{Reason as Code, RecvStream};
use http::header::{self, CONTENT_LENGTH, HOST};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, Version};

use super::super::links::{Ending, Lease};
use super::super::patience::{Awaited, Clock, Failure, Patience, earlier};
use super::super::response::MOST_INTERIM;
use super::outlet::Outlet;
use super::stream::{Exchange, Halt};
use crate::error::{self, Fault, Reason, Source};
use crate::phases::deadline::{self, Until};
use crate::phases::original::Original;
use crate::phases::upstream::Upstream;
use crate::phases::{body, headers, retry};

/// What of a request has come over all tries.
#[derive(Default)]
pub(super) struct Replay {
    /// Copied: a piece, however small, keeps all that was read together with it.
    kept: BytesMut,
    /// Parts are missing.
    broken: bool,
    /// The end has come.
    ended: bool,
    trailers: Option<HeaderMap>,
}

impl Replay {
    /// Is everything there that has come so far?
    pub(super) fn is_whole(&self) -> bool {
        !self.broken
    }

    fn keep(&mut self, content: &[u8]) {
        self.broken |= self.kept.len() + content.len() > body::MOST_REPLAYED;
        if self.broken {
            self.kept = BytesMut::new();
        } else {
            self.kept.extend_from_slice(content);
        }
    }
}

/// One try.
struct Attempt<'e, 'a> {
    exchange: &'e mut Exchange<'a>,
    replay: &'e mut Replay,
    /// How many bytes of the request have been taken from what was kept.
    replayed: usize,
    lease: Lease,
    out: Outlet,
    /// The end of the request has been handed to `out`.
    complete: bool,
    /// The endpoint takes no more. It may still answer.
    refused: bool,
    response: Option<ResponseFuture>,
    body: Option<RecvStream>,
    interim: u8,
    /// The client leaves too much of what it has asked for lying.
    held_up: bool,
    /// The response has its pace.
    paused: Option<Instant>,
    clock: Clock,
    patience: Patience,
    /// What the route says about the time for an answer.
    until: Option<Until>,
    now: Instant,
}

/// Sends the request to one endpoint and its response to the client.
pub(super) async fn exchange(
    exchange: &mut Exchange<'_>,
    replay: &mut Replay,
    to: &Upstream,
) -> Result<(), Halt> {
    let links = &exchange.engine.links;
    let opened = links.open(to.address, to.connect, to.suspect);
    let opened = exchange.client.or_gone(opened).await?;
    let (lease, mut sender, reused) =
        opened.map_err(|fault| Halt::NotConnected(error::reason(Source::Upstream, fault)))?;
    retry::connected(exchange.context, reused);
    let request = request(exchange)?;
    let over = replay.ended || exchange.client.is_body_done();
    let ended = over && replay.kept.is_empty() && replay.trailers.is_none();
    let sent = sender.send_request(request, ended);
    let (response, stream) = sent.map_err(|error| halt(Ending::of(&error), replay, false))?;
    let now = Instant::now();
    let patience = Patience::new(to, &exchange.context.connection.limits);
    let until = deadline::of(exchange.context);
    let mut attempt = Attempt {
        exchange,
        replay,
        replayed: 0,
        lease,
        out: Outlet::new(stream, ended),
        complete: ended,
        refused: false,
        response: Some(response),
        body: None,
        interim: 0,
        held_up: false,
        paused: None,
        clock: Clock::new(now),
        patience,
        until,
        now,
    };
    poll_fn(|cx| attempt.poll(cx)).await
}

/// The header section for an endpoint.
fn request(exchange: &Exchange<'_>) -> Result<Request<()>, Reason> {
    let parts = exchange.parts;
    let mut fields = parts.headers.clone();
    for name in [
        header::TRAILER,
        header::PROXY_AUTHENTICATE,
        header::PROXY_AUTHORIZATION,
    ] {
        fields.remove(name);
    }
    fields.remove("http2-settings");
    headers::to_backend(exchange.context, Original::of(parts), &mut fields);
    let host = fields.remove(HOST);
    let authority = match &host {
        Some(host) => Authority::from_maybe_shared(Bytes::copy_from_slice(host.as_bytes())).ok(),
        None => parts.uri.authority().cloned(),
    };
    let changed = headers::target(exchange.context, &parts.uri);
    let target = changed.as_ref().unwrap_or(&parts.uri).path_and_query();
    let mut uri = http::uri::Parts::default();
    uri.scheme = Some(Scheme::HTTP);
    uri.authority = authority;
    uri.path_and_query = Some(target.cloned().unwrap_or(PathAndQuery::from_static("/")));
    let mut request = Request::new(());
    *request.method_mut() = parts.method.clone();
    *request.uri_mut() = Uri::from_parts(uri).map_err(|_| Reason::Internal)?;
    *request.version_mut() = Version::HTTP_2;
    *request.headers_mut() = fields;
    Ok(request)
}

/// What a failure of the endpoint's stream means. One that was refused has had no effect.
fn halt(ending: Ending, replay: &Replay, repeatable: bool) -> Halt {
    let (fault, unseen) = match ending {
        Ending::Refused => (Fault::Closed, true),
        Ending::Closed => (Fault::Closed, false),
        Ending::Invalid => (Fault::Invalid, false),
    };
    let reason = error::reason(Source::Upstream, fault);
    if replay.is_whole() && (unseen || repeatable && fault == Fault::Closed) {
        Halt::Stale(reason)
    } else {
        Halt::Failed(reason)
    }
}

impl Attempt<'_, '_> {
    /// Moves bytes until the response has been handed over.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Halt>> {
        self.now = Instant::now();
        loop {
            let uploaded = self.upload(cx)?;
            let downloaded = self.download(cx)?;
            if self.exchange.client.is_done() {
                return Poll::Ready(Ok(()));
            }
            if !uploaded && !downloaded {
                break;
            }
        }
        if self.exchange.client.poll_gone(cx).is_ready() {
            return Poll::Ready(Err(Reason::ClientClosed.into()));
        }
        let Some((at, failure)) = self.deadline() else {
            return Poll::Pending;
        };
        ready!(self.exchange.timer.poll(cx, at));
        if let Some((source, fault)) = failure {
            // One slow answer says nothing about those that others wait for.
            if source == Source::Upstream && fault != Fault::AnswerTimeout {
                // Others are not to wait for a connection that may be dead.
                self.lease.distrust();
            }
            return Poll::Ready(Err(error::reason(source, fault).into()));
        }
        self.paused = None;
        self.clock.heard_at = Instant::now();
        // There is room again.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Until when something has to happen, and what it means if it does not; nothing where a pause ends.
    fn deadline(&self) -> Option<(Instant, Option<Failure>)> {
        if let Some(at) = self.paused {
            return Some((at, None));
        }
        let client = &self.exchange.client;
        let sending = !self.refused && self.out.is_sending();
        let has_length = self.exchange.parts.headers.contains_key(CONTENT_LENGTH);
        let awaited = Awaited {
            sending,
            // Once there is a response, either side may be silent as long as the other one is not.
            receiving: !self.refused && !sending && !self.complete && client.status.is_none(),
            received: has_length.then_some(client.received),
            giving: (client.is_sending() || self.held_up).then_some(client.sent),
            connected: true,
        };
        let mut first = self.clock.deadline(&awaited, &self.patience);
        if let Some(until) = self.until {
            let silent = self.complete && !sending && client.status.is_none();
            let since = silent.then(|| self.exchange.sent_at(&self.clock));
            first = earlier(first, until.next(since));
        }
        first.map(|(at, failure)| (at, Some(failure)))
    }

    /// Moves the request on. Says whether anything moved.
    fn upload(&mut self, cx: &mut Context<'_>) -> Result<bool, Halt> {
        let mut moved = false;
        while !self.refused {
            if self.out.is_sending() {
                match self.out.poll_send(cx) {
                    Poll::Ready(Ok(())) => self.clock.sent_at = self.now,
                    // Its answer, or the reason, is on its way.
                    Poll::Ready(Err(_)) => self.refused = true,
                    Poll::Pending => return Ok(moved),
                }
                moved = true;
                continue;
            }
            if self.complete {
                return Ok(moved);
            }
            if !self.replay_next() && !self.read_next(cx)? {
                self.clock.receiving.begin(self.now);
                return Ok(moved);
            }
            moved = true;
        }
        Ok(moved)
    }

    /// Sends what came during an earlier try.
    fn replay_next(&mut self) -> bool {
        let kept = self.replay.kept.get(self.replayed..).unwrap_or_default();
        if !kept.is_empty() {
            let part = Bytes::copy_from_slice(kept);
            self.replayed += part.len();
            self.out.push(part, false);
            return true;
        }
        if self.replay.ended {
            self.out.finish(self.replay.trailers.clone());
            self.complete = true;
        }
        self.replay.ended
    }

    /// Takes the next part of the request from the client.
    fn read_next(&mut self, cx: &mut Context<'_>) -> Result<bool, Halt> {
        let client = &mut *self.exchange.client;
        match client.poll_body(cx) {
            Poll::Ready(Some(content)) => {
                let content = content?;
                let last = client.is_body_done();
                // Frames with nothing in them are no progress.
                if last || !content.is_empty() {
                    self.clock.received(self.now);
                }
                body::received(self.exchange.context, content.len())?;
                self.replay.keep(&content);
                self.replayed = self.replay.kept.len();
                if last {
                    self.replay.ended = true;
                    self.complete = true;
                }
                self.out.push(content, last);
            }
            Poll::Ready(None) => match client.poll_trailers(cx) {
                Poll::Ready(Ok(trailers)) => {
                    self.replay.ended = true;
                    self.replay.trailers.clone_from(&trailers);
                    self.out.finish(trailers);
                    self.complete = true;
                }
                Poll::Ready(Err(_)) => {
                    client.gone = true;
                    return Err(Reason::ClientClosed.into());
                }
                Poll::Pending => return Ok(false),
            },
            Poll::Pending => return Ok(false),
        }
        Ok(true)
    }

    /// Moves the response on. Says whether anything moved.
    fn download(&mut self, cx: &mut Context<'_>) -> Result<bool, Halt> {
        let mut moved = false;
        loop {
            if self.exchange.client.is_sending() {
                match self.exchange.client.poll_send(cx) {
                    Poll::Ready(sent) => sent?,
                    Poll::Pending => {
                        self.clock.giving.begin(self.now);
                        return Ok(moved);
                    }
                }
                self.clock.given(self.now);
            } else if self.exchange.client.is_done() || self.paused.is_some() {
                return Ok(moved);
            } else if self.response.is_some() {
                if !self.section(cx)? {
                    return Ok(moved);
                }
            } else if self.is_held_up(cx) || !self.content(cx)? {
                return Ok(moved);
            }
            self.clock.heard_at = self.now;
            moved = true;
        }
    }

    /// Does the client leave so much lying that more of the response is not even taken?
    fn is_held_up(&mut self, cx: &mut Context<'_>) -> bool {
        let held_up = self.exchange.client.poll_room(cx).is_pending();
        if held_up {
            self.clock.giving.begin(self.now);
        } else if self.held_up {
            self.clock.given(self.now);
        }
        self.held_up = held_up;
        held_up
    }

    /// Takes the next header section of the response.
    fn section(&mut self, cx: &mut Context<'_>) -> Result<bool, Halt> {
        let Some(response) = &mut self.response else {
            return Ok(false);
        };
        // First, because the final one goes past those before it.
        match response.poll_informational(cx) {
            Poll::Ready(Some(Ok(interim))) => {
                self.informed(interim)?;
                return Ok(true);
            }
            Poll::Ready(Some(Err(error))) => return Err(self.failed(&error)),
            Poll::Pending => return Ok(false),
            Poll::Ready(None) => {}
        }
        match Pin::new(response).poll(cx) {
            Poll::Ready(Ok(response)) => {
                self.answered(response)?;
                Ok(true)
            }
            Poll::Ready(Err(error)) => Err(self.failed(&error)),
            Poll::Pending => Ok(false),
        }
    }

    /// An informational response has come.
    fn informed(&mut self, interim: Response<()>) -> Result<(), Halt> {
        let (parts, ()) = interim.into_parts();
        self.interim += 1;
        // HTTP/2 has no other protocols (RFC 9113, 8.6).
        if parts.status == StatusCode::SWITCHING_PROTOCOLS || self.interim > MOST_INTERIM {
            return Err(Halt::Failed(error::reason(
                Source::Upstream,
                Fault::Invalid,
            )));
        }
        retry::answered(self.exchange.context, parts.status, self.now);
        let mut fields = parts.headers;
        headers::to_client(self.exchange.context, &mut fields);
        self.exchange.client.inform(parts.status, fields);
        Ok(())
    }

    /// The header section has come.
    fn answered(&mut self, response: Response<RecvStream>) -> Result<(), Halt> {
        self.response = None;
        self.lease.answered();
        let (parts, body) = response.into_parts();
        if self.exchange.unwanted(self.replay.is_whole(), parts.status) {
            return Err(Halt::Unwanted);
        }
        let mut fields = parts.headers;
        fields.remove(header::TRAILER);
        if parts.status == StatusCode::NO_CONTENT {
            fields.remove(CONTENT_LENGTH);
        }
        // What follows nevertheless would be no content of this response (RFC 9110, 6.4.1).
        let bodyless = self.exchange.parts.method == Method::HEAD
            || matches!(
                parts.status,
                StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
            );
        let ended = bodyless || body.is_end_stream();
        self.body = Some(body);
        self.clock.given_at = self.now;
        self.exchange.begin(parts.status, fields, ended)
    }

    /// Takes the next part of the response.
    fn content(&mut self, cx: &mut Context<'_>) -> Result<bool, Halt> {
        let Some(body) = &mut self.body else {
            return Ok(false);
        };
        let client = &mut *self.exchange.client;
        match body.poll_data(cx) {
            Poll::Ready(Some(Ok(content))) => {
                let length = content.len();
                let _ = body.flow_control().release_capacity(length);
                let last = body.is_end_stream();
                client.push(content, last);
                self.exchange.upstream_received += length;
                let pace = self.exchange.context.pace.as_mut();
                let delay = pace.and_then(|pace| pace.delay(length, self.now));
                self.paused = delay
                    .filter(|_| !last)
                    .and_then(|delay| self.now.checked_add(delay));
                Ok(true)
            }
            Poll::Ready(None) => match body.poll_trailers(cx) {
                Poll::Ready(Ok(trailers)) => {
                    client.finish(trailers);
                    Ok(true)
                }
                Poll::Ready(Err(error)) => Err(self.failed(&error)),
                Poll::Pending => Ok(false),
            },
            Poll::Ready(Some(Err(error))) => Err(self.failed(&error)),
            Poll::Pending => Ok(false),
        }
    }

    /// The endpoint's stream has ended where it must not.
    fn failed(&mut self, error: &h2::Error) -> Halt {
        let ending = Ending::of(error);
        let begun = self.exchange.client.status.is_some();
        let idempotent = self.exchange.parts.method.is_idempotent();
        // A reset is the endpoint's word about this request; the end of a kept connection is none.
        let repeatable = !begun && idempotent && !error.is_reset() && self.lease.is_reused();
        if begun {
            return Halt::Failed(error::reason(Source::Upstream, Fault::Closed));
        }
        halt(ending, self.replay, repeatable)
    }
}

impl Drop for Attempt<'_, '_> {
    /// A request that nobody waits for any more is not to go on at the endpoint.
    fn drop(&mut self) {
        if !self.complete || self.out.is_sending() {
            self.out.reset(Code::CANCEL);
        }
    }
}
