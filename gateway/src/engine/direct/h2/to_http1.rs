//! A stream of HTTP/2 to an endpoint that speaks HTTP/1.1: bytes in both directions at the same time.
//!
//! Nothing is collected. What one side does not take stops the reading of the other side.

mod download;
mod upload;

use std::future::poll_fn;
use std::pin::pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use tokio::net::TcpStream;

use super::super::body::Body;
use super::super::client::{Outgoing, Scratch};
use super::super::exchange::began;
use super::super::patience::{Awaited, Clock, Failure, Patience, earlier};
use super::super::pool::connect;
use super::fields;
use super::stream::{Exchange, Halt};
use crate::error::{self, Reason, Source};
use crate::phases::deadline::{self, Until};
use crate::phases::retry;
use crate::phases::upstream::Upstream;

/// The request, over all tries.
pub(super) struct Upload {
    out: Outgoing,
    chunked: bool,
    /// All of it has come.
    complete: bool,
    /// Another endpoint may be asked by the rules of the route.
    has_rules: bool,
}

impl Upload {
    /// A request of which nothing has been sent.
    pub(super) fn new(exchange: &Exchange<'_>) -> Self {
        let ended = exchange.client.is_body_done();
        let chunked = !ended && !exchange.request.gives_length();
        let section = fields::section(exchange.context, exchange.request, ended, chunked);
        let mut out = Outgoing::from(section);
        out.keep = true;
        let options = exchange.context.route.as_ref();
        Self {
            out,
            chunked,
            complete: ended,
            has_rules: options
                .and_then(|route| route.options.as_ref())
                .is_some_and(|options| options.retry.is_some()),
        }
    }

    /// Is everything there that has come so far?
    pub(super) fn is_whole(&self) -> bool {
        self.out.keep
    }
}

/// One try.
struct Attempt<'e, 'a> {
    exchange: &'e mut Exchange<'a>,
    upload: &'e mut Upload,
    to: &'e Upstream,
    stream: Option<TcpStream>,
    reused: bool,
    /// The endpoint takes no more. It may still answer.
    refused: bool,
    download: Download,
    clock: Clock,
    patience: Patience,
    /// What the route says about the time for an answer.
    until: Option<Until>,
    now: Instant,
    /// It has not been polled yet.
    begins: bool,
}

/// The response of one try.
struct Download {
    /// The beginning of a header section.
    held: Vec<u8>,
    /// There after the header section.
    body: Option<Body>,
    /// May the endpoint's connection be used again?
    keep: bool,
    begun: bool,
    interim: u8,
    /// The client leaves too much of what it has asked for lying.
    held_up: bool,
    /// The response has its pace.
    paused: Option<Instant>,
}

/// Sends the request to one endpoint and its response to the client. `fresh` asks for a new connection.
pub(super) async fn exchange(
    exchange: &mut Exchange<'_>,
    upload: &mut Upload,
    to: &Upstream,
    fresh: bool,
) -> Result<(), Halt> {
    // A connection that was there already has cost no time.
    let mut now = began(exchange.context);
    let kept = if fresh || to.suspect {
        None
    } else {
        exchange.engine.pool.take(to.address, now)
    };
    let reused = kept.is_some();
    let stream = if let Some(stream) = kept {
        stream
    } else {
        let connected = exchange.client.or_gone(pin!(connect(to))).await?;
        now = Instant::now();
        connected.map_err(|fault| Halt::NotConnected(error::reason(Source::Upstream, fault)))?
    };
    retry::connected(exchange.context, reused);
    upload.out.rewind();
    // Only a connection that may have been closed long ago, or a rule, leads to a second time.
    upload.out.keep &= upload.has_rules || reused && exchange.request.method.is_idempotent();
    let patience = Patience::new(to, &exchange.context.connection.limits);
    let until = deadline::of(exchange.context);
    let mut attempt = Attempt {
        exchange,
        upload,
        to,
        stream: Some(stream),
        reused,
        refused: false,
        download: Download {
            held: Vec::new(),
            body: None,
            keep: false,
            begun: false,
            interim: 0,
            held_up: false,
            paused: None,
        },
        clock: Clock::new(now),
        patience,
        until,
        now,
        begins: true,
    };
    poll_fn(|cx| attempt.poll(cx)).await
}

impl Attempt<'_, '_> {
    /// Moves bytes until the response has been handed over.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Halt>> {
        if !std::mem::take(&mut self.begins) {
            self.now = Instant::now();
        }
        let mut scratch = Scratch::take();
        loop {
            let uploaded = self.upload(cx)?;
            let downloaded = self.download(cx, &mut scratch)?;
            if self.exchange.client.is_done() {
                return Poll::Ready(Ok(()));
            }
            if !uploaded && !downloaded {
                break;
            }
        }
        drop(scratch);
        if self.exchange.client.poll_gone(cx).is_ready() {
            return Poll::Ready(Err(Reason::ClientClosed.into()));
        }
        let Some((at, failure)) = self.deadline() else {
            return Poll::Pending;
        };
        ready!(self.exchange.timer.poll(cx, at));
        if let Some((source, fault)) = failure {
            return Poll::Ready(Err(error::reason(source, fault).into()));
        }
        self.download.paused = None;
        self.clock.heard_at = Instant::now();
        // There is room again.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Until when something has to happen, and what it means if it does not; nothing where a pause ends.
    fn deadline(&self) -> Option<(Instant, Option<Failure>)> {
        if let Some(at) = self.download.paused {
            return Some((at, None));
        }
        let client = &self.exchange.client;
        let connected = self.stream.is_some();
        let uploading = connected && !self.refused;
        let sending = uploading && !self.upload.out.is_empty();
        let awaited = Awaited {
            sending,
            // A client may go on listening for hours before it has sent everything.
            receiving: uploading && !sending && !self.upload.complete && client.status.is_none(),
            received: (!self.upload.chunked).then_some(client.received),
            giving: (client.is_sending() || self.download.held_up).then_some(client.sent),
            connected,
        };
        let mut first = self.clock.deadline(&awaited, &self.patience);
        if let Some(until) = self.until {
            let silent = connected && self.upload.complete && client.status.is_none();
            let since = silent.then(|| self.exchange.sent_at(&self.clock));
            first = earlier(first, until.next(since));
        }
        first.map(|(at, failure)| (at, Some(failure)))
    }
}
