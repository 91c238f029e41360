//! What is passed on unread.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::ConfigMap;
use model::{BackendId, HostPattern, Origin, StreamRoute, Streams};

use super::{Translator, Work};
use crate::ingress::{Entry, passthrough};
use crate::object::kinds;
use crate::report::Problem;
use crate::service::Remark;
use crate::stream::{self, PortEntries, PortEntry, Transport};
use crate::{NamespacedName, Settings};

/// The ports of the ConfigMaps.
#[derive(Clone, Debug, Default)]
pub(super) struct PortState {
    tcp: Ports,
    udp: Ports,
    backends: BTreeSet<BackendId>,
}

#[derive(Clone, Debug, Default)]
struct Ports {
    entries: PortEntries,
    problems: Vec<Problem>,
}

impl PortState {
    /// Does a port lead there?
    pub(super) fn uses(&self, id: &BackendId) -> bool {
        self.backends.contains(id)
    }
}

fn configmap_of(transport: Transport, settings: &Settings) -> Option<&NamespacedName> {
    match transport {
        Transport::Tcp => settings.tcp_services.as_ref(),
        Transport::Udp => settings.udp_services.as_ref(),
    }
}

impl Translator {
    /// Takes a ConfigMap, for all that it is there for.
    pub(super) fn put_configmap(
        &mut self,
        name: &NamespacedName,
        configmap: Option<ConfigMap>,
        work: &mut Work,
    ) {
        let with_ports = [Transport::Tcp, Transport::Udp]
            .iter()
            .any(|transport| configmap_of(*transport, &self.settings) == Some(name));
        if with_ports {
            work.ports = true;
            self.snapshot
                .set_port_configmap(name.clone(), configmap.clone());
        }
        if self.settings.configmap.as_ref() == Some(name) {
            work.configmap = true;
            self.snapshot.set_configmap(configmap);
        } else {
            self.header_configmap(name.clone(), configmap, work);
        }
    }

    /// Reads the ConfigMaps with ports; where these lead has to be looked up then.
    pub(super) fn read_ports(&mut self, work: &mut Work) {
        let read = |transport| {
            let name = configmap_of(transport, &self.settings);
            let configmap = name.and_then(|name| self.snapshot.port_configmap(name));
            let configmap = configmap.map(Arc::as_ref);
            let (entries, problems) = stream::entries(configmap, transport, &self.settings);
            Ports { entries, problems }
        };
        let (tcp, udp) = (read(Transport::Tcp), read(Transport::Udp));
        let entries = tcp.entries.values().chain(udp.entries.values());
        let backends: BTreeSet<BackendId> = entries.map(|entry| entry.backend.clone()).collect();
        let differing = self.ports.backends.symmetric_difference(&backends);
        work.backends.extend(differing.cloned());
        self.ports = PortState { tcp, udp, backends };
    }

    /// Brings the ports of the model up to date.
    pub(super) fn ports(&mut self, work: &mut Work) {
        if !work.ports {
            return;
        }
        let routes = |transport, ports: &Ports| -> BTreeMap<u16, Arc<StreamRoute>> {
            let Some(name) = configmap_of(transport, &self.settings) else {
                return BTreeMap::new();
            };
            let object = name.reference(kinds::CONFIG_MAP);
            let route = |entry: &PortEntry| StreamRoute {
                backend: entry.backend.clone(),
                balance: self.globals.balance,
                proxy_in: entry.proxy_in,
                proxy_out: entry.proxy_out,
                rules: self.globals.streams,
                origin: Origin::new(object.clone(), &entry.field),
            };
            let entries = ports.entries.iter();
            entries
                .map(|(port, entry)| (*port, Arc::new(route(entry))))
                .collect()
        };
        let tcp = routes(Transport::Tcp, &self.ports.tcp);
        let believes = tcp.values().any(|route| route.proxy_in);
        let streams = Streams {
            udp: routes(Transport::Udp, &self.ports.udp),
            tcp,
            hosts: std::mem::take(&mut self.model.streams.hosts),
            proxy_protocol_from: if believes {
                self.globals.proxy_protocol_from.clone()
            } else {
                Vec::new()
            },
        };
        let model = &mut self.model.streams;
        // The hosts are the same.
        work.outcome.changes.streams |= model.tcp != streams.tcp
            || model.udp != streams.udp
            || model.proxy_protocol_from != streams.proxy_protocol_from;
        *model = streams;
    }

    /// Writes the reports of all ConfigMaps. One may be there for several things.
    pub(super) fn report_configmaps(&mut self, work: &mut Work) {
        let mut reports: BTreeMap<&NamespacedName, Vec<Problem>> = BTreeMap::new();
        if let Some(name) = &self.settings.configmap {
            let problems = reports.entry(name).or_default();
            problems.extend(self.settings_problems.iter().cloned());
            problems.extend(self.asked_backend_problem());
        }
        for (transport, ports) in [
            (Transport::Tcp, &self.ports.tcp),
            (Transport::Udp, &self.ports.udp),
        ] {
            let Some(name) = configmap_of(transport, &self.settings) else {
                continue;
            };
            let problems = reports.entry(name).or_default();
            problems.extend(ports.problems.iter().cloned());
            for entry in ports.entries.values() {
                let state = self.backends.get(&entry.backend);
                let remark = state.and_then(|state| state.remark.as_ref());
                problems.extend(remark.map(|remark| problem(remark, entry, transport)));
            }
        }
        for (name, problems) in reports {
            let object = name.reference(kinds::CONFIG_MAP);
            if self.report.set_problems(&object, problems) {
                work.outcome.touched.insert(object);
            }
        }
    }

    /// Does somebody want the connections for a host to be passed on?
    pub(super) fn wants_passthrough(&self, pattern: &HostPattern) -> bool {
        self.entries_of(self.index.ranks(pattern))
            .any(|entry| entry.annotations.passthrough)
    }

    /// The oldest Ingress that has a host, by a rule or by its TLS entries, where that matters.
    pub(super) fn tls_owner(&self, pattern: &HostPattern) -> Option<&Entry> {
        if !self.wants_passthrough(pattern) {
            return None;
        }
        let mut with_rules = self
            .entries_of(self.index.ranks(pattern))
            .filter(|entry| !entry.annotations.is_canary());
        let mut with_tls = self
            .entries_of(self.index.tls_ranks(pattern))
            .filter(|entry| entry.tls.iter().any(|tls| tls.hosts.contains(pattern)));
        [with_rules.next(), with_tls.next()]
            .into_iter()
            .flatten()
            .min_by(|one, other| one.rank.cmp(&other.rank))
    }

    /// Passes the connections for a host on, or does not any more.
    pub(super) fn pass_on(&mut self, pattern: &HostPattern, work: &mut Work) {
        let route = self.tls_owner(pattern).and_then(|owner| {
            Some(StreamRoute {
                backend: passthrough::backend(owner, pattern)?.clone(),
                balance: self.globals.balance,
                proxy_in: false,
                proxy_out: false,
                rules: self.globals.streams,
                origin: Origin::shared(&owner.object, &passthrough::field(owner, pattern)),
            })
        });
        let hosts = &mut self.model.streams.hosts;
        if super::replace(hosts, pattern, route.map(Arc::new)) {
            work.outcome.changes.streams = true;
        }
    }
}

fn problem(remark: &Remark, entry: &PortEntry, transport: Transport) -> Problem {
    match remark {
        Remark::Fault(reason, text) => {
            let what = match transport {
                Transport::Tcp => "connections to this port are closed at once",
                Transport::Udp => "datagrams to this port are dropped",
            };
            Problem::error(*reason, &entry.field, &format!("{text}; {what}"))
        }
        Remark::Hint(reason, text) => Problem::warning(*reason, &entry.field, text),
    }
}
