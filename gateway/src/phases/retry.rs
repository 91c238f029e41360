//! What happened to a try, and whether there is another one.

use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use model::{Balance, Retry};

use crate::context::RequestContext;
use crate::engine::Worker;
use crate::error::Reason;

/// How often an endpoint is tried for one request, unless the route says otherwise.
const MOST_TRIES: usize = 3;

/// May there be one more try? `wanted` says whether the route's rules name what has happened.
fn may_try_again(context: &RequestContext, wanted: impl FnOnce(&Retry) -> bool) -> bool {
    let options = context
        .route
        .as_ref()
        .and_then(|route| route.options.as_ref());
    let Some(retry) = options.and_then(|options| options.retry.as_ref()) else {
        return context.tries.len() < MOST_TRIES;
    };
    let tries = u32::try_from(context.tries.len()).unwrap_or(u32::MAX);
    let in_time = Duration::from_secs(u64::from(retry.timeout_seconds));
    wanted(retry)
        && (retry.tries == 0 || tries < retry.tries)
        && (in_time.is_zero() || context.started.elapsed() < in_time)
}

/// Is there another endpoint, and may one more request be sent to it?
fn has_another(context: &RequestContext, worker: &Worker) -> bool {
    let Some(target) = &context.target else {
        return false;
    };
    let picker = &worker.picker;
    let tried = |address| context.tried(address);
    if !picker.has_another(target.slot, &target.backend, tried) {
        return false;
    }
    let may = picker.may_retry(target.slot);
    if !may {
        target.series.retry_refused();
    }
    may
}

fn count_retry(context: &RequestContext) {
    if let Some(target) = &context.target {
        target.series.retries.increment(1);
    }
}

/// Does what has happened stand in the rules?
fn names(retry: &Retry, reason: &Reason) -> bool {
    if matches!(
        reason,
        Reason::ConnectTimeout | Reason::ReadTimeout | Reason::WriteTimeout | Reason::TryTimeout
    ) {
        retry.timeout
    } else if *reason == Reason::UpstreamInvalid {
        retry.invalid
    } else {
        retry.error
    }
}

/// There is a connection to the endpoint.
pub(crate) fn connected(context: &mut RequestContext, reused: bool) {
    let Some(attempt) = context.tries.last_mut() else {
        return;
    };
    // One that was there already took no time.
    attempt.connected = Some(if reused {
        Duration::ZERO
    } else {
        attempt.began.elapsed()
    });
    attempt.reused = reused;
    attempt.in_flight.connected();
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
    if let Some(attempt) = context.tries.last_mut() {
        attempt.in_flight.endpoint().refused();
        attempt.failed = Some(reason.status());
    }
    let Some(target) = &context.target else {
        return false;
    };
    target.series.connect_failed(reason);
    let again =
        may_try_again(context, |retry| names(retry, reason)) && has_another(context, worker);
    if again {
        count_retry(context);
    }
    again
}

/// A connection that had been used before was closed under the request. Says whether to try again; the engine has made
/// sure that the request may be sent twice.
pub(crate) fn went_stale(context: &mut RequestContext) -> bool {
    end_try(context);
    if let Some(attempt) = context.current() {
        attempt.failed = Some(Reason::UpstreamReset.status());
    }
    let again = may_try_again(context, |_| true);
    if again {
        count_retry(context);
    }
    again
}

/// May another endpoint be asked, by the rules of the route, after the endpoint failed before there was a response?
/// The engine has made sure that the request is still at hand as a whole. Without rules this is never so: the request
/// may have had its effect.
pub(crate) fn broke(
    context: &mut RequestContext,
    worker: &Worker,
    method: &Method,
    reason: &Reason,
) -> bool {
    let wanted = with_rules(context, method)
        && may_try_again(context, |retry| names(retry, reason))
        && has_another(context, worker);
    if wanted {
        end_try(context);
        if let Some(attempt) = context.current() {
            attempt.failed = Some(reason.status());
        }
        count_retry(context);
    }
    wanted
}

/// Is this status of an endpoint one after which another endpoint is to be asked, and is there one? The engine has made
/// sure that the request is still at hand as a whole.
pub(crate) fn unwanted(
    context: &mut RequestContext,
    worker: &Worker,
    method: &Method,
    status: StatusCode,
) -> bool {
    let unwanted = with_rules(context, method)
        && may_try_again(context, |retry| retry.statuses.contains(&status.as_u16()))
        && has_another(context, worker);
    if unwanted {
        end_try(context);
        count_retry(context);
    }
    unwanted
}

/// Has the route rules for what may be sent twice?
fn with_rules(context: &RequestContext, method: &Method) -> bool {
    let options = context
        .route
        .as_ref()
        .and_then(|route| route.options.as_ref());
    options
        .and_then(|options| options.retry.as_ref())
        .is_some_and(|retry| retry.non_idempotent || method.is_idempotent())
}

/// The endpoint has sent a response header.
pub(crate) fn answered(context: &mut RequestContext, status: StatusCode, now: Instant) {
    let averaged = context
        .route
        .as_ref()
        .and_then(|route| route.options.as_ref())
        .is_some_and(|options| options.balance == Balance::Ewma);
    if let Some(attempt) = context.current() {
        attempt.status = Some(status);
        if !status.is_informational() || status == StatusCode::SWITCHING_PROTOCOLS {
            let latency = now.saturating_duration_since(attempt.began);
            attempt.header = Some(latency);
            if averaged {
                attempt.in_flight.endpoint().measured(latency);
            }
        }
    }
}

/// The current try is over.
pub(super) fn end_try(context: &mut RequestContext) {
    end_try_at(context, Instant::now());
}

/// The current try, if it has not ended, is over now.
pub(crate) fn end_try_at(context: &mut RequestContext, now: Instant) {
    if let Some(attempt) = context.current() {
        let lasted = now.saturating_duration_since(attempt.began);
        attempt.ended.get_or_insert(lasted);
        attempt.in_flight.end();
    }
}

/// Tells the endpoints how they did. A kept connection may have been closed for good reasons.
pub(super) fn judge(context: &RequestContext) {
    let Some((last, before)) = context.tries.split_last() else {
        return;
    };
    if last.header.is_some() {
        last.in_flight.answered(last.status);
    } else if context
        .reason
        .as_ref()
        .is_some_and(|reason| is_of_the_endpoint(reason, last.reused))
    {
        last.in_flight.failed();
    }
    for attempt in before {
        if attempt.header.is_some() {
            // Another endpoint was asked because of the status.
            attempt.in_flight.answered(attempt.status);
        } else if attempt.connected.is_some() && !attempt.reused {
            // One to which no connection could be made has been told already.
            attempt.in_flight.failed();
        }
    }
}

/// Is it the endpoint that failed, after a connection was made?
fn is_of_the_endpoint(reason: &Reason, reused: bool) -> bool {
    matches!(
        reason,
        Reason::UpstreamTls
            | Reason::ReadTimeout
            | Reason::TryTimeout
            | Reason::RequestTimeout { silent: true }
            | Reason::UpstreamInvalid
    ) || *reason == Reason::UpstreamReset && !reused
}
