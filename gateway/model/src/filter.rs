//! What happens to a request or response on its way.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{Access, Pace};

/// One step of a route's processing; they run in the order of the list.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Filter {
    /// Sends clients of plain HTTP to https.
    HttpsRedirect(HttpsRedirect),
    /// Lets only some clients pass, or only so often.
    Access(Arc<Access>),
    /// Slows the response down.
    Pace(Pace),
    /// Adds `Strict-Transport-Security` to responses over TLS (RFC 6797).
    Hsts(Hsts),
    /// Changes headers of the request that goes upstream.
    RequestHeaders(HeaderChange),
    /// Changes headers of the response that goes to the client.
    ResponseHeaders(HeaderChange),
}

/// Redirects plain HTTP to the same URL with `https`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct HttpsRedirect {
    /// Status of the answer; 308 keeps method and body.
    pub status: u16,
    /// Paths with one of these prefixes (plain text prefixes, as in `no-tls-redirect-locations`) are not redirected.
    #[serde(default)]
    pub except: Vec<String>,
}

/// Parameters of `Strict-Transport-Security`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Hsts {
    /// Seconds.
    pub max_age: u64,
    /// `includeSubDomains`
    #[serde(default)]
    pub include_subdomains: bool,
    /// `preload`
    #[serde(default)]
    pub preload: bool,
}

/// Headers to remove, set and add, in this order. Names and values are checked by `compile`.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct HeaderChange {
    /// Names to remove.
    #[serde(default)]
    pub remove: Vec<String>,
    /// Names and values that replace what is there.
    #[serde(default)]
    pub set: Vec<(String, String)>,
    /// Names and values that join what is there.
    #[serde(default)]
    pub add: Vec<(String, String)>,
}
