//! How long the two sides of an exchange may take.

use std::time::{Duration, Instant};

use crate::error::{Fault, Source};
use crate::phases::upstream::Upstream;
use crate::settings::Limits;

/// Whose fault, and which.
pub(super) type Failure = (Source, Fault);

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

impl Patience {
    /// With this endpoint and any client.
    pub(super) fn new(to: &Upstream, limits: &Limits) -> Self {
        Self {
            read: to.read,
            send: to.send,
            body: limits.body_timeout,
            client: limits.write_timeout,
            rate: limits.min_client_rate,
        }
    }
}

/// Who is waited for, at one moment of an exchange.
#[derive(Clone, Copy, Debug)]
pub(super) struct Awaited {
    /// The endpoint, to take what there is of the request.
    pub(super) sending: bool,
    /// The client, for more of the request.
    pub(super) receiving: bool,
    /// How much of the body has come, where it is known how much there will be.
    pub(super) received: Option<usize>,
    /// The client, to take what there is of the response; how much of its content has been sent.
    pub(super) giving: Option<usize>,
    /// There is an endpoint that could say something.
    pub(super) connected: bool,
}

/// When something last moved, in each of the four directions.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    /// From the client.
    pub(super) received_at: Instant,
    /// To the endpoint.
    pub(super) sent_at: Instant,
    /// From the endpoint, or it could not because of the client.
    pub(super) heard_at: Instant,
    /// To the client.
    pub(super) given_at: Instant,
    /// The client was waited for, to send more of the request.
    pub(super) receiving: Waits,
    /// The client was waited for, to take more of the response.
    pub(super) giving: Waits,
}

impl Clock {
    /// Everything begins.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            received_at: now,
            sent_at: now,
            heard_at: now,
            given_at: now,
            receiving: Waits::default(),
            giving: Waits::default(),
        }
    }

    /// A try begins.
    pub(super) fn begin(&mut self, now: Instant) {
        self.received_at = now;
        self.sent_at = now;
        self.heard_at = now;
    }

    /// The client has taken something.
    pub(super) fn given(&mut self, now: Instant) {
        self.given_at = now;
        self.heard_at = now;
        self.giving.end(now);
    }

    /// The client has sent something.
    pub(super) fn received(&mut self, now: Instant) {
        self.received_at = now;
        self.receiving.end(now);
    }

    /// Until when something has to happen, and what it means if it does not.
    pub(super) fn deadline(
        &self,
        awaited: &Awaited,
        patience: &Patience,
    ) -> Option<(Instant, Failure)> {
        let mut first: Option<(Instant, Failure)> = None;
        let mut until = |at: Option<Instant>, failure| {
            first = match (first, at) {
                (Some((before, _)), Some(at)) if before <= at => first,
                (_, Some(at)) => Some((at, failure)),
                (_, None) => first,
            };
        };
        if awaited.sending {
            let at = self.sent_at.checked_add(patience.send);
            until(at, (Source::Upstream, Fault::WriteTimeout));
        }
        if awaited.receiving {
            let late = (Source::Client, Fault::ReadTimeout);
            // Nobody has looked for more as long as the endpoint did not take what there was.
            let last = self.received_at.max(self.sent_at);
            until(last.checked_add(patience.body), late);
            // Who has not said how much it will be does not know yet what it will send, and when.
            if let Some(bytes) = awaited.received {
                let limit = self.receiving.limit(patience.body, bytes, patience.rate);
                until(limit, late);
            }
        }
        if let Some(bytes) = awaited.giving {
            let late = (Source::Client, Fault::WriteTimeout);
            until(self.given_at.checked_add(patience.client), late);
            let limit = self.giving.limit(patience.client, bytes, patience.rate);
            until(limit, late);
        }
        // As long as the client is still sending, its own time is what counts.
        let client = awaited.receiving || awaited.giving.is_some();
        if awaited.connected && !awaited.sending && !client {
            let at = self.sent_at.max(self.heard_at).checked_add(patience.read);
            until(at, (Source::Upstream, Fault::ReadTimeout));
        }
        first
    }
}

/// Of two deadlines the one that comes first.
pub(super) fn earlier(
    one: Option<(Instant, Failure)>,
    other: Option<(Instant, Failure)>,
) -> Option<(Instant, Failure)> {
    match (one, other) {
        (Some(one), Some(other)) if other.0 < one.0 => Some(other),
        (None, other) => other,
        (one, _) => one,
    }
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

    #[test]
    fn one_side_is_waited_for_at_a_time() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let patience = Patience {
            read: Duration::from_secs(10),
            send: Duration::from_secs(20),
            body: Duration::from_secs(30),
            client: Duration::from_secs(40),
            rate: 0,
        };
        let nobody = Awaited {
            sending: false,
            receiving: false,
            received: None,
            giving: None,
            connected: true,
        };
        let client = |fault| (Source::Client, fault);
        let endpoint = |fault| (Source::Upstream, fault);
        let mut clock = Clock::new(start);
        clock.sent_at = at(5);
        clock.heard_at = at(7);
        for (awaited, want) in [
            (nobody, Some((at(17), endpoint(Fault::ReadTimeout)))),
            (
                Awaited {
                    connected: false,
                    ..nobody
                },
                None,
            ),
            (
                Awaited {
                    sending: true,
                    ..nobody
                },
                Some((at(25), endpoint(Fault::WriteTimeout))),
            ),
            (
                // It took the endpoint until then to make room for more.
                Awaited {
                    receiving: true,
                    ..nobody
                },
                Some((at(35), client(Fault::ReadTimeout))),
            ),
            (
                Awaited {
                    giving: Some(0),
                    ..nobody
                },
                Some((at(40), client(Fault::WriteTimeout))),
            ),
            (
                Awaited {
                    sending: true,
                    giving: Some(0),
                    ..nobody
                },
                Some((at(25), endpoint(Fault::WriteTimeout))),
            ),
        ] {
            assert_eq!(clock.deadline(&awaited, &patience), want, "{awaited:?}");
        }
    }

    #[test]
    fn a_client_has_a_rate_to_keep_in_both_directions() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let patience = Patience {
            read: FREE,
            send: FREE,
            body: FREE,
            client: FREE,
            rate: 100,
        };
        let mut awaited = Awaited {
            sending: false,
            receiving: true,
            received: Some(1000),
            giving: None,
            connected: true,
        };
        let mut clock = Clock::new(start);
        clock.receiving.begin(start);
        clock.received(at(50));
        clock.receiving.begin(at(50));
        let late = |fault| Some((Source::Client, fault));
        let deadline = clock.deadline(&awaited, &patience);
        assert_eq!(deadline.map(|(at, _)| at), Some(at(70)), "ten seconds more");
        assert_eq!(deadline.map(|(_, late)| late), late(Fault::ReadTimeout));
        awaited.received = None;
        let deadline = clock.deadline(&awaited, &patience);
        assert_eq!(deadline.map(|(at, _)| at), Some(at(110)), "no length");

        awaited.receiving = false;
        awaited.giving = Some(0);
        clock.giving.begin(start);
        clock.given(at(59));
        clock.giving.begin(at(59));
        let deadline = clock.deadline(&awaited, &patience);
        assert_eq!(deadline.map(|(at, _)| at), Some(at(60)));
        assert_eq!(deadline.map(|(_, late)| late), late(Fault::WriteTimeout));
    }
}
