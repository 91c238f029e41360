//! The request on its way to the endpoint.

use std::task::{Context, Poll};

use bytes::Bytes;

use super::super::super::body::{LAST_CHUNK, write_chunk};
use super::super::stream::Halt;
use super::Attempt;
use crate::phases::body;

impl Attempt<'_, '_> {
    /// Moves the request on. Says whether anything moved.
    pub(super) fn upload(&mut self, cx: &mut Context<'_>) -> Result<bool, Halt> {
        let mut moved = false;
        loop {
            if !self.push(cx) || self.upload.complete || !self.wants_body() {
                return Ok(moved);
            }
            let more = match self.exchange.client.poll_body(cx) {
                Poll::Ready(Some(content)) => {
                    let content = content?;
                    self.take(cx, &content)?;
                    !content.is_empty()
                }
                Poll::Ready(None) => {
                    self.complete();
                    true
                }
                Poll::Pending => {
                    self.clock.receiving.begin(self.now);
                    return Ok(moved);
                }
            };
            if self.exchange.client.is_body_done() {
                self.complete();
            }
            // Frames with nothing in them are no progress.
            if more {
                self.clock.received(self.now);
            }
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
                Poll::Ready(Ok(_)) => self.clock.sent_at = self.now,
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
        if upload.out.keep && upload.out.len() + content.len() > body::MOST_REPLAYED {
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
        self.clock.sent_at = self.now;
        Ok(())
    }

    fn complete(&mut self) {
        if !self.upload.complete && self.upload.chunked {
            self.upload.out.bytes().extend_from_slice(LAST_CHUNK);
        }
        self.upload.complete = true;
    }
}
