//! How long to wait before the next attempt.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// Delays that double up to a limit, each shortened at random by up to a quarter, so that many clients that lost the
/// same server do not return at the same moment.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    first: Duration,
    limit: Duration,
    next: Duration,
}

impl Backoff {
    /// Starts at `first` and never exceeds `limit`.
    pub(crate) fn new(first: Duration, limit: Duration) -> Self {
        Self {
            first,
            limit,
            next: first.min(limit),
        }
    }

    /// The delay before the next attempt.
    pub(crate) fn delay(&mut self) -> Duration {
        let delay = self.next;
        self.next = delay.saturating_mul(2).min(self.limit);
        delay.mul_f64(1.0 - 0.25 * random_share())
    }

    /// The last attempt worked: begin anew.
    pub(crate) fn reset(&mut self) {
        self.next = self.first.min(self.limit);
    }
}

/// 64 random bits. The standard library seeds its hash maps from the system's random numbers; good enough to spread
/// load and to tell processes apart, not for anything secret.
pub(crate) fn random_bits() -> u64 {
    RandomState::new().hash_one(0_u8)
}

/// A number from 0 up to, but not including, 1.
fn random_share() -> f64 {
    let bits = u32::try_from(random_bits() >> 32).unwrap_or_default();
    f64::from(bits) / (f64::from(u32::MAX) + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_limit_and_start_again_after_a_reset() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(5));
        for full in [1, 2, 4, 5, 5, 5] {
            let full = Duration::from_secs(full);
            let delay = backoff.delay();
            assert!(
                delay <= full && delay >= full.mul_f64(0.75),
                "{delay:?} for {full:?}"
            );
        }
        backoff.reset();
        assert!(backoff.delay() <= Duration::from_secs(1));
    }
}
