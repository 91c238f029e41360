//! How the gateway watches over the endpoints of a backend.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::BackendTls;

/// How the gateway watches over the endpoints of a backend, where that is not as usual.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Health {
    /// When an endpoint is left alone for a while.
    #[serde(skip_serializing_if = "is_default")]
    pub outliers: Outliers,
    /// How much it may have to do at the same time.
    #[serde(skip_serializing_if = "is_default")]
    pub limits: BackendLimits,
    /// How its endpoints are asked whether they are well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub check: Option<HealthCheck>,
}

/// How the endpoints of a backend are asked whether they are well, by each process.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct HealthCheck {
    /// What is asked.
    pub kind: CheckKind,
    /// The name of the host that is asked for; `None` is that of the service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// How often, in milliseconds.
    pub interval_ms: u32,
    /// How long an answer may take, from the connection on, in milliseconds.
    pub timeout_ms: u32,
    /// After so many failures in a row an endpoint is unhealthy.
    pub unhealthy: u32,
    /// After so many successes in a row it is healthy again.
    pub healthy: u32,
    /// How TLS is spoken, where the backend has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Arc<BackendTls>>,
}

/// What an endpoint is asked.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckKind {
    /// A `GET`, over what is spoken to the backend.
    Http {
        /// Path and query.
        path: String,
        /// The first status that is good.
        from: u16,
        /// The last one.
        to: u16,
    },
    /// `grpc.health.v1.Health/Check`, which has to answer `SERVING`.
    Grpc {
        /// The service that is asked about; empty is the server as a whole. Fewer than 128 bytes.
        service: String,
    },
    /// Nothing: that there is a connection is enough.
    Tcp,
}

/// How much a backend may have to do at the same time, in one process; 0 is no limit. What is beyond that is answered
/// with 503 at once.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct BackendLimits {
    /// Requests (`backend-requests-limited`).
    pub requests: u32,
    /// Requests that have no connection yet (`backend-pending-limited`).
    pub pending: u32,
    /// Requests of one endpoint, which others get instead; where all have so many, there is no place
    /// (`endpoint-requests-limited`).
    pub requests_per_endpoint: u32,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// When an endpoint that fails is left alone for a while.
///
/// A failure is a request that it has taken and not answered, or answered with one of [`Outliers::statuses`].
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Outliers {
    /// After so many failures in a row; 0 is never.
    pub failures: u32,
    /// Statuses of responses that are failures.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub statuses: Vec<u16>,
    /// After failures of so many percent of its requests in one window; 0 is never.
    pub error_rate: u8,
    /// How long a window is, in milliseconds.
    pub window_ms: u32,
    /// A window with fewer requests says nothing.
    pub least_requests: u32,
    /// For how many milliseconds it is left alone the first time; twice as long each further time.
    pub base_ms: u32,
    /// For how many milliseconds at most.
    pub most_ms: u32,
    /// How many percent of the endpoints may be left alone at the same time. One always stays.
    pub share: u8,
    /// While fewer percent of the endpoints than this are neither left alone nor found unhealthy, all of them are used:
    /// the few would not bear the load of all.
    pub panic: u8,
}

impl Default for Outliers {
    fn default() -> Self {
        Self {
            failures: 5,
            statuses: Vec::new(),
            error_rate: 0,
            window_ms: 10_000,
            least_requests: 20,
            base_ms: 2000,
            most_ms: 60_000,
            share: 50,
            panic: 50,
        }
    }
}
