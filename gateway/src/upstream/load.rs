//! The load of a backend.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// What the endpoints of a backend have to do, all together.
#[derive(Debug, Default)]
pub(super) struct Load {
    /// Somebody wants to know how many requests there are. Else nobody writes here: it would be one more place that all cores
    /// fight for.
    counts: AtomicBool,
    in_flight: AtomicU32,
}

impl Load {
    /// Requests in flight, at all endpoints together. From the first time on that this is asked they are counted; those that are in
    /// flight by then are not.
    pub(super) fn in_flight(&self) -> u32 {
        if !self.counts.load(Ordering::Relaxed) {
            self.counts.store(true, Ordering::Relaxed);
        }
        self.in_flight.load(Ordering::Relaxed)
    }

    /// A request begins. Returns whether it is counted.
    pub(super) fn begin(&self) -> bool {
        let counts = self.counts.load(Ordering::Relaxed);
        if counts {
            self.in_flight.fetch_add(1, Ordering::Relaxed);
        }
        counts
    }

    /// A request that was counted ends.
    pub(super) fn end(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}
