//! How large a request body may be.

use http::header::CONTENT_LENGTH;

use crate::context::RequestContext;
use crate::error::Reason;
use crate::phases::original::Headers;

fn limit(context: &RequestContext) -> Option<u64> {
    context.route.as_ref()?.body_limit
}

/// Refuses a body whose length is known to be over the limit, before anything of it is read.
pub(crate) fn announced(context: &RequestContext, headers: Headers<'_>) -> Result<(), Reason> {
    let Some(limit) = limit(context) else {
        return Ok(());
    };
    let length = headers
        .text(&CONTENT_LENGTH)
        .and_then(|value| value.parse::<u64>().ok());
    match length {
        Some(length) if length > limit => Err(Reason::BodyTooLarge),
        Some(_) | None => Ok(()),
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
