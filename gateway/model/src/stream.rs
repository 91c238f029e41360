//! Connections and datagrams that are passed on unread.

use std::collections::BTreeMap;
use std::sync::Arc;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{BackendId, Balance, HostPattern, Origin};

/// What is passed on without a look at what is in it.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Streams {
    /// TCP connections by the port on which they arrive. The port is opened while it is in here.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tcp: BTreeMap<u16, Arc<StreamRoute>>,
    /// UDP datagrams by the port on which they arrive. The port is opened while it is in here.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub udp: BTreeMap<u16, Arc<StreamRoute>>,
    /// TLS connections of the listeners for TLS, by the server name that the client asks for. A name for which there
    /// is a more specific virtual host or TLS host is not passed on.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub hosts: BTreeMap<HostPattern, Arc<StreamRoute>>,
    /// Peers whose word about the client is believed where [`StreamRoute::proxy_in`] asks for it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub proxy_protocol_from: Vec<IpNet>,
}

impl Streams {
    /// Is there nothing to pass on?
    pub fn is_empty(&self) -> bool {
        let Self {
            tcp,
            udp,
            hosts,
            proxy_protocol_from: _,
        } = self;
        tcp.is_empty() && udp.is_empty() && hosts.is_empty()
    }
}

/// Where streams go, and how.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct StreamRoute {
    /// Where they go.
    pub backend: BackendId,
    /// How endpoints are chosen.
    #[serde(default)]
    pub balance: Balance,
    /// Each connection begins with a PROXY protocol header (version 1 or 2), which is taken off.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub proxy_in: bool,
    /// Each connection to an endpoint begins with a PROXY protocol header (version 1).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub proxy_out: bool,
    /// How long to wait, and how often to try.
    #[serde(default)]
    pub rules: StreamRules,
    /// Where this was asked for.
    pub origin: Origin,
}

/// How long to wait, and how often to try. Times are in seconds; the defaults are those of ingress-nginx.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct StreamRules {
    /// For a connection to an endpoint.
    pub connect: u32,
    /// Between two bytes or datagrams, of whichever side.
    pub idle: u32,
    /// How many endpoints are tried at most; 0 is no limit.
    pub tries: u32,
    /// After which no other endpoint is tried; 0 is no limit.
    pub tries_timeout: u32,
    /// Datagrams that answer one of the client. A client that has its answers is not waited for much longer.
    pub responses: u32,
}

impl Default for StreamRules {
    fn default() -> Self {
        Self {
            connect: 5,
            idle: 600,
            tries: 3,
            tries_timeout: 600,
            responses: 1,
        }
    }
}
