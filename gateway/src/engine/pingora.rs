//! The engine on Pingora's HTTP proxy.

use std::sync::Arc;

use pingora::protocols::Stream;
use pingora::server::ShutdownWatch;

use crate::Shared;
use crate::connection::Connection;

/// Serves sessions with Pingora; one per worker.
#[derive(Debug)]
pub(crate) struct PingoraEngine {
    #[expect(dead_code, reason = "read by the proxy")]
    shared: Arc<Shared>,
}

impl PingoraEngine {
    /// An engine for one worker.
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Serves a connection until it ends.
    #[expect(clippy::unused_async, reason = "no request is served yet")]
    pub(crate) async fn serve(
        &self,
        stream: Stream,
        connection: Arc<Connection>,
        _shutdown: &ShutdownWatch,
    ) {
        connection.request_started();
        drop(stream);
        connection.request_finished();
    }

    /// Wakes connections that wait for a request.
    #[expect(clippy::unused_async, reason = "no request is served yet")]
    pub(crate) async fn cleanup(&self) {}
}
