//! When to act on changes: at once, as long as acting on them takes a small share of the time.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, Timespec, clock_gettime};

/// How long changes are collected before they are acted upon.
///
/// What follows a pass is collected for a multiple of the time that a processor worked for the pass: what others do on
/// a busy machine meanwhile does not hold changes back. So a single change is in force at
/// once, changes that are cheap are never held back for long, and a flood of changes that are not is worked off in few
/// passes that leave most of a core to others.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Debounce {
    /// The pause after a pass, in times that it took.
    pub(crate) multiple: u32,
    /// The pause is at least this long: what belongs together often arrives together.
    pub(crate) shortest: Duration,
    /// And at most this long.
    pub(crate) longest: Duration,
}

/// When the last pass ended, and how long a processor worked for it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Passed {
    pub(crate) end: Instant,
    pub(crate) took: Duration,
}

impl Default for Debounce {
    fn default() -> Self {
        Self {
            multiple: 4,
            shortest: Duration::from_millis(1),
            longest: Duration::from_millis(50),
        }
    }
}

impl Debounce {
    /// When to act on changes of which the oldest arrived at `first`.
    pub(crate) fn due(&self, first: Instant, previous: Option<Passed>) -> Instant {
        let Some(Passed { end, took }) = previous else {
            return first;
        };
        let pause = took.saturating_mul(self.multiple);
        first.max(end + pause.clamp(self.shortest, self.longest))
    }
}

/// How long a processor has worked for this thread.
pub(crate) fn thread_time() -> Duration {
    let Timespec { tv_sec, tv_nsec } = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(tv_sec).unwrap_or_default();
    Duration::new(seconds, u32::try_from(tv_nsec).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_change_is_immediate_and_a_burst_is_bounded() {
        let debounce = Debounce::default();
        let start = Instant::now();
        let us = Duration::from_micros;
        for (first, previous, want, why) in [
            (0, None, 0, "the first change ever"),
            (60_000, Some((0, 8_000)), 60_000, "after a quiet time"),
            (100, Some((0, 10)), 1_000, "after a cheap pass, soon"),
            (100, Some((0, 3_000)), 12_000, "four fifths are for others"),
            (100, Some((0, 90_000)), 50_000, "but no longer than this"),
        ] {
            let previous = previous.map(|(end, took)| Passed {
                end: start + us(end),
                took: us(took),
            });
            assert_eq!(
                debounce.due(start + us(first), previous),
                start + us(want),
                "{why}"
            );
        }
    }

    #[test]
    fn a_thread_that_waits_takes_no_time() {
        let before = thread_time();
        let (sender, receiver) = std::sync::mpsc::channel::<()>();
        let other = std::thread::spawn(move || {
            let start = thread_time();
            while thread_time().saturating_sub(start) < Duration::from_millis(20) {}
            drop(sender);
        });
        assert!(receiver.recv().is_err());
        other.join().unwrap();
        assert!(thread_time().saturating_sub(before) < Duration::from_millis(20));
    }
}
