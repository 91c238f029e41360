//! The engine for the common case: HTTP/1.1 from the client, cleartext HTTP/1.1 to the endpoint.
//!
//! It reads a header section in place, lets the phases decide, copies the section once with their changes, and moves
//! bytes in both directions without collecting them. Connections that wait hold no buffers. A request that is not for
//! it goes to Pingora together with its connection, which stays there: framing is then decided by one parser from that
//! byte on.

mod body;
mod client;
mod date;
mod edits;
mod exchange;
mod h1;
mod h2;
mod links;
mod pool;
#[cfg(test)]
mod properties;
mod request;
mod response;
mod section;

use std::fmt;
use std::sync::Arc;

use model::BackendProtocol;
use table::{CompiledAction, CompiledFilter, CompiledRoute};
use tokio::sync::watch;

use self::body::Body;
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
        close_idle: &watch::Receiver<bool>,
    ) {
        if connection.http2 {
            h2::serve(self, transport, connection, shutdown).await;
            return;
        }
        h1::serve(self, transport, connection, shutdown, close_idle).await;
    }
}

/// Can this engine do all that the request's route asks for? It knows what it knows: a part of a route that is not
/// named in here is Pingora's.
fn qualifies(context: &RequestContext, body: &Body) -> bool {
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
        body_limit,
        options,
    } = &**route;
    // A length is checked before anything is read; chunks would have to be counted.
    let limited = body_limit.is_none() || matches!(body, Body::Length(_));
    let known = filters.iter().all(|filter| {
        matches!(
            filter,
            CompiledFilter::HttpsRedirect { .. }
                | CompiledFilter::Access(_)
                | CompiledFilter::Hsts(_)
                | CompiledFilter::RequestHeaders(_)
                | CompiledFilter::ResponseHeaders(_)
        )
    });
    let cleartext = match action {
        CompiledAction::Forward(targets) => targets
            .iter()
            .filter_map(|(slot, _)| context.table.backend(slot))
            .all(|backend| backend.protocol == BackendProtocol::Http1),
        CompiledAction::Redirect(_) | CompiledAction::Respond { .. } => true,
    };
    known && cleartext && limited && options.is_none()
}
