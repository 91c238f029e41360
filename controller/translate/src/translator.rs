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

mod index;
mod problems;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Secret;
use model::{
    Action, BackendId, CertificateId, Changes, EndpointSet, HostPattern, Listener, ListenerName,
    ListenerProtocol, ObjectRef, Origin, PathMatch, Route, RouteMatch, RoutingModel, TlsHost,
    WeightedBackend,
};

use self::index::Index;
use crate::class::{self, NamedClass};
use crate::configmap::{self, Globals};
use crate::conflict::{self, Losers};
use crate::ingress::annotations::Annotations;
use crate::ingress::{self, Entry};
use crate::object::name_of;
use crate::report::Problem;
use crate::service::{self, Remark};
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
    let mut translator = Translator::new(settings.clone());
    translator.snapshot = snapshot.clone();
    let mut work = Work {
        ingresses: snapshot.ingresses().keys().cloned().collect(),
        configmap: true,
        ..Work::default()
    };
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
    /// Ingresses that are ours.
    entries: BTreeMap<NamespacedName, Entry>,
    /// The classes that Ingresses name, ours or not.
    classes: BTreeMap<NamespacedName, NamedClass>,
    of_class: BTreeMap<NamedClass, BTreeSet<NamespacedName>>,
    index: Index,
    host_losers: BTreeMap<HostPattern, Losers>,
    tls_losers: BTreeMap<HostPattern, Losers>,
    backends: BTreeMap<BackendId, BackendState>,
    /// EndpointSlices with problems, by their Services.
    slices_reported: BTreeMap<NamespacedName, BTreeSet<ObjectRef>>,
    fresh: bool,
}

#[derive(Clone, Debug, Default)]
struct BackendState {
    remark: Option<Remark>,
    slices: Vec<(ObjectRef, Problem)>,
}

/// What has to be done again.
#[derive(Debug, Default)]
struct Work {
    ingresses: BTreeSet<NamespacedName>,
    services: BTreeSet<NamespacedName>,
    backends: BTreeSet<BackendId>,
    hosts: BTreeSet<HostPattern>,
    tls_hosts: BTreeSet<HostPattern>,
    secrets: BTreeSet<NamespacedName>,
    reports: BTreeSet<NamespacedName>,
    configmap: bool,
    outcome: Outcome,
}

/// A change of a Secret, which has to wait until it is known whether anybody wants it.
enum SecretChange {
    Apply(NamespacedName, Box<Secret>),
    Delete(NamespacedName),
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
        let mut translator = Self {
            wanted: settings
                .default_certificate_secret
                .iter()
                .cloned()
                .collect(),
            settings,
            snapshot: Snapshot::default(),
            model,
            report: Report::default(),
            globals: Globals::default(),
            entries: BTreeMap::new(),
            classes: BTreeMap::new(),
            of_class: BTreeMap::new(),
            index: Index::default(),
            host_losers: BTreeMap::new(),
            tls_losers: BTreeMap::new(),
            backends: BTreeMap::new(),
            slices_reported: BTreeMap::new(),
            fresh: true,
        };
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
    /// A Secret may come before, with or after the Ingress that names it, as long as both are in one call; otherwise it
    /// has to come (again) once [`Outcome::secrets_wanted`] names it.
    pub fn apply(&mut self, changes: impl IntoIterator<Item = Change>) -> Outcome {
        let mut work = Work::default();
        let mut secrets = Vec::new();
        for change in changes {
            match change {
                Change::Apply(object) => self.put(object, &mut work, &mut secrets),
                Change::Delete(object) => self.remove(&object, &mut work, &mut secrets),
            }
        }
        self.update(&mut work, secrets);
        work.outcome
    }

    fn put(&mut self, object: Object, work: &mut Work, secrets: &mut Vec<SecretChange>) {
        let name = name_of(object.metadata());
        match object {
            Object::Ingress(ingress) => {
                work.ingresses.insert(name.clone());
                self.snapshot.put_ingress(name, *ingress);
            }
            Object::IngressClass(class) => {
                self.class_changes(&name.name, work);
                self.snapshot.put_class(*class);
            }
            Object::Service(service) => {
                work.services.insert(name.clone());
                self.snapshot.put_service(name, *service);
            }
            Object::EndpointSlice(slice) => {
                work.services.extend(self.snapshot.put_slice(*slice));
            }
            Object::Secret(secret) => secrets.push(SecretChange::Apply(name, secret)),
            Object::ConfigMap(configmap) => {
                if self.settings.configmap.as_ref() == Some(&name) {
                    work.configmap = true;
                    self.snapshot.set_configmap(Some(*configmap));
                }
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
            kinds::SECRET => secrets.push(SecretChange::Delete(name)),
            kinds::CONFIG_MAP => {
                if self.settings.configmap.as_ref() == Some(&name) {
                    work.configmap = true;
                    self.snapshot.set_configmap(None);
                }
            }
            // An object of another kind has no part in a translation.
            _ => {}
        }
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
            work.outcome
                .secrets_wanted
                .extend(self.settings.default_certificate_secret.iter().cloned());
            work.secrets
                .extend(self.settings.default_certificate_secret.iter().cloned());
            work.backends.extend(self.fallback_backend());
        }
        if work.configmap {
            self.configmap(work);
        }
        for name in std::mem::take(&mut work.ingresses) {
            self.ingress(&name, work);
        }
        self.secrets(secrets, work);
        self.backends(work);
        for pattern in std::mem::take(&mut work.tls_hosts) {
            self.tls_host(&pattern, work);
        }
        for pattern in std::mem::take(&mut work.hosts) {
            self.host(&pattern, work);
        }
        self.globals(work);
        self.reports(work);
    }

    fn configmap(&mut self, work: &mut Work) {
        let (globals, problems) = configmap::globals(self.snapshot.configmap().map(Arc::as_ref));
        if let Some(name) = &self.settings.configmap {
            let object = name.reference(kinds::CONFIG_MAP);
            if self.report.set_problems(&object, problems) {
                work.outcome.touched.insert(object);
            }
        }
        if globals != self.globals {
            self.globals = globals;
            work.hosts.extend(self.index.hosts().cloned());
            work.tls_hosts.extend(self.index.tls_hosts().cloned());
        }
    }

    fn ingress(&mut self, name: &NamespacedName, work: &mut Work) {
        let ingress = self
            .snapshot
            .ingresses()
            .get(name)
            .filter(|_| self.settings.watches(&name.namespace));
        let class = ingress.map(|ingress| class::named_class(ingress));
        let claim = class
            .as_ref()
            .map(|class| class::claim(class, self.snapshot.classes(), &self.settings));
        let entry = match (ingress, claim) {
            (Some(ingress), Some(Ok(()))) => Some(ingress::translate(ingress)),
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
        for (old, entry) in [(true, &before), (false, &entry)] {
            let Some(entry) = entry else { continue };
            if old {
                self.index.remove(entry);
            } else {
                self.index.insert(entry);
            }
            work.hosts.extend(entry.hosts.keys().cloned());
            work.tls_hosts
                .extend(entry.tls_hosts().into_iter().cloned());
            work.backends.extend(entry.backends.keys().cloned());
            work.secrets.extend(entry.secrets().into_iter().cloned());
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

    /// Settles who is wanted, then takes in what came.
    fn secrets(&mut self, changes: Vec<SecretChange>, work: &mut Work) {
        for name in &work.secrets {
            let wanted = self.settings.default_certificate_secret.as_ref() == Some(name)
                || self.index.uses_secret(name);
            if wanted && self.wanted.insert(name.clone()) {
                work.outcome.secrets_wanted.insert(name.clone());
            } else if !wanted && self.wanted.remove(name) {
                work.outcome.secrets_unwanted.insert(name.clone());
                self.snapshot.forget_secret(name);
            }
        }
        for change in changes {
            let name = match change {
                SecretChange::Apply(name, secret) => {
                    if self.wanted.contains(&name) {
                        self.snapshot.put_secret(&name, &secret);
                    }
                    name
                }
                SecretChange::Delete(name) => {
                    self.snapshot.remove_secret(&name);
                    name
                }
            };
            if self.wanted.contains(&name) {
                work.secrets.insert(name);
            }
        }
        for name in std::mem::take(&mut work.secrets) {
            let id = CertificateId::secret(&name.namespace, &name.name);
            let certificate = self.snapshot.certificate(&name).cloned();
            if replace(&mut self.model.certificates, &id, certificate) {
                work.outcome.changes.certificates.insert(id);
            }
            work.reports
                .extend(self.index.users_of_secret(&name).cloned());
            self.report_default_certificate(&name, work);
        }
    }

    fn backends(&mut self, work: &mut Work) {
        let fallback = self.fallback_backend();
        for service in &work.services {
            let of_service = problems::backends_of(&self.backends, service).map(|(id, _)| id);
            work.backends.extend(of_service.cloned());
        }
        let mut services = std::mem::take(&mut work.services);
        for id in std::mem::take(&mut work.backends) {
            services.insert(service::service_of(&id));
            let used = self.index.uses_backend(&id) || fallback.as_ref() == Some(&id);
            let (backend, endpoints, state) = if used {
                let resolved =
                    service::resolve(&id, &self.snapshot, self.settings.allow_loopback_endpoints);
                let state = BackendState {
                    remark: resolved.remark,
                    slices: resolved.slices,
                };
                (
                    Some(Arc::new(resolved.backend)),
                    Some(Arc::new(resolved.endpoints)),
                    Some(state),
                )
            } else {
                (None, None, None)
            };
            if replace(&mut self.model.backends, &id, backend) {
                work.outcome.changes.backends.insert(id.clone());
            }
            if replace(&mut self.model.endpoints, &id, endpoints) {
                work.outcome.changes.endpoints.insert(id.clone());
            }
            let remark = state.as_ref().and_then(|state| state.remark.clone());
            let before = match state {
                Some(state) => self.backends.insert(id.clone(), state),
                None => self.backends.remove(&id),
            };
            if before.and_then(|state| state.remark) != remark {
                work.reports
                    .extend(self.index.users_of_backend(&id).cloned());
            }
        }
        self.report_slices(&services, work);
    }

    fn tls_host(&mut self, pattern: &HostPattern, work: &mut Work) {
        let entries = self.entries_of(self.index.tls_ranks(pattern));
        let (host, losers) = conflict::tls_host(pattern, entries, &self.globals);
        // Whether there is an entry at all decides about redirects of the hosts that it covers.
        if host.is_some() != self.model.tls_hosts.contains_key(pattern) {
            work.hosts.extend(self.index.hosts_covered_by(pattern));
        }
        if replace(&mut self.model.tls_hosts, pattern, host.map(Arc::new)) {
            work.outcome.changes.tls_hosts.insert(pattern.clone());
        }
        note_losers(&mut self.tls_losers, pattern, losers, &mut work.reports);
    }

    fn host(&mut self, pattern: &HostPattern, work: &mut Work) {
        let ranks = self.index.ranks(pattern);
        let (host, losers) = if ranks.is_empty() {
            (None, Losers::new())
        } else {
            let (host, losers) = conflict::host(
                pattern,
                self.entries_of(ranks),
                self.index.has_certificate(pattern),
                &self.globals,
            );
            (Some(Arc::new(host)), losers)
        };
        if replace(&mut self.model.hosts, pattern, host) {
            work.outcome.changes.hosts.insert(pattern.clone());
        }
        note_losers(&mut self.host_losers, pattern, losers, &mut work.reports);
    }

    fn entries_of<'a>(
        &'a self,
        ranks: &'a BTreeSet<ingress::Rank>,
    ) -> impl Iterator<Item = &'a Entry> + Clone {
        ranks.iter().filter_map(|rank| self.entries.get(&rank.name))
    }

    fn fallback_backend(&self) -> Option<BackendId> {
        self.settings
            .default_backend_service
            .as_ref()
            .map(service::first_port)
    }

    /// What is neither a host nor a backend nor a certificate.
    fn globals(&mut self, work: &mut Work) {
        let default_tls = self.default_tls();
        let fallback = self.fallback();
        let model = &mut self.model;
        if model.default_tls != default_tls
            || model.fallback != fallback
            || model.trust != self.globals.trust
        {
            model.default_tls = default_tls;
            model.fallback = fallback;
            model.trust = self.globals.trust.clone();
            work.outcome.changes.globals = true;
        }
    }

    fn default_tls(&self) -> Option<Arc<TlsHost>> {
        let of_secret = self
            .settings
            .default_certificate_secret
            .as_ref()
            .filter(|name| self.snapshot.certificate(name).is_some());
        let (certificate, origin) = match of_secret {
            Some(name) => (
                CertificateId::secret(&name.namespace, &name.name),
                Origin::new(name.reference(kinds::SECRET), ""),
            ),
            None => {
                self.settings.fake_certificate.as_ref()?;
                (CertificateId::new(SELF_SIGNED), Origin::default())
            }
        };
        Some(Arc::new(TlsHost {
            certificates: vec![certificate],
            policy: self.globals.tls.clone(),
            origin,
        }))
    }

    /// Without an endpoint the built-in page answers, as with ingress-nginx.
    fn fallback(&self) -> Option<Arc<Route>> {
        let service = self.settings.default_backend_service.as_ref()?;
        let id = self.fallback_backend()?;
        match self.model.endpoints.get(&id).map(Arc::as_ref) {
            Some(EndpointSet::Addresses(addresses)) if !addresses.is_empty() => {}
            Some(EndpointSet::Dns { .. }) => {}
            Some(EndpointSet::Addresses(_) | EndpointSet::Invalid(_)) | None => return None,
        }
        Some(Arc::new(Route {
            matches: RouteMatch::path(PathMatch::everything()),
            listeners: model::ListenerSelector::All,
            filters: conflict::filters(&Annotations::default(), false, &self.globals),
            action: Action::Forward(vec![WeightedBackend {
                backend: id,
                weight: 1,
            }]),
            timeouts: self.globals.timeouts,
            origin: Origin::new(service.reference(kinds::SERVICE), ""),
        }))
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
    losers: Losers,
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
