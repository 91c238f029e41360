//! The phases before a backend is asked, in their order. Every engine runs these three. After the first one it finds out
//! whether the route is one that it can serve, and before the last one it collects the body where the route asks for that.

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
        Err(reason) => Verdict::Answer(Box::new(Answer::page(reason))),
    }
}

/// Lets the request pass. What it returns is answered instead.
pub(crate) async fn admit(
    context: &mut RequestContext,
    worker: &Worker,
    request: Original<'_>,
) -> Result<(), Box<Answer>> {
    access::check(context, worker, request).await
}

/// Takes an endpoint for the request. What it returns is answered instead.
pub(crate) async fn choose(
    context: &mut RequestContext,
    worker: &Worker,
    request: Original<'_>,
) -> Result<(), Box<Answer>> {
    let chosen = upstream::prepare(context, worker, request).await;
    chosen.map_err(|reason| Box::new(Answer::page(reason)))
}
