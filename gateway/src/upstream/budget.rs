//! How many requests are sent to another endpoint.

/// Milliseconds over which requests and retries are compared.
const WINDOW: u64 = 10_000;
/// One of so many requests may be sent again.
const SHARE: u64 = 5;
/// So many more in each window, so that retries help where there are few requests.
const FEW: u64 = 100;

/// What one worker may send again to one backend. When every endpoint fails, retries that have no bound are load on top
/// of the load that made them fail.
#[derive(Debug)]
pub(super) struct RetryBudget {
    /// When the window began, in milliseconds.
    since: u64,
    /// Endpoints chosen in it, for requests and retries.
    choices: u64,
    /// Retries allowed in it.
    retries: u64,
    /// What the requests of the window before give, scaled to the length of one.
    carried: u64,
}

impl RetryBudget {
    pub(super) fn new(now: u64) -> Self {
        Self {
            since: now,
            choices: 0,
            retries: 0,
            carried: 0,
        }
    }

    /// An endpoint has been chosen.
    pub(super) fn count(&mut self) {
        self.choices = self.choices.saturating_add(1);
    }

    /// Takes one retry, if there is one left.
    pub(super) fn take(&mut self, now: u64) -> bool {
        let given = self.choices.saturating_sub(self.retries) / SHARE;
        let age = now.saturating_sub(self.since);
        if age >= WINDOW {
            *self = Self {
                // The window lasts until somebody asks, which may be long.
                carried: given.saturating_mul(WINDOW) / age,
                ..Self::new(now)
            };
            self.retries = 1;
            return true;
        }
        let left = self.retries < FEW.saturating_add(given.max(self.carried));
        if left {
            self.retries += 1;
        }
        left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends so many requests that all fail, each tried three times at most; how many retries there are.
    fn outage(budget: &mut RetryBudget, requests: u64, now: u64) -> u64 {
        let mut retries = 0;
        for _ in 0..requests {
            budget.count();
            for _ in 0..2 {
                if !budget.take(now) {
                    break;
                }
                retries += 1;
                budget.count();
            }
        }
        retries
    }

    #[test]
    fn an_outage_is_not_multiplied() {
        let mut budget = RetryBudget::new(0);
        assert_eq!(outage(&mut budget, 10, 0), 20, "few requests, all retries");
        let mut budget = RetryBudget::new(0);
        let retries = outage(&mut budget, 10_000, 0);
        assert_eq!(retries, FEW + 10_000 / SHARE);
    }

    #[test]
    fn quiet_hours_do_not_add_up() {
        let mut budget = RetryBudget::new(0);
        for _ in 0..3_600_000 {
            budget.count();
        }
        // A thousand requests per second for an hour: what ten seconds of them give, and those that come meanwhile.
        let retries = outage(&mut budget, 1_000, 3_600_000);
        assert_eq!(retries, 2_000, "as many as a window of the traffic before");
        assert_eq!(outage(&mut budget, 1_000, 3_600_001), FEW);
    }

    #[test]
    fn a_new_window_begins_with_what_is_usual() {
        let mut budget = RetryBudget::new(0);
        assert!(outage(&mut budget, 5_000, 0) >= 1_000);
        assert!(outage(&mut budget, 1, WINDOW) > 0);
        let retries = outage(&mut budget, 10_000, WINDOW + 1);
        assert!((2_000..=2_200).contains(&retries), "{retries}");
    }
}
