//! Whether a request may pass: limits, then addresses, then who it is from.

use std::net::IpAddr;

use http::header::WWW_AUTHENTICATE;
use table::{CompiledAccess, CompiledFilter};

use crate::context::RequestContext;
use crate::engine::Worker;
use crate::error::Reason;
use crate::filters::addresses::{self, Standing};
use crate::filters::{basic, external, pace};
use crate::limits::Exceeded;
use crate::passwords::Checked;
use crate::phases::answer::Answer;
use crate::phases::original::Original;

/// Runs what stands between a request and its backend. What it returns is answered instead.
pub(crate) async fn check(
    context: &mut RequestContext,
    worker: &Worker,
    request: Original<'_>,
) -> Result<(), Box<Answer>> {
    let Some(route) = context.route.clone() else {
        return Ok(());
    };
    for filter in &route.filters {
        match filter {
            CompiledFilter::Access(access) => {
                limit(access, context, worker)?;
                if !passes(access, context.client.address)? {
                    // In a box, because few requests need it.
                    Box::pin(authenticate(access, context, worker, request)).await?;
                }
            }
            CompiledFilter::Pace(pace) => context.pace = Some(pace::Progress::new(*pace)),
            CompiledFilter::HttpsRedirect { .. }
            | CompiledFilter::ClientCertificate(_)
            | CompiledFilter::Deny(_)
            | CompiledFilter::PathRules(_)
            | CompiledFilter::Hsts(_)
            | CompiledFilter::BackendTls(_)
            | CompiledFilter::RequestHeaders(_)
            | CompiledFilter::ResponseHeaders(_)
            | CompiledFilter::Cors(_)
            | CompiledFilter::Rewrite(_)
            | CompiledFilter::UpstreamHost(_)
            | CompiledFilter::ResponseRewrite(_) => {}
        }
    }
    Ok(())
}

/// Does the address of a client let its request pass? Otherwise it depends on who it is from.
fn passes(access: &CompiledAccess, client: IpAddr) -> Result<bool, Box<Answer>> {
    match addresses::standing(access, client) {
        Standing::Listed if access.satisfy_any => Ok(true),
        // Somebody else may vouch for the client.
        Standing::Unlisted if access.satisfy_any && access.authenticates() => Ok(false),
        Standing::Denied | Standing::Unlisted => Err(Box::new(Answer::page(Reason::AddressDenied))),
        Standing::Listed | Standing::Unknown => Ok(!access.authenticates()),
    }
}

async fn authenticate(
    access: &CompiledAccess,
    context: &mut RequestContext,
    worker: &Worker,
    request: Original<'_>,
) -> Result<(), Box<Answer>> {
    let mut refusal = None;
    if let Some(wanted) = &access.basic {
        match basic::check(wanted, &worker.shared.passwords, request.headers).await {
            Checked::Right if access.satisfy_any => return Ok(()),
            Checked::Right => {}
            Checked::Wrong => {
                let challenge = (WWW_AUTHENTICATE, wanted.challenge.clone());
                let answer = Box::new(Answer::page(Reason::Unauthorized).with_field(challenge));
                if !access.satisfy_any {
                    return Err(answer);
                }
                refusal = Some(answer);
            }
            Checked::Busy => return Err(Box::new(Answer::page(Reason::AuthenticationBusy))),
        }
    }
    let Some(wanted) = &access.external else {
        return refusal.map_or(Ok(()), Err);
    };
    // Its future is large, and most requests do not need it.
    let answer = Box::pin(external::check(wanted, context, worker, request)).await;
    match (answer, refusal) {
        (None, _) => Ok(()),
        // Who could still say a name and a password is asked for them.
        (Some(answer), Some(refusal)) if answer.reason == Reason::AuthenticationDenied => {
            Err(refusal)
        }
        (Some(answer), _) => Err(Box::new(answer)),
    }
}

fn limit(
    access: &CompiledAccess,
    context: &mut RequestContext,
    worker: &Worker,
) -> Result<(), Box<Answer>> {
    let Some(limits) = &access.limits else {
        return Ok(());
    };
    let limiters = &worker.shared.limiters;
    match limiters.admit(&worker.zones, limits, context.client.address) {
        Ok(permit) => {
            context.permit = permit;
            Ok(())
        }
        Err(Exceeded::Concurrent) => Err(Box::new(Answer::with_status(
            limits.concurrent_status,
            Reason::ConnectionsLimited,
        ))),
        Err(Exceeded::Rate) => Err(Box::new(Answer::with_status(
            limits.rate_status,
            Reason::RateLimited,
        ))),
    }
}
