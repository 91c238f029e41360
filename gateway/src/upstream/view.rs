//! The endpoints of a backend as the rules of balancing see them.

use std::sync::Arc;

use balance::{Candidates, Weight};

use super::registry::Endpoint;

/// Some endpoints at one moment, of which some may be chosen.
pub(super) struct View<'a, F> {
    /// All of them.
    pub(super) endpoints: &'a [Arc<Endpoint>],
    /// The places of those that this is about; `None` for all.
    pub(super) only: Option<&'a [u32]>,
    /// May this one be chosen?
    pub(super) may: F,
    /// The time, where a rule needs it.
    pub(super) now: u64,
    /// Milliseconds in which new endpoints get their whole share; 0 is at once.
    pub(super) slow_start: u64,
}

impl<F: Fn(&Endpoint) -> bool> View<'_, F> {
    /// One of them.
    pub(super) fn endpoint(&self, index: usize) -> Option<&Arc<Endpoint>> {
        self.endpoints.get(self.identity(index))
    }

    /// What [`balance::of_two`] compares for the least requests. A new endpoint has to do less for the same.
    pub(super) fn requests(&self, index: usize) -> f64 {
        self.endpoint(index).map_or(f64::MAX, |endpoint| {
            let requests = f64::from(endpoint.in_flight());
            if self.slow_start == 0 {
                return requests;
            }
            requests / endpoint.weight(self.now, self.slow_start).share()
        })
    }

    /// The same for the shortest time. What a new endpoint takes is measured already; that it gets less is up to the draw.
    pub(super) fn time(&self, index: usize) -> f64 {
        self.endpoint(index)
            .map_or(f64::MAX, |endpoint| endpoint.expected_time(self.now))
    }
}

impl<F: Fn(&Endpoint) -> bool> Candidates for View<'_, F> {
    fn count(&self) -> usize {
        self.only.map_or(self.endpoints.len(), <[u32]>::len)
    }

    fn may(&self, index: usize) -> bool {
        self.endpoint(index)
            .is_some_and(|endpoint| (self.may)(endpoint))
    }

    fn is_weighted(&self) -> bool {
        self.slow_start > 0
    }

    fn weight(&self, index: usize) -> Weight {
        self.endpoint(index).map_or(Weight::FULL, |endpoint| {
            endpoint.weight(self.now, self.slow_start)
        })
    }

    fn identity(&self, index: usize) -> usize {
        let Some(only) = self.only else {
            return index;
        };
        only.get(index)
            .and_then(|place| usize::try_from(*place).ok())
            .unwrap_or(usize::MAX)
    }
}
