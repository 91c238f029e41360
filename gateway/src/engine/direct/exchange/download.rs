//! The response on its way to the client.

use std::task::{Context, Poll};

use http::StatusCode;

use super::super::body::{Body, Invalid, LAST_CHUNK, write_chunk};
use super::super::client::{MOST_COPIED, Scratch};
use super::super::date;
use super::super::edits::Edits;
use super::super::patience::Failure;
use super::super::response::{self, Found, MOST_INTERIM, Outline};
use super::super::section::{self, Field};
use super::Exchange;
use crate::error::{Fault, Source};
use crate::phases::{headers, retry};

/// How much is usually added to a header section.
const MOST_ADDED: usize = 256;

impl Exchange<'_> {
    /// Moves the response on. Says whether anything moved.
    pub(super) fn download(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut Scratch,
    ) -> Result<bool, Failure> {
        let mut moved = false;
        loop {
            if self.client.is_sending() {
                if self.download.is_last() {
                    self.client.closing();
                }
                match self.client.poll_send(cx) {
                    Poll::Ready(Ok(_)) => {
                        self.clock.given(self.now);
                        moved = true;
                    }
                    Poll::Ready(Err(_)) => return Err((Source::Client, Fault::Closed)),
                    Poll::Pending => {
                        self.clock.giving.begin(self.now);
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
                    self.clock.heard_at = self.now;
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
        section::with_fields(|fields| self.sections_with(bytes, fields))
    }

    fn sections_with(&mut self, bytes: &[u8], fields: &mut Vec<Field>) -> Result<usize, Failure> {
        let invalid = (Source::Upstream, Fault::Invalid);
        let mut taken = 0;
        loop {
            let rest = bytes.get(taken..).unwrap_or_default();
            if rest.is_empty() {
                return Ok(taken);
            }
            let method = &self.head.method;
            match response::read(rest, method, fields) {
                Found::Partial => return Ok(taken),
                Found::Invalid => return Err(invalid),
                Found::Complete(outline) => {
                    taken += outline.length;
                    if !outline.status.is_informational() {
                        self.answered(rest, &outline, fields);
                        return Ok(taken);
                    }
                    if outline.status == StatusCode::SWITCHING_PROTOCOLS {
                        // To what was asked for, by who was asked, as a whole.
                        let asked = self.head.upgrade && self.upload.out.is_empty();
                        if !asked || !outline.switches {
                            return Err(invalid);
                        }
                        self.switched(rest, &outline, fields);
                        return Ok(taken);
                    }
                    self.download.interim += 1;
                    if self.download.interim > MOST_INTERIM {
                        return Err(invalid);
                    }
                    self.write_section(rest, &outline, fields, false);
                }
            }
        }
    }

    /// The final header section has come.
    fn answered(&mut self, bytes: &[u8], outline: &Outline, fields: &[Field]) {
        // Whether the rest of the body is ever read is not known.
        let close = !self.download.keep_client
            || !self.upload.body.is_done()
            || self.context.connection.ending();
        self.download.keep_client = !close;
        self.write_section(bytes, outline, fields, close);
        self.download.status = Some(outline.status);
        self.download.body = Some(outline.body);
        self.download.chunked = !matches!(outline.body, Body::Length(_));
        self.download.keep = outline.keep;
    }

    /// The endpoint agrees to go on with another protocol.
    fn switched(&mut self, bytes: &[u8], outline: &Outline, fields: &[Field]) {
        self.write_section(bytes, outline, fields, false);
        self.download.status = Some(outline.status);
        self.download.body = Some(outline.body);
        self.download.keep_client = false;
        self.download.switched = true;
        // That was the answer.
        self.until = None;
    }

    fn write_section(&mut self, bytes: &[u8], outline: &Outline, fields: &[Field], close: bool) {
        retry::answered(self.context, outline.status, self.now);
        let mut edits = Edits::lazy(|| response::map(bytes, fields));
        headers::to_client(self.context, &mut edits);
        let started = self.context.started_at;
        // With what may be added to it, and with the body, as far as that goes along.
        let body = bytes.len() - outline.length;
        let out = self
            .client
            .out
            .room(outline.length + MOST_ADDED + body.min(MOST_COPIED));
        response::write(out, bytes, outline, fields, &edits, close, |out| {
            date::write(out, started);
        });
    }

    /// Passes content on, and the connection to the pool after the last of it.
    fn content(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Result<(), Failure> {
        let download = &mut self.download;
        if download.switched {
            // The beginning of what is no content any more.
            download.received += bytes.len();
            download.sent += bytes.len();
            self.client.out.bytes().extend_from_slice(bytes);
            return Ok(());
        }
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
                self.clock.given_at = self.now;
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
