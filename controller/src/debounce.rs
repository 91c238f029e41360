//! When to act on changes: at once if it has been quiet, otherwise when they pause, with an upper bound.

use std::time::{Duration, Instant};

/// How long changes are collected before they are acted upon.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Debounce {
    /// A pause of this length ends the collecting.
    pub(crate) quiet: Duration,
    /// It ends after this time in any case.
    pub(crate) longest: Duration,
}

impl Default for Debounce {
    fn default() -> Self {
        Self {
            quiet: Duration::from_millis(5),
            longest: Duration::from_millis(50),
        }
    }
}

impl Debounce {
    /// When to act on changes of which the oldest arrived at `first` and the newest at `last`.
    ///
    /// A change that comes after a quiet time is not held back: there is nothing to collect yet, and what follows
    /// it is collected. `previous` is when the pass before ended.
    pub(crate) fn due(&self, first: Instant, last: Instant, previous: Option<Instant>) -> Instant {
        let alone = previous.is_none_or(|previous| first >= previous + self.longest);
        if alone {
            return first;
        }
        (last + self.quiet).min(first + self.longest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_change_is_immediate_and_a_burst_is_bounded() {
        let debounce = Debounce::default();
        let start = Instant::now();
        let ms = |n: u64| start + Duration::from_millis(n);
        for (first, last, previous, want, why) in [
            (0, 0, None, 0, "the first change ever"),
            (60, 60, Some(0), 60, "a change after a quiet time"),
            (1, 1, Some(0), 6, "right after a pass more may follow"),
            (1, 4, Some(0), 9, "each change extends the quiet period"),
            (1, 49, Some(0), 51, "but not beyond the bound"),
        ] {
            assert_eq!(
                debounce.due(ms(first), ms(last), previous.map(ms)),
                ms(want),
                "{why}"
            );
        }
    }
}
