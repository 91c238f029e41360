//! What the endpoints of one backend have in common.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use model::{BackendId, Health, Outliers};

use super::limits::{Limit, Usage};

/// What is known about a backend right now.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct BackendState {
    /// Which one.
    pub backend: BackendId,
    /// How many endpoints it has.
    pub endpoints: u32,
    /// How many of them are ejected.
    pub ejected: u32,
    /// How many of them fail the checks of their health.
    pub unhealthy: u32,
    /// How many of them are ejected or unhealthy.
    pub out: u32,
    /// So few are left that all of them are used.
    pub panics: bool,
    /// How often an endpoint was ejected for failures in a row.
    pub ejections_by_failures: u64,
    /// How often an endpoint was ejected for the share of its requests that failed.
    pub ejections_by_rate: u64,
    /// Checks that were passed.
    pub checks_passed: u64,
    /// Checks that were not.
    pub checks_failed: u64,
    /// Requests that it has, where they are limited.
    pub requests: u32,
    /// Requests that have no connection yet, where they are limited.
    pub pending: u32,
    /// Requests that were refused because it had enough of them.
    pub refused_requests: u64,
    /// Requests that were refused because enough of them had no connection yet.
    pub refused_pending: u64,
    /// Requests that were refused because each endpoint had enough of them.
    pub refused_endpoint: u64,
}

/// Why an endpoint is ejected.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Cause {
    /// Failures in a row.
    Failures,
    /// The share of requests that failed.
    Rate,
}

/// The endpoints of one backend, in numbers.
#[derive(Debug)]
pub(in crate::upstream) struct Group {
    /// How many there are.
    size: AtomicU32,
    /// How many of them are ejected.
    ejected: AtomicU32,
    unhealthy: AtomicU32,
    /// How many of them are ejected or unhealthy.
    out: AtomicU32,
    /// In percent.
    panic: AtomicU32,
    by_failures: AtomicU64,
    by_rate: AtomicU64,
    passed: AtomicU64,
    not_passed: AtomicU64,
    usage: Usage,
}

impl Group {
    /// Without endpoints.
    pub(in crate::upstream) fn new() -> Self {
        Self {
            size: AtomicU32::new(0),
            ejected: AtomicU32::new(0),
            unhealthy: AtomicU32::new(0),
            out: AtomicU32::new(0),
            panic: AtomicU32::new(Outliers::default().panic.into()),
            by_failures: AtomicU64::new(0),
            by_rate: AtomicU64::new(0),
            passed: AtomicU64::new(0),
            not_passed: AtomicU64::new(0),
            usage: Usage::default(),
        }
    }

    /// It has so many endpoints.
    pub(in crate::upstream) fn resize(&self, size: usize) {
        let size = u32::try_from(size).unwrap_or(u32::MAX);
        self.size.store(size, Ordering::Relaxed);
    }

    /// Takes over what has been asked for.
    pub(in crate::upstream) fn apply(&self, health: Option<&Health>) {
        let usual = || Outliers::default().panic;
        let panic = health.map_or_else(usual, |health| health.outliers.panic);
        self.panic.store(panic.into(), Ordering::Relaxed);
    }

    /// What its requests have taken.
    pub(super) fn usage(&self) -> &Usage {
        &self.usage
    }

    /// Counts a request that found no place.
    pub(in crate::upstream) fn refused(&self, limit: Limit) {
        self.usage.refused(limit);
    }

    /// Are so few endpoints left that all of them are used?
    pub(super) fn panics(&self) -> bool {
        let size = u64::from(self.size.load(Ordering::Relaxed));
        let out = u64::from(self.out.load(Ordering::Relaxed));
        let panic = u64::from(self.panic.load(Ordering::Relaxed));
        size.saturating_sub(out) * 100 < panic * size
    }

    /// Takes a place among those that may be ejected at the same time, if there is one.
    pub(super) fn take_place(&self, share: u8) -> bool {
        let size = self.size.load(Ordering::Relaxed);
        let share = u64::from(size) * u64::from(share) / 100;
        let most = u32::try_from(share)
            .unwrap_or(u32::MAX)
            .min(size.saturating_sub(1));
        let taken = self
            .ejected
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |ejected| {
                (ejected < most).then_some(ejected + 1)
            });
        taken.is_ok()
    }

    /// Gives a place back.
    pub(super) fn give_back(&self) {
        self.ejected.fetch_sub(1, Ordering::Relaxed);
    }

    /// One more endpoint is unhealthy.
    pub(super) fn fall_ill(&self) {
        self.unhealthy.fetch_add(1, Ordering::Relaxed);
    }

    /// One endpoint is not unhealthy any more.
    pub(super) fn heal(&self) {
        self.unhealthy.fetch_sub(1, Ordering::Relaxed);
    }

    /// Counts a check.
    pub(super) fn checked(&self, well: bool) {
        let counter = if well { &self.passed } else { &self.not_passed };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// One more endpoint is ejected or unhealthy.
    pub(super) fn lose(&self) {
        self.out.fetch_add(1, Ordering::Relaxed);
    }

    /// One endpoint is neither any more.
    pub(super) fn regain(&self) {
        self.out.fetch_sub(1, Ordering::Relaxed);
    }

    /// Counts an ejection.
    pub(super) fn count(&self, cause: Cause) {
        let counter = match cause {
            Cause::Failures => &self.by_failures,
            Cause::Rate => &self.by_rate,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// What is known.
    pub(in crate::upstream) fn state(&self, backend: &BackendId) -> BackendState {
        BackendState {
            backend: backend.clone(),
            endpoints: self.size.load(Ordering::Relaxed),
            ejected: self.ejected.load(Ordering::Relaxed),
            unhealthy: self.unhealthy.load(Ordering::Relaxed),
            out: self.out.load(Ordering::Relaxed),
            panics: self.panics(),
            ejections_by_failures: self.by_failures.load(Ordering::Relaxed),
            ejections_by_rate: self.by_rate.load(Ordering::Relaxed),
            checks_passed: self.passed.load(Ordering::Relaxed),
            checks_failed: self.not_passed.load(Ordering::Relaxed),
            requests: self.usage.requests.load(Ordering::Relaxed),
            pending: self.usage.pending.load(Ordering::Relaxed),
            refused_requests: self.usage.refused_requests.load(Ordering::Relaxed),
            refused_pending: self.usage.refused_pending.load(Ordering::Relaxed),
            refused_endpoint: self.usage.refused_endpoint.load(Ordering::Relaxed),
        }
    }
}
