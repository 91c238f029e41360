//! How one endpoint is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use model::{HealthCheck, Outliers};

use super::group::{Cause, Group};

/// Connections to it could not be made lately.
const UNREACHABLE: u32 = 1;
/// It did not answer.
const EJECTED: u32 = 1 << 1;
/// One request finds out whether it answers again.
const TRIAL: u32 = 1 << 2;
/// It is none of its backend's endpoints any more.
const RETIRED: u32 = 1 << 3;
/// It may have enough to do.
const LIMITED: u32 = 1 << 4;
/// It fails the checks of its health.
const UNHEALTHY: u32 = 1 << 5;

/// What takes it out of the endpoints that may be used.
const OUT: u32 = EJECTED | UNHEALTHY;

/// How long one request tries an endpoint that has been left alone before a second one does.
const TRIAL_TIME: u64 = 5000;

/// An ejection that was so long ago makes the next one no longer. In milliseconds.
const FORGIVEN: u64 = 60_000;

/// How one endpoint is. Times are milliseconds of [`now`](crate::upstream::now).
#[derive(Debug)]
pub(in crate::upstream) struct Condition {
    group: Arc<Group>,
    /// Nothing where it is well: then nothing else is looked at.
    trouble: AtomicU32,
    /// Connections that could not be made since the last one that could.
    connect_failures: AtomicU32,
    /// Until then connections are only tried where there is no other endpoint.
    unreachable_until: AtomicU64,
    /// Requests that failed since the last one that did not.
    failures: AtomicU32,
    /// Until then it is left alone.
    ejected_until: AtomicU64,
    /// How often it was ejected, less what has been forgiven.
    ejections: AtomicU32,
    /// Since when it has been back.
    returned: AtomicU64,
    /// How often it has begun to fail. Connections from before may lead nowhere.
    era: AtomicU32,
    window: Window,
    /// Checks in a row that say otherwise than what it is taken for.
    checks: AtomicU32,
}

impl Condition {
    /// It is well.
    pub(in crate::upstream) fn new(group: Arc<Group>) -> Self {
        Self {
            group,
            trouble: AtomicU32::new(0),
            connect_failures: AtomicU32::new(0),
            unreachable_until: AtomicU64::new(0),
            failures: AtomicU32::new(0),
            ejected_until: AtomicU64::new(0),
            ejections: AtomicU32::new(0),
            returned: AtomicU64::new(0),
            era: AtomicU32::new(0),
            window: Window::default(),
            checks: AtomicU32::new(0),
        }
    }

    /// Its backend.
    pub(in crate::upstream) fn group(&self) -> &Arc<Group> {
        &self.group
    }

    /// A connection was made.
    pub(in crate::upstream) fn connected(&self) {
        // The usual case does not write: the line stays shared between cores.
        if self.connect_failures.load(Ordering::Relaxed) != 0 {
            self.connect_failures.store(0, Ordering::Relaxed);
            self.trouble.fetch_and(!UNREACHABLE, Ordering::Relaxed);
        }
    }

    /// A connection could not be made. Others are preferred for one second, then two, four, eight.
    pub(in crate::upstream) fn refused(&self, now: u64) {
        let failures = self.connect_failures.fetch_add(1, Ordering::Relaxed);
        if failures == 0 {
            self.era.fetch_add(1, Ordering::Relaxed);
        }
        let pause = 1000 << failures.min(3);
        self.unreachable_until
            .store(now.saturating_add(pause), Ordering::Relaxed);
        self.trouble.fetch_or(UNREACHABLE, Ordering::Relaxed);
    }

    /// It took a request and answered it well.
    pub(in crate::upstream) fn answered(&self, rules: &Outliers, now: impl Fn() -> u64) {
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
        if rules.error_rate > 0 {
            self.window.count(rules, now(), false);
        }
        // What was on its way when it was ejected proves nothing.
        if self.trouble.load(Ordering::Relaxed) & TRIAL != 0 {
            self.window.clear();
            self.returned.store(now(), Ordering::Relaxed);
            self.clear(EJECTED | TRIAL);
        }
    }

    /// It took a request and failed. Above the bounds of `rules` it is ejected, unless too many others are.
    pub(in crate::upstream) fn failed(&self, rules: &Outliers, now: u64) {
        let failures = self
            .failures
            .fetch_add(1, Ordering::Relaxed)
            .saturating_add(1);
        if failures == 1 {
            self.era.fetch_add(1, Ordering::Relaxed);
        }
        let above_rate = self.window.count(rules, now, true);
        let trouble = self.trouble.load(Ordering::Relaxed);
        if trouble & EJECTED != 0 {
            // What was on its way when it was ejected proves nothing.
            if trouble & TRIAL != 0 {
                self.pause(rules, now, 0);
            }
            return;
        }
        let cause = if rules.failures > 0 && failures >= rules.failures {
            Cause::Failures
        } else if above_rate {
            Cause::Rate
        } else {
            return;
        };
        if trouble & RETIRED != 0 || !self.group.take_place(rules.share) {
            return;
        }
        let forgiven = now.saturating_sub(self.returned.load(Ordering::Relaxed)) / FORGIVEN;
        self.pause(rules, now, u32::try_from(forgiven).unwrap_or(u32::MAX));
        let before = self.trouble.fetch_or(EJECTED, Ordering::Relaxed);
        if before & EJECTED != 0 {
            // Somebody else was faster.
            self.group.give_back();
            return;
        }
        if before & OUT == 0 {
            self.group.lose();
        }
        self.group.count(cause);
        if before & RETIRED != 0 {
            // It has left in the meantime.
            self.clear(OUT);
        }
    }

    /// It is left alone: the longer, the more often it has been.
    fn pause(&self, rules: &Outliers, now: u64, forgiven: u32) {
        let times = self.ejections.load(Ordering::Relaxed);
        let times = times.saturating_sub(forgiven);
        let pause = u64::from(rules.base_ms) << times.min(16);
        let pause = pause.min(u64::from(rules.most_ms));
        self.ejected_until
            .store(now.saturating_add(pause), Ordering::Relaxed);
        self.ejections
            .store(times.saturating_add(1), Ordering::Relaxed);
        self.trouble.fetch_and(!TRIAL, Ordering::Relaxed);
    }

    /// Takes these troubles away.
    fn clear(&self, troubles: u32) {
        let before = self.trouble.fetch_and(!troubles, Ordering::Relaxed);
        if before & troubles & EJECTED != 0 {
            self.group.give_back();
        }
        if before & troubles & UNHEALTHY != 0 {
            self.group.heal();
        }
        if before & OUT != 0 && before & !troubles & OUT == 0 {
            self.group.regain();
        }
    }

    /// It has been chosen. One that was left alone until now is tried by this request alone: if it is still lost, all
    /// others would find out in their own time.
    pub(in crate::upstream) fn chosen(&self, now: impl FnOnce() -> u64) {
        let trouble = self.trouble.load(Ordering::Relaxed);
        if trouble & (UNREACHABLE | EJECTED) == 0 {
            return;
        }
        let now = now();
        let is_over = |until: &AtomicU64| {
            let over = now >= until.load(Ordering::Relaxed);
            if over {
                until.store(now.saturating_add(TRIAL_TIME), Ordering::Relaxed);
            }
            over
        };
        if trouble & UNREACHABLE != 0 {
            is_over(&self.unreachable_until);
        }
        if trouble & EJECTED != 0 && is_over(&self.ejected_until) {
            self.trouble.fetch_or(TRIAL, Ordering::Relaxed);
        }
    }

    /// Has it failed since it was last well?
    pub(in crate::upstream) fn is_suspect(&self) -> bool {
        self.connect_failures.load(Ordering::Relaxed) != 0
            || self.failures.load(Ordering::Relaxed) != 0
    }

    /// How often it has begun to fail.
    pub(in crate::upstream) fn era(&self) -> u32 {
        self.era.load(Ordering::Relaxed)
    }

    /// Is there nothing at all to look at?
    pub(in crate::upstream) fn is_plain(&self) -> bool {
        self.trouble.load(Ordering::Relaxed) == 0
    }

    /// It has, or has not, a limit on what it may have to do.
    pub(in crate::upstream) fn limit(&self, limited: bool) {
        if limited {
            self.trouble.fetch_or(LIMITED, Ordering::Relaxed);
        } else if !self.is_plain() {
            self.trouble.fetch_and(!LIMITED, Ordering::Relaxed);
        }
    }

    /// Are others to be preferred? The clock is looked at only where that may be.
    pub(in crate::upstream) fn is_avoided(&self, now: impl FnOnce() -> u64) -> bool {
        let trouble = self.trouble.load(Ordering::Relaxed);
        if trouble & (UNREACHABLE | OUT) == 0 {
            return false;
        }
        let now = now();
        if trouble & UNREACHABLE != 0 && now < self.unreachable_until.load(Ordering::Relaxed) {
            return true;
        }
        let ejected = trouble & EJECTED != 0 && now < self.ejected_until.load(Ordering::Relaxed);
        (ejected || trouble & UNHEALTHY != 0) && !self.group.panics()
    }

    /// It has been checked. Says whether it is taken for something else from now on.
    pub(in crate::upstream) fn checked(&self, check: &HealthCheck, well: bool) -> bool {
        self.group.checked(well);
        let trouble = self.trouble.load(Ordering::Relaxed);
        let unhealthy = trouble & UNHEALTHY != 0;
        if well != unhealthy {
            self.checks.store(0, Ordering::Relaxed);
            return false;
        }
        let most = if well { check.healthy } else { check.unhealthy };
        let times = self
            .checks
            .fetch_add(1, Ordering::Relaxed)
            .saturating_add(1);
        if times < most || trouble & RETIRED != 0 {
            return false;
        }
        self.checks.store(0, Ordering::Relaxed);
        if well {
            self.clear(UNHEALTHY);
            return true;
        }
        let before = self.trouble.fetch_or(UNHEALTHY, Ordering::Relaxed);
        if before & UNHEALTHY == 0 {
            self.group.fall_ill();
        }
        if before & OUT == 0 {
            self.group.lose();
        }
        if before & RETIRED != 0 {
            // It has left in the meantime.
            self.clear(OUT);
        }
        true
    }

    /// Nobody checks it any more.
    pub(in crate::upstream) fn forget_checks(&self) {
        self.checks.store(0, Ordering::Relaxed);
        self.clear(UNHEALTHY);
    }

    /// Does it fail the checks of its health, whether it is used or not?
    pub(in crate::upstream) fn is_unhealthy(&self) -> bool {
        self.trouble.load(Ordering::Relaxed) & UNHEALTHY != 0
    }

    /// Is it ejected, whether it is used or not?
    pub(in crate::upstream) fn is_ejected(&self) -> bool {
        self.trouble.load(Ordering::Relaxed) & EJECTED != 0
    }

    /// Connections that could not be made since the last one that could.
    pub(in crate::upstream) fn connect_failures(&self) -> u32 {
        self.connect_failures.load(Ordering::Relaxed)
    }

    /// Requests that failed since the last one that did not.
    pub(in crate::upstream) fn failures(&self) -> u32 {
        self.failures.load(Ordering::Relaxed)
    }

    /// It is, or is not, one of its backend's endpoints. One that is not has no part in their numbers, however long
    /// its last requests take.
    pub(in crate::upstream) fn enlist(&self, listed: bool) {
        let retired = self.trouble.load(Ordering::Relaxed) & RETIRED != 0;
        if listed && retired {
            self.trouble.fetch_and(!RETIRED, Ordering::Relaxed);
        } else if !listed && !retired {
            self.trouble.fetch_or(RETIRED, Ordering::Relaxed);
            self.clear(OUT | TRIAL);
        }
    }
}

impl Drop for Condition {
    fn drop(&mut self) {
        self.clear(OUT | TRIAL);
    }
}

/// Requests of one endpoint, and those of them that failed, for as long as a window is open.
#[derive(Debug, Default)]
struct Window {
    began: AtomicU64,
    /// Requests in the upper half, failures in the lower one.
    counts: AtomicU64,
}

impl Window {
    /// Counts a request. Is this failure one with which there are too many?
    fn count(&self, rules: &Outliers, now: u64, failed: bool) -> bool {
        if rules.error_rate == 0 {
            return false;
        }
        let began = self.began.load(Ordering::Relaxed);
        let over = now.saturating_sub(began) >= u64::from(rules.window_ms);
        if over
            && self
                .began
                .compare_exchange(began, now, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
        {
            self.clear();
        }
        let one = 1 << 32 | u64::from(failed);
        let counts = self
            .counts
            .fetch_add(one, Ordering::Relaxed)
            .wrapping_add(one);
        let (requests, failures) = (counts >> 32, counts & u64::from(u32::MAX));
        failed
            && requests >= u64::from(rules.least_requests)
            && failures * 100 >= u64::from(rules.error_rate) * requests
    }

    fn clear(&self) {
        self.counts.store(0, Ordering::Relaxed);
    }
}
