//! The phases before a backend is asked, in their order. Every engine runs these two, and in between finds out whether
//! the route is one that it can serve.

use crate::context::RequestContext;
use crate::engine::Worker;
use crate::phases::answer::Answer;
use crate::phases::original::Original;
use crate::phases::route::{self, Head, Verdict};
use crate::phases::{access, upstream};

/// Finds the route. Nothing is counted yet: a request can still begin anew in another engine.
pub(crate) fn find(context: &mut RequestContext, head: Head<'_>) -> Verdict {
    match route::within_limits(context, head) {
        Ok(()) => route::route(context, head),
        Err(reason) => Verdict::Answer(Answer::page(reason)),
    }
}

/// Lets the request pass and takes an endpoint for it. What it returns is answered instead.
pub(crate) async fn admit(
    context: &mut RequestContext,
    worker: &Worker,
    request: Original<'_>,
) -> Result<(), Answer> {
    if let Some(answer) = access::check(context, worker, request).await {
        return Err(answer);
    }
    upstream::prepare(context, worker, request)
        .await
        .map_err(Answer::page)
}
