//! Certificates of clients.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::Authorities;

/// How certificates of clients are verified. It belongs to the server name, as it has to be known in the handshake.
///
/// Clients are asked for a certificate and get through the handshake without one, or with any: what follows from that
/// is up to the route ([`ClientCertificate`]).
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ClientAuth {
    /// Stands for everything in here. No two that differ may have one.
    pub fingerprint: Box<str>,
    /// Certificates have to come from one of these.
    #[serde(default, skip_serializing)]
    pub authorities: Arc<Authorities>,
    /// Certificate revocation lists (RFC 5280) in DER. With any, every certificate needs one of its issuer.
    #[serde(default, skip_serializing)]
    pub revoked: Arc<Vec<Vec<u8>>>,
    /// How many authorities may stand between a certificate and the one that it is traced back to.
    pub depth: u32,
}

/// What a route makes of the certificate of a client.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ClientCertificate {
    /// How it is verified; `None` does not ask for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked: Option<AskedCertificate>,
    /// Where a client goes instead of getting 400.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_page: Option<String>,
    /// A regular expression that the subject has to match (status 403).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// The backend gets the certificate.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub passed_on: bool,
    /// Nobody has to say who it is over plain HTTP.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub open_without_tls: bool,
}

/// A certificate that is asked for.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct AskedCertificate {
    /// The [`ClientAuth::fingerprint`] of the host. A connection on which something else was verified does not do.
    pub fingerprint: Box<str>,
    /// What is enough.
    pub enough: EnoughCertificate,
}

/// Which clients get on.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EnoughCertificate {
    /// Those with a good certificate, and those with one whose authority is not known.
    AnyAuthority,
    /// Those with a good certificate, and those without any.
    GoodOrNone,
    /// Those with a good certificate.
    Good,
}
