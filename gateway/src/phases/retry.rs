//! What happened to a try, and whether there is another one.

use http::StatusCode;

use crate::context::RequestContext;
use crate::engine::Worker;
use crate::error::Reason;

/// How often an endpoint is tried for one request (`proxy-next-upstream-tries` of ingress-nginx).
const MOST_TRIES: usize = 3;

/// There is a connection to the endpoint.
pub(crate) fn connected(context: &mut RequestContext, reused: bool) {
    let Some(attempt) = context.tries.last_mut() else {
        return;
    };
    attempt.connected = Some(attempt.began.elapsed());
    attempt.reused = reused;
    if !reused {
        attempt.in_flight.endpoint().connected();
    }
    if let Some(target) = &context.target {
        if reused {
            target.series.reuses.increment(1);
        } else {
            target.series.connects.increment(1);
        }
    }
}

/// No connection could be made. Says whether another endpoint is to be tried.
pub(crate) fn not_connected(
    context: &mut RequestContext,
    worker: &Worker,
    reason: &Reason,
) -> bool {
    end_try(context);
    if let Some(attempt) = context.tries.last() {
        attempt.in_flight.endpoint().refused();
    }
    let Some(target) = &context.target else {
        return false;
    };
    target.series.connect_failed(reason);
    let again = context.tries.len() < MOST_TRIES
        && worker
            .picker
            .has_another(target.slot, &target.backend, |address| {
                context.tried(address)
            });
    if again {
        target.series.retries.increment(1);
    }
    again
}

/// A connection that had been used before was closed under the request. Says whether to try again; the engine has made
/// sure that the request may be sent twice.
pub(crate) fn went_stale(context: &mut RequestContext) -> bool {
    end_try(context);
    let again = context.tries.len() < MOST_TRIES;
    if again && let Some(target) = &context.target {
        target.series.retries.increment(1);
    }
    again
}

/// The endpoint has sent a response header.
pub(crate) fn answered(context: &mut RequestContext, status: StatusCode) {
    if let Some(attempt) = context.current() {
        attempt.status = Some(status);
        if !status.is_informational() || status == StatusCode::SWITCHING_PROTOCOLS {
            attempt.header = Some(attempt.began.elapsed());
        }
    }
}

/// The current try is over.
pub(crate) fn end_try(context: &mut RequestContext) {
    if let Some(attempt) = context.current() {
        attempt.ended.get_or_insert_with(|| attempt.began.elapsed());
    }
}
