//! The engine for the common case: endpoints without TLS.
//!
//! It reads a header section in place, lets the phases decide, copies the section once with their changes, and moves
//! bytes in both directions without collecting them. Connections that wait hold no buffers. An HTTP/1.1 request that is
//! not for it goes to Pingora together with its connection, which stays there: framing is then decided by one parser
//! from that byte on. Streams of HTTP/2 go there one by one ([`h2`]). A connection that goes on to the WebSocket protocol
//! becomes a [`tunnel`].

mod body;
mod client;
mod date;
#[cfg(test)]
mod differential;
mod edits;
mod exchange;
pub(crate) mod framing;
mod h1;
mod h2;
mod links;
#[cfg(test)]
mod opinions;
mod patience;
mod pool;
#[cfg(test)]
mod properties;
mod request;
mod response;
mod section;
mod tunnel;

use std::fmt;
use std::sync::Arc;

use model::BackendProtocol;
use table::{CompiledAction, CompiledFilter, CompiledOptions, CompiledRoute};
use tokio::sync::watch;

use self::h2::Timers;
use self::links::Links;
use self::pool::Pool;
use super::Worker;
use super::pingora::PingoraEngine;
use crate::connection::Connection;
use crate::context::RequestContext;
use crate::front::conn::Transport;

/// Serves connections by itself as far as it can; one per worker.
pub(super) struct DirectEngine {
    worker: Arc<Worker>,
    pool: Arc<Pool>,
    links: Arc<Links>,
    timers: Timers,
    pingora: Arc<PingoraEngine>,
}

impl fmt::Debug for DirectEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DirectEngine")
    }
}

impl DirectEngine {
    /// An engine for one worker. What it does not serve goes to `pingora`.
    pub(super) fn new(worker: Arc<Worker>, pingora: Arc<PingoraEngine>) -> Self {
        Self {
            pool: Pool::new(worker.shared.settings.limits.upstream_idle_connections),
            links: Links::new(),
            timers: Timers::default(),
            worker,
            pingora,
        }
    }

    /// Serves a connection until it ends.
    pub(super) async fn serve(
        &self,
        transport: Transport,
        connection: Arc<Connection>,
        shutdown: &watch::Receiver<bool>,
    ) {
        if connection.http2 {
            h2::serve(self, transport, connection, shutdown).await;
            return;
        }
        h1::serve(self, transport, connection, shutdown).await;
    }
}

/// Can this engine do all that the request's route asks for? It knows what it knows: a part of a route that is not
/// named in here is Pingora's.
fn qualifies(context: &RequestContext) -> bool {
    let Some(route) = &context.route else {
        // Answered without one.
        return true;
    };
    let CompiledRoute {
        host: _,
        path: _,
        origin: _,
        filters,
        action,
        timeouts: _,
        body_limit: _,
        options,
    } = &**route;
    let known = filters.iter().all(knows);
    let speaks = |slot| {
        let backend = context.table.backend(slot);
        backend.is_none_or(|backend| backend.protocol == BackendProtocol::Http1)
    };
    let cleartext = match action {
        CompiledAction::Forward(targets) => targets.iter().all(|(slot, _)| speaks(slot)),
        CompiledAction::Redirect(_) | CompiledAction::Respond { .. } => true,
    };
    // A route may go on to backends that are not among its targets, and may ask for tries that begin with a response.
    let usual = options.as_ref().is_none_or(|options| {
        let CompiledOptions {
            canaries,
            backup,
            retry,
            deadlines: _,
            balance: _,
            slow_start: _,
            affinity,
            hash_by,
            errors,
            mirror,
            unlogged: _,
            collect: _,
        } = &**options;
        let mut others = canaries.iter().map(|canary| canary.backend).chain(*backup);
        let stays = affinity.is_some() || hash_by.is_some();
        retry.is_none() && errors.is_none() && mirror.is_none() && !stays && others.all(speaks)
    });
    known && cleartext && usual
}

/// Does the engine act on this filter in both versions of HTTP?
fn knows(filter: &CompiledFilter) -> bool {
    matches!(
        filter,
        CompiledFilter::HttpsRedirect { .. }
            | CompiledFilter::ClientCertificate(_)
            | CompiledFilter::Deny(_)
            | CompiledFilter::Access(_)
            | CompiledFilter::Hsts(_)
            | CompiledFilter::RequestHeaders(_)
            | CompiledFilter::ResponseHeaders(_)
            | CompiledFilter::Cors(_)
            | CompiledFilter::Rewrite(_)
            | CompiledFilter::PathRules(_)
            | CompiledFilter::UpstreamHost(_)
            | CompiledFilter::ResponseRewrite(_)
    )
}
