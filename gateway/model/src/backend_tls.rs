//! TLS towards backends.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{Certificate, TlsVersion};

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
    /// What may be spoken is narrower than what the library speaks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Box<BackendTlsLimits>>,
}

/// Less than what the library speaks. Something is narrowed, or there would be none of these.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct BackendTlsLimits {
    /// The only version; `None` for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<TlsVersion>,
    /// Cipher suites by their IANA names, best first; empty for all. As in [`TlsPolicy`](crate::TlsPolicy), a list
    /// without suites of TLS 1.3 says nothing about TLS 1.3.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cipher_suites: Vec<String>,
    /// How many authorities may stand between the certificate of an endpoint and the one that it is traced back to;
    /// `None` for as many as the library follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub depth: Option<u32>,
    /// What is spoken over it, since nothing is left to choose: HTTP/2, else HTTP/1.1.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub http2: bool,
}
