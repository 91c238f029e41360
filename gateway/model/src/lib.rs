//! The routing model: what the control plane wants the data plane to serve.
//!
//! Plain values, nothing else: no Kubernetes, no sockets, no clock. Translation writes a [`RoutingModel`], the
//! `table` crate compiles it. Everything in here is ordered and comparable, so that equal inputs give equal bytes.
//! The words are neutral between the Ingress API and the Gateway API.

mod access;
mod affinity;
mod backend;
mod backend_tls;
mod certificate;
mod changes;
mod client_auth;
mod client_bounds;
mod deny;
mod filter;
mod health;
mod host;
mod listener;
mod log_format;
mod name;
mod options;
mod origin;
mod path;
mod redacted;
mod route;
mod stream;
mod trust;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use access::{Access, AuthCache, BasicAuth, ClientLimits, ExternalAuth, Pace, Users};
pub use affinity::{Affinity, AffinityMode, HashBy, SameSite};
pub use backend::{Backend, BackendId, BackendProtocol, Endpoint, EndpointSet};
pub use backend_tls::{Authorities, BackendTls, BackendTlsLimits};
pub use certificate::{
    Certificate, CertificateId, KeyAlgorithm, KeyFormat, PrivateKey, TlsHost, TlsPolicy, TlsVersion,
};
pub use changes::Changes;
pub use client_auth::{AskedCertificate, ClientAuth, ClientCertificate, EnoughCertificate};
pub use client_bounds::ClientBounds;
pub use deny::{DenyRule, HeaderCondition, TextCondition};
pub use filter::{
    Cors, Filter, Filters, HeaderChange, Hsts, HttpsRedirect, PathRule, ResponseRewrite, Rewrite,
};
pub use health::{BackendLimits, CheckKind, Health, HealthCheck, Outliers};
pub use host::{HostName, HostPattern, InvalidHost, WildcardDepth};
pub use listener::{Listener, ListenerName, ListenerProtocol, ListenerSelector};
pub use log_format::{LogEscape, LogFormat, LogPart, LogVariable};
pub use name::Name;
pub use options::{
    Balance, Canary, CanaryHeader, CanaryValue, Deadlines, ErrorPages, MOST_COLLECTED, Mirror,
    RareOptions, Retry, RouteOptions,
};
pub use origin::{ObjectRef, Origin};
pub use path::{InvalidPath, NormalPath, PathMatch, normalise_path};
pub use redacted::Redacted;
pub use route::{
    Action, HeaderMatch, QueryMatch, Redirect, Route, RouteMatch, TextMatch, Timeouts, VirtualHost,
    WeightedBackend,
};
pub use stream::{StreamRoute, StreamRules, Streams};
pub use trust::ClientTrust;

/// Everything that one gateway serves.
///
/// Parts are shared by [`Arc`], so that an incremental translation can hand over a model in which only the changed
/// entries are new. [`Changes`] names those entries.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RoutingModel {
    /// Places where connections arrive. Sockets are bound by the gateway's settings; a listener is their role.
    #[serde(default)]
    pub listeners: BTreeMap<ListenerName, Listener>,
    /// Routes by host.
    #[serde(default)]
    pub hosts: BTreeMap<HostPattern, Arc<VirtualHost>>,
    /// TLS by server name. A name without an entry gets [`RoutingModel::default_tls`].
    #[serde(default)]
    pub tls_hosts: BTreeMap<HostPattern, Arc<TlsHost>>,
    /// TLS for unknown server names and for clients that send none; `None` refuses their handshakes.
    #[serde(default)]
    pub default_tls: Option<Arc<TlsHost>>,
    /// Refuses the handshakes of names without an entry all the same. Entries without a certificate still have those of
    /// [`RoutingModel::default_tls`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub refuse_unknown_names: bool,
    /// Where requests can be sent: what does not change with every pod.
    #[serde(default)]
    pub backends: BTreeMap<BackendId, Arc<Backend>>,
    /// Where requests can be sent: what changes with every pod.
    #[serde(default)]
    pub endpoints: BTreeMap<BackendId, Arc<EndpointSet>>,
    /// Certificates with their keys.
    #[serde(default)]
    pub certificates: BTreeMap<CertificateId, Arc<Certificate>>,
    /// What answers a request that no route matches; `None` is the built-in 404 page.
    #[serde(default)]
    pub fallback: Option<Arc<Route>>,
    /// Whose word about the client is believed.
    #[serde(default)]
    pub trust: ClientTrust,
    /// What clients may take their time for, and how much they may ask for.
    #[serde(default, skip_serializing_if = "ClientBounds::is_empty")]
    pub client_bounds: ClientBounds,
    /// What is passed on unread.
    #[serde(default, skip_serializing_if = "Streams::is_empty")]
    pub streams: Streams,
    /// Lines of the access log; `None` for what the gateway's settings say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_format: Option<Arc<LogFormat>>,
}
