//! One stream.

use std::collections::VecDeque;
use std::task::{Context, Waker};

use crate::block::{Block, Head};
use crate::code::Ended;

/// A stream that somebody holds.
#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "both directions of a stream go on by themselves"
)]
pub(crate) struct Slot {
    pub(crate) number: u32,
    /// May the peer send more? May we?
    pub(crate) receiving: bool,
    pub(crate) sending: bool,
    pub(crate) ended: Option<Ended>,
    /// Header sections of a response, up to the final one.
    pub(crate) heads: VecDeque<Head>,
    /// The final header section has come.
    pub(super) has_head: bool,
    /// It answers a request that has answers without content.
    pub(crate) bodyless: bool,
    pub(crate) content: Vec<u8>,
    pub(crate) trailers: Option<Block>,
    /// Octets of content that are still to come, as far as somebody said how many.
    pub(super) left: Option<u64>,
    pub(super) recv_window: i64,
    pub(super) released: u32,
    pub(super) send_window: i64,
    pub(super) waker: Option<Waker>,
    pub(super) starving: bool,
}

impl Slot {
    /// May more come or go?
    pub(super) fn is_open(&self) -> bool {
        self.ended.is_none() && (self.receiving || self.sending)
    }

    pub(super) fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// Lets this task know of the next change.
    pub(crate) fn wait(&mut self, cx: &Context<'_>) {
        match &mut self.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
    }
}
