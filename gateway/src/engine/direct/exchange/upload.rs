//! The request on its way to the endpoint.

use std::task::{Context, Poll};

use super::super::body::{Invalid, LAST_CHUNK, write_chunk};
use super::super::client::Scratch;
use super::super::patience::Failure;
use super::Exchange;
use crate::error::{Fault, Source};
use crate::phases::body;

/// How much is read of requests that follow.
const MOST_AHEAD: usize = 16 * 1024;

impl Exchange<'_> {
    /// Moves the request on. Says whether anything moved.
    pub(super) fn upload(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut Scratch,
    ) -> Result<bool, Failure> {
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
                    self.clock.received(self.now);
                    moved = true;
                }
                Poll::Ready(_) => return Err((Source::Client, Fault::Closed)),
                Poll::Pending => {
                    self.client.acknowledge();
                    self.clock.receiving.begin(self.now);
                    return Ok(moved);
                }
            }
        }
    }

    /// Is there room for more of the body?
    fn wants_body(&self) -> bool {
        let out = &self.upload.out;
        let room = out.is_empty() || out.len() < body::MOST_REPLAYED && self.upload.received == 0;
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
                Poll::Ready(Ok(_)) => self.clock.sent_at = self.now,
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
            if upload.out.keep && upload.out.len() + step.content.len() > body::MOST_REPLAYED {
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
            self.clock.sent_at = self.now;
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
}
