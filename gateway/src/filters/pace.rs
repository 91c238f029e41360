//! Slows a response down (`limit-rate`).

use std::time::{Duration, Instant};

use model::Pace;

/// How far a response is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Progress {
    pace: Pace,
    sent: u64,
    /// When the bytes that go first had gone.
    began: Option<Instant>,
}

impl Progress {
    /// A response that begins now.
    pub(crate) fn new(pace: Pace) -> Self {
        Self {
            pace,
            sent: 0,
            began: None,
        }
    }

    /// So many bytes go out now: how long the next ones have to wait.
    pub(crate) fn delay(&mut self, bytes: usize, now: Instant) -> Option<Duration> {
        self.sent = self.sent.saturating_add(bytes.try_into().ok()?);
        let paced = self.sent.saturating_sub(self.pace.after);
        if paced == 0 {
            return None;
        }
        let began = *self.began.get_or_insert(now);
        let due = u128::from(paced) * 1000 / u128::from(self.pace.bytes_per_second.max(1));
        let due = Duration::from_millis(u64::try_from(due).unwrap_or(u64::MAX));
        due.checked_sub(now.saturating_duration_since(began))
            .filter(|delay| !delay.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_first_is_fast_and_the_rest_keeps_the_pace() {
        let mut progress = Progress::new(Pace {
            bytes_per_second: 1000,
            after: 500,
        });
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let millis = Duration::from_millis;
        assert_eq!(progress.delay(500, start), None);
        assert_eq!(progress.delay(100, at(10)), Some(millis(100)));
        assert_eq!(progress.delay(100, at(110)), Some(millis(100)));
        assert_eq!(progress.delay(0, at(210)), None, "the time is over");
        assert_eq!(progress.delay(1000, at(5000)), None, "a slow backend");
    }
}
