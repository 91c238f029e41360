//! Whether a request may pass: limits first, then addresses.

use table::{CompiledAccess, CompiledFilter};

use crate::context::RequestContext;
use crate::engine::Worker;
use crate::error::Reason;
use crate::filters::addresses::{self, Standing};
use crate::filters::pace;
use crate::limits::Exceeded;
use crate::phases::answer::Answer;

/// Runs what stands between a request and its backend. What it returns is answered.
pub(crate) fn check(context: &mut RequestContext, worker: &Worker) -> Option<Answer> {
    let route = context.route.clone()?;
    for filter in &route.filters {
        match filter {
            CompiledFilter::Access(access) => {
                if let Some(answer) = admit(access, context, worker) {
                    return Some(answer);
                }
            }
            CompiledFilter::Pace(pace) => context.pace = Some(pace::Progress::new(*pace)),
            CompiledFilter::HttpsRedirect { .. }
            | CompiledFilter::Hsts(_)
            | CompiledFilter::RequestHeaders(_)
            | CompiledFilter::ResponseHeaders(_)
            | CompiledFilter::Cors(_)
            | CompiledFilter::Rewrite(_)
            | CompiledFilter::UpstreamHost(_)
            | CompiledFilter::ResponseRewrite(_) => {}
        }
    }
    None
}

fn admit(access: &CompiledAccess, context: &mut RequestContext, worker: &Worker) -> Option<Answer> {
    let client = context.client.address;
    if let Some(limits) = &access.limits {
        let limiters = &worker.shared.limiters;
        match limiters.admit(&worker.zones, limits, client) {
            Ok(permit) => context.permit = permit,
            Err(Exceeded::Concurrent) => {
                let reason = Reason::ConnectionsLimited;
                return Some(Answer::with_status(limits.concurrent_status, reason));
            }
            Err(Exceeded::Rate) => {
                return Some(Answer::with_status(limits.rate_status, Reason::RateLimited));
            }
        }
    }
    match addresses::standing(access, client) {
        Standing::Denied | Standing::Unlisted => Some(Answer::page(Reason::AddressDenied)),
        Standing::Listed | Standing::Unknown => None,
    }
}
