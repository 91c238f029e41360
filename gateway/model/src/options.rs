//! What few routes ask for.

use std::ops::{Deref, DerefMut};
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

use crate::{Affinity, BackendId, HashBy};

/// What a route asks for beyond the usual.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct RouteOptions {
    /// Alternatives to the backends of the route.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub canaries: Vec<Canary>,
    /// What answers when the backend has no endpoints.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backup: Option<BackendId>,
    /// When another endpoint is tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// Until when there has to be an answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadlines: Option<Deadlines>,
    /// How an endpoint is chosen.
    #[serde(skip_serializing_if = "is_default")]
    pub balance: Balance,
    /// Seconds until a new endpoint gets as many requests as the others; 0 is at once.
    #[serde(skip_serializing_if = "is_default")]
    pub slow_start: u32,
    /// Users stay at one endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,
    /// A key decides about the endpoint, unless [`RouteOptions::affinity`] does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hash_by: Option<HashBy>,
    /// What makes error pages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub errors: Option<ErrorPages>,
    /// Copies of requests go elsewhere, too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mirror: Option<Mirror>,
    /// Requests are not written to the access log.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub unlogged: bool,
    /// A request with a body that is announced to be no larger than this, in bytes, is passed on once all of it is there;
    /// at most [`MOST_COLLECTED`]. 0 passes all on as they come.
    #[serde(skip_serializing_if = "is_default")]
    pub collect: u32,
}

/// The largest body that can be collected: as much as is kept of one to be sent again.
pub const MOST_COLLECTED: u32 = 64 * 1024;

impl RouteOptions {
    /// Does the route ask for nothing?
    pub fn is_default(&self) -> bool {
        is_default(self)
    }
}

/// What few routes ask for, behind a pointer: nearly all routes ask for nothing, and there can be hundreds of thousands.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(from = "RouteOptions", into = "RouteOptions")]
pub struct RareOptions(Option<Box<RouteOptions>>);

impl RareOptions {
    /// Is nothing asked for?
    pub fn is_default(&self) -> bool {
        self.0.as_ref().is_none_or(|options| options.is_default())
    }
}

impl From<RouteOptions> for RareOptions {
    fn from(options: RouteOptions) -> Self {
        Self((!options.is_default()).then(|| Box::new(options)))
    }
}

impl From<RareOptions> for RouteOptions {
    fn from(options: RareOptions) -> Self {
        options.0.map_or_else(Self::default, |options| *options)
    }
}

impl Deref for RareOptions {
    type Target = RouteOptions;

    fn deref(&self) -> &RouteOptions {
        static NOTHING: LazyLock<RouteOptions> = LazyLock::new(RouteOptions::default);
        self.0.as_deref().unwrap_or(&NOTHING)
    }
}

impl DerefMut for RareOptions {
    fn deref_mut(&mut self) -> &mut RouteOptions {
        self.0.get_or_insert_default()
    }
}

impl PartialEq for RareOptions {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (None, None) => true,
            _ => **self == **other,
        }
    }
}

impl Eq for RareOptions {}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Sends copies of requests elsewhere. Nobody waits for what is answered there, and a copy that cannot be sent is lost.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Mirror {
    /// Where: `http` or `https`. Variables may stand in path and query.
    pub url: String,
    /// Whose endpoints get them instead of looking the host up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<BackendId>,
    /// Their `Host`; `None` is that of the URL. May have variables in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// They have no body.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub without_body: bool,
}

/// A backend that answers in the place of others that fail.
///
/// What the gateway itself decides about a request is never replaced.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ErrorPages {
    /// For which statuses.
    pub statuses: Vec<u16>,
    /// Who makes them.
    pub backend: BackendId,
    /// What a backend has answered stays, and only failures to do so are replaced.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub keeps_answers: bool,
}

/// A backend that takes some of the requests of a route.
///
/// Of several the first one decides whose header or cookie says something; if none does, the shares are drawn.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Canary {
    /// Where its requests go. Without endpoints it takes none.
    pub backend: BackendId,
    /// Its share of the requests that nothing else decides.
    #[serde(default)]
    pub weight: u32,
    /// What the weight is a share of.
    pub total: u32,
    /// A header that decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<CanaryHeader>,
    /// A cookie that decides: `always` and `never`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cookie: Option<String>,
}

/// A header that decides about a canary.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct CanaryHeader {
    /// Its name.
    pub name: String,
    /// Which values lead to the canary.
    pub value: CanaryValue,
}

/// Values of a header.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CanaryValue {
    /// `always` leads to the canary, `never` does not, others decide nothing.
    Word,
    /// This one; others decide nothing.
    Exact(String),
    /// Those in which this regular expression matches; others decide nothing.
    Regex(String),
}

/// When another endpoint is tried.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a word of the list that users write"
)]
pub struct Retry {
    /// A connection fails or breaks before there is a response.
    pub error: bool,
    /// A connection or a response does not come in time.
    pub timeout: bool,
    /// A response is not HTTP.
    pub invalid: bool,
    /// Statuses of responses.
    #[serde(default)]
    pub statuses: Vec<u16>,
    /// Also where sending a request twice may do something twice.
    pub non_idempotent: bool,
    /// How many endpoints are tried at most; 0 is no limit.
    pub tries: u32,
    /// Seconds after which no other endpoint is tried; 0 is no limit.
    pub timeout_seconds: u32,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            error: true,
            timeout: true,
            invalid: false,
            statuses: Vec::new(),
            non_idempotent: false,
            tries: 3,
            timeout_seconds: 0,
        }
    }
}

/// Until when there has to be an answer, in milliseconds; 0 is no limit.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Deadlines {
    /// From the moment that an endpoint has the whole request to the header section of its response (status 504,
    /// `try-timeout`). Another endpoint may be asked then, by [`RouteOptions::retry`].
    #[serde(default)]
    pub try_ms: u32,
    /// From the header section of the request to the end of the response, over all tries (504, `request-timeout`, or the end of
    /// the connection or stream where the response has begun).
    #[serde(default)]
    pub request_ms: u32,
}

/// How an endpoint is chosen.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Balance {
    /// One after the other.
    #[default]
    RoundRobin,
    /// Of two at random the one that has been faster lately, with respect to what it has to do.
    Ewma,
    /// Of two at random the one that has less to do.
    LeastRequest,
    /// Any.
    Random,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_that_ask_for_nothing_are_all_the_same() {
        let mut touched = RareOptions::default();
        touched.canaries.clear();
        assert_eq!(touched, RareOptions::default());
        assert_eq!(RareOptions::from(RouteOptions::default()), touched);
        assert!(touched.is_default());
        touched.unlogged = true;
        assert_ne!(touched, RareOptions::default());
        let whole = RouteOptions::from(touched.clone());
        assert!(whole.unlogged && !touched.is_default());
        assert_eq!(RareOptions::from(whole), touched);
        assert_eq!(size_of::<RareOptions>(), size_of::<usize>());
    }
}
