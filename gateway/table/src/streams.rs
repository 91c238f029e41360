//! What is passed on unread: ports, and server names whose TLS is not ours.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use ipnet::IpNet;
use model::{
    BackendId, Balance, HostPattern, Origin, RoutingModel, StreamRoute, StreamRules, WildcardDepth,
};

use crate::backends::{BackendSlot, Backends};
use crate::hosts::{self, HostMap, Patterned};
use crate::text::Text;

/// Where streams go, compiled.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CompiledStream {
    /// The backend.
    pub slot: BackendSlot,
    /// Its name.
    pub backend: BackendId,
    /// How its endpoints are chosen.
    pub balance: Balance,
    /// Connections begin with a PROXY protocol header.
    pub proxy_in: bool,
    /// So do those to endpoints.
    pub proxy_out: bool,
    /// How long to wait, and how often to try.
    pub rules: StreamRules,
    /// Where it was asked for.
    pub origin: Origin,
    /// The pattern, where the server name leads here.
    pub host: Option<HostPattern>,
}

/// Streams by port.
pub type Ports = BTreeMap<u16, Arc<CompiledStream>>;

/// Everything that is passed on unread.
#[derive(Default)]
pub struct CompiledStreams {
    /// TCP by port.
    pub tcp: Ports,
    /// UDP by port.
    pub udp: Ports,
    /// Peers whose PROXY protocol headers are believed.
    pub proxy_protocol_from: Vec<IpNet>,
    /// `None` is the usual case: nobody looks at names.
    hosts: Option<HostMap<Named>>,
    pub(crate) source: model::Streams,
    acquired: Vec<BackendSlot>,
}

struct Named {
    key: Text,
    pattern: HostPattern,
    stream: Arc<CompiledStream>,
}

impl Patterned for Named {
    fn pattern(&self) -> &HostPattern {
        &self.pattern
    }

    fn key(&self) -> &Text {
        &self.key
    }
}

impl CompiledStreams {
    /// What the model says.
    pub(crate) fn compile(model: &RoutingModel, backends: &mut Backends) -> Self {
        let source = &model.streams;
        let mut acquired = Vec::new();
        let mut compile = |route: &StreamRoute, host: Option<&HostPattern>| {
            let StreamRoute {
                backend,
                balance,
                proxy_in,
                proxy_out,
                rules,
                origin,
            } = route;
            let slot = backends.acquire(backend);
            acquired.push(slot);
            Arc::new(CompiledStream {
                slot,
                backend: backend.clone(),
                balance: *balance,
                proxy_in: *proxy_in,
                proxy_out: *proxy_out,
                rules: *rules,
                origin: origin.clone(),
                host: host.cloned(),
            })
        };
        let mut ports = |routes: &BTreeMap<u16, Arc<StreamRoute>>| -> Ports {
            let compiled = routes
                .iter()
                .map(|(port, route)| (*port, compile(route, None)));
            compiled.collect()
        };
        let (tcp, udp) = (ports(&source.tcp), ports(&source.udp));
        let mut hosts = None;
        for (pattern, route) in &source.hosts {
            let named = Named {
                key: hosts::key(pattern),
                pattern: pattern.clone(),
                stream: compile(route, Some(pattern)),
            };
            hosts
                .get_or_insert_with(HostMap::new)
                .insert(Arc::new(named));
        }
        Self {
            tcp,
            udp,
            proxy_protocol_from: source.proxy_protocol_from.clone(),
            hosts,
            source: source.clone(),
            acquired,
        }
    }

    /// Lets go of the backends.
    pub(crate) fn release(&self, backends: &mut Backends) {
        for slot in &self.acquired {
            backends.release(*slot);
        }
    }

    /// Is there a server name whose connections are passed on?
    pub fn has_hosts(&self) -> bool {
        self.hosts.is_some()
    }

    /// The patterns whose connections are passed on, and where to.
    pub fn hosts(&self) -> impl Iterator<Item = (&HostPattern, &BackendId)> {
        let hosts = self.source.hosts.iter();
        hosts.map(|(pattern, route)| (pattern, &route.backend))
    }

    /// The best entry for a name, and how good it is.
    pub(crate) fn find(&self, name: &str) -> Option<(&Arc<CompiledStream>, Exactness)> {
        let named = self.hosts.as_ref()?.find(name)?;
        Some((&named.stream, exactness(&named.pattern)))
    }
}

/// The larger, the more a pattern says: an exact name, then the longest wildcard, then every name.
pub(crate) type Exactness = (bool, usize, Reverse<bool>);

/// How much a pattern says.
pub(crate) fn exactness(pattern: &HostPattern) -> Exactness {
    match pattern {
        HostPattern::Exact(_) => (true, 0, Reverse(false)),
        HostPattern::Wildcard { suffix, depth } => {
            let several = *depth == WildcardDepth::OneOrMore;
            (false, suffix.as_str().len(), Reverse(several))
        }
        HostPattern::Any => (false, 0, Reverse(true)),
    }
}
