//! Backends and their endpoints.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{Health, HostName, Name, Origin, Redacted};

/// Identifies a backend: one port of one service. Printed as `namespace/service:port`.
///
/// The port is the text that the route names (number or name), so that a route can be translated without looking at
/// the service.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(into = "String", try_from = "String")]
pub struct BackendId {
    /// Namespace of the service.
    pub namespace: Name,
    /// Name of the service.
    pub service: Name,
    /// Number or name of the service's port.
    pub port: Name,
}

impl BackendId {
    /// The backend for this port of this service.
    pub fn new(namespace: &str, service: &str, port: &str) -> Self {
        Self {
            namespace: namespace.into(),
            service: service.into(),
            port: port.into(),
        }
    }
}

impl fmt::Display for BackendId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}:{}", self.namespace, self.service, self.port)
    }
}

impl From<BackendId> for String {
    fn from(id: BackendId) -> Self {
        id.to_string()
    }
}

impl TryFrom<String> for BackendId {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.split_once('/')
            .and_then(|(namespace, rest)| {
                let (service, port) = rest.rsplit_once(':')?;
                Some(Self::new(namespace, service, port))
            })
            .ok_or_else(|| format!("`{text}` is not namespace/service:port"))
    }
}

/// What is spoken to the endpoints of a backend.
#[derive(
    Clone, Copy, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize,
)]
#[serde(rename_all = "lowercase")]
pub enum BackendProtocol {
    /// HTTP/1.1 without TLS.
    #[default]
    Http1,
    /// HTTP/2 with prior knowledge, without TLS (`appProtocol: kubernetes.io/h2c`).
    H2c,
    /// HTTP/1.1, over TLS where the client uses https.
    Auto,
    /// HTTP/1.1 or HTTP/2 over TLS, as ALPN decides. The endpoint's certificate is not verified unless a policy says so.
    Https,
}

/// The lasting part of a backend.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Backend {
    /// What is spoken to it.
    #[serde(default)]
    pub protocol: BackendProtocol,
    /// What cookies of users at this backend are derived from: nobody outside may know it, and every replica has to
    /// know the same. Without one they are good for one process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<Redacted<Box<str>>>,
    /// How its endpoints are watched over, where that is not as usual.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<Arc<Health>>,
    /// The object that it stands for.
    pub origin: Origin,
}

/// Where the requests for a backend can go.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum EndpointSet {
    /// These addresses, sorted, without duplicates; may be empty (status 503, `no-endpoints`).
    Addresses(Vec<Endpoint>),
    /// A name that the gateway resolves at run time and caches for the time-to-live of the answer
    /// (Service of type `ExternalName`). Loopback and link-local answers are refused.
    Dns {
        /// The name.
        host: HostName,
        /// The port.
        port: u16,
    },
    /// The backend cannot be used; the text says why in words for its owner (status 503, `invalid-backend`).
    Invalid(String),
}

impl Default for EndpointSet {
    fn default() -> Self {
        Self::Addresses(Vec::new())
    }
}

/// One address that serves a backend.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Endpoint {
    /// Address and port.
    pub address: SocketAddr,
    /// Topology zone, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<Box<str>>,
    /// It is being shut down and only used because no other endpoint is ready.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub terminating: bool,
    /// It is only used while no endpoint without this can be.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub far: bool,
}

impl Endpoint {
    /// A ready endpoint at `address`.
    pub fn new(address: SocketAddr) -> Self {
        Self {
            address,
            zone: None,
            terminating: false,
            far: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identifier_parses_as_it_prints() {
        let id = BackendId::new("shop", "web", "http");
        assert_eq!(BackendId::try_from(id.to_string()), Ok(id));
        assert!(BackendId::try_from("web:80".to_owned()).is_err());
    }
}
