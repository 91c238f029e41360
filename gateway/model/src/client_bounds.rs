//! What clients may take their time for, and how much they may ask for.

use serde::{Deserialize, Serialize};

/// Limits on clients, as far as somebody has said something about them. Where nobody has, the settings apply that a
/// gateway was started with. Connections that are there already keep what they began with.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ClientBounds {
    /// Seconds for the whole header section of a request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header_timeout: Option<u32>,
    /// Seconds between two reads of a request body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body_timeout: Option<u32>,
    /// Seconds that a connection may be kept without a request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<u32>,
    /// Requests on one connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<u32>,
    /// Requests at once on one connection of HTTP/2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub streams: Option<u32>,
    /// Bytes in the header section of a request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header_bytes: Option<u32>,
}

impl ClientBounds {
    /// Has nobody said anything?
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
