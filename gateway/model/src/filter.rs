//! What happens to a request or response on its way.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{Access, BackendTls, ClientCertificate, DenyRule, Pace};

/// The filters of a route, in their order. Clones are the same value until one of them is changed: most routes of a gateway
/// ask for the same.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Filters(Arc<Vec<Filter>>);

impl Filters {
    /// Is there none?
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Are these not only equal, but the same?
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl From<Vec<Filter>> for Filters {
    fn from(filters: Vec<Filter>) -> Self {
        Self(Arc::new(filters))
    }
}

impl Deref for Filters {
    type Target = Vec<Filter>;

    fn deref(&self) -> &Vec<Filter> {
        &self.0
    }
}

impl DerefMut for Filters {
    fn deref_mut(&mut self) -> &mut Vec<Filter> {
        Arc::make_mut(&mut self.0)
    }
}

/// One step of a route's processing; they run in the order of the list.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Filter {
    /// Sends clients of plain HTTP to https.
    HttpsRedirect(HttpsRedirect),
    /// Asks for a certificate of the client.
    ClientCertificate(Arc<ClientCertificate>),
    /// Answers some requests with an error; the first rule that holds counts.
    Deny(Vec<DenyRule>),
    /// Lets only some clients pass, or only so often.
    Access(Arc<Access>),
    /// How TLS is spoken to the endpoints.
    BackendTls(Arc<BackendTls>),
    /// Slows the response down.
    Pace(Pace),
    /// Adds `Strict-Transport-Security` to responses over TLS (RFC 6797).
    Hsts(Hsts),
    /// Changes headers of the request that goes upstream.
    RequestHeaders(HeaderChange),
    /// Changes headers of the response that goes to the client.
    ResponseHeaders(HeaderChange),
    /// Answers preflight requests and says who may read responses.
    Cors(Box<Cors>),
    /// Changes the path of the request that goes upstream.
    Rewrite(Box<Rewrite>),
    /// Changes paths, or redirects, by rules; the first one that matches counts.
    PathRules(Vec<PathRule>),
    /// The `Host` of the request that goes upstream. May have variables in it.
    UpstreamHost(String),
    /// Changes where redirects and cookies of the backend point to.
    ResponseRewrite(Box<ResponseRewrite>),
}

/// Cross-origin requests (Fetch standard, "CORS protocol").
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Cors {
    /// Origins that may: `*`, `null`, or `scheme://host:port`, where `*` stands for one label.
    pub origins: Vec<String>,
    /// Methods, as they are sent.
    pub methods: String,
    /// Request headers, as they are sent.
    pub headers: String,
    /// Response headers that may be read, as they are sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expose: Option<String>,
    /// May cookies go along?
    pub credentials: bool,
    /// Seconds for which a preflight answer holds.
    pub max_age: u32,
}

/// Changes the path of the request that goes upstream.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Rewrite {
    /// A regular expression that matches from the start of the path; the whole path is replaced.
    pub pattern: String,
    /// The path instead; `$1` to `$9` are groups of the pattern.
    pub target: String,
    /// A value for `X-Forwarded-Prefix`, with groups as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
}

/// Makes another path, or a redirect, of a path.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct PathRule {
    /// A regular expression that matches somewhere in the path; the whole path is replaced.
    pub pattern: String,
    /// The path instead; `$1` to `$9` are groups of the pattern. That of a redirect may be a URL, whose scheme and host
    /// may be `$scheme` and `$host`: those of the request.
    pub target: String,
    /// Redirects the client with this status, instead of asking a backend. The query goes along.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redirect: Option<u16>,
}

/// Changes where redirects and cookies of the backend point to.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ResponseRewrite {
    /// The beginning of `Location` and `Refresh`, and what replaces it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub location: Option<(String, String)>,
    /// A domain of cookies, and what replaces it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cookie_domain: Option<(String, String)>,
    /// The beginning of a path of cookies, and what replaces it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cookie_path: Option<(String, String)>,
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
