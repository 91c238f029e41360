//! Latencies, counted in buckets that are 1.6 % wide.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Buckets per power of two.
const FINE: u64 = 64;
const BUCKETS: usize = 64 * 42;

/// Counts durations up to about an hour, in microseconds.
#[derive(Debug)]
pub struct Histogram(Box<[AtomicU64]>);

impl Default for Histogram {
    fn default() -> Self {
        Self((0..BUCKETS).map(|_| AtomicU64::new(0)).collect())
    }
}

impl Histogram {
    /// Counts one duration.
    pub fn record(&self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let bucket = self.0.get(bucket(micros)).or_else(|| self.0.last());
        if let Some(bucket) = bucket {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.0
            .iter()
            .map(|count| count.load(Ordering::Relaxed))
            .sum()
    }

    /// The duration that `per_mille` of a thousand do not exceed, up to the width of a bucket.
    pub fn quantile(&self, per_mille: u64) -> Duration {
        let wanted = (self.count() * per_mille).div_ceil(1000).max(1);
        let mut seen = 0;
        for (index, count) in self.0.iter().enumerate() {
            seen += count.load(Ordering::Relaxed);
            if seen >= wanted {
                return Duration::from_micros(upper(index));
            }
        }
        Duration::ZERO
    }
}

/// Values below `FINE` have a bucket each; above, every power of two has `FINE` of them.
fn bucket(value: u64) -> usize {
    if value < FINE {
        return usize::try_from(value).unwrap_or_default();
    }
    let power = u64::from(value.ilog2() - FINE.ilog2());
    usize::try_from((power + 1) * FINE + (value >> power) - FINE).unwrap_or(usize::MAX)
}

/// The largest value of a bucket.
fn upper(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < FINE {
        return bucket;
    }
    let power = bucket / FINE - 1;
    ((bucket % FINE + FINE + 1) << power) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_in_a_bucket_that_is_not_much_wider_than_it() {
        for value in (0..200_000).chain([1 << 30, (1 << 32) - 1]) {
            let top = upper(bucket(value));
            assert!(top >= value, "{value} is above its bucket {top}");
            assert!(
                top - value <= value / FINE,
                "{value} in a bucket up to {top}"
            );
        }
        assert!(bucket(60 * 60 * 1_000_000) < BUCKETS, "an hour fits");
    }

    #[test]
    fn quantiles_follow_the_counts() {
        let histogram = Histogram::default();
        assert_eq!(histogram.quantile(500), Duration::ZERO);
        for millis in 1..=100 {
            histogram.record(Duration::from_millis(millis));
        }
        assert_eq!(histogram.count(), 100);
        for (per_mille, millis) in [(10, 1), (500, 50), (990, 99), (1000, 100)] {
            let found = histogram.quantile(per_mille).as_secs_f64() * 1000.0;
            let wanted = f64::from(millis);
            assert!(
                (found - wanted).abs() <= wanted * 0.02,
                "{per_mille}: {found} instead of {wanted}"
            );
        }
    }
}
