//! A stream of HTTP/2 to an endpoint that speaks HTTP/1.1: bytes in both directions at the same time.
//!
//! Nothing is collected. What one side does not take stops the reading of the other side.

use std::future::poll_fn;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http::header::CONTENT_LENGTH;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::super::body::{Body, Invalid, LAST_CHUNK, write_chunk};
use super::super::client::{Outgoing, Scratch};
use super::super::response::{self, Found, Outline};
use super::super::section::Field;
use super::fields;
use super::stream::{Exchange, Halt};
use crate::error::{self, Fault, Reason, Source};
use crate::phases::upstream::Upstream;
use crate::phases::{body, headers, retry};

/// How much of a request is kept to be sent again.
const MOST_REPLAYED: usize = 64 * 1024;
/// How many informational responses there may be before the final one.
const MOST_INTERIM: u8 = 100;

/// The request, over all tries.
pub(super) struct Upload {
    out: Outgoing,
    chunked: bool,
    /// All of it has come.
    complete: bool,
    /// Another endpoint may be asked by the rules of the route.
    has_rules: bool,
    /// When something last came from the client.
    read_at: Instant,
}

impl Upload {
    /// A request of which nothing has been sent.
    pub(super) fn new(exchange: &Exchange<'_>) -> Self {
        let ended = exchange.client.body.is_end_stream();
        let chunked = !ended && !exchange.parts.headers.contains_key(CONTENT_LENGTH);
        let mut out = Outgoing::default();
        *out.bytes() = fields::section(exchange.context, exchange.parts, ended, chunked);
        out.keep = true;
        let options = exchange.context.route.as_ref();
        Self {
            out,
            chunked,
            complete: ended,
            has_rules: options
                .and_then(|route| route.options.as_ref())
                .is_some_and(|options| options.retry.is_some()),
            read_at: Instant::now(),
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
    /// When something last went to the endpoint.
    sent_at: Instant,
    download: Download,
    now: Instant,
}

/// The response of one try.
struct Download {
    /// The beginning of a header section.
    held: Vec<u8>,
    fields: Vec<Field>,
    /// There after the header section.
    body: Option<Body>,
    /// May the endpoint's connection be used again?
    keep: bool,
    begun: bool,
    interim: u8,
    /// When something last came from the endpoint, or could not because of the client.
    read_at: Instant,
    /// When something last went to the client.
    sent_at: Instant,
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
    let now = Instant::now();
    let kept = if fresh || to.suspect {
        None
    } else {
        exchange.engine.pool.take(to.address, now)
    };
    let reused = kept.is_some();
    let stream = if let Some(stream) = kept {
        stream
    } else {
        let connected = exchange.client.or_gone(connect(to)).await?;
        connected.map_err(|fault| Halt::NotConnected(error::reason(Source::Upstream, fault)))?
    };
    retry::connected(exchange.context, reused);
    upload.out.rewind();
    // Only a connection that may have been closed long ago, or a rule, leads to a second time.
    upload.out.keep &= upload.has_rules || reused && exchange.parts.method.is_idempotent();
    upload.read_at = now;
    let mut attempt = Attempt {
        exchange,
        upload,
        to,
        stream: Some(stream),
        reused,
        refused: false,
        sent_at: now,
        download: Download {
            held: Vec::new(),
            fields: Vec::new(),
            body: None,
            keep: false,
            begun: false,
            interim: 0,
            read_at: now,
            sent_at: now,
            paused: None,
        },
        now,
    };
    poll_fn(|cx| attempt.poll(cx)).await
}

async fn connect(to: &Upstream) -> Result<TcpStream, Fault> {
    let stream = match timeout(to.connect, TcpStream::connect(to.address)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(_)) => return Err(Fault::Connect),
        Err(_) => return Err(Fault::ConnectTimeout),
    };
    stream.set_nodelay(true).map_err(|_| Fault::Connect)?;
    Ok(stream)
}

impl Attempt<'_, '_> {
    /// Moves bytes until the response has been handed over.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Halt>> {
        self.now = Instant::now();
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
        let Some((at, reason)) = self.deadline() else {
            return Poll::Pending;
        };
        ready!(self.exchange.timer.poll(cx, at));
        if let Some(reason) = reason {
            return Poll::Ready(Err(reason.into()));
        }
        self.download.paused = None;
        self.download.read_at = Instant::now();
        // There is room again.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Until when something has to happen, and what it means if it does not; nothing where a pause ends.
    fn deadline(&self) -> Option<(Instant, Option<Reason>)> {
        if let Some(at) = self.download.paused {
            return Some((at, None));
        }
        let limits = &self.exchange.engine.worker.shared.settings.limits;
        let client = &self.exchange.client;
        let uploading = self.stream.is_some() && !self.refused;
        let sending = uploading && !self.upload.out.is_empty();
        let to_client = client.is_sending();
        // A client may go on listening for hours before it has sent everything.
        let receiving = uploading && !sending && !self.upload.complete && client.status.is_none();
        let waiting = !to_client && self.stream.is_some() && !sending && !receiving;
        let last = self.sent_at.max(self.download.read_at);
        let until = |counts: bool, from: Instant, patience: Duration, side, fault| {
            let at = from.checked_add(patience).filter(|_| counts)?;
            Some((at, Some(error::reason(side, fault))))
        };
        [
            until(
                sending,
                self.sent_at,
                self.to.send,
                Source::Upstream,
                Fault::WriteTimeout,
            ),
            until(
                receiving,
                self.upload.read_at,
                limits.body_timeout,
                Source::Client,
                Fault::ReadTimeout,
            ),
            until(
                to_client,
                self.download.sent_at,
                limits.write_timeout,
                Source::Client,
                Fault::WriteTimeout,
            ),
            until(
                waiting,
                last,
                self.to.read,
                Source::Upstream,
                Fault::ReadTimeout,
            ),
        ]
        .into_iter()
        .flatten()
        .min_by_key(|(at, _)| *at)
    }

    /// Moves the request on. Says whether anything moved.
    fn upload(&mut self, cx: &mut Context<'_>) -> Result<bool, Halt> {
        let mut moved = false;
        loop {
            if !self.push(cx) || self.upload.complete || !self.wants_body() {
                return Ok(moved);
            }
            match self.exchange.client.poll_body(cx) {
                Poll::Ready(Some(content)) => self.take(cx, &content?)?,
                Poll::Ready(None) => self.complete(),
                Poll::Pending => return Ok(moved),
            }
            if self.exchange.client.body.is_end_stream() {
                self.complete();
            }
            self.upload.read_at = self.now;
            moved = true;
        }
    }

    /// Is there room for more of the body?
    fn wants_body(&self) -> bool {
        self.upload.out.is_empty() && !self.refused && self.stream.is_some()
    }

    /// Writes to the endpoint. Says whether everything has gone.
    fn push(&mut self, cx: &mut Context<'_>) -> bool {
        let out = &mut self.upload.out;
        // The first of the body goes with the header section, if it is there already.
        let Some(stream) = self.stream.as_mut().filter(|_| !self.refused) else {
            return true;
        };
        if !out.is_empty() {
            match out.poll_write(stream, cx) {
                Poll::Ready(Ok(_)) => self.sent_at = self.now,
                // Its answer may be here already, or be on its way.
                Poll::Ready(Err(_)) => self.refused = true,
                Poll::Pending => return false,
            }
        }
        self.refused || out.is_empty()
    }

    /// Takes a part of the body.
    fn take(&mut self, cx: &mut Context<'_>, content: &Bytes) -> Result<(), Halt> {
        body::received(self.exchange.context, content.len())?;
        let upload = &mut *self.upload;
        if upload.out.keep && upload.out.len() + content.len() > MOST_REPLAYED {
            upload.out.keep = false;
            upload.out.clear();
        }
        if upload.chunked {
            write_chunk(upload.out.bytes(), content);
            return Ok(());
        }
        let written = match self.stream.as_mut() {
            Some(stream) => upload.out.write(stream, cx, content),
            None => Ok(()),
        };
        self.refused |= written.is_err();
        self.sent_at = self.now;
        Ok(())
    }

    fn complete(&mut self) {
        if !self.upload.complete && self.upload.chunked {
            self.upload.out.bytes().extend_from_slice(LAST_CHUNK);
        }
        self.upload.complete = true;
    }

    /// Moves the response on. Says whether anything moved.
    fn download(&mut self, cx: &mut Context<'_>, scratch: &mut Scratch) -> Result<bool, Halt> {
        let mut moved = false;
        loop {
            if self.exchange.client.is_sending() {
                match self.exchange.client.poll_send(cx) {
                    Poll::Ready(sent) => sent?,
                    Poll::Pending => return Ok(moved),
                }
                self.download.sent_at = self.now;
                self.download.read_at = self.now;
                moved = true;
                continue;
            }
            if self.exchange.client.is_done() || self.download.paused.is_some() {
                return Ok(moved);
            }
            let Some(stream) = self.stream.as_mut() else {
                return Ok(moved);
            };
            match scratch.poll_read(stream, cx) {
                Poll::Ready(Ok([])) => self.end()?,
                Poll::Ready(Ok(bytes)) => {
                    self.download.begun = true;
                    self.download.read_at = self.now;
                    self.received(bytes)?;
                }
                Poll::Ready(Err(_)) => return Err(self.closed()),
                Poll::Pending => return Ok(moved),
            }
            moved = true;
        }
    }

    /// The endpoint has closed its connection.
    fn end(&mut self) -> Result<(), Halt> {
        if self.download.body != Some(Body::UntilClose) {
            return Err(self.closed());
        }
        self.download.body = Some(Body::Length(0));
        self.exchange.client.push(Bytes::new(), true);
        self.stream = None;
        Ok(())
    }

    /// The endpoint has closed its connection where it must not. It may have been closed before it saw the request.
    fn closed(&self) -> Halt {
        let reason = error::reason(Source::Upstream, Fault::Closed);
        let stale = self.reused
            && !self.download.begun
            && self.upload.out.keep
            && self.exchange.parts.method.is_idempotent();
        if stale {
            Halt::Stale(reason)
        } else {
            Halt::Failed(reason)
        }
    }

    /// Takes what the endpoint has sent.
    fn received(&mut self, bytes: &[u8]) -> Result<(), Halt> {
        if self.download.body.is_some() {
            return self.content(bytes);
        }
        if self.download.held.is_empty() {
            let taken = self.sections(bytes)?;
            let rest = bytes.get(taken..).unwrap_or_default();
            if self.download.body.is_some() {
                return self.content(rest);
            }
            self.download.held.extend_from_slice(rest);
            return Ok(());
        }
        let mut held = std::mem::take(&mut self.download.held);
        held.extend_from_slice(bytes);
        let taken = self.sections(&held)?;
        if self.download.body.is_some() {
            return self.content(held.get(taken..).unwrap_or_default());
        }
        held.drain(..taken);
        self.download.held = held;
        Ok(())
    }

    /// Takes header sections, up to the final one.
    fn sections(&mut self, bytes: &[u8]) -> Result<usize, Halt> {
        let invalid = || Halt::Failed(error::reason(Source::Upstream, Fault::Invalid));
        let mut taken = 0;
        loop {
            let rest = bytes.get(taken..).unwrap_or_default();
            if rest.is_empty() {
                return Ok(taken);
            }
            let method = &self.exchange.parts.method;
            match response::read(rest, method, &mut self.download.fields) {
                Found::Partial => return Ok(taken),
                Found::Invalid => return Err(invalid()),
                Found::Complete(outline) => {
                    taken += outline.length;
                    if !outline.status.is_informational() {
                        self.answered(rest, &outline)?;
                        return Ok(taken);
                    }
                    self.download.interim += 1;
                    let unasked = outline.status == StatusCode::SWITCHING_PROTOCOLS;
                    if unasked || self.download.interim > MOST_INTERIM {
                        return Err(invalid());
                    }
                    retry::answered(self.exchange.context, outline.status, self.now);
                    let mut fields = fields::map(rest, &outline, &self.download.fields);
                    headers::to_client(self.exchange.context, &mut fields);
                    self.exchange.client.inform(outline.status, fields);
                }
            }
        }
    }

    /// The final header section has come.
    fn answered(&mut self, bytes: &[u8], outline: &Outline) -> Result<(), Halt> {
        let download = &mut self.download;
        download.body = Some(outline.body);
        download.keep = outline.keep;
        if self.exchange.unwanted(self.upload.out.keep, outline.status) {
            return Err(Halt::Unwanted);
        }
        let mut fields = fields::map(bytes, outline, &download.fields);
        if let Some(length) = outline.given_length
            && outline.status != StatusCode::NO_CONTENT
        {
            fields.insert(CONTENT_LENGTH, length.into());
        }
        self.exchange
            .begin(outline.status, fields, outline.body.is_done())
    }

    /// Passes content on, and the connection to the pool after the last of it.
    fn content(&mut self, bytes: &[u8]) -> Result<(), Halt> {
        let download = &mut self.download;
        let Some(body) = &mut download.body else {
            return Ok(());
        };
        if self.exchange.client.is_done() {
            self.give_back(bytes.is_empty());
            return Ok(());
        }
        let mut rest = bytes;
        let mut content = Bytes::new();
        let mut more = BytesMut::new();
        while !rest.is_empty() && !body.is_done() {
            let step = body
                .step(rest)
                .map_err(|Invalid| Halt::Failed(error::reason(Source::Upstream, Fault::Invalid)))?;
            let whole = step.taken == rest.len() && more.is_empty();
            rest = rest.get(step.taken..).unwrap_or_default();
            if whole {
                content = Bytes::copy_from_slice(step.content);
            } else {
                more.extend_from_slice(step.content);
            }
        }
        if !more.is_empty() {
            content = more.freeze();
        }
        let done = body.is_done();
        let length = content.len();
        self.exchange.upstream_received += length;
        if length > 0 || done {
            self.exchange.client.push(content, done);
            let pace = self.exchange.context.pace.as_mut();
            let delay = pace.and_then(|pace| pace.delay(length, self.now));
            self.download.paused = delay
                .filter(|_| !done)
                .and_then(|delay| self.now.checked_add(delay));
        }
        if done {
            self.give_back(rest.is_empty());
        }
        Ok(())
    }

    /// The response has come to its end. What comes after that is no answer to anything.
    fn give_back(&mut self, clean: bool) {
        let clean = clean && self.upload.complete && self.upload.out.is_empty();
        if let Some(stream) = self.stream.take()
            && clean
            && self.download.keep
        {
            let pool = &self.exchange.engine.pool;
            pool.put(self.to.address, stream, self.now);
        }
    }
}
