//! What would become of an object, asked before it is there.
//!
//! Asking is cheap: what the object may meet is taken out of what the translator knows, and is translated by itself,
//! wherever there is time for that. The translator does not change.

use std::collections::{BTreeMap, BTreeSet};

use crds::{GatewayPolicy, RoutePolicy};
use k8s_openapi::api::networking::v1::Ingress;
use model::{HostPattern, ObjectRef, RoutingModel};

use super::tls::wider;
use super::{Translation, Translator, from_nothing};
use crate::class;
use crate::few::Few;
use crate::ingress::{self, Entry};
use crate::object::name_of;
use crate::report::{Problem, Reason};
use crate::{NamespacedName, Object, Settings, Snapshot, kinds, service};

/// An object that is not there yet, and what it would meet.
#[derive(Clone, Debug)]
pub struct Preview {
    object: ObjectRef,
    settings: Settings,
    snapshot: Snapshot,
    /// Secrets that nobody has named so far, so that nobody knows what is in them.
    unseen: BTreeSet<NamespacedName>,
    /// What is wrong at present with the object, and with the Ingresses that it is for.
    present: BTreeMap<ObjectRef, Vec<Problem>>,
}

/// What would become of an object.
#[derive(Clone, Debug)]
pub struct Previewed {
    /// Which object.
    pub object: ObjectRef,
    /// What would be served of it, and of what it meets.
    pub model: RoutingModel,
    /// What would be wrong with it.
    pub problems: Vec<Problem>,
    /// What is wrong with it at present.
    pub present: Vec<Problem>,
    /// What would be wrong with other objects, and is not at present.
    pub others: Vec<(ObjectRef, Problem)>,
}

impl Translator {
    /// What is needed to say what would become of an object; `None` if it is not ours, or of a kind of which nothing is
    /// said.
    pub fn preview(&self, object: &Object) -> Option<Preview> {
        let reference = object.reference();
        match object {
            Object::Ingress(ingress) => self.preview_ingress(reference, ingress),
            Object::RoutePolicy(policy) => Some(self.preview_policy(reference, policy)),
            Object::GatewayPolicy(policy) => Some(self.preview_gateway_policy(reference, policy)),
            Object::IngressClass(_)
            | Object::Service(_)
            | Object::EndpointSlice(_)
            | Object::Secret(_)
            | Object::ConfigMap(_)
            | Object::ReferenceGrant(_) => None,
        }
    }

    fn preview_ingress(&self, object: ObjectRef, ingress: &Ingress) -> Option<Preview> {
        let name = name_of(&ingress.metadata);
        if !self.settings.watches(&name.namespace) {
            return None;
        }
        let named = class::named_class(ingress);
        class::claim(&named, self.snapshot.classes(), &self.settings).ok()?;
        let mut preview = self.start(object, self.snapshot.outline());
        preview
            .snapshot
            .take_policies(&self.snapshot, &name.namespace);
        preview.snapshot.put_ingress(name.clone(), ingress);
        let entry = self.add(&mut preview, ingress);
        let mut namespaces = BTreeSet::from([&*name.namespace]);
        for neighbour in self.neighbours(&entry) {
            if *neighbour == name {
                continue;
            }
            if namespaces.insert(&*neighbour.namespace) {
                let namespace = &neighbour.namespace;
                preview.snapshot.take_policies(&self.snapshot, namespace);
            }
            preview.snapshot.take_ingress(&self.snapshot, neighbour);
            let entry = self.entries.get(neighbour);
            for secret in entry.into_iter().flat_map(|entry| entry.secrets()) {
                preview.snapshot.take_secret(&self.snapshot, secret);
            }
        }
        Some(preview)
    }

    fn preview_policy(&self, object: ObjectRef, policy: &RoutePolicy) -> Preview {
        let name = name_of(&policy.metadata);
        let mut preview = self.start(object, self.snapshot.outline());
        preview
            .snapshot
            .take_policies(&self.snapshot, &name.namespace);
        preview.snapshot.put_policy(name.clone(), policy.clone());
        for ingress in &self.concerned(&name, [&policy.spec]) {
            let object = self.snapshot.ingress(ingress);
            let Some(object) = object.filter(|_| self.entries.contains_key(ingress)) else {
                continue;
            };
            preview.snapshot.take_ingress(&self.snapshot, ingress);
            self.note(&mut preview, ingress.reference(kinds::INGRESS));
            self.add(&mut preview, &object);
        }
        preview
    }

    /// Whom it concerns is not known before it is translated. The copy shares the objects.
    fn preview_gateway_policy(&self, object: ObjectRef, policy: &GatewayPolicy) -> Preview {
        let mut snapshot = self.snapshot.clone();
        snapshot.put_gateway_policy((*object.name).into(), policy.clone());
        self.start(object, snapshot)
    }

    fn start(&self, object: ObjectRef, snapshot: Snapshot) -> Preview {
        let mut preview = Preview {
            object: object.clone(),
            settings: self.settings.clone(),
            snapshot,
            unseen: BTreeSet::new(),
            present: BTreeMap::new(),
        };
        self.note(&mut preview, object);
        preview
    }

    fn note(&self, preview: &mut Preview, object: ObjectRef) {
        let present = self.report.problems_of(&object).to_vec();
        preview.present.insert(object, present);
    }

    /// Adds what an Ingress names.
    fn add(&self, preview: &mut Preview, ingress: &Ingress) -> Entry {
        let entry = ingress::translate(ingress, &self.settings, &preview.snapshot, &self.permits);
        for id in entry.backends.keys() {
            let name = service::service_of(id);
            preview.snapshot.take_service(&self.snapshot, &name);
        }
        for secret in entry.secrets() {
            preview.snapshot.take_secret(&self.snapshot, secret);
            if !self.wanted.contains(secret) {
                preview.unseen.insert(secret.clone());
            }
        }
        entry
    }

    /// The Ingresses that have a part in the hosts of this one, or in those that stand for them.
    fn neighbours(&self, entry: &Entry) -> BTreeSet<&NamespacedName> {
        let mut patterns: BTreeSet<HostPattern> = BTreeSet::new();
        let own = entry.hosts.keys().chain(entry.aliases.keys());
        for pattern in own.chain(entry.tls_hosts()) {
            let mut next = Some(pattern.clone());
            while let Some(pattern) = next {
                next = wider(&pattern);
                patterns.extend(self.index.aliases_of(&pattern).cloned());
                patterns.insert(pattern);
            }
        }
        let ranks = patterns.iter().flat_map(|pattern| {
            let all = [
                self.index.ranks(pattern),
                self.index.tls_ranks(pattern),
                self.index.alias_ranks(pattern),
            ];
            all.into_iter().flat_map(Few::iter)
        });
        ranks.map(|rank| &rank.name).collect()
    }
}

impl Preview {
    /// Which object.
    pub fn object(&self) -> &ObjectRef {
        &self.object
    }

    /// Translates it. This may take a while.
    pub fn translate(self) -> Previewed {
        let Self {
            object,
            settings,
            snapshot,
            unseen,
            mut present,
        } = self;
        let Translation { model, report } = from_nothing(snapshot, settings);
        let is_known = |problem: &&Problem| !is_guess(problem, &unseen);
        let problems = report.problems_of(&object).iter().filter(is_known);
        let problems = problems.cloned().collect();
        let before = present.remove(&object).unwrap_or_default();
        let mut others = Vec::new();
        for (other, present) in present {
            let problems = report.problems_of(&other).iter().filter(is_known);
            let new = problems.filter(|problem| !present.contains(problem));
            others.extend(new.map(|problem| (other.clone(), problem.clone())));
        }
        Previewed {
            object,
            model,
            problems,
            present: before,
            others,
        }
    }
}

/// Is this said only because nobody has looked? A Secret is read once somebody names it.
fn is_guess(problem: &Problem, unseen: &BTreeSet<NamespacedName>) -> bool {
    let names = |secret: &NamespacedName| problem.message.contains(&format!("Secret {secret}: "));
    problem.reason == Reason::SecretNotFound && unseen.iter().any(names)
}
