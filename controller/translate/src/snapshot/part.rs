//! Parts of a snapshot: what a translation of a few objects needs.

use std::sync::Arc;

use k8s_openapi::api::networking::v1::Ingress;

use super::{Snapshot, of_namespace};
use crate::NamespacedName;

impl Snapshot {
    /// What belongs to no single Ingress: classes, settings, headers, grants and policies for namespaces.
    pub(crate) fn outline(&self) -> Self {
        Self {
            classes: self.classes.clone(),
            configmap: self.configmap.clone(),
            header_configmaps: self.header_configmaps.clone(),
            grants: self.grants.clone(),
            gateway_policies: self.gateway_policies.clone(),
            ..Self::default()
        }
    }

    /// Takes the `RoutePolicies` of a namespace from another snapshot.
    pub(crate) fn take_policies(&mut self, from: &Self, namespace: &str) {
        let policies = of_namespace(&from.policies, namespace);
        let policies = policies.map(|(name, policy)| (name.clone(), Arc::clone(policy)));
        self.policies.extend(policies);
    }

    /// Takes an Ingress from another snapshot.
    pub(crate) fn take_ingress(&mut self, from: &Self, name: &NamespacedName) {
        if let Some(ingress) = from.ingresses.get(name) {
            self.ingresses.insert(name.clone(), ingress.clone());
        }
    }

    /// Takes a Service and its addresses from another snapshot.
    pub(crate) fn take_service(&mut self, from: &Self, name: &NamespacedName) {
        if let Some(service) = from.services.get(name) {
            self.services.insert(name.clone(), service.clone());
        }
        let Some(slices) = from.slices_of.get(name) else {
            return;
        };
        for slice in slices.iter() {
            if let Some(object) = from.slices.get(slice) {
                self.slices.insert(slice.clone(), object.clone());
            }
        }
        self.slices_of.insert(name.clone(), slices.clone());
    }

    /// Takes what is known of a Secret from another snapshot.
    pub(crate) fn take_secret(&mut self, from: &Self, name: &NamespacedName) {
        if let Some(state) = from.secrets.get(name) {
            self.secrets.insert(name.clone(), Arc::clone(state));
        }
    }

    /// The Ingress of this name.
    pub(crate) fn ingress(&self, name: &NamespacedName) -> Option<Ingress> {
        self.ingresses.get(name)?.unpack()
    }
}
