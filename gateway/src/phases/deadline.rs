//! Until when a request, and each try to get it answered, has to be done.

use std::time::{Duration, Instant};

use crate::context::RequestContext;
use crate::error::{Fault, Reason, Source};

/// Until when a request has to be done, where its route says so.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Until {
    /// When the request has to be over, and how long it then has taken.
    request: Option<(Instant, Duration)>,
    /// How long the header section of a response may take once the whole request has been sent.
    answer: Option<Duration>,
}

/// What the route of a request says.
pub(crate) fn of(context: &RequestContext) -> Option<Until> {
    let options = context.route.as_ref()?.options.as_ref()?;
    let deadlines = options.deadlines.as_ref()?;
    let millis = |millis: u32| (millis > 0).then(|| Duration::from_millis(millis.into()));
    Some(Until {
        request: millis(deadlines.request_ms)
            .and_then(|time| Some((context.started.checked_add(time)?, time))),
        answer: millis(deadlines.try_ms),
    })
}

/// Is it too late for another try?
pub(crate) fn is_over(context: &RequestContext) -> bool {
    of(context)
        .and_then(|until| until.request)
        .is_some_and(|(at, _)| Instant::now() >= at)
}

impl Until {
    /// The next point in time at which something is too late, and what. `silent_since` is when the whole request had
    /// gone to the endpoint, as long as no response has begun.
    pub(crate) fn next(self, silent_since: Option<Instant>) -> Option<(Instant, (Source, Fault))> {
        let answer = silent_since
            .zip(self.answer)
            .and_then(|(since, time)| since.checked_add(time))
            .map(|at| (at, (Source::Upstream, Fault::AnswerTimeout)));
        let request = self.request.map(|(at, time)| {
            let waited = silent_since.map(|since| at.saturating_duration_since(since));
            // An endpoint that was asked late, or not in full, is not to blame.
            let silent = waited.is_some_and(|waited| waited >= time / 2);
            (at, (Source::Gateway, Fault::RequestTimeout { silent }))
        });
        match (answer, request) {
            (Some(answer), Some(request)) if answer.0 < request.0 => Some(answer),
            (answer, None) => answer,
            (_, request) => request,
        }
    }

    /// What is left of this time for a connection, in a try that began then.
    pub(crate) fn cut(self, time: Duration, began: Instant) -> Duration {
        let answer = self.answer.and_then(|time| began.checked_add(time));
        let ends = [answer, self.request.map(|(at, _)| at)];
        let now = Instant::now();
        ends.into_iter()
            .flatten()
            .map(|at| at.saturating_duration_since(now))
            .fold(time, Duration::min)
            // No time at all would be no try.
            .max(Duration::from_millis(1))
    }
}

/// What is left of the time of a request, for an endpoint that is silent. For readers that know nothing of a leash.
pub(crate) fn left(context: &RequestContext) -> Option<Duration> {
    if context.leash.is_some() {
        return None;
    }
    remaining(context)
}

/// What is left of the time of a request.
pub(crate) fn remaining(context: &RequestContext) -> Option<Duration> {
    let (at, _) = of(context)?.request?;
    let left = at.saturating_duration_since(Instant::now());
    Some(left.max(Duration::from_millis(1)))
}

/// For engines that cannot wait themselves: has the reader of the client's connection wait, and fail then. `sent` says
/// whether the whole request has gone to the endpoint, as far as the client is concerned.
pub(crate) fn arm(context: &RequestContext, sent: bool) {
    let (Some(leash), Some(until)) = (&context.leash, of(context)) else {
        return;
    };
    match until.next(silent_since(context, sent)) {
        Some((at, _)) => leash.arm_answer(at),
        None => leash.clear(),
    }
}

/// Why a request fails for which no connection could be made for this reason.
pub(crate) fn or_over(context: &RequestContext, reason: Reason) -> Reason {
    if is_over(context) {
        return Reason::RequestTimeout { silent: false };
    }
    reason
}

/// What is too late now, if anything is.
pub(crate) fn missed(context: &RequestContext, sent: bool) -> Option<Reason> {
    let (at, (source, fault)) = of(context)?.next(silent_since(context, sent))?;
    (Instant::now() >= at).then(|| crate::error::reason(source, fault))
}

/// Since when the endpoint has had all that it needs for an answer, and has not given one.
fn silent_since(context: &RequestContext, sent: bool) -> Option<Instant> {
    let attempt = context.tries.last()?;
    let waits = sent && attempt.connected.is_some() && attempt.header.is_none();
    waits.then(|| {
        context
            .sent_at
            .map_or(attempt.began, |at| at.max(attempt.began))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn until(request: Option<u64>, answer: Option<u64>, start: Instant) -> Until {
        let time = Duration::from_secs;
        Until {
            request: request.map(|seconds| (start + time(seconds), time(seconds))),
            answer: answer.map(time),
        }
    }

    #[test]
    fn the_earlier_of_both_counts() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let answer = (Source::Upstream, Fault::AnswerTimeout);
        let request = |silent| (Source::Gateway, Fault::RequestTimeout { silent });
        for (limits, since, want, why) in [
            ((None, None), Some(0), None, "there are none"),
            ((None, Some(3)), None, None, "the client is still sending"),
            ((None, Some(3)), Some(2), Some((5, answer)), "from then on"),
            ((Some(9), Some(3)), Some(2), Some((5, answer)), "the try"),
            (
                (Some(4), Some(3)),
                Some(2),
                Some((4, request(true))),
                "the request",
            ),
            (
                (Some(10), None),
                Some(6),
                Some((10, request(false))),
                "an endpoint that was asked late",
            ),
            (
                (Some(10), Some(1)),
                None,
                Some((10, request(false))),
                "the whole, whoever is slow",
            ),
        ] {
            let until = until(limits.0, limits.1, start);
            let next = until.next(since.map(at));
            assert_eq!(
                next,
                want.map(|(seconds, what)| (at(seconds), what)),
                "{why}"
            );
        }
    }

    #[test]
    fn connections_get_what_is_left() {
        let now = Instant::now();
        let time = Duration::from_secs;
        assert_eq!(until(None, None, now).cut(time(5), now), time(5));
        let left = until(Some(60), Some(2), now).cut(time(5), now);
        assert!(left <= time(2) && left > time(1), "{left:?}");
        let long_ago = now.checked_sub(time(9)).unwrap();
        let left = until(None, Some(2), now).cut(time(5), long_ago);
        assert_eq!(left, Duration::from_millis(1), "nearly nothing");
    }
}
