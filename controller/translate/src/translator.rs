//! The incremental translation.
//!
//! For each Ingress the translator remembers what it asks for ([`Entry`]), and in which hosts, backends and Secrets it
//! has a part. A change first marks what it concerns, then only that is done again:
//!
//! | change | done again |
//! | --- | --- |
//! | Ingress | its entry; the hosts and TLS hosts of its old and new form |
//! | IngressClass | as above, for the Ingresses that name it |
//! | Service, EndpointSlice | the backends of that Service |
//! | Secret | that certificate |
//! | ConfigMap | every host, if a setting differs |
//! | ConfigMap with headers | as above, and the hosts of the Ingresses that name it |
//! | `RoutePolicy` | the Ingresses of its namespace |
//! | `ReferenceGrant` | the Ingresses of the namespaces that it lets refer |
//! | ConfigMap of TCP or UDP services | its ports |
//! | `GatewayPolicy` | every Ingress, if it asks for something else |

mod common;
mod dense;
mod globals;
mod index;
mod policies;
mod preview;
mod problems;
mod streams;
mod targets;
mod tls;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Secret;
use model::{
    BackendId, CertificateId, Changes, HostPattern, Listener, ListenerName, ListenerProtocol,
    ObjectRef, RoutingModel, VirtualHost,
};

pub use self::preview::{Preview, Previewed};

use self::common::CommonFilters;
use self::index::Index;
use self::streams::PortState;
use crate::class::{self, NamedClass};
use crate::configmap::{self, Globals};
use crate::conflict::{self, Losers};
use crate::few::Few;
use crate::ingress::{self, Entry};
use crate::object::name_of;
use crate::packed::Packed;
use crate::permit::Permits;
use crate::report::Problem;
use crate::service::Remark;
use crate::{Change, NamespacedName, Object, Report, Settings, Snapshot, kinds};

/// The name of the certificate that serves while there is no other default.
const SELF_SIGNED: &str = "self-signed";

/// The result of a translation.
#[derive(Clone, Debug, PartialEq)]
pub struct Translation {
    /// What to serve.
    pub model: RoutingModel,
    /// What to tell the owners.
    pub report: Report,
}

/// Translates everything from nothing.
pub fn translate(snapshot: &Snapshot, settings: &Settings) -> Translation {
    from_nothing(snapshot.clone(), settings.clone())
}

fn from_nothing(snapshot: Snapshot, settings: Settings) -> Translation {
    let mut translator = Translator::new(settings);
    let mut work = Work {
        ingresses: snapshot.ingresses().keys().cloned().collect(),
        policies: snapshot.policies().keys().cloned().collect(),
        configmap: true,
        ports: true,
        permits: true,
        gateway_policies: snapshot.gateway_policies().keys().cloned().collect(),
        ..Work::default()
    };
    translator.snapshot = snapshot;
    translator.update(&mut work, Vec::new());
    Translation {
        model: translator.model,
        report: translator.report,
    }
}

/// What an [`Translator::apply`] brought.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// What differs in the model. The first outcome of a translator compares with the empty model.
    pub changes: Changes,
    /// The objects whose problems or claim (ours or not) differ.
    pub touched: BTreeSet<ObjectRef>,
    /// Secrets that are wanted now and were not before. The source has to deliver each of them (again), also one that
    /// it delivered earlier: what nobody wants is not kept.
    pub secrets_wanted: BTreeSet<NamespacedName>,
    /// Secrets that are not wanted any more.
    pub secrets_unwanted: BTreeSet<NamespacedName>,
    /// How many Ingresses were read anew.
    pub translated: usize,
}

/// Translates changes, remembering what it did before.
#[derive(Debug)]
pub struct Translator {
    settings: Settings,
    snapshot: Snapshot,
    model: RoutingModel,
    report: Report,
    wanted: BTreeSet<NamespacedName>,
    globals: Globals,
    /// What policies of kind `GatewayPolicy` say.
    permits: Permits,
    /// Ingresses that are ours.
    entries: BTreeMap<NamespacedName, Box<Entry>>,
    /// The classes that Ingresses name, ours or not.
    classes: BTreeMap<NamespacedName, NamedClass>,
    of_class: BTreeMap<NamedClass, BTreeSet<NamespacedName>>,
    index: Index,
    host_losers: BTreeMap<HostPattern, Losers>,
    tls_losers: BTreeMap<HostPattern, Losers>,
    /// Backends of which there is something to say.
    backends: BTreeMap<BackendId, BackendState>,
    /// EndpointSlices with problems, by their Services.
    slices_reported: BTreeMap<NamespacedName, BTreeSet<ObjectRef>>,
    /// What is wrong with the global settings.
    settings_problems: Vec<Problem>,
    ports: PortState,
    fresh: bool,
    /// What was taken in and not translated yet.
    pending: Pending,
    common: CommonFilters,
}

/// What was taken in and not translated yet.
#[derive(Debug, Default)]
struct Pending {
    work: Work,
    /// Secrets that nobody wanted when they came.
    secrets: Vec<SecretChange>,
}

#[derive(Clone, Debug, Default)]
struct BackendState {
    remark: Option<Remark>,
    slices: Vec<(ObjectRef, Problem)>,
}

/// What has to be done again.
#[derive(Debug, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each says of one part that it has changed"
)]
struct Work {
    ingresses: BTreeSet<NamespacedName>,
    services: BTreeSet<NamespacedName>,
    backends: BTreeSet<BackendId>,
    hosts: BTreeSet<HostPattern>,
    tls_hosts: BTreeSet<HostPattern>,
    secrets: BTreeSet<NamespacedName>,
    reports: BTreeSet<NamespacedName>,
    policies: BTreeSet<NamespacedName>,
    configmap: bool,
    /// ConfigMaps that may hold headers.
    header_configmaps: BTreeSet<NamespacedName>,
    /// Somebody makes something of certificates of clients, or has done so before.
    clients: bool,
    /// A ConfigMap with ports has changed, or what they lead to.
    ports: bool,
    permits: bool,
    /// Policies of kind `GatewayPolicy` whose reports have to be written anew.
    gateway_policies: BTreeSet<Box<str>>,
    outcome: Outcome,
}

/// A change of a Secret that has to wait until it is known whether anybody wants it.
enum SecretChange {
    Apply(NamespacedName, Box<Secret>),
    Delete(NamespacedName),
}

impl SecretChange {
    fn name(&self) -> &NamespacedName {
        let (Self::Apply(name, _) | Self::Delete(name)) = self;
        name
    }
}

impl fmt::Debug for SecretChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretChange({})", self.name())
    }
}

impl Translator {
    /// A translator that knows no object yet.
    pub fn new(settings: Settings) -> Self {
        let mut model = RoutingModel::default();
        for (name, protocol) in [
            (ListenerName::http(), ListenerProtocol::Http),
            (ListenerName::https(), ListenerProtocol::Https),
        ] {
            model.listeners.insert(name, Listener { protocol });
        }
        if let Some(certificate) = &settings.fake_certificate {
            model
                .certificates
                .insert(CertificateId::new(SELF_SIGNED), Arc::clone(certificate));
        }
        let (globals, _) = configmap::globals(None, &settings);
        let mut translator = Self {
            wanted: settings.own_secrets().into_iter().cloned().collect(),
            settings,
            snapshot: Snapshot::default(),
            model,
            report: Report::default(),
            globals,
            permits: Permits::default(),
            entries: BTreeMap::new(),
            classes: BTreeMap::new(),
            of_class: BTreeMap::new(),
            index: Index::default(),
            host_losers: BTreeMap::new(),
            tls_losers: BTreeMap::new(),
            backends: BTreeMap::new(),
            slices_reported: BTreeMap::new(),
            settings_problems: Vec::new(),
            ports: PortState::default(),
            fresh: true,
            pending: Pending::default(),
            common: CommonFilters::default(),
        };
        translator.globals.errors.backend = translator.fallback_backend();
        translator.model.default_tls = translator.default_tls();
        translator
    }

    /// What to serve.
    pub fn model(&self) -> &RoutingModel {
        &self.model
    }

    /// What to tell the owners.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// The objects as they are known.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// Secrets that some claimed Ingress or a setting names. Others need not be delivered, and are not kept if they are.
    pub fn wanted_secrets(&self) -> &BTreeSet<NamespacedName> {
        &self.wanted
    }

    /// Takes in changes, in their order, and translates what they concern.
    ///
    /// A Secret may come before, with or after the Ingress that names it, as long as nothing is settled in between;
    /// otherwise it has to come (again) once [`Outcome::secrets_wanted`] names it.
    pub fn apply(&mut self, changes: impl IntoIterator<Item = Change>) -> Outcome {
        self.take(changes);
        self.settle()
    }

    /// Takes in changes, in their order, and leaves the rest to [`Translator::settle`]. The objects are kept at once, in the
    /// form in which they take least memory.
    pub fn take(&mut self, changes: impl IntoIterator<Item = Change>) {
        let Pending {
            mut work,
            mut secrets,
        } = std::mem::take(&mut self.pending);
        for change in changes {
            match change {
                Change::Apply(object) => self.put(object, &mut work, &mut secrets),
                Change::Delete(object) => self.remove(&object, &mut work, &mut secrets),
            }
        }
        self.pending = Pending { work, secrets };
    }

    /// Translates what was taken in since the last time.
    pub fn settle(&mut self) -> Outcome {
        let Pending { mut work, secrets } = std::mem::take(&mut self.pending);
        self.update(&mut work, secrets);
        if dense::is_worthwhile(&work.outcome.changes, &self.model) {
            self.make_dense();
        }
        work.outcome
    }

    fn put(&mut self, object: Object, work: &mut Work, secrets: &mut Vec<SecretChange>) {
        let name = name_of(object.metadata());
        match object {
            Object::Ingress(ingress) => {
                work.ingresses.insert(name.clone());
                self.snapshot.put_ingress(name, &ingress);
            }
            Object::IngressClass(class) => {
                self.class_changes(&name.name, work);
                self.snapshot.put_class(*class);
            }
            Object::Service(service) => {
                work.services.insert(name.clone());
                self.snapshot.put_service(name, &service);
            }
            Object::EndpointSlice(slice) => {
                work.services.extend(self.snapshot.put_slice(&slice));
            }
            Object::Secret(secret) => {
                self.secret(SecretChange::Apply(name, secret), work, secrets);
            }
            Object::ConfigMap(configmap) => self.put_configmap(&name, Some(*configmap), work),
            Object::RoutePolicy(policy) => self.put_policy(name, Some(*policy), work),
            Object::ReferenceGrant(grant) => {
                self.grant_changes(&name, work);
                self.snapshot.put_grant(name.clone(), *grant);
                self.grant_changes(&name, work);
            }
            Object::GatewayPolicy(policy) => {
                work.gateway_policies.insert((*name.name).into());
                work.permits |= self
                    .snapshot
                    .put_gateway_policy((*name.name).into(), *policy);
            }
        }
    }

    fn remove(&mut self, object: &ObjectRef, work: &mut Work, secrets: &mut Vec<SecretChange>) {
        let name = NamespacedName::new(&object.namespace, &object.name);
        match &*object.kind {
            kinds::INGRESS => {
                self.snapshot.remove_ingress(&name);
                work.ingresses.insert(name);
            }
            kinds::INGRESS_CLASS => {
                self.class_changes(&name.name, work);
                self.snapshot.remove_class(&name.name);
            }
            kinds::SERVICE => {
                self.snapshot.remove_service(&name);
                work.services.insert(name);
            }
            kinds::ENDPOINT_SLICE => work.services.extend(self.snapshot.remove_slice(&name)),
            kinds::SECRET => self.secret(SecretChange::Delete(name), work, secrets),
            kinds::CONFIG_MAP => self.put_configmap(&name, None, work),
            kinds::ROUTE_POLICY => self.put_policy(name, None, work),
            kinds::REFERENCE_GRANT => {
                self.grant_changes(&name, work);
                self.snapshot.remove_grant(&name);
            }
            kinds::GATEWAY_POLICY => {
                work.permits |= self.snapshot.remove_gateway_policy(&name.name);
                work.gateway_policies.insert((*name.name).into());
            }
            // An object of another kind has no part in a translation.
            _ => {}
        }
    }

    fn grant_changes(&self, name: &NamespacedName, work: &mut Work) {
        work.ingresses
            .extend(self.snapshot.ingresses_granted(name).cloned());
    }

    fn class_changes(&self, class: &str, work: &mut Work) {
        let named = NamedClass::Field(class.into());
        for class in [
            Some(named),
            self.settings
                .adopt_default_class
                .then_some(NamedClass::None),
        ]
        .iter()
        .flatten()
        {
            work.ingresses
                .extend(self.of_class.get(class).into_iter().flatten().cloned());
        }
    }

    fn update(&mut self, work: &mut Work, secrets: Vec<SecretChange>) {
        if std::mem::take(&mut self.fresh) {
            work.outcome.changes.globals = true;
            work.outcome
                .changes
                .certificates
                .extend(self.model.certificates.keys().cloned());
            let own = self.settings.own_secrets();
            work.outcome
                .secrets_wanted
                .extend(own.iter().map(|name| (*name).clone()));
            work.secrets.extend(own.into_iter().cloned());
            work.backends.extend(self.fallback_backend());
        }
        if work.configmap {
            self.configmap(work);
        }
        if work.ports {
            self.read_ports(work);
        }
        if work.permits {
            self.read_permits(work);
        }
        let ingresses = std::mem::take(&mut work.ingresses);
        work.outcome.translated = ingresses.len();
        for name in ingresses {
            self.ingress(&name, work);
        }
        self.header_configmaps(work);
        self.secrets(secrets, work);
        self.backends(work);
        self.tls_hosts(work);
        for pattern in std::mem::take(&mut work.hosts) {
            self.host(&pattern, work);
        }
        self.globals(work);
        self.ports(work);
        self.reports(work);
    }

    fn ingress(&mut self, name: &NamespacedName, work: &mut Work) {
        let ingress = self
            .snapshot
            .ingresses()
            .get(name)
            .filter(|_| self.settings.watches(&name.namespace))
            .and_then(Packed::unpack);
        let class = ingress.as_ref().map(class::named_class);
        let claim = class
            .as_ref()
            .map(|class| class::claim(class, self.snapshot.classes(), &self.settings));
        let entry = match (&ingress, claim) {
            (Some(ingress), Some(Ok(()))) => Some(Box::new(ingress::translate(
                ingress,
                &self.settings,
                &self.snapshot,
                &self.permits,
            ))),
            _ => None,
        };
        let object = name.reference(kinds::INGRESS);
        if self.report.set_claim(&object, claim) {
            work.outcome.touched.insert(object);
        }
        self.remember_class(name, class);
        let before = self.entries.remove(name);
        if before == entry {
            if let Some(entry) = entry {
                self.entries.insert(name.clone(), entry);
            }
            return;
        }
        work.reports.insert(name.clone());
        let had_clients = self.index.has_clients();
        for (old, entry) in [(true, &before), (false, &entry)] {
            let Some(entry) = entry else { continue };
            if !old {
                self.index.insert(entry);
            }
            for pattern in entry.hosts.keys() {
                work.hosts.extend(self.index.aliases_of(pattern).cloned());
            }
            if old {
                self.index.remove(entry);
            }
            work.hosts.extend(entry.hosts.keys().cloned());
            work.hosts.extend(entry.aliases.keys().cloned());
            work.tls_hosts
                .extend(entry.tls_hosts().into_iter().cloned());
            work.backends.extend(entry.backends.keys().cloned());
            work.secrets.extend(entry.secrets().into_iter().cloned());
            work.gateway_policies.extend(entry.violates.iter().cloned());
        }
        if had_clients || self.index.has_clients() {
            // Whoever comes or goes may decide who decides.
            for entry in [&before, &entry].into_iter().flatten() {
                work.tls_hosts.extend(entry.hosts.keys().cloned());
                work.tls_hosts.extend(entry.aliases.keys().cloned());
                for pattern in entry.hosts.keys() {
                    work.tls_hosts
                        .extend(self.index.aliases_of(pattern).cloned());
                }
            }
            work.clients = true;
        }
        if let Some(entry) = entry {
            self.entries.insert(name.clone(), entry);
        }
    }

    fn remember_class(&mut self, name: &NamespacedName, class: Option<NamedClass>) {
        if self.classes.get(name) == class.as_ref() {
            return;
        }
        if let Some(old) = self.classes.remove(name)
            && let Some(names) = self.of_class.get_mut(&old)
        {
            names.remove(name);
            if names.is_empty() {
                self.of_class.remove(&old);
            }
        }
        if let Some(class) = class {
            self.of_class
                .entry(class.clone())
                .or_default()
                .insert(name.clone());
            self.classes.insert(name.clone(), class);
        }
    }

    fn host(&mut self, pattern: &HostPattern, work: &mut Work) {
        let (mut host, losers) = self.virtual_host(pattern);
        for route in host.iter_mut().flat_map(|host| &mut host.routes) {
            self.common.share(&mut route.filters);
        }
        let host = host.map(Arc::new);
        if replace(&mut self.model.hosts, pattern, host) {
            work.outcome.changes.hosts.insert(pattern.clone());
        }
        note_losers(&mut self.host_losers, pattern, &losers, &mut work.reports);
        self.pass_on(pattern, work);
    }

    /// What is served on a host. One that nobody has rules for may stand for another one.
    fn virtual_host(&self, pattern: &HostPattern) -> (Option<VirtualHost>, Losers) {
        let ranks = self.index.ranks(pattern);
        let has_certificate = self.index.has_certificate(pattern);
        let tls = (has_certificate, self.tls_owner(pattern));
        let aliases = self.entries_of(self.index.alias_ranks(pattern));
        // A canary alone serves nothing.
        let mut served = self
            .entries_of(ranks)
            .filter(|entry| !entry.annotations.is_canary());
        if served.next().is_some() {
            let entries = self.entries_of(ranks);
            let (host, mut losers) =
                conflict::host(pattern, &entries, tls, &self.globals, &self.snapshot);
            for entry in aliases {
                conflict::alias_lost(pattern, entry, &mut losers);
            }
            return (Some(host), losers);
        }
        let entries = self.entries_of(ranks);
        let (_, mut losers) = conflict::host(pattern, &entries, tls, &self.globals, &self.snapshot);
        let mut aliases = aliases.filter_map(|entry| Some((entry, entry.aliases.get(pattern)?)));
        let Some((owner, alias)) = aliases.next() else {
            return (None, losers);
        };
        for (entry, _) in aliases.filter(|(_, other)| *other != alias) {
            conflict::alias_lost(pattern, entry, &mut losers);
        }
        if alias.redirects {
            let host = conflict::redirecting_host(&alias.of, owner, &self.globals);
            return (Some(host), losers);
        }
        let entries = self.entries_of(self.index.ranks(&alias.of));
        let (host, _) = conflict::host(
            &alias.of,
            &entries,
            (has_certificate, self.tls_owner(&alias.of)),
            &self.globals,
            &self.snapshot,
        );
        (Some(host), losers)
    }

    fn entries_of<'a>(
        &'a self,
        ranks: &'a Few<ingress::Rank>,
    ) -> impl Iterator<Item = &'a Entry> + Clone {
        ranks
            .iter()
            .filter_map(|rank| Some(&**self.entries.get(&rank.name)?))
    }
}

/// Puts a value, or removes it. True if that changed anything; an equal value keeps its place in memory.
fn replace<K: Clone + Ord, V: Eq>(
    map: &mut BTreeMap<K, Arc<V>>,
    key: &K,
    value: Option<Arc<V>>,
) -> bool {
    match value {
        None => map.remove(key).is_some(),
        Some(value) => {
            if map.get(key) == Some(&value) {
                return false;
            }
            map.insert(key.clone(), value);
            true
        }
    }
}

/// Remembers the losers of a host, and whose reports differ for that.
fn note_losers(
    all: &mut BTreeMap<HostPattern, Losers>,
    pattern: &HostPattern,
    losers: &Losers,
    reports: &mut BTreeSet<NamespacedName>,
) {
    let before = if losers.is_empty() {
        all.remove(pattern)
    } else {
        all.insert(pattern.clone(), losers.clone())
    }
    .unwrap_or_default();
    for name in before.keys().chain(losers.keys()) {
        if before.get(name) != losers.get(name) {
            reports.insert(name.clone());
        }
    }
}
