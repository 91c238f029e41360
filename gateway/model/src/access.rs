//! Who may pass, and how often.

use std::collections::BTreeMap;
use std::sync::Arc;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{BackendId, Redacted};

/// What a request has to satisfy before a backend is asked.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Access {
    /// Clients that never pass.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deny: Vec<IpNet>,
    /// The only clients that pass; `None` is everybody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow: Option<Vec<IpNet>>,
    /// Either [`Access::allow`] or an authentication suffices. Without it both have to hold.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub satisfy_any: bool,
    /// Asks for name and password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub basic: Option<BasicAuth>,
    /// Asks another server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<Arc<ExternalAuth>>,
    /// How often a client may come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<ClientLimits>,
}

impl Access {
    /// Does it ask for nothing?
    pub fn is_empty(&self) -> bool {
        let Self {
            deny,
            allow,
            satisfy_any: _,
            basic,
            external,
            limits,
        } = self;
        basic.is_none()
            && external.is_none()
            && deny.is_empty()
            && allow.is_none()
            && limits.is_none()
    }
}

/// Asks for name and password (RFC 7617).
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct BasicAuth {
    /// What a browser shows when it asks.
    pub realm: String,
    /// Names with the hashes of their passwords, as htpasswd writes them.
    pub users: Arc<Users>,
}

/// Asks another server about each request, without its body: 2xx lets it pass, 401 and 403 do not, and with anything
/// else nobody passes.
///
/// Texts may have variables in them, which the request completes.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ExternalAuth {
    /// Where to ask: `http` or `https`. In the host only `$host` may stand for something.
    pub url: String,
    /// Whose endpoints are asked instead of looking the host up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend: Option<BackendId>,
    /// How to ask; `None` is `GET`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// More headers for the question.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<(String, String)>,
    /// Headers of the answer that the backend gets. Those of a client never reach it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub response_headers: Vec<String>,
    /// Where a client goes instead of getting 401.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signin: Option<String>,
    /// What the question says about where the client wants to go; `None` is path and query.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_redirect: Option<String>,
    /// Cookies of the answer go to the client whatever its response is, and not only where it is a success or a
    /// redirect.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub always_set_cookie: bool,
    /// Answers are remembered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache: Option<AuthCache>,
}

/// For how long answers about requests are remembered.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct AuthCache {
    /// Requests of a route with the same text get the same answer; those where it is empty are always asked about.
    pub key: String,
    /// Statuses of answers with the seconds for which they hold. Others are not remembered.
    pub durations: Vec<(Vec<u16>, u32)>,
}

/// Names with the hashes of their passwords.
pub type Users = Redacted<BTreeMap<String, String>>;

/// How often each client may come.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ClientLimits {
    /// Routes with the same zone count a client's requests together.
    pub zone: Box<str>,
    /// Requests per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_second: Option<u32>,
    /// Requests per minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_minute: Option<u32>,
    /// How many times the number per second or minute may come at once.
    pub burst: u32,
    /// Requests at the same time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrent: Option<u32>,
    /// Clients that are not limited.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub except: Vec<IpNet>,
    /// The status where the rate is exceeded.
    pub rate_status: u16,
    /// The status where there are too many at the same time.
    pub concurrent_status: u16,
}

/// How fast a response goes to the client.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Pace {
    /// Bytes per second, at least 1.
    pub bytes_per_second: u64,
    /// So many bytes go first, as fast as they can.
    #[serde(default)]
    pub after: u64,
}
