//! The response on its way to the client.

use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http2::Writer;

use super::super::super::body::{Body, Invalid};
use super::super::super::client::Scratch;
use super::super::super::edits::Edits;
use super::super::super::response::{self, Found, MOST_INTERIM, Outline, decimal};
use super::super::super::section::{self, Field};
use super::super::fields;
use super::super::stream::Halt;
use super::Attempt;
use crate::error::{self, Fault, Source};
use crate::phases::{headers, retry};

impl Attempt<'_, '_> {
    /// Moves the response on. Says whether anything moved.
    pub(super) fn download(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut Scratch,
    ) -> Result<bool, Halt> {
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
                moved = true;
                continue;
            }
            if self.exchange.client.is_done() || self.download.paused.is_some() {
                return Ok(moved);
            }
            if self.is_held_up(cx) {
                return Ok(moved);
            }
            let Some(stream) = self.stream.as_mut() else {
                return Ok(moved);
            };
            match scratch.poll_read(stream, cx) {
                Poll::Ready(Ok([])) => self.end()?,
                Poll::Ready(Ok(bytes)) => {
                    self.download.begun = true;
                    self.clock.heard_at = self.now;
                    self.received(cx, bytes)?;
                }
                Poll::Ready(Err(_)) => return Err(self.closed()),
                Poll::Pending => return Ok(moved),
            }
            moved = true;
        }
    }

    /// Does the client leave so much lying that more of the response is not even read?
    fn is_held_up(&mut self, cx: &mut Context<'_>) -> bool {
        let held_up = self.exchange.client.poll_room(cx).is_pending();
        if held_up {
            self.clock.giving.begin(self.now);
        } else if self.download.held_up {
            self.clock.given(self.now);
        }
        self.download.held_up = held_up;
        held_up
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
            && self.exchange.request.method.is_idempotent();
        if stale {
            Halt::Stale(reason)
        } else {
            Halt::Failed(reason)
        }
    }

    /// Takes what the endpoint has sent.
    fn received(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Result<(), Halt> {
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
    fn sections(&mut self, bytes: &[u8]) -> Result<usize, Halt> {
        section::with_fields(|fields| self.sections_with(bytes, fields))
    }

    fn sections_with(&mut self, bytes: &[u8], found: &mut Vec<Field>) -> Result<usize, Halt> {
        let invalid = || Halt::Failed(error::reason(Source::Upstream, Fault::Invalid));
        let mut taken = 0;
        loop {
            let rest = bytes.get(taken..).unwrap_or_default();
            if rest.is_empty() {
                return Ok(taken);
            }
            let method = &self.exchange.request.method;
            match response::read(rest, method, found) {
                Found::Partial => return Ok(taken),
                Found::Invalid => return Err(invalid()),
                Found::Complete(outline) => {
                    taken += outline.length;
                    if !outline.status.is_informational() {
                        self.answered(rest, &outline, found)?;
                        return Ok(taken);
                    }
                    self.download.interim += 1;
                    let unasked = outline.status == StatusCode::SWITCHING_PROTOCOLS;
                    if unasked || self.download.interim > MOST_INTERIM {
                        return Err(invalid());
                    }
                    retry::answered(self.exchange.context, outline.status, self.now);
                    let mut edits = Edits::lazy(|| response::map(rest, found));
                    headers::to_client(self.exchange.context, &mut edits);
                    let client = &mut *self.exchange.client;
                    client.inform(outline.status, |out: &mut Writer<'_>| {
                        fields::copy(out, rest, found, &edits);
                    });
                }
            }
        }
    }

    /// The final header section has come.
    fn answered(&mut self, bytes: &[u8], outline: &Outline, found: &[Field]) -> Result<(), Halt> {
        let download = &mut self.download;
        download.body = Some(outline.body);
        download.keep = outline.keep;
        if self
            .exchange
            .unwanted(self.upload.out.keep, outline.status, self.now)
        {
            return Err(Halt::Unwanted);
        }
        let exchange = &mut *self.exchange;
        let mut edits = Edits::lazy(|| response::map(bytes, found));
        headers::to_client(exchange.context, &mut edits);
        let length = outline
            .given_length
            .filter(|_| outline.status != StatusCode::NO_CONTENT);
        let (client, context) = (&mut *exchange.client, &*exchange.context);
        client.begin(
            outline.status,
            outline.body.is_done(),
            |out: &mut Writer<'_>| {
                fields::copy(out, bytes, found, &edits);
                if let Some(length) = length {
                    let mut digits = [0; 20];
                    out.add(b"content-length", decimal(length, &mut digits), false);
                }
                if !outline.has_date {
                    fields::write_date(out, context);
                }
            },
        )?;
        Ok(())
    }

    /// Passes content on, and the connection to the pool after the last of it.
    fn content(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Result<(), Halt> {
        let download = &mut self.download;
        let Some(body) = &mut download.body else {
            return Ok(());
        };
        if self.exchange.client.is_done() {
            self.give_back(bytes.is_empty());
            return Ok(());
        }
        let mut rest = bytes;
        // Where there is only one piece, nothing is put together.
        let (mut only, mut more) = (&[][..], BytesMut::new());
        while !rest.is_empty() && !body.is_done() {
            let step = body
                .step(rest)
                .map_err(|Invalid| Halt::Failed(error::reason(Source::Upstream, Fault::Invalid)))?;
            rest = rest.get(step.taken..).unwrap_or_default();
            if only.is_empty() && more.is_empty() {
                only = step.content;
            } else {
                more.extend_from_slice(std::mem::take(&mut only));
                more.extend_from_slice(step.content);
            }
        }
        let content = if more.is_empty() { only } else { &more };
        let done = body.is_done();
        let length = content.len();
        self.exchange.upstream_received += length;
        if length > 0 || done {
            self.exchange.client.write(cx, content, done)?;
            self.clock.given(self.now);
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
