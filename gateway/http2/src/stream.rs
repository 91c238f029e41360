//! A stream, for whoever serves a request or waits for a response.

use std::task::{Context, Poll};

use bytes::Bytes;

use crate::block::{Block, Head};
use crate::code::{Code, Ended};
use crate::connection::Shared;
use crate::state::send::Writer;

/// One stream. It is polled by one task at a time. Dropping it before it has ended resets it.
#[derive(Debug)]
pub struct Stream {
    shared: Shared,
    place: usize,
}

impl Stream {
    pub(crate) fn new(shared: Shared, place: usize) -> Self {
        Self { shared, place }
    }

    /// The answers to this request have no content, whatever their fields say: it is a `HEAD`.
    pub fn expect_no_content(&self) {
        if let Some(slot) = self.shared.lock().slot(self.place) {
            slot.bodyless = true;
        }
    }

    /// Waits for the next header section of a response: informational ones, then the final one.
    pub fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<Head, Ended>> {
        let mut state = self.shared.lock();
        let Some(slot) = state.slot(self.place) else {
            return Poll::Ready(Err(Ended::Closed));
        };
        if let Some(head) = slot.heads.pop_front() {
            return Poll::Ready(Ok(head));
        }
        match slot.ended {
            Some(why) => Poll::Ready(Err(why)),
            None if slot.receiving => {
                slot.wait(cx);
                Poll::Pending
            }
            None => Poll::Ready(Err(Ended::Closed)),
        }
    }

    /// Waits for content; nothing at its end. What is taken makes room for more.
    pub fn poll_content(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Ended>>> {
        let mut state = self.shared.lock();
        let Some(slot) = state.slot(self.place) else {
            return Poll::Ready(None);
        };
        if !slot.content.is_empty() {
            let content = Bytes::from(std::mem::take(&mut slot.content));
            state.taken(self.place, content.len());
            return Poll::Ready(Some(Ok(content)));
        }
        match slot.ended {
            _ if !slot.receiving => Poll::Ready(None),
            Some(why) => Poll::Ready(Some(Err(why))),
            None => {
                slot.wait(cx);
                Poll::Pending
            }
        }
    }

    /// What came after the content, once [`Stream::poll_content`] has said that it is over.
    pub fn take_trailers(&mut self) -> Option<Block> {
        self.shared.lock().slot(self.place)?.trailers.take()
    }

    /// Has everything come and been taken, so that there is neither content nor trailers?
    pub fn is_finished(&self) -> bool {
        let mut state = self.shared.lock();
        state.slot(self.place).is_none_or(|slot| {
            !slot.receiving && slot.content.is_empty() && slot.trailers.is_none()
        })
    }

    /// Sends the header section of a response: `status`, then what `fields` adds, without using the
    /// connection. `ends` if nothing follows.
    pub fn respond(
        &mut self,
        status: u16,
        ends: bool,
        fields: impl FnOnce(&mut Writer<'_>),
    ) -> Result<(), Ended> {
        let mut state = self.shared.lock();
        state.send_section(self.place, ends, Some(status), fields)
    }

    /// Ends this side with trailers.
    pub fn send_trailers(&mut self, trailers: &Block) -> Result<(), Ended> {
        let mut state = self.shared.lock();
        state.send_section(self.place, true, None, |fields| {
            for (name, value, sensitive) in trailers.iter() {
                fields.add(name, value, sensitive);
            }
        })
    }

    /// Sends content as far as windows allow and not too much of it is waiting already. Says how much of it went, at least
    /// an octet; all of it with nothing after it if it is the `last`.
    pub fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        content: &[u8],
        last: bool,
    ) -> Poll<Result<usize, Ended>> {
        self.shared.lock().poll_send(self.place, cx, content, last)
    }

    /// Ready when there is a point in having more content: not while too much of it is waiting already, or the window of the
    /// connection is used up. Ready as well when the stream has ended.
    pub fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.shared.lock().poll_room(self.place, cx)
    }

    /// Ready when the stream has come to its end before both sides had finished it.
    pub fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        let mut state = self.shared.lock();
        let Some(slot) = state.slot(self.place) else {
            return Poll::Ready(Ended::Closed);
        };
        if let Some(why) = slot.ended {
            return Poll::Ready(why);
        }
        slot.wait(cx);
        Poll::Pending
    }

    /// Why the stream has come to its end before both sides had finished it, if it has.
    pub fn ended(&self) -> Option<Ended> {
        self.shared.lock().slot(self.place)?.ended
    }

    /// Gives the stream up.
    pub fn reset(&mut self, code: Code) {
        self.shared.lock().reset(self.place, code, Ended::Closed);
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.shared.lock().release(self.place);
    }
}
