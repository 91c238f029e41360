//! How fast an endpoint has been lately.

use std::sync::atomic::{AtomicU64, Ordering};

/// After so many seconds a measurement has lost all but `1 / e` of its weight.
const MEMORY: f64 = 10.0;

/// Milliseconds by which a measurement may be ahead of who reads it.
const AHEAD: u32 = 60_000;

/// A peak-sensitive average that fades ("peak EWMA").
///
/// A measurement above the average becomes the average at once: who gets slow loses requests at once. One below it counts by the time
/// that has passed since the one before, `average * w + measured * (1 - w)` with `w = exp(-elapsed / 10 s)`: who gets fast has to
/// prove it. Between measurements the average falls by `w`, so that who has been slow is asked again.
///
/// Time is in milliseconds and may begin anywhere. Average and time are kept in one word, so that nobody sees one without the other.
#[derive(Debug, Default)]
pub struct Latency(AtomicU64);

impl Latency {
    /// One that has been measured at this time.
    pub fn known(seconds: f64, now: u64) -> Self {
        Self(AtomicU64::new(pack(seconds, now)))
    }

    /// Takes a measurement in.
    ///
    /// Of two at the same moment one may be lost.
    pub fn observe(&self, seconds: f64, now: u64) {
        let (before, left) = self.remembered(now);
        let average = if seconds > before {
            seconds
        } else {
            before * left + seconds * (1.0 - left)
        };
        self.0.store(pack(average, now), Ordering::Relaxed);
    }

    /// The average in seconds, as far as it has not faded.
    pub fn seconds(&self, now: u64) -> f64 {
        let (average, left) = self.remembered(now);
        average * left
    }

    /// The average when it was measured, and what is left of it.
    fn remembered(&self, now: u64) -> (f64, f64) {
        let word = self.0.load(Ordering::Relaxed);
        let average = f32::from_bits(upper(word));
        // In 49 days it wraps, and by then nothing is left of what has not been measured since.
        let age = lower(now).wrapping_sub(lower(word));
        // Another worker may have looked at the clock a moment later.
        let age = if age > u32::MAX - AHEAD { 0 } else { age };
        let left = if age == 0 {
            1.0
        } else {
            (-f64::from(age) / (1_000.0 * MEMORY)).exp()
        };
        (f64::from(average), left)
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "seven digits are more than anybody measures"
)]
fn pack(seconds: f64, now: u64) -> u64 {
    let seconds = (seconds as f32).to_bits();
    u64::from(seconds) << 32 | u64::from(lower(now))
}

fn upper(word: u64) -> u32 {
    u32::try_from(word >> 32).unwrap_or(0)
}

fn lower(word: u64) -> u32 {
    u32::try_from(word & u64::from(u32::MAX)).unwrap_or(0)
}
