//! Endpoints: live state, choice, names.

use std::net::SocketAddr;

use model::BackendId;

/// What is known about one endpoint.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EndpointState {
    /// The backend that it serves.
    pub backend: BackendId,
    /// Where it listens.
    pub address: SocketAddr,
    /// Requests that it is working on.
    pub in_flight: u32,
}

/// Live state of endpoints.
#[derive(Debug, Default)]
pub(crate) struct EndpointRegistry;

impl EndpointRegistry {
    #[expect(clippy::unused_self, reason = "no endpoint is registered yet")]
    pub(crate) fn states(&self) -> Vec<EndpointState> {
        Vec::new()
    }
}

/// Looks up names of endpoints.
#[derive(Debug, Default)]
pub(crate) struct Resolver;
