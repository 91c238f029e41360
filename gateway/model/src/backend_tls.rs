//! TLS towards backends.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::Certificate;

/// Certificates in DER that others are traced back to.
pub type Authorities = Vec<Vec<u8>>;

/// How TLS is spoken to the endpoints of a route. It says nothing about whether it is: that is the protocol's.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct BackendTls {
    /// Stands for everything in here: connections are shared where it is the same. No two that differ may have one.
    pub fingerprint: Box<str>,
    /// Who we are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<Arc<Certificate>>,
    /// The certificate of an endpoint has to come from one of these, and to have the name. `None` takes any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorities: Option<Arc<Authorities>>,
    /// The name of the endpoints, instead of that of their service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Box<str>>,
}
