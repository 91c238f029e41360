//! How long the two sides of an exchange may take.

use std::time::{Duration, Instant};

/// How long everybody may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// Between two reads from the endpoint.
    pub(super) read: Duration,
    /// Between two writes to the endpoint.
    pub(super) send: Duration,
    /// Between two reads of the request's body.
    pub(super) body: Duration,
    /// Between two writes to the client.
    pub(super) client: Duration,
    /// Bytes per second that a client has to send or to take while nobody but it is waited for; 0 is any.
    pub(super) rate: u32,
}

/// The time that one side was waited for.
///
/// A client that moves one byte just before each deadline would hold its connection, and one to the endpoint, for as
/// long as it likes. So all its waits together are measured against what has moved.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Waits {
    since: Option<Instant>,
    before: Duration,
}

impl Waits {
    /// A wait begins, unless one lasts.
    pub(super) fn begin(&mut self, now: Instant) {
        self.since.get_or_insert(now);
    }

    /// Something has moved.
    pub(super) fn end(&mut self, now: Instant) {
        if let Some(since) = self.since.take() {
            self.before += now.saturating_duration_since(since);
        }
    }

    /// When the current wait is one too long for `bytes` at this rate. The first waits up to `free` do not count.
    pub(super) fn limit(&self, free: Duration, bytes: usize, rate: u32) -> Option<Instant> {
        let since = self.since?;
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let earned = Duration::from_secs(bytes.checked_div(u64::from(rate))?);
        let left = free.saturating_add(earned).saturating_sub(self.before);
        since.checked_add(left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FREE: Duration = Duration::from_mins(1);

    #[test]
    fn who_moves_enough_is_waited_for() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut waits = Waits::default();
        assert_eq!(waits.limit(FREE, 0, 100), None, "nobody waits");
        waits.begin(at(0));
        waits.begin(at(1));
        assert_eq!(waits.limit(FREE, 0, 100), Some(at(60)));
        assert_eq!(waits.limit(FREE, 0, 0), None, "any rate will do");
        waits.end(at(50));
        waits.end(at(55));
        assert_eq!(waits.limit(FREE, 0, 100), None);
        // What happens in between is not the client's time.
        waits.begin(at(500));
        assert_eq!(waits.limit(FREE, 99, 100), Some(at(510)));
        assert_eq!(waits.limit(FREE, 1000, 100), Some(at(520)));
        waits.end(at(530));
        waits.begin(at(530));
        assert_eq!(waits.limit(FREE, 1000, 100), Some(at(530)), "at once");
    }
}
