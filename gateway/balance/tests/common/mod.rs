//! Endpoints as numbers in lists.
#![allow(
    dead_code,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "each test file uses its own part of this, and a test may fail"
)]

use std::cell::Cell;

use balance::{Candidates, Weight};

/// A set of endpoints.
#[derive(Clone, Debug)]
pub(crate) struct Set {
    /// Which of them may be chosen.
    pub(crate) may: Vec<bool>,
    /// Their shares; empty where they have none.
    pub(crate) weights: Vec<Weight>,
}

impl Set {
    /// So many that may all be chosen.
    pub(crate) fn of(count: usize) -> Self {
        Self {
            may: vec![true; count],
            weights: Vec::new(),
        }
    }

    /// The same with weights, in hundredths.
    pub(crate) fn weighted(hundredths: &[u64]) -> Self {
        Self {
            may: vec![true; hundredths.len()],
            weights: hundredths
                .iter()
                .map(|share| Weight::at_age(*share, 100))
                .collect(),
        }
    }
}

impl Candidates for Set {
    fn count(&self) -> usize {
        self.may.len()
    }

    fn may(&self, index: usize) -> bool {
        self.may[index]
    }

    fn is_weighted(&self) -> bool {
        !self.weights.is_empty()
    }

    fn weight(&self, index: usize) -> Weight {
        self.weights[index]
    }
}

/// A stream of numbers that is the same in each run (`xorshift64*`).
pub(crate) fn numbers(seed: u64) -> impl Fn() -> u64 {
    let state = Cell::new(seed | 1);
    move || {
        let mut x = state.get();
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        state.set(x);
        x.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

/// The statistic of Pearson: how far counts are from what is expected of them.
pub(crate) fn chi_square(counts: &[u32], expected: impl Fn(usize) -> f64) -> f64 {
    counts
        .iter()
        .enumerate()
        .map(|(index, count)| {
            let expected = expected(index);
            (f64::from(*count) - expected).powi(2) / expected
        })
        .sum()
}

/// What that statistic exceeds with a probability of less than one in a million, for so many independent counts
/// (Wilson and Hilferty; 4.75 standard deviations of a normal distribution).
pub(crate) fn limit(counts: usize) -> f64 {
    let degrees = f64::from(u32::try_from(counts).unwrap() - 1);
    let spread = 2.0 / (9.0 * degrees);
    degrees * (1.0 - spread + 4.75 * spread.sqrt()).powi(3)
}
