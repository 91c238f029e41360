//! Compiles a routing model into one immutable lookup table.
//!
//! Pure: no sockets, no runtime, no clock. [`compile`] makes a [`Table`] from a [`RoutingModel`], [`recompile`] makes
//! the next one from the table before and the entries that changed; both give equal results. [`channel`] is the one
//! place where tables are exchanged while requests are served.
//!
//! ```
//! use std::sync::Arc;
//!
//! use model::{
//!     Action, HostPattern, ListenerName, Listener, ListenerProtocol, Origin, PathMatch, Route, RouteMatch,
//!     RoutingModel, Timeouts, VirtualHost,
//! };
//! use table::Lookup;
//!
//! let mut model = RoutingModel::default();
//! model.listeners.insert(ListenerName::http(), Listener { protocol: ListenerProtocol::Http });
//! let route = Route {
//!     matches: RouteMatch::path(PathMatch::everything()),
//!     listeners: Default::default(),
//!     filters: Default::default(),
//!     action: Action::Respond { status: 200, reason: "example".to_owned() },
//!     timeouts: Timeouts::default(),
//!     body_limit: None,
//!     options: Default::default(),
//!     origin: Origin::default(),
//! };
//! let host = HostPattern::parse("*.shop.test")?;
//! model.hosts.insert(host.clone(), Arc::new(VirtualHost { routes: vec![route] }));
//!
//! let compiled = table::compile(&model);
//! assert!(compiled.rejects.is_empty());
//! let (_writer, reader) = table::channel(compiled.table);
//!
//! let table = reader.pin();
//! let route = table.lookup(&Lookup {
//!     listener: table.listener(&ListenerName::http()).ok_or("no such listener")?,
//!     host: "www.shop.test",
//!     path: "/cart",
//!     query: None,
//!     method: &http::Method::GET,
//!     headers: &http::HeaderMap::new(),
//! });
//! assert_eq!(route.map(|route| &route.host), Some(&host));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # How a change stays small
//!
//! Hosts, backends and certificates are kept in shards that two tables share until one of them changes an entry
//! (`shards`). Routes name their backends by number, so that an endpoint change replaces one chunk of the numbered
//! list and no route (`backends`). Entries that depend on others are found by an index kept for the purpose (`tls`).

mod access;
mod affinity;
mod backend_tls;
mod backends;
mod certificates;
mod clients;
mod compile;
mod conditions;
mod deny;
mod describe;
mod external;
mod filters;
mod hosts;
mod intern;
mod listeners;
mod log_format;
mod mirror;
mod networks;
mod options;
mod path_rule;
mod paths;
mod pattern;
mod policies;
mod reject;
mod rewrite;
mod route;
mod shards;
mod streams;
mod swap;
mod template;
mod text;
mod tls;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use http::{HeaderMap, Method};
#[cfg(doc)]
use model::RoutingModel;
use model::{BackendId, ClientBounds, ClientTrust, HostPattern, ListenerName};

use crate::backends::Backends;
use crate::compile::{CompiledHost, Fallback};
use crate::filters::Common;
use crate::hosts::HostMap;
use crate::hosts::Patterned;
use crate::listeners::Listeners;
use crate::pattern::Patterns;
use crate::reject::Rejects;
use crate::tls::Tls;

pub use access::{CompiledAccess, CompiledBasic, CompiledLimits, Rate};
pub use affinity::{CompiledAffinity, CompiledHash};
pub use backend_tls::narrow_client;
pub use backends::{BackendSlot, CompiledBackend, WeightedTargets};
pub use certificates::{key_der, load as load_certificate};
pub use clients::{
    ClientFault, ClientVerifier, CompiledClientCertificate, Names, names as names_of_certificate,
};
pub use compile::{compile, recompile};
pub use deny::{CompiledDeny, decoded_path};
pub use describe::{
    ActionDescription, BackendDescription, CertificateDescription, Description, RouteDescription,
    TlsDescription,
};
pub use external::{CompiledAuthCache, CompiledExternal};
pub use filters::CompiledFilters;
pub use listeners::ListenerId;
pub use log_format::{CompiledLogFormat, CompiledLogPart};
pub use mirror::CompiledMirror;
pub use networks::Networks;
pub use options::{CompiledCanary, CompiledErrorPages, CompiledOptions, cookie};
pub use path_rule::CompiledPathRule;
pub use policies::PolicyId;
pub use reject::Reject;
pub use rewrite::{CompiledCors, CompiledRewrite, Rewritten};
pub use route::{
    CompiledAction, CompiledFilter, CompiledHeaderChange, CompiledRoute, INVALID_ROUTE,
};
pub use streams::{CompiledStream, CompiledStreams, Ports};
pub use swap::{TableReader, TableWriter, channel};
pub use template::{Template, Variable};
pub use tls::TlsEntry;

/// The result of compiling a model.
#[derive(Debug)]
pub struct Compiled {
    /// The table.
    pub table: Table,
    /// Everything in the model that the table does not serve as it was asked for, in one order.
    pub rejects: Vec<Reject>,
}

/// Everything that is needed to serve, immutable. Made by [`compile`] and [`recompile`] only.
pub struct Table {
    generation: u64,
    listeners: Listeners,
    hosts: HostMap<CompiledHost>,
    fallback: Option<Fallback>,
    backends: Backends,
    patterns: Patterns,
    common: Common,
    tls: Tls,
    trust: Arc<ClientTrust>,
    client_bounds: Arc<ClientBounds>,
    streams: Arc<CompiledStreams>,
    log_format: Option<Arc<CompiledLogFormat>>,
    rejects: Rejects,
}

/// Header fields that become a map when a route asks for one.
pub trait HeaderFields: fmt::Debug {
    /// All fields.
    fn map(&self) -> &HeaderMap;
}

impl HeaderFields for HeaderMap {
    fn map(&self) -> &HeaderMap {
        self
    }
}

/// What is looked up: the parts of a request that decide about its route.
#[derive(Clone, Copy, Debug)]
pub struct Lookup<'a> {
    /// Where it arrived.
    pub listener: ListenerId,
    /// Its host in normal form ([`model::HostName`]); empty when it has none.
    pub host: &'a str,
    /// Its path in normal form ([`model::normalise_path`]).
    pub path: &'a str,
    /// Its query without the `?`.
    pub query: Option<&'a str>,
    /// Its method.
    pub method: &'a Method,
    /// Its header fields.
    pub headers: &'a dyn HeaderFields,
}

impl Table {
    /// How many tables were published before this one in its channel; 0 for one that has not been published.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The number of a listener. It is good for this table only.
    pub fn listener(&self, name: &ListenerName) -> Option<ListenerId> {
        self.listeners.id(name)
    }

    /// The route that takes this request. Allocates nothing.
    ///
    /// `None` when the host is unknown or has no route for the request: [`Table::fallback`] answers. A host whose
    /// routes do not match keeps the request from less specific hosts.
    pub fn lookup(&self, request: &Lookup<'_>) -> Option<&Arc<CompiledRoute>> {
        let host = self.hosts.find(request.host)?;
        Some(&host.paths.find(request)?.route)
    }

    /// Is there a virtual host, of any pattern, that takes the requests for `host`?
    pub fn knows_host(&self, host: &str) -> bool {
        self.hosts.find(host).is_some()
    }

    /// What answers a request that no route takes; `None` is the built-in 404.
    pub fn fallback(&self) -> Option<&Arc<CompiledRoute>> {
        self.fallback.as_ref().map(|fallback| &fallback.route)
    }

    /// The backend in a slot that a route of this table names. `None` when the model has no such backend: whoever
    /// was to be sent there gets 503.
    pub fn backend(&self, slot: BackendSlot) -> Option<&Arc<CompiledBackend>> {
        self.backends.get(slot)
    }

    /// The backends whose endpoints are checked.
    pub fn checked(&self) -> &BTreeMap<BackendId, Arc<CompiledBackend>> {
        self.backends.checked()
    }

    /// How TLS is spoken with a client that asks for `server_name` (in normal form, if it asks at all): by the entry
    /// of the exact name, else of the longest wildcard, else the default. `None` refuses the handshake.
    pub fn tls(&self, server_name: Option<&str>) -> Option<&Arc<TlsEntry>> {
        self.tls.find(server_name)
    }

    /// Whose word about the client is believed.
    pub fn trust(&self) -> &ClientTrust {
        &self.trust
    }

    /// Limits on clients: the very same value for as long as it does not change.
    pub fn client_bounds(&self) -> &Arc<ClientBounds> {
        &self.client_bounds
    }

    /// What is passed on unread: the very same value for as long as it does not change.
    pub fn streams(&self) -> &Arc<CompiledStreams> {
        &self.streams
    }

    /// What lines of the access log look like, where the model says so.
    pub fn log_format(&self) -> Option<&Arc<CompiledLogFormat>> {
        self.log_format.as_ref()
    }

    /// Where TLS connections for `server_name` (in normal form) are passed on unread, if they are. A virtual host or
    /// TLS entry that is more specific keeps them from it.
    pub fn passed_on(&self, server_name: &str) -> Option<&Arc<CompiledStream>> {
        let (stream, exactness) = self.streams.find(server_name)?;
        let host = self.hosts.find(server_name).map(|host| host.pattern());
        let keeps = |pattern: Option<&HostPattern>| {
            pattern.is_some_and(|pattern| streams::exactness(pattern) > exactness)
        };
        let kept = keeps(host) || keeps(self.tls.pattern_for(server_name));
        (!kept).then_some(stream)
    }

    /// A table that shares everything with this one.
    fn successor(&self) -> Self {
        let Self {
            generation: _,
            listeners,
            hosts,
            fallback,
            backends,
            patterns,
            common,
            tls,
            trust,
            client_bounds,
            streams,
            log_format,
            rejects,
        } = self;
        Self {
            generation: 0,
            listeners: listeners.clone(),
            hosts: hosts.clone(),
            fallback: fallback.clone(),
            backends: backends.clone(),
            patterns: patterns.clone(),
            common: common.clone(),
            tls: tls.clone(),
            trust: Arc::clone(trust),
            client_bounds: Arc::clone(client_bounds),
            streams: Arc::clone(streams),
            log_format: log_format.clone(),
            rejects: rejects.clone(),
        }
    }
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table")
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}
