//! Frames of HTTP/2 that carry nothing.
//!
//! Each of them costs us more than the client, and none of them is a request that anybody counts. They are counted as
//! they come, before anybody acts on them; whoever sends too many is turned out.

use std::time::{Duration, Instant};

use crate::settings::Limits;

/// The time for which the limits are meant.
const WINDOW: Duration = Duration::from_secs(10);
/// The preface of a client (RFC 9113, 3.4); what follows are frames.
const PREFACE: usize = 24;
/// Octets before the payload of a frame (RFC 9113, 4.1).
const HEAD: u8 = 9;
/// Frames that a client may send for each response, and each piece of one. A client that widens the windows of stream and connection
/// with each frame that it gets, and measures the time that a PING takes, sends three.
const EARNED: u32 = 8;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const END_STREAM: u8 = 1;

/// What a client sent too much of.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Flood {
    /// Frames that carry nothing.
    Control,
    /// Streams taken back.
    Resets,
}

impl Flood {
    /// The label for the metric.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Control => "h2-control-frames",
            Self::Resets => "h2-resets",
        }
    }
}

/// Counts the frames of one connection.
#[derive(Debug)]
pub(crate) struct FrameCount {
    /// Octets up to the next frame.
    skip: usize,
    /// The head of a frame as far as it is there, as a number.
    head: u128,
    /// Octets of it that are still to come.
    missing: u8,
    control: u32,
    resets: u32,
    since: Instant,
    /// Pieces that the client had got when the count began.
    before: u32,
}

impl FrameCount {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            skip: PREFACE,
            head: 0,
            missing: HEAD,
            control: 0,
            resets: 0,
            since: now,
            before: 0,
        }
    }

    /// Looks at what has come. `given` are the pieces of responses that the client has got so far. Whoever counts
    /// resets otherwise leaves `resets` out.
    pub(crate) fn look(
        &mut self,
        mut bytes: &[u8],
        given: u32,
        limits: &Limits,
        resets: bool,
    ) -> Option<Flood> {
        loop {
            let (_, rest) = bytes.split_at(self.skip.min(bytes.len()));
            self.skip -= bytes.len() - rest.len();
            let head = if let Some((head, more)) = rest.split_first_chunk()
                && self.missing == HEAD
            {
                bytes = more;
                *head
            } else {
                // The first part of it, or the rest.
                let (byte, more) = rest.split_first()?;
                bytes = more;
                self.head = self.head << 8 | u128::from(*byte);
                self.missing -= 1;
                if self.missing > 0 {
                    continue;
                }
                let octets = self.head.to_be_bytes();
                (self.head, self.missing) = (0, HEAD);
                octets.last_chunk().copied().unwrap_or_default()
            };
            let flood = self.frame(head, given, limits, resets);
            if flood.is_some() {
                return flood;
            }
        }
    }

    /// Counts a frame.
    fn frame(&mut self, head: [u8; 9], given: u32, limits: &Limits, resets: bool) -> Option<Flood> {
        let [a, b, c, kind, flags, ..] = head;
        let length = u32::from_be_bytes([0, a, b, c]);
        self.skip = usize::try_from(length).unwrap_or(usize::MAX);
        if kind == HEADERS || kind == DATA && (length > 0 || flags & END_STREAM != 0) {
            return None;
        }
        self.control += 1;
        self.resets += u32::from(kind == RST_STREAM);
        let earned = given.wrapping_sub(self.before).saturating_mul(EARNED);
        let flood = if resets && self.resets > limits.h2_max_resets {
            Flood::Resets
        } else if self.control > limits.h2_max_control_frames.saturating_add(earned) {
            Flood::Control
        } else {
            return None;
        };
        // Only here is it asked how long all of that took.
        let now = Instant::now();
        if now.saturating_duration_since(self.since) < WINDOW {
            return Some(flood);
        }
        *self = Self {
            skip: self.skip,
            before: given,
            ..Self::new(now)
        };
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, length: u8) -> Vec<u8> {
        let mut frame = vec![0, 0, length, kind, flags, 0, 0, 0, 1];
        frame.extend(vec![0xff; usize::from(length)]);
        frame
    }

    fn limits() -> Limits {
        Limits {
            h2_max_control_frames: 10,
            h2_max_resets: 3,
            ..Limits::default()
        }
    }

    fn preface() -> Vec<u8> {
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec()
    }

    /// Sends the frame until it is too much, at most a hundred times, in pieces of `step` octets.
    fn until_too_much(frame: &[u8], given: u32, step: usize) -> Option<(usize, Flood)> {
        let mut count = FrameCount::new(Instant::now());
        for part in preface().chunks(step) {
            assert_eq!(count.look(part, 0, &limits(), true), None);
        }
        for number in 1..=100 {
            for part in frame.chunks(step) {
                if let Some(flood) = count.look(part, given, &limits(), true) {
                    return Some((number, flood));
                }
            }
        }
        None
    }

    #[test]
    fn what_carries_nothing_is_counted_however_it_is_cut() {
        for (frame, want, why) in [
            (frame(6, 0, 8), Some((11, Flood::Control)), "PING"),
            (frame(6, 1, 8), Some((11, Flood::Control)), "answers to it"),
            (frame(4, 0, 6), Some((11, Flood::Control)), "SETTINGS"),
            (frame(2, 0, 5), Some((11, Flood::Control)), "PRIORITY"),
            (frame(8, 0, 4), Some((11, Flood::Control)), "WINDOW_UPDATE"),
            (frame(9, 0, 1), Some((11, Flood::Control)), "CONTINUATION"),
            (frame(0, 0, 0), Some((11, Flood::Control)), "empty DATA"),
            (frame(0xfa, 0, 0), Some((11, Flood::Control)), "unknown"),
            (frame(3, 0, 4), Some((4, Flood::Resets)), "RST_STREAM"),
            (frame(0, 1, 0), None, "the end of a body"),
            (frame(0, 0, 1), None, "content"),
            (frame(1, 4, 7), None, "requests are counted elsewhere"),
        ] {
            for step in [1, 2, 7, 9, 1000] {
                assert_eq!(until_too_much(&frame, 0, step), want, "{why}, {step}");
            }
        }
    }

    #[test]
    fn whoever_gets_content_may_say_so() {
        let update = frame(8, 0, 4);
        assert_eq!(until_too_much(&update, 1, 13), Some((19, Flood::Control)));
        assert_eq!(until_too_much(&update, 100, 13), None);
        // What was given before does not count twice, also when the numbers begin anew.
        let mut count = FrameCount::new(Instant::now());
        count.skip = 0;
        count.before = u32::MAX;
        let many = update.repeat(18);
        assert_eq!(count.look(&many, 0, &limits(), true), None);
        assert_eq!(
            count.look(&update, 0, &limits(), true),
            Some(Flood::Control)
        );
    }

    #[test]
    fn after_a_while_the_count_begins_anew() {
        let Some(long_ago) = Instant::now().checked_sub(WINDOW) else {
            return; // A machine that was started a moment ago.
        };
        let mut count = FrameCount::new(long_ago);
        count.skip = 0;
        let pings = frame(6, 0, 8).repeat(11);
        assert_eq!(count.look(&pings, 0, &limits(), true), None);
        assert_eq!(count.look(&pings, 0, &limits(), true), Some(Flood::Control));
    }

    #[test]
    fn a_frame_as_large_as_can_be_is_skipped() {
        let mut count = FrameCount::new(Instant::now());
        count.skip = 0;
        let mut bytes = vec![0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1];
        bytes.extend(vec![0; 0x00ff_ffff]);
        bytes.extend(frame(6, 0, 8).repeat(11));
        assert_eq!(count.look(&bytes, 0, &limits(), true), Some(Flood::Control));
    }
}
