//! How large a request body may be, and whether it is waited for.

use std::time::Duration;

use http::header::{CONTENT_LENGTH, EXPECT};
use tokio::time::error::Elapsed;
use tokio::time::timeout;

use crate::context::RequestContext;
use crate::error::Reason;
use crate::phases::deadline;
use crate::phases::original::Headers;

/// A request body up to this size is read and thrown away after an answer that did not need it, so that the
/// connection can be used on.
pub(crate) const SMALL: u64 = 64 * 1024;
/// How much of a request is kept to be sent again.
pub(crate) const MOST_REPLAYED: usize = 64 * 1024;

fn limit(context: &RequestContext) -> Option<u64> {
    context.route.as_ref()?.body_limit
}

/// Refuses a body whose length is known to be over the limit, before anything of it is read.
pub(crate) fn announced(context: &RequestContext, headers: Headers<'_>) -> Result<(), Reason> {
    let Some(limit) = limit(context) else {
        return Ok(());
    };
    match length(headers) {
        Some(length) if length > limit => Err(Reason::BodyTooLarge),
        Some(_) | None => Ok(()),
    }
}

fn length(headers: Headers<'_>) -> Option<u64> {
    headers.text(&CONTENT_LENGTH)?.parse().ok()
}

/// The length of a body that a client says and does not wait for a permission to send: that would be for ever.
pub(crate) fn coming(headers: Headers<'_>) -> Option<u64> {
    length(headers).filter(|_| !headers.has(&EXPECT))
}

/// How much of a body is to be there before an endpoint is chosen, so that a slow client keeps nobody waiting but itself.
/// `coming` says how long the body will be, and is asked only where that matters.
pub(crate) fn to_collect(
    context: &RequestContext,
    coming: impl FnOnce() -> Option<u64>,
) -> Option<usize> {
    let options = context.route.as_ref()?.options.as_ref()?;
    let most = u64::from(options.collect);
    if most == 0 {
        return None;
    }
    // One that is too large is refused before anything of it is read.
    let most = limit(context).map_or(most, |limit| most.min(limit));
    let length = coming().filter(|length| (1..=most).contains(length))?;
    usize::try_from(length).ok()
}

/// For how long a body of this length may be waited for in all, if there is a least rate or an end of the request.
pub(crate) fn patience(context: &RequestContext, length: usize) -> Option<Duration> {
    let limits = &context.connection.limits;
    let length = u64::try_from(length).unwrap_or(u64::MAX);
    let more = length.checked_div(limits.min_client_rate.into());
    let slow = more.map(|more| limits.body_timeout + Duration::from_secs(more));
    let ends = [slow, deadline::remaining(context)];
    ends.into_iter().flatten().min()
}

/// Waits for a body with that patience. That no piece of it takes too long is up to `collected`.
pub(crate) async fn in_time<T>(
    patience: Option<Duration>,
    collected: impl Future<Output = T>,
) -> Result<T, Elapsed> {
    match patience {
        Some(patience) => timeout(patience, collected).await,
        None => Ok(collected.await),
    }
}

/// Counts a part of the body, and refuses it once all parts together are over the limit.
pub(crate) fn received(context: &mut RequestContext, bytes: usize) -> Result<(), Reason> {
    let Some(limit) = limit(context) else {
        return Ok(());
    };
    let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
    context.body_received = context.body_received.saturating_add(bytes);
    if context.body_received > limit {
        return Err(Reason::BodyTooLarge);
    }
    Ok(())
}
