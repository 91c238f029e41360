//! One request and its response: bytes in both directions at the same time.
//!
//! Nothing is collected. What one side does not take stops the reading of the other side.

use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use http::StatusCode;
use tokio::net::TcpStream;

use super::body::{Body, Invalid, LAST_CHUNK, write_chunk};
use super::client::{Client, MOST_COPIED, Outgoing, Scratch};
use super::date;
use super::edits::Edits;
use super::patience::{Patience, Waits};
use super::pool::Pool;
use super::request::Head;
use super::response::{self, Found, Outline};
use super::section::Field;
use crate::context::RequestContext;
use crate::error::{Fault, Source};
use crate::phases::{body, headers, retry};

/// How much of a request is kept to be sent again.
const MOST_REPLAYED: usize = 64 * 1024;
/// How much is read of requests that follow.
const MOST_AHEAD: usize = 16 * 1024;
/// How many informational responses there may be before the final one.
const MOST_INTERIM: u8 = 100;

/// How much is usually added to a header section.
const MOST_ADDED: usize = 256;

/// When the current try began.
fn began(context: &RequestContext) -> Instant {
    let attempt = context.tries.last();
    attempt.map_or_else(Instant::now, |attempt| attempt.began)
}

/// Whose fault, and which.
pub(super) type Failure = (Source, Fault);

/// A request on its way.
pub(super) struct Exchange<'a> {
    pub(super) context: &'a mut RequestContext,
    head: &'a Head,
    pub(super) client: &'a mut Client,
    pool: &'a Arc<Pool>,
    patience: Patience,
    address: SocketAddr,
    stream: Option<TcpStream>,
    reused: bool,
    pub(super) upload: Upload,
    pub(super) download: Download,
    now: Instant,
    /// Nothing has been sent on this connection.
    begins: bool,
}

/// The request's side.
pub(super) struct Upload {
    pub(super) body: Body,
    chunked: bool,
    out: Outgoing,
    /// The endpoint takes no more. It may still answer.
    refused: bool,
    /// When something last went to the endpoint.
    sent_at: Instant,
    /// When something last came from the client.
    read_at: Instant,
    waits: Waits,
    /// Bytes of content.
    pub(super) received: usize,
}

/// The response's side.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fact of its own, and all combinations occur"
)]
pub(super) struct Download {
    /// The beginning of a header section.
    held: Vec<u8>,
    fields: Vec<Field>,
    /// There after the header section.
    body: Option<Body>,
    chunked: bool,
    /// May the endpoint's connection be used again?
    keep: bool,
    /// May the client's connection be used again?
    pub(super) keep_client: bool,
    begun: bool,
    interim: u8,
    /// When something last came from the endpoint, or could not because of the client.
    read_at: Instant,
    /// When something last went to the client.
    sent_at: Instant,
    waits: Waits,
    /// What was sent to the client.
    pub(super) status: Option<StatusCode>,
    /// Bytes of content from the endpoint.
    pub(super) received: usize,
    /// Bytes of content for the client.
    pub(super) sent: usize,
}

impl Download {
    fn is_done(&self) -> bool {
        self.body.as_ref().is_some_and(Body::is_done)
    }
}

impl<'a> Exchange<'a> {
    /// A request whose header section for the endpoint is `block`.
    pub(super) fn new(
        context: &'a mut RequestContext,
        head: &'a Head,
        client: &'a mut Client,
        pool: &'a Arc<Pool>,
        patience: Patience,
        request: Request,
    ) -> Self {
        let now = began(context);
        let mut out = Outgoing::default();
        *out.bytes() = request.block;
        out.keep = true;
        Self {
            context,
            head,
            client,
            pool,
            patience,
            address: SocketAddr::from(([0, 0, 0, 0], 0)),
            stream: None,
            reused: false,
            upload: Upload {
                chunked: matches!(request.body, Body::Chunked(_)),
                body: request.body,
                out,
                refused: false,
                sent_at: now,
                read_at: now,
                waits: Waits::default(),
                received: 0,
            },
            download: Download {
                held: Vec::new(),
                fields: Vec::new(),
                body: None,
                chunked: false,
                keep: false,
                keep_client: request.keep,
                begun: false,
                interim: 0,
                read_at: now,
                sent_at: now,
                waits: Waits::default(),
                status: None,
                received: 0,
                sent: 0,
            },
            now,
            begins: true,
        }
    }

    /// When the current try began.
    pub(super) fn began(&self) -> Instant {
        began(self.context)
    }

    /// Begins, or begins again, on this connection.
    pub(super) fn begin(&mut self, address: SocketAddr, stream: TcpStream, reused: bool) {
        // A connection that was there already has cost no time.
        let now = if reused { self.began() } else { Instant::now() };
        self.now = now;
        self.begins = true;
        self.address = address;
        self.stream = Some(stream);
        self.reused = reused;
        self.upload.refused = false;
        self.upload.out.rewind();
        // Only a connection that may have been closed long ago leads to a second time.
        self.upload.out.keep = reused && self.head.parts.method.is_idempotent();
        self.upload.sent_at = now;
        self.upload.read_at = now;
        self.download.read_at = now;
        self.download.held.clear();
    }

    /// Could the endpoint have closed the connection before it saw the request, and is everything there that is
    /// needed to send it again?
    pub(super) fn is_repeatable(&self) -> bool {
        self.reused && self.upload.out.keep && !self.download.begun
    }

    /// Moves bytes until the response has been sent.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        let mut scratch = Scratch::take();
        // The request goes first. Later it is nearly always the response that has come, and with its end nobody needs
        // to look for anything from the client.
        let mut upload_next = true;
        let mut uploaded = false;
        if std::mem::take(&mut self.begins) {
            uploaded = self.upload(cx, &mut scratch)?;
            upload_next = false;
        } else {
            self.now = Instant::now();
        }
        loop {
            let downloaded = self.download(cx, &mut scratch)?;
            if self.download.is_done() && !self.client.is_sending() {
                return Poll::Ready(Ok(()));
            }
            if upload_next {
                uploaded = self.upload(cx, &mut scratch)?;
            }
            if !uploaded && !downloaded {
                break;
            }
            upload_next = true;
        }
        drop(scratch);
        let Some((at, failure)) = self.deadline() else {
            return Poll::Pending;
        };
        self.client.timer.poll(cx, at).map(|()| Err(failure))
    }

    /// Until when something has to happen, and what it means if it does not.
    fn deadline(&self) -> Option<(Instant, Failure)> {
        let (upload, download, patience) = (&self.upload, &self.download, &self.patience);
        let uploading = self.stream.is_some() && !upload.refused;
        let sending = uploading && !upload.out.is_empty();
        let receiving = uploading && !sending && !upload.body.is_done();
        let to_client = self.client.is_sending();
        let mut first: Option<(Instant, Failure)> = None;
        let mut until = |at: Option<Instant>, failure| {
            first = match (first, at) {
                (Some((before, _)), Some(at)) if before <= at => first,
                (_, Some(at)) => Some((at, failure)),
                (_, None) => first,
            };
        };
        if sending {
            let at = upload.sent_at.checked_add(patience.send);
            until(at, (Source::Upstream, Fault::WriteTimeout));
        }
        if receiving {
            let late = (Source::Client, Fault::ReadTimeout);
            until(upload.read_at.checked_add(patience.body), late);
            // Chunks are for those who do not know yet what they will send, and when.
            if !upload.chunked {
                let (waits, bytes) = (&upload.waits, upload.received);
                until(waits.limit(patience.body, bytes, patience.rate), late);
            }
        }
        if to_client {
            let late = (Source::Client, Fault::WriteTimeout);
            until(download.sent_at.checked_add(patience.client), late);
            let (waits, bytes) = (&download.waits, download.sent);
            until(waits.limit(patience.client, bytes, patience.rate), late);
        }
        // As long as the client is still sending, its own time is what counts.
        if !to_client && self.stream.is_some() && !sending && !receiving {
            let last = upload.sent_at.max(download.read_at);
            let at = last.checked_add(patience.read);
            until(at, (Source::Upstream, Fault::ReadTimeout));
        }
        first
    }

    /// Moves the request on. Says whether anything moved.
    fn upload(&mut self, cx: &mut Context<'_>, scratch: &mut Scratch) -> Result<bool, Failure> {
        let mut moved = false;
        loop {
            // Together with the header section, if it is there already.
            if !self.client.held.is_empty() && self.wants_body() {
                let held = self.client.held.split().freeze();
                let taken = self.take(cx, &held)?;
                self.client
                    .held
                    .extend_from_slice(held.get(taken..).unwrap_or_default());
                moved = true;
            }
            if !self.push(cx) {
                return Ok(moved);
            }
            if self.upload.body.is_done() {
                return Ok(self.watch_client(cx, scratch)? || moved);
            }
            if !self.wants_body() {
                return Ok(moved);
            }
            match scratch.poll_read(&mut self.client.io, cx) {
                Poll::Ready(Ok(bytes)) if !bytes.is_empty() => {
                    let taken = self.take(cx, bytes)?;
                    self.client
                        .held
                        .extend_from_slice(bytes.get(taken..).unwrap_or_default());
                    self.upload.read_at = self.now;
                    self.upload.waits.end(self.now);
                    moved = true;
                }
                Poll::Ready(_) => return Err((Source::Client, Fault::Closed)),
                Poll::Pending => {
                    self.upload.waits.begin(self.now);
                    return Ok(moved);
                }
            }
        }
    }

    /// Is there room for more of the body?
    fn wants_body(&self) -> bool {
        let out = &self.upload.out;
        let room = out.is_empty() || out.len() < MOST_REPLAYED && self.upload.received == 0;
        room && !self.upload.refused && self.stream.is_some() && !self.upload.body.is_done()
    }

    /// Writes to the endpoint. Says whether everything has gone.
    fn push(&mut self, cx: &mut Context<'_>) -> bool {
        let upload = &mut self.upload;
        let Some(stream) = self.stream.as_mut().filter(|_| !upload.refused) else {
            return true;
        };
        if !upload.out.is_empty() {
            match upload.out.poll_write(stream, cx) {
                Poll::Ready(Ok(_)) => upload.sent_at = self.now,
                // Its answer may be here already, or be on its way.
                Poll::Ready(Err(_)) => upload.refused = true,
                Poll::Pending => return false,
            }
        }
        upload.refused || upload.out.is_empty()
    }

    /// Takes what belongs to the body of the request.
    fn take(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Result<usize, Failure> {
        let upload = &mut self.upload;
        let mut taken = 0;
        while !upload.body.is_done() {
            let rest = bytes.get(taken..).unwrap_or_default();
            if rest.is_empty() {
                break;
            }
            let step = upload
                .body
                .step(rest)
                .map_err(|Invalid| (Source::Client, Fault::Invalid))?;
            taken += step.taken;
            upload.received += step.content.len();
            if let Err(reason) = body::received(self.context, step.content.len()) {
                self.context.fail(reason);
                return Err((Source::Client, Fault::Invalid));
            }
            if upload.out.keep && upload.out.len() + step.content.len() > MOST_REPLAYED {
                upload.out.keep = false;
            }
            if upload.chunked {
                write_chunk(upload.out.bytes(), step.content);
                continue;
            }
            let written = match self.stream.as_mut() {
                Some(stream) => upload.out.write(stream, cx, step.content),
                None => Ok(()),
            };
            if written.is_err() {
                upload.refused = true;
                break;
            }
            upload.sent_at = self.now;
        }
        if upload.chunked && upload.body.is_done() {
            upload.out.bytes().extend_from_slice(LAST_CHUNK);
        }
        Ok(taken)
    }

    /// The request is complete: what may come is the next one, or the end.
    fn watch_client(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut Scratch,
    ) -> Result<bool, Failure> {
        while self.client.held.len() < MOST_AHEAD {
            match scratch.poll_read(&mut self.client.io, cx) {
                Poll::Ready(Ok(bytes)) if !bytes.is_empty() => {
                    self.client.held.extend_from_slice(bytes);
                }
                Poll::Ready(_) => return Err((Source::Client, Fault::Closed)),
                Poll::Pending => break,
            }
        }
        Ok(false)
    }

    /// Moves the response on. Says whether anything moved.
    fn download(&mut self, cx: &mut Context<'_>, scratch: &mut Scratch) -> Result<bool, Failure> {
        let mut moved = false;
        loop {
            if self.client.is_sending() {
                match self.client.poll_send(cx) {
                    Poll::Ready(Ok(_)) => {
                        self.download.sent_at = self.now;
                        self.download.read_at = self.now;
                        self.download.waits.end(self.now);
                        moved = true;
                    }
                    Poll::Ready(Err(_)) => return Err((Source::Client, Fault::Closed)),
                    Poll::Pending => {
                        self.download.waits.begin(self.now);
                        return Ok(moved);
                    }
                }
                if self.client.is_sending() {
                    continue;
                }
            }
            let Some(stream) = self.stream.as_mut().filter(|_| !self.download.is_done()) else {
                return Ok(moved);
            };
            match scratch.poll_read(stream, cx) {
                Poll::Ready(Ok([])) => self.end()?,
                Poll::Ready(Ok(bytes)) => {
                    self.download.begun = true;
                    self.download.read_at = self.now;
                    self.received(cx, bytes)?;
                }
                Poll::Ready(Err(_)) => return Err((Source::Upstream, Fault::Closed)),
                Poll::Pending => return Ok(moved),
            }
            moved = true;
        }
    }

    /// The endpoint has closed its connection.
    fn end(&mut self) -> Result<(), Failure> {
        if self.download.body != Some(Body::UntilClose) {
            return Err((Source::Upstream, Fault::Closed));
        }
        self.download.body = Some(Body::Length(0));
        self.client.out.bytes().extend_from_slice(LAST_CHUNK);
        self.stream = None;
        Ok(())
    }

    /// Takes what the endpoint has sent.
    fn received(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Result<(), Failure> {
        if self.download.body.is_some() {
            return self.content(cx, bytes);
        }
        if self.download.held.is_empty() {
            let taken = self.sections(bytes)?;
            let rest = bytes.get(taken..).unwrap_or_default();
            if self.download.body.is_some() {
                return self.content(cx, rest);
            }
            self.download.held.extend_from_slice(rest);
            return Ok(());
        }
        let mut held = std::mem::take(&mut self.download.held);
        held.extend_from_slice(bytes);
        let taken = self.sections(&held)?;
        if self.download.body.is_some() {
            return self.content(cx, held.get(taken..).unwrap_or_default());
        }
        held.drain(..taken);
        self.download.held = held;
        Ok(())
    }

    /// Takes header sections, up to the final one.
    fn sections(&mut self, bytes: &[u8]) -> Result<usize, Failure> {
        let invalid = (Source::Upstream, Fault::Invalid);
        let mut taken = 0;
        loop {
            let rest = bytes.get(taken..).unwrap_or_default();
            if rest.is_empty() {
                return Ok(taken);
            }
            let method = &self.head.parts.method;
            match response::read(rest, method, &mut self.download.fields) {
                Found::Partial => return Ok(taken),
                Found::Invalid => return Err(invalid),
                Found::Complete(outline) => {
                    taken += outline.length;
                    if !outline.status.is_informational() {
                        self.answered(rest, &outline);
                        return Ok(taken);
                    }
                    self.download.interim += 1;
                    let unasked = outline.status == StatusCode::SWITCHING_PROTOCOLS;
                    if unasked || self.download.interim > MOST_INTERIM {
                        return Err(invalid);
                    }
                    self.write_section(rest, &outline, false);
                }
            }
        }
    }

    /// The final header section has come.
    fn answered(&mut self, bytes: &[u8], outline: &Outline) {
        // Whether the rest of the body is ever read is not known.
        let close = !self.download.keep_client
            || !self.upload.body.is_done()
            || self.context.connection.draining();
        self.download.keep_client = !close;
        self.write_section(bytes, outline, close);
        self.download.status = Some(outline.status);
        self.download.body = Some(outline.body);
        self.download.chunked = !matches!(outline.body, Body::Length(_));
        self.download.keep = outline.keep;
    }

    fn write_section(&mut self, bytes: &[u8], outline: &Outline, close: bool) {
        retry::answered(self.context, outline.status, self.now);
        let fields = &self.download.fields;
        let mut edits = Edits::lazy(|| response::map(bytes, fields));
        headers::to_client(self.context, &mut edits);
        let started = self.context.started_at;
        let out = self.client.out.bytes();
        // With what may be added to it, and with the body, as far as that goes along.
        out.reserve(outline.length + MOST_ADDED + (bytes.len() - outline.length).min(MOST_COPIED));
        response::write(out, bytes, outline, fields, &edits, close, |out| {
            date::write(out, started);
        });
    }

    /// Passes content on, and the connection to the pool after the last of it.
    fn content(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Result<(), Failure> {
        let download = &mut self.download;
        let Some(body) = &mut download.body else {
            return Ok(());
        };
        let mut rest = bytes;
        while !rest.is_empty() && !body.is_done() {
            let step = body
                .step(rest)
                .map_err(|Invalid| (Source::Upstream, Fault::Invalid))?;
            rest = rest.get(step.taken..).unwrap_or_default();
            download.received += step.content.len();
            download.sent += step.content.len();
            if download.chunked {
                write_chunk(self.client.out.bytes(), step.content);
            } else {
                self.client.unflushed = true;
                self.client
                    .out
                    .write(&mut self.client.io, cx, step.content)
                    .map_err(|_| (Source::Client, Fault::Closed))?;
                download.sent_at = self.now;
            }
        }
        if !body.is_done() {
            return Ok(());
        }
        if download.chunked {
            self.client.out.bytes().extend_from_slice(LAST_CHUNK);
        }
        // What comes after the end is no answer to anything.
        let clean = rest.is_empty() && self.upload.body.is_done() && self.upload.out.is_empty();
        if let Some(stream) = self.stream.take()
            && clean
            && download.keep
        {
            self.pool.put(self.address, stream, self.now);
        }
        Ok(())
    }
}

/// What is known about a request before it is sent.
pub(super) struct Request {
    /// Its header section for the endpoint.
    pub(super) block: Vec<u8>,
    /// Its body.
    pub(super) body: Body,
    /// May the client's connection be used again?
    pub(super) keep: bool,
}
