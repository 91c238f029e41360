//! What routes do beyond what an Ingress can say, in place of raw configuration.

use kube_core::CustomResourceExt;
use kube_derive::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Condition;

/// What the routes of Ingresses of the same namespace do beyond what an Ingress can say.
///
/// An Ingress names it with the annotation `lockgate.dev/route-policy`, or it names the Ingress in `targetRefs`.
#[derive(Clone, CustomResource, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[kube(
    group = "lockgate.dev",
    version = "v1alpha1",
    kind = "RoutePolicy",
    plural = "routepolicies",
    namespaced,
    status = "RoutePolicyStatus",
    derive = "PartialEq",
    derive = "Default",
    shortname = "rtpol",
    category = "lockgate",
    doc = "What the routes of Ingresses of the same namespace do beyond what an Ingress can say.",
    printcolumn(
        name = "Accepted",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Accepted\")].status"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Accepted\")].reason"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    ),
    crates(kube_core = "::kube_core")
)]
#[x_kube(crates(kube_core = "::kube_core"))]
#[serde(rename_all = "camelCase")]
pub struct RoutePolicySpec {
    /// Ingresses of the same namespace that it is for, beside those that name it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub target_refs: Vec<TargetRef>,
    /// Changes of the request that goes to the backend.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_headers: Option<HeaderEdits>,
    /// Changes of the response that goes to the client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_headers: Option<HeaderEdits>,
    /// Requests that are answered with an error; the first rule whose conditions all hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub deny: Vec<DenyRule>,
    /// How long to wait for a backend.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeouts: Option<TimeoutSeconds>,
    /// Redirects every request, and asks no backend.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redirect: Option<RedirectTo>,
    /// Who may read responses from scripts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cors: Option<CrossOrigin>,
    /// How often each client may come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<RateLimit>,
    /// Asks for name and password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub basic_auth: Option<BasicAuthentication>,
    /// The path for the backend, where the path of the Ingress is a regular expression; `$1` to `$9` are its groups.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    #[x_kube(validation = ("self.startsWith('/') || self.startsWith('$')", "a path starts with / or with a group"))]
    pub rewrite: Option<String>,
    /// Other paths for the backend, or redirects; the first rule that matches counts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub path_rules: Vec<PathRule>,
}

/// An Ingress of the same namespace.
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[x_kube(crates(kube_core = "::kube_core"))]
#[serde(rename_all = "camelCase")]
pub struct TargetRef {
    /// `networking.k8s.io`.
    #[serde(default = "ingress_group")]
    #[x_kube(validation = ("self == 'networking.k8s.io'", "the group of Ingress is networking.k8s.io"))]
    pub group: String,
    /// `Ingress`.
    #[serde(default = "ingress_kind")]
    #[x_kube(validation = ("self == 'Ingress'", "only an Ingress can be a target"))]
    pub kind: String,
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

fn ingress_group() -> String {
    "networking.k8s.io".to_owned()
}

fn ingress_kind() -> String {
    "Ingress".to_owned()
}

/// Headers to remove, set and add, in this order.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HeaderEdits {
    /// Names to remove.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub remove: Vec<String>,
    /// Replaces what is there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub set: Vec<HeaderField>,
    /// Joins what is there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub add: Vec<HeaderField>,
}

/// A header with its value.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HeaderField {
    /// Its name.
    #[schemars(length(min = 1, max = 256))]
    pub name: String,
    /// Its value, as it is sent: there are no variables.
    #[schemars(length(max = 4096))]
    pub value: String,
}

/// Requests that are answered with an error. All conditions have to hold.
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[x_kube(crates(kube_core = "::kube_core"))]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("has(self.methods) || has(self.exceptMethods) || has(self.path) || has(self.headers) || has(self.from) || has(self.exceptFrom)", "a rule needs a condition; path {prefix: /} is every request"))]
pub struct DenyRule {
    /// The status of the answer, 400 to 599 [default: 403].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 400, max = 599))]
    #[schemars(with = "Option<i32>")]
    pub status: Option<u16>,
    /// The method is one of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub methods: Vec<String>,
    /// The method is none of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub except_methods: Vec<String>,
    /// The path of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathCondition>,
    /// Headers of the request.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub headers: Vec<HeaderCondition>,
    /// The client is in one of these networks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub from: Vec<String>,
    /// The client is in none of these networks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub except_from: Vec<String>,
}

/// A path; exactly one of these.
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[x_kube(crates(kube_core = "::kube_core"))]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("[has(self.exact), has(self.prefix), has(self.regex)].filter(x, x).size() == 1", "a path is one of exact, prefix and regex"))]
pub struct PathCondition {
    /// The whole path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub exact: Option<String>,
    /// Its beginning, as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub prefix: Option<String>,
    /// A regular expression that matches somewhere in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub regex: Option<String>,
}

/// A header; exactly one of `exact`, `regex` and `present`.
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[x_kube(crates(kube_core = "::kube_core"))]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("[has(self.exact), has(self.regex), has(self.present)].filter(x, x).size() == 1", "a header is one of exact, regex and present"))]
pub struct HeaderCondition {
    /// Its name.
    #[schemars(length(min = 1, max = 256))]
    pub name: String,
    /// Its whole value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub exact: Option<String>,
    /// A regular expression that matches somewhere in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub regex: Option<String>,
    /// Whether it is there at all, with a value that is not empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub present: Option<bool>,
    /// Holds where `exact` or `regex` does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not: Option<bool>,
}

/// Seconds to wait for a backend.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TimeoutSeconds {
    /// For a connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    #[schemars(with = "Option<i32>")]
    pub connect: Option<u32>,
    /// Between two reads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    #[schemars(with = "Option<i32>")]
    pub read: Option<u32>,
    /// Between two writes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    #[schemars(with = "Option<i32>")]
    pub send: Option<u32>,
}

/// Where requests are sent.
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[x_kube(crates(kube_core = "::kube_core"))]
#[serde(rename_all = "camelCase")]
pub struct RedirectTo {
    /// An absolute URL, or a path.
    #[schemars(length(min = 1, max = 2048))]
    pub url: String,
    /// 301, 302, 303, 307 or 308 [default: 302].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = ("self in [301, 302, 303, 307, 308]", "a redirect has status 301, 302, 303, 307 or 308"))]
    #[schemars(with = "Option<i32>")]
    pub status: Option<u16>,
}

/// Makes another path, or a redirect, of a path.
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[x_kube(crates(kube_core = "::kube_core"))]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("self.to.startsWith('/') || self.to.startsWith('$') || (has(self.redirect) && self.to.contains('://'))", "a path starts with / or with a group; only a redirect can go to a URL"))]
pub struct PathRule {
    /// A regular expression that matches somewhere in the path.
    #[schemars(length(min = 1, max = 1024))]
    pub regex: String,
    /// The path instead of the whole path; `$1` to `$9` are groups of the expression. A redirect can go to a URL, in which
    /// `$scheme` and `$host` are those of the request.
    #[schemars(length(min = 1, max = 2048))]
    pub to: String,
    /// Redirects with this status instead of asking a backend: 301, 302, 303, 307 or 308. The query goes along.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = ("self in [301, 302, 303, 307, 308]", "a redirect has status 301, 302, 303, 307 or 308"))]
    #[schemars(with = "Option<i32>")]
    pub redirect: Option<u16>,
}

/// Who may read responses from scripts (Fetch standard, "CORS protocol").
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CrossOrigin {
    /// Origins: `*`, or `scheme://host:port`, where `*` stands for one label.
    #[schemars(length(min = 1, max = 64))]
    pub allow_origins: Vec<String>,
    /// Methods of requests.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow_methods: Vec<String>,
    /// Headers of requests.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow_headers: Vec<String>,
    /// Headers of responses that scripts may read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub expose_headers: Vec<String>,
    /// Whether cookies may go along [default: false].
    #[serde(default)]
    pub allow_credentials: bool,
    /// Seconds for which a preflight answer holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<i32>")]
    pub max_age: Option<u32>,
}

/// How often each client may come; at least one of the three limits.
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[x_kube(crates(kube_core = "::kube_core"))]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("has(self.requestsPerSecond) || has(self.requestsPerMinute) || has(self.connections)", "a limit needs a number"))]
pub struct RateLimit {
    /// Requests per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    #[schemars(with = "Option<i32>")]
    pub requests_per_second: Option<u32>,
    /// Requests per minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    #[schemars(with = "Option<i32>")]
    pub requests_per_minute: Option<u32>,
    /// Requests at the same time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    #[schemars(with = "Option<i32>")]
    pub connections: Option<u32>,
    /// How many times the limit may come at once [default: 5].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    #[schemars(with = "Option<i32>")]
    pub burst: Option<u32>,
}

/// Asks for name and password (RFC 7617).
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BasicAuthentication {
    /// The Secret of the same namespace with the users: the key `auth` holds lines as `htpasswd` writes them.
    #[schemars(length(min = 1, max = 253))]
    pub secret_name: String,
    /// What a browser shows when it asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub realm: Option<String>,
}

/// What became of a policy.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RoutePolicyStatus {
    /// `Accepted` says whether it can be used.
    #[serde(default)]
    pub conditions: Vec<Condition>,
}

impl RoutePolicy {
    /// The definition of the kind, for `config/crd`.
    pub fn definition() -> impl Serialize {
        Self::crd()
    }
}
