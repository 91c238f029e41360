//! Windows, and whose turn it is (RFC 9113, 5.2).

use std::task::{Context, Poll};

use super::{LEAST_ROOM, MUCH_OUTPUT, State};
use crate::code::Code;
use crate::frame::{MOST_WINDOW, USUAL_WINDOW, WINDOW_UPDATE, write_number};

impl State {
    /// What a peer may send on a new stream. It need not keep to a smaller window that it does not know of yet (RFC 9113,
    /// 6.9.3).
    pub(super) fn first_recv_window(&self) -> i64 {
        let window = self.settings.stream_window;
        i64::from(if self.acknowledged {
            window
        } else {
            window.max(USUAL_WINDOW)
        })
    }

    /// The peer knows our settings.
    pub(super) fn acknowledge(&mut self) {
        let before = self.first_recv_window();
        self.acknowledged = true;
        let less = before - self.first_recv_window();
        for slot in self.slots.iter_mut().flatten() {
            slot.recv_window -= less;
        }
    }

    /// The windows of streams begin with another size, those that are open included (RFC 9113, 6.9.2).
    pub(super) fn resize_windows(&mut self, size: i64) -> Result<(), Code> {
        if size > MOST_WINDOW {
            return Err(Code::FLOW_CONTROL_ERROR);
        }
        let more = size - self.initial_send_window;
        self.initial_send_window = size;
        let slots = self.slots.iter_mut().flatten();
        for slot in slots.filter(|slot| slot.is_open()) {
            slot.send_window += more;
            if slot.send_window > MOST_WINDOW {
                return Err(Code::FLOW_CONTROL_ERROR);
            }
            slot.wake();
        }
        Ok(())
    }

    /// The peer may send so much more on the connection.
    pub(super) fn give_back(&mut self, octets: usize) {
        if self.over.is_some() {
            return;
        }
        self.released += u32::try_from(octets).unwrap_or(0);
        let whole = self.settings.connection_window.max(USUAL_WINDOW);
        if self.released >= whole / 2 {
            write_number(&mut self.out, WINDOW_UPDATE, 0, self.released);
            self.recv_window += i64::from(self.released);
            self.released = 0;
            self.produced();
        }
    }

    /// So much of a stream's content has been taken.
    pub(crate) fn taken(&mut self, place: usize, octets: usize) {
        self.give_back(octets);
        let whole = self.settings.stream_window;
        let Some(slot) = self.slot(place).filter(|slot| slot.receiving) else {
            return;
        };
        slot.released += u32::try_from(octets).unwrap_or(0);
        if slot.released >= whole / 2 && slot.ended.is_none() {
            let (number, released) = (slot.number, std::mem::take(&mut slot.released));
            slot.recv_window += i64::from(released);
            write_number(&mut self.out, WINDOW_UPDATE, number, released);
            self.produced();
        }
    }

    /// How much content there is room for, apart from the windows of streams.
    pub(super) fn room(&self) -> usize {
        let output = MUCH_OUTPUT.saturating_sub(self.out.len());
        let room = usize::try_from(self.send_window).unwrap_or(0).min(output);
        if output < LEAST_ROOM { 0 } else { room }
    }

    /// Ready when there is room for more content, or the stream has ended and there will be none.
    pub(crate) fn poll_room(&mut self, place: usize, cx: &Context<'_>) -> Poll<()> {
        let goes_on = self.slot(place).is_some_and(|slot| slot.ended.is_none());
        if goes_on && self.room() == 0 {
            self.starve(place, cx);
            return Poll::Pending;
        }
        self.fed(place);
        Poll::Ready(())
    }

    /// Lets this task know when there may be room for more. It keeps its turn until it has had it.
    pub(super) fn starve(&mut self, place: usize, cx: &Context<'_>) {
        if let Some(slot) = self.slot(place) {
            slot.wait(cx);
            if !slot.starving {
                slot.starving = true;
                self.starving.push_back(place);
            }
        }
    }

    /// A stream had its turn, or does not want it any more.
    pub(super) fn fed(&mut self, place: usize) {
        if let Some(slot) = self.slot(place)
            && slot.starving
        {
            slot.starving = false;
            self.starving.retain(|waiting| *waiting != place);
        }
    }

    /// There may be room again for those who had none.
    pub(super) fn feed(&mut self) {
        if self.room() == 0 {
            return;
        }
        for place in &self.starving {
            if let Some(Some(slot)) = self.slots.get_mut(*place) {
                slot.wake();
            }
        }
    }
}
