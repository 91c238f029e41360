//! Every object that a translation may see.

mod part;

use std::collections::BTreeMap;
use std::sync::Arc;

use crds::{GatewayPolicy, ReferenceGrant, RoutePolicy};
use k8s_openapi::api::core::v1::{ConfigMap, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use model::{Authorities, Certificate, Users};

use crate::NamespacedName;
use crate::few::{Few, dense};
use crate::object::{kinds, name_of};
use crate::packed::Packed;
use crate::policy;
use crate::secret::{self, ClientLists, SecretFault, UserSources, UsersFault, UsersForm};

/// Every object that a translation may see, in the order of their names.
///
/// A value: cloning it shares the objects. What there are thousands of is [`Packed`]. Of a Secret only what was parsed
/// is kept, and the last certificate that was good: a Secret that breaks or goes away keeps on serving what it served,
/// until nobody names it any more.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    ingresses: BTreeMap<NamespacedName, Packed<Ingress>>,
    classes: BTreeMap<Box<str>, Arc<IngressClass>>,
    services: BTreeMap<NamespacedName, Packed<Service>>,
    slices: BTreeMap<NamespacedName, Packed<EndpointSlice>>,
    slices_of: BTreeMap<NamespacedName, Few<NamespacedName>>,
    secrets: BTreeMap<NamespacedName, Arc<SecretState>>,
    configmap: Option<Arc<ConfigMap>>,
    /// Those that may hold headers.
    header_configmaps: BTreeMap<NamespacedName, Arc<ConfigMap>>,
    policies: BTreeMap<NamespacedName, Arc<RoutePolicy>>,
    grants: BTreeMap<NamespacedName, Arc<ReferenceGrant>>,
    /// Those with ports of TCP and UDP, by name.
    port_configmaps: BTreeMap<NamespacedName, Arc<ConfigMap>>,
    gateway_policies: BTreeMap<Box<str>, Arc<GatewayPolicy>>,
}

/// What is known of a Secret.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SecretState {
    /// What is wrong with its present version.
    pub(crate) fault: Option<SecretFault>,
    /// Stands for its present version; `None` if there is none.
    pub(crate) digest: Option<[u8; 32]>,
    /// The present certificate, or the last good one.
    pub(crate) serving: Option<Arc<Certificate>>,
    /// What certificates of backends are traced back to. No version but the present one counts.
    authorities: Result<Option<Arc<Authorities>>, SecretFault>,
    /// What certificates of clients are verified with. No version but the present one counts, either.
    clients: Result<Option<ClientLists>, SecretFault>,
    /// The present version has a certificate, good or not.
    has_certificate: bool,
    /// Names and passwords. No version but the present one counts: who is taken off the list is off at once.
    pub(crate) users: UserSources,
}

/// The client certificate and the authorities for connections to backends.
pub(crate) type BackendCertificates = (Option<Arc<Certificate>>, Option<Arc<Authorities>>);

impl Snapshot {
    /// The Ingresses.
    pub fn ingresses(&self) -> &BTreeMap<NamespacedName, Packed<Ingress>> {
        &self.ingresses
    }

    /// The IngressClasses.
    pub fn classes(&self) -> &BTreeMap<Box<str>, Arc<IngressClass>> {
        &self.classes
    }

    /// The Services.
    pub fn services(&self) -> &BTreeMap<NamespacedName, Packed<Service>> {
        &self.services
    }

    /// The EndpointSlices.
    pub fn endpoint_slices(&self) -> &BTreeMap<NamespacedName, Packed<EndpointSlice>> {
        &self.slices
    }

    /// The EndpointSlices of a Service, in the order of their names.
    pub fn slices_of(&self, service: &NamespacedName) -> impl Iterator<Item = EndpointSlice> {
        self.slices_of
            .get(service)
            .into_iter()
            .flat_map(Few::iter)
            .filter_map(|name| self.slices.get(name)?.unpack())
    }

    /// The certificate that a Secret serves: its present one, or the last good one.
    pub fn certificate(&self, secret: &NamespacedName) -> Option<&Arc<Certificate>> {
        self.secrets.get(secret)?.serving.as_ref()
    }

    /// What is wrong with a Secret. One that was never delivered is missing.
    pub fn secret_fault(&self, secret: &NamespacedName) -> Option<&SecretFault> {
        match self.secrets.get(secret) {
            Some(state) => state.fault.as_ref(),
            None => Some(&SecretFault::Missing),
        }
    }

    /// The names and passwords of a Secret.
    pub(crate) fn users(
        &self,
        secret: &NamespacedName,
        form: UsersForm,
    ) -> Result<&Arc<Users>, UsersFault> {
        match self.secrets.get(secret) {
            Some(state) => state.users.get(form),
            None => Err(UsersFault::Missing),
        }
    }

    /// The client certificate and the authorities for connections to backends; of both the present version, or none.
    pub(crate) fn backend_tls(
        &self,
        secret: &NamespacedName,
    ) -> Result<BackendCertificates, SecretFault> {
        let state = self.secrets.get(secret).ok_or(SecretFault::Missing)?;
        let authorities = state.authorities.clone()?;
        let client = match &state.fault {
            None => state.serving.clone(),
            Some(_) if !state.has_certificate && authorities.is_some() => None,
            Some(fault) => return Err(fault.clone()),
        };
        Ok((client, authorities))
    }

    /// What certificates of clients are verified with: the present version, or none.
    pub(crate) fn clients(&self, secret: &NamespacedName) -> Result<&ClientLists, SecretFault> {
        let state = self.secrets.get(secret).ok_or(SecretFault::Missing)?;
        match &state.clients {
            Ok(Some(lists)) => Ok(lists),
            Ok(None) => Err(SecretFault::Empty("ca.crt")),
            Err(fault) => Err(fault.clone()),
        }
    }

    /// The ConfigMap with the global settings.
    pub fn configmap(&self) -> Option<&Arc<ConfigMap>> {
        self.configmap.as_ref()
    }

    /// A ConfigMap with ports of TCP or UDP.
    pub fn port_configmap(&self, name: &NamespacedName) -> Option<&Arc<ConfigMap>> {
        self.port_configmaps.get(name)
    }

    /// A ConfigMap that may hold headers.
    pub(crate) fn header_configmap(&self, name: &NamespacedName) -> Option<&ConfigMap> {
        self.header_configmaps.get(name).map(Arc::as_ref)
    }

    pub(crate) fn set_header_configmap(
        &mut self,
        name: NamespacedName,
        configmap: Option<ConfigMap>,
    ) {
        match configmap {
            Some(configmap) => self.header_configmaps.insert(name, Arc::new(configmap)),
            None => self.header_configmaps.remove(&name),
        };
    }

    /// The `RoutePolicies`.
    pub fn policies(&self) -> &BTreeMap<NamespacedName, Arc<RoutePolicy>> {
        &self.policies
    }

    /// The `RoutePolicies` of a namespace that name this Ingress, in the order of their names.
    pub(crate) fn policies_for(
        &self,
        ingress: &NamespacedName,
    ) -> impl Iterator<Item = (&NamespacedName, &Arc<RoutePolicy>)> {
        of_namespace(&self.policies, &ingress.namespace)
            .filter(|(_, object)| policy::targets(&object.spec).any(|name| *name == *ingress.name))
    }

    /// May Ingresses of this namespace name this object of the core group, which may be in another one?
    pub(crate) fn may_refer(&self, namespace: &str, kind: &str, object: &NamespacedName) -> bool {
        *object.namespace == *namespace
            || of_namespace(&self.grants, &object.namespace).any(|(_, grant)| {
                let from = grant.spec.from.iter().any(|from| {
                    from.group == "networking.k8s.io"
                        && from.kind == kinds::INGRESS
                        && from.namespace == namespace
                });
                let to = grant.spec.to.iter().any(|to| {
                    let names = |name: &String| **name == *object.name;
                    to.group.is_empty() && to.kind == kind && to.name.as_ref().is_none_or(names)
                });
                from && to
            })
    }

    /// The Ingresses to which a grant may matter.
    pub(crate) fn ingresses_granted(
        &self,
        grant: &NamespacedName,
    ) -> impl Iterator<Item = &NamespacedName> {
        let grant = self.grants.get(grant).into_iter();
        let from = grant.flat_map(|grant| &grant.spec.from);
        from.flat_map(|from| of_namespace(&self.ingresses, &from.namespace))
            .map(|(name, _)| name)
    }

    pub(crate) fn put_grant(&mut self, name: NamespacedName, grant: ReferenceGrant) {
        self.grants.insert(name, Arc::new(grant));
    }

    pub(crate) fn remove_grant(&mut self, name: &NamespacedName) {
        self.grants.remove(name);
    }

    pub(crate) fn put_policy(&mut self, name: NamespacedName, policy: RoutePolicy) {
        self.policies.insert(name, Arc::new(policy));
    }

    pub(crate) fn remove_policy(&mut self, name: &NamespacedName) {
        self.policies.remove(name);
    }

    /// The policies of kind `GatewayPolicy`.
    pub fn gateway_policies(&self) -> &BTreeMap<Box<str>, Arc<GatewayPolicy>> {
        &self.gateway_policies
    }

    /// True if what it asks for differs.
    pub(crate) fn put_gateway_policy(&mut self, name: Box<str>, policy: GatewayPolicy) -> bool {
        let spec = policy.spec.clone();
        let before = self.gateway_policies.insert(name, Arc::new(policy));
        before.is_none_or(|before| before.spec != spec)
    }

    /// True if there was one.
    pub(crate) fn remove_gateway_policy(&mut self, name: &str) -> bool {
        self.gateway_policies.remove(name).is_some()
    }

    pub(crate) fn put_ingress(&mut self, name: NamespacedName, ingress: &Ingress) {
        self.ingresses.insert(name, Packed::new(ingress));
    }

    pub(crate) fn remove_ingress(&mut self, name: &NamespacedName) {
        self.ingresses.remove(name);
    }

    pub(crate) fn put_class(&mut self, class: IngressClass) {
        let name = class.metadata.name.as_deref().unwrap_or_default().into();
        self.classes.insert(name, Arc::new(class));
    }

    pub(crate) fn remove_class(&mut self, name: &str) {
        self.classes.remove(name);
    }

    pub(crate) fn put_service(&mut self, name: NamespacedName, service: &Service) {
        self.services.insert(name, Packed::new(service));
    }

    pub(crate) fn remove_service(&mut self, name: &NamespacedName) {
        self.services.remove(name);
    }

    /// Returns the Services that are concerned.
    pub(crate) fn put_slice(&mut self, slice: &EndpointSlice) -> Vec<NamespacedName> {
        let name = name_of(&slice.metadata);
        let mut concerned = self.remove_slice(&name);
        if let Some(service) = service_of(&slice.metadata) {
            self.slices_of
                .entry(service.clone())
                .or_default()
                .insert(name.clone());
            self.slices.insert(name, Packed::new(slice));
            concerned.push(service);
        }
        concerned
    }

    /// Returns the Service that is concerned.
    pub(crate) fn remove_slice(&mut self, name: &NamespacedName) -> Vec<NamespacedName> {
        let before = self.slices.remove(name).and_then(|slice| slice.metadata());
        let Some(service) = before.as_ref().and_then(service_of) else {
            return Vec::new();
        };
        if let Some(slices) = self.slices_of.get_mut(&service) {
            slices.remove(name);
            if slices.is_empty() {
                self.slices_of.remove(&service);
            }
        }
        vec![service]
    }

    pub(crate) fn put_secret(&mut self, name: &NamespacedName, object: &Secret) {
        let digest = Some(secret::digest(object));
        if self
            .secrets
            .get(name)
            .is_some_and(|state| state.digest == digest)
        {
            return;
        }
        let (fault, serving) = match secret::certificate(object) {
            Ok(certificate) => (None, Some(certificate)),
            Err(fault) => (Some(fault), self.certificate(name).cloned()),
        };
        let authorities = secret::authorities(object);
        let state = SecretState {
            fault,
            digest,
            serving,
            clients: ClientLists::read(object, &authorities),
            authorities,
            has_certificate: secret::has_certificate(object),
            users: UserSources::read(object),
        };
        self.secrets.insert(name.clone(), Arc::new(state));
    }

    pub(crate) fn remove_secret(&mut self, name: &NamespacedName) {
        match self.secrets.get_mut(name) {
            Some(state) if state.serving.is_some() => {
                let state = Arc::make_mut(state);
                state.fault = Some(SecretFault::Missing);
                state.digest = None;
                state.authorities = Err(SecretFault::Missing);
                state.clients = Err(SecretFault::Missing);
                state.users = UserSources::missing();
            }
            _ => {
                self.secrets.remove(name);
            }
        }
    }

    /// Makes the large trees anew.
    pub(crate) fn make_dense(&mut self) {
        dense(&mut self.ingresses);
        dense(&mut self.services);
        dense(&mut self.slices);
        dense(&mut self.slices_of);
        dense(&mut self.secrets);
    }

    /// Forgets a Secret that nobody names any more, its last good version included.
    pub(crate) fn forget_secret(&mut self, name: &NamespacedName) {
        self.secrets.remove(name);
    }

    pub(crate) fn set_port_configmap(
        &mut self,
        name: NamespacedName,
        configmap: Option<ConfigMap>,
    ) {
        match configmap {
            Some(configmap) => self.port_configmaps.insert(name, Arc::new(configmap)),
            None => self.port_configmaps.remove(&name),
        };
    }

    pub(crate) fn set_configmap(&mut self, configmap: Option<ConfigMap>) {
        self.configmap = configmap.map(Arc::new);
    }
}

/// The objects of one namespace.
fn of_namespace<'a, V>(
    objects: &'a BTreeMap<NamespacedName, V>,
    namespace: &str,
) -> impl Iterator<Item = (&'a NamespacedName, &'a V)> {
    objects
        .range(NamespacedName::new(namespace, "")..)
        .take_while(move |(name, _)| *name.namespace == *namespace)
}

/// The Service of an `EndpointSlice`.
fn service_of(slice: &ObjectMeta) -> Option<NamespacedName> {
    let service = slice.labels.as_ref()?.get(crds::SERVICE_NAME_LABEL)?;
    Some(NamespacedName::new(
        slice.namespace.as_deref().unwrap_or_default(),
        service,
    ))
}
