//! Virtual hosts and their routes.

use serde::{Deserialize, Serialize};

use crate::{BackendId, Filters, ListenerSelector, Origin, PathMatch, RareOptions};

/// The routes of one host pattern.
///
/// A request that reaches a virtual host and matches none of its routes goes to the fallback, not to a less specific
/// host.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct VirtualHost {
    /// In the order of their owners: of two routes that match equally well the first one wins.
    pub routes: Vec<Route>,
}

/// What to do with the requests that match.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Which requests.
    pub matches: RouteMatch,
    /// On which listeners.
    #[serde(default, skip_serializing_if = "ListenerSelector::is_all")]
    pub listeners: ListenerSelector,
    /// What happens on the way.
    #[serde(default, skip_serializing_if = "Filters::is_empty")]
    pub filters: Filters,
    /// What answers.
    pub action: Action,
    /// How long to wait for the backend.
    #[serde(default)]
    pub timeouts: Timeouts,
    /// The largest request body in bytes (status 413); `None` is no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body_limit: Option<u64>,
    /// What few routes ask for.
    #[serde(default, skip_serializing_if = "RareOptions::is_default")]
    pub options: RareOptions,
    /// Where this was asked for.
    pub origin: Origin,
}

/// All of these have to hold.
///
/// Precedence among the routes of a host: exact path, then the longest prefix, then regular expressions by length of
/// their text; then method, then the number of header matches, then of query matches; then the order of the list
/// (Ingress API, "Multiple matches"; Gateway API, `HTTPRouteRule`).
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RouteMatch {
    /// The path.
    pub path: PathMatch,
    /// The method; `None` is any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Header fields.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<HeaderMatch>,
    /// Query parameters.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub query: Vec<QueryMatch>,
}

impl RouteMatch {
    /// Only the path counts.
    pub fn path(path: PathMatch) -> Self {
        Self {
            path,
            method: None,
            headers: Vec::new(),
            query: Vec::new(),
        }
    }
}

/// How a text is compared.
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TextMatch {
    /// Equal.
    Exact(String),
    /// The whole text matches this regular expression.
    Regex(String),
}

/// A header field that has to be there. A repeated field is compared as its values joined with `,`.
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(deny_unknown_fields)]
pub struct HeaderMatch {
    /// Field name, any case.
    pub name: String,
    /// Its value.
    pub value: TextMatch,
}

/// A query parameter that has to be there; of a repeated one the first counts.
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(deny_unknown_fields)]
pub struct QueryMatch {
    /// Parameter name, case included, compared without decoding.
    pub name: String,
    /// Its value, compared without decoding.
    pub value: TextMatch,
}

/// What answers a request.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// One of these backends, chosen by weight. Weights that are all zero answer 503.
    Forward(Vec<WeightedBackend>),
    /// A redirect.
    Redirect(Box<Redirect>),
    /// The gateway itself, with a small page.
    Respond {
        /// 200 to 599.
        status: u16,
        /// The reason for log and metrics, for example `invalid-backend`.
        reason: String,
    },
}

/// A backend and its share.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct WeightedBackend {
    /// Which one.
    pub backend: BackendId,
    /// Its share among the weights of its list.
    pub weight: u32,
}

/// A redirect; what is not given is kept from the request.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Redirect {
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
    /// `http` or `https`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheme: Option<String>,
    /// Host name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Port; left out where it is the scheme's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Path, which also drops the query, unless that is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The query is kept where there is another path.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub keeps_query: bool,
    /// The whole URL, in place of everything else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub location: Option<String>,
}

/// How long to wait for a backend, in seconds. Defaults are those of ingress-nginx.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Timeouts {
    /// For a connection (status 504, `connect-timeout`).
    pub connect: u32,
    /// Between two reads from the backend (504, `read-timeout`).
    pub read: u32,
    /// Between two writes to the backend (504, `write-timeout`).
    pub send: u32,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: 5,
            read: 60,
            send: 60,
        }
    }
}
