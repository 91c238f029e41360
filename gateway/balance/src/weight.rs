//! Shares of endpoints, and how those of new ones grow.

/// The share of an endpoint, relative to others: from a tenth to the whole.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Weight(u32);

/// Units in a whole one.
const UNITS: u32 = 1 << 16;

/// New endpoints begin with one part of so many. With less they would hardly be asked at all, and learn nothing.
const PARTS: u32 = 10;

impl Weight {
    /// That of an endpoint with nothing special about it.
    pub const FULL: Self = Self(UNITS);

    /// The least.
    pub const LEAST: Self = Self(UNITS / PARTS);

    /// Turns that go round before an endpoint with the least weight is due, at most.
    pub(crate) const ROUNDS: usize = PARTS as usize + 1;

    /// The weight at this age where it is to be whole after `window`: it grows in proportion to the age. Both are in the same
    /// unit.
    pub fn at_age(age: u64, window: u64) -> Self {
        if age >= window {
            return Self::FULL;
        }
        // Exact for nine thousand years in milliseconds.
        let share = age.saturating_mul(u64::from(UNITS)) / window;
        Self(u32::try_from(share).unwrap_or(UNITS)).max(Self::LEAST)
    }

    /// In units of [`Weight::FULL`], which has 65,536 of them.
    pub fn units(self) -> u32 {
        self.0
    }

    /// As a number from 0.1 to 1.
    pub fn share(self) -> f64 {
        f64::from(self.0) / f64::from(UNITS)
    }

    /// True with the probability that the weight says. The lower bits of `random` decide.
    pub fn accepts(self, random: u64) -> bool {
        (random & u64::from(UNITS - 1)) < u64::from(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_from_a_tenth_to_the_whole() {
        for (age, window, want) in [
            (0, 30_000, 0.1),
            (1_500, 30_000, 0.1),
            (6_000, 30_000, 0.2),
            (15_000, 30_000, 0.5),
            (29_999, 30_000, 1.0),
            (30_000, 30_000, 1.0),
            (u64::MAX, 30_000, 1.0),
            (0, 0, 1.0),
            (1 << 46, 1 << 47, 0.5),
        ] {
            let share = Weight::at_age(age, window).share();
            assert!((share - want).abs() < 0.001, "{age} of {window}: {share}");
        }
        assert_eq!(Weight::at_age(30_000, 30_000), Weight::FULL);
        let ages: Vec<_> = (0..1_000).map(|age| Weight::at_age(age, 1_000)).collect();
        assert!(ages.is_sorted(), "it never shrinks");
    }
}
