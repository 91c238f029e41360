//! Requests that belong together and go to one endpoint.

use serde::{Deserialize, Serialize};

/// Keeps a user at one endpoint by a cookie.
///
/// Its value names no address, and a client cannot choose one with it: what the gateway has not given out leads to a
/// new choice.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is an attribute of the cookie or a switch that users write"
)]
pub struct Affinity {
    /// The name of the cookie.
    pub cookie: String,
    /// Whether users move when there are more endpoints.
    #[serde(default)]
    pub mode: AffinityMode,
    /// `Path`
    pub path: String,
    /// `Domain`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// `SameSite`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub same_site: Option<SameSite>,
    /// `SameSite=None` is left out for browsers that take it for `Strict`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub same_site_by_browser: bool,
    /// `Secure` also over plain HTTP. Over TLS it is always there.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub secure: bool,
    /// `Expires`, in seconds from the response on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<u32>,
    /// `Max-Age`, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age: Option<u32>,
    /// A user whose endpoint fails moves to another one. Without it the same endpoint is asked again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub change_on_failure: bool,
    /// Canaries give no cookie: a user of one is drawn again, until it comes to the main backend.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub without_canaries: bool,
}

/// Whether users move when there are more endpoints.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AffinityMode {
    /// A new endpoint takes its share of them.
    #[default]
    Balanced,
    /// Never while their endpoint is there.
    Persistent,
}

/// `SameSite` of a cookie.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SameSite {
    /// `None`
    None,
    /// `Lax`
    Lax,
    /// `Strict`
    Strict,
}

/// Sends requests with the same key to the same endpoint.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct HashBy {
    /// A text with variables.
    pub key: String,
    /// Not to one endpoint but to any of so many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subset: Option<u32>,
    /// An endpoint that has more requests than so many hundredths of the average leaves the next ones of its keys to others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bound: Option<u32>,
}
