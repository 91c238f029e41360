//! A stream of HTTP/2 to an endpoint that speaks HTTP/2 without TLS: gRPC for the most part. Content passes as it
//! came, without a copy, and so do trailers in both directions.

use std::future::poll_fn;
use std::pin::pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use http::header::DATE;
use http::{Method, StatusCode};
use http2::{Block, Code, Ended, Head, Stream, Writer};

use super::super::edits::Edits;
use super::super::exchange::began;
use super::super::links::Lease;
use super::super::patience::{Awaited, Clock, Failure, Patience, earlier};
use super::super::response::MOST_INTERIM;
use super::super::section::{self, Section};
use super::fields;
use super::outlet::Outlet;
use super::request::{Request, parts};
use super::stream::{Exchange, Halt};
use crate::context::RequestContext;
use crate::error::{self, Fault, Reason, Source};
use crate::phases::deadline::{self, Until};
use crate::phases::original::Headers;
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
    trailers: Option<Block>,
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
#[expect(
    clippy::struct_excessive_bools,
    reason = "both directions of a stream go on by themselves"
)]
struct Attempt<'e, 'a> {
    exchange: &'e mut Exchange<'a>,
    replay: &'e mut Replay,
    /// How many bytes of the request have been taken from what was kept.
    replayed: usize,
    lease: Lease,
    stream: Stream,
    out: Outlet,
    /// The end of the request has been handed to `out`.
    complete: bool,
    /// The endpoint takes no more. It may still answer.
    refused: bool,
    /// The final header section has come.
    answered: bool,
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
    /// It has not been polled yet.
    begins: bool,
}

/// Sends the request to one endpoint and its response to the client.
pub(super) async fn exchange(
    exchange: &mut Exchange<'_>,
    replay: &mut Replay,
    to: &Upstream,
) -> Result<(), Halt> {
    let links = &exchange.engine.links;
    let opened = exchange
        .client
        .or_gone(pin!(links.open(to.address, to.connect, to.suspect)))
        .await?;
    let lease =
        opened.map_err(|fault| Halt::NotConnected(error::reason(Source::Upstream, fault)))?;
    retry::connected(exchange.context, lease.is_reused());
    let over = replay.ended || exchange.client.is_body_done();
    let ended = over && replay.kept.is_empty() && replay.trailers.is_none();
    let stream = lease.open(ended, |out| write(out, exchange.context, exchange.request));
    let stream = stream.map_err(|why| halt(why, replay, false))?;
    if exchange.request.method == Method::HEAD {
        stream.expect_no_content();
    }
    // A connection that was there already has cost no time.
    let now = if lease.is_reused() {
        began(exchange.context)
    } else {
        Instant::now()
    };
    let patience = Patience::new(to, &exchange.context.connection.limits);
    let until = deadline::of(exchange.context);
    let mut attempt = Attempt {
        exchange,
        replay,
        replayed: 0,
        lease,
        stream,
        out: Outlet::new(ended),
        complete: ended,
        refused: false,
        answered: false,
        interim: 0,
        held_up: false,
        paused: None,
        clock: Clock::new(now),
        patience,
        until,
        now,
        begins: true,
    };
    poll_fn(|cx| attempt.poll(cx)).await
}

/// Writes the header section for an endpoint.
fn write(out: &mut Writer<'_>, context: &RequestContext, request: &Request) {
    let mut edits = Edits::of(request.headers());
    headers::to_backend(context, request.original(), &mut edits);
    let changed = headers::target(context, &request.uri);
    let host = edits
        .added()
        .find(|(name, _)| name.eq_ignore_ascii_case("host"));
    let host = host.map_or_else(|| request.host(), |(_, host)| host.as_bytes());
    out.add(b":method", request.method.as_str().as_bytes(), false);
    out.add(b":scheme", b"http", false);
    out.add(b":authority", host, false);
    let target = changed.as_ref().unwrap_or(&request.uri);
    out.add(b":path", fields::path(target), false);
    let bytes = request.section.bytes();
    for field in request.section.fields() {
        let name = section::get(bytes, field.name);
        let passes = field.end_to_end || matches!(name, b"te" | b"content-length");
        if passes && !edits.leaves_out_marked(field.mark, name) {
            out.add(name, section::get(bytes, field.value), field.sensitive);
        }
    }
    for (name, value) in edits.added() {
        if !name.eq_ignore_ascii_case("host") && !fields::is_of_http1(name) {
            out.add(name.as_bytes(), value.as_bytes(), value.is_sensitive());
        }
    }
}

/// What a failure of the endpoint's stream means. One that was refused has had no effect (RFC 9113, 8.7).
fn halt(why: Ended, replay: &Replay, repeatable: bool) -> Halt {
    let (fault, unseen) = match why {
        Ended::NotSeen | Ended::Reset(Code::REFUSED_STREAM) => (Fault::Closed, true),
        Ended::Reset(_) | Ended::Closed => (Fault::Closed, false),
        Ended::Invalid => (Fault::Invalid, false),
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
        if !std::mem::take(&mut self.begins) {
            self.now = Instant::now();
        }
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
        let has_length = self.exchange.request.gives_length();
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
                match self.out.poll_send(&mut self.stream, cx) {
                    Poll::Ready(Ok(_)) => self.clock.sent_at = self.now,
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
            Poll::Ready(None) => {
                let trailers = client.take_trailers();
                self.replay.ended = true;
                self.replay.trailers.clone_from(&trailers);
                self.out.finish(trailers);
                self.complete = true;
            }
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
            } else if !self.answered {
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
        let head = match self.stream.poll_head(cx) {
            Poll::Ready(Ok(head)) => head,
            Poll::Ready(Err(why)) => return Err(self.failed(why)),
            Poll::Pending => return Ok(false),
        };
        let status = StatusCode::from_u16(head.status());
        let status = status.map_err(|_| self.failed(Ended::Invalid))?;
        if status.is_informational() {
            self.informed(status, head)?;
        } else {
            self.answered(status, head)?;
        }
        Ok(true)
    }

    /// An informational response has come.
    fn informed(&mut self, status: StatusCode, head: Head) -> Result<(), Halt> {
        self.interim += 1;
        if self.interim > MOST_INTERIM {
            return Err(self.failed(Ended::Invalid));
        }
        retry::answered(self.exchange.context, status, self.now);
        let section = response(head, status);
        let mut edits = Edits::of(Headers::Section(&section));
        headers::to_client(self.exchange.context, &mut edits);
        self.exchange.client.inform(status, |out| {
            fields::copy(out, section.bytes(), section.fields(), &edits);
        });
        Ok(())
    }

    /// The header section has come.
    fn answered(&mut self, status: StatusCode, head: Head) -> Result<(), Halt> {
        self.answered = true;
        self.lease.answered();
        if self
            .exchange
            .unwanted(self.replay.is_whole(), status, self.now)
        {
            return Err(Halt::Unwanted);
        }
        // What follows nevertheless would be no content of this response (RFC 9110, 6.4.1).
        let bodyless = self.exchange.request.method == Method::HEAD
            || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        let ended = bodyless || self.stream.is_finished();
        self.clock.given_at = self.now;
        let section = response(head, status);
        let mut edits = Edits::of(Headers::Section(&section));
        let exchange = &mut *self.exchange;
        headers::to_client(exchange.context, &mut edits);
        let has_date = Headers::Section(&section).has(&DATE);
        let (client, context) = (&mut *exchange.client, &*exchange.context);
        client.begin(status, ended, |out| {
            fields::copy(out, section.bytes(), section.fields(), &edits);
            if !has_date {
                fields::write_date(out, context);
            }
        })?;
        Ok(())
    }

    /// Takes the next part of the response.
    fn content(&mut self, cx: &mut Context<'_>) -> Result<bool, Halt> {
        let client = &mut *self.exchange.client;
        match self.stream.poll_content(cx) {
            Poll::Ready(Some(Ok(content))) => {
                let length = content.len();
                let last = self.stream.is_finished();
                client.push(content, last);
                self.exchange.upstream_received += length;
                let pace = self.exchange.context.pace.as_mut();
                let delay = pace.and_then(|pace| pace.delay(length, self.now));
                self.paused = delay
                    .filter(|_| !last)
                    .and_then(|delay| self.now.checked_add(delay));
                Ok(true)
            }
            Poll::Ready(None) => {
                client.finish(self.stream.take_trailers());
                Ok(true)
            }
            Poll::Ready(Some(Err(why))) => Err(self.failed(why)),
            Poll::Pending => Ok(false),
        }
    }

    /// The endpoint's stream has ended where it must not.
    fn failed(&mut self, why: Ended) -> Halt {
        let begun = self.exchange.client.status.is_some();
        let idempotent = self.exchange.request.method.is_idempotent();
        // A reset is the endpoint's word about this request; the end of a kept connection is none.
        let reset = matches!(why, Ended::Reset(_));
        let repeatable = !begun && idempotent && !reset && self.lease.is_reused();
        if begun {
            return Halt::Failed(error::reason(Source::Upstream, Fault::Closed));
        }
        halt(why, self.replay, repeatable)
    }
}

/// The fields of a response. Some are only for this connection.
fn response(head: Head, status: StatusCode) -> Section {
    let (text, fields) = parts(head.into_fields(), |name| {
        name == b"trailer" || status == StatusCode::NO_CONTENT && name == b"content-length"
    });
    Section::new(text, fields)
}
