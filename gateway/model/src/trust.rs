//! Whose word about the client is believed.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// Peers that may speak for the client. All lists are empty by default: nobody is believed.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ClientTrust {
    /// Peers whose `X-Forwarded-*` headers are read and passed on.
    #[serde(default)]
    pub forwarded_headers_from: Vec<IpNet>,
    /// Peers who are believed about the address of the client, and about nothing else.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses_from: Vec<IpNet>,
    /// The header that has this address; `None` is `X-Forwarded-For`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address_header: Option<String>,
    /// A trusted peer's `X-Forwarded-For` is extended by its address and passed on. Otherwise only the address that it
    /// gives for the client is passed on, so that what the client itself wrote there is not taken for our word.
    #[serde(default)]
    pub append_forwarded_for: bool,
    /// Is a PROXY protocol header (version 1 or 2) expected at the start of each connection?
    /// Connections from other peers than [`ClientTrust::proxy_protocol_from`] must not have one.
    #[serde(default)]
    pub proxy_protocol: bool,
    /// Peers that send a PROXY protocol header.
    #[serde(default)]
    pub proxy_protocol_from: Vec<IpNet>,
}
