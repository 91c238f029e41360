//! What the command line decides about translation.

use std::collections::BTreeSet;
use std::sync::Arc;

use model::Certificate;

use crate::{Locality, NamespacedName};

/// What the command line decides about translation.
#[derive(Clone, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a switch that operators or sources set"
)]
pub struct Settings {
    /// The `spec.controller` of the IngressClasses that are ours.
    pub controller_name: String,
    /// The value of the annotation `kubernetes.io/ingress.class` that makes an Ingress ours.
    pub ingress_class: String,
    /// Are Ingresses ours that name no class at all?
    pub watch_without_class: bool,
    /// Prefixes of the annotations that are read, without the slash. Of a name that stands under several of them the
    /// first one counts.
    pub annotation_prefixes: Vec<String>,
    /// Namespaces whose Ingresses can be ours; empty for all.
    pub watch_namespaces: BTreeSet<String>,
    /// The ConfigMap with the global settings.
    pub configmap: Option<NamespacedName>,
    /// The ConfigMaps that may hold headers; `None` for all.
    ///
    /// With an API server they are named beforehand, one by one: Lockgate has no permission to read others.
    pub header_configmaps: Option<BTreeSet<NamespacedName>>,
    /// May `ssl-passthrough` pass the TLS connections of a host on?
    pub ssl_passthrough: bool,
    /// The ConfigMap with the ports of TCP that are passed on.
    pub tcp_services: Option<NamespacedName>,
    /// The same for UDP.
    pub udp_services: Option<NamespacedName>,
    /// Ports of TCP that are the process's own and cannot be passed on.
    pub own_ports: BTreeSet<u16>,
    /// The Secret whose certificate serves names that have no other.
    pub default_certificate_secret: Option<NamespacedName>,
    /// The Secret with the certificate of the admission webhook. It is kept like those that Ingresses name.
    pub admission_secret: Option<NamespacedName>,
    /// The Service that answers what no route matches, on its first port.
    pub default_backend_service: Option<NamespacedName>,
    /// A self-signed certificate for the time in which there is no other default certificate.
    pub fake_certificate: Option<Arc<Certificate>>,
    /// Does a default IngressClass take in Ingresses without a class?
    ///
    /// With an API server this is `false`: admission writes the default class into the Ingress when it is created, and
    /// an Ingress that is older than the default class stays without one. A folder has no admission, so its source
    /// sets `true`.
    pub adopt_default_class: bool,
    /// May endpoints be on a loopback address?
    ///
    /// `false` with an API server: nobody who can write an EndpointSlice shall reach the gateway's own loopback
    /// interface. A folder of manifests on a laptop has its backends there, so its source sets `true`.
    pub allow_loopback_endpoints: bool,
    /// Where this process runs, for endpoints that are near.
    pub locality: Locality,
    /// Whom to follow where ingress-nginx and the specification of Ingress disagree; `docs/compat.md` has the table. `None`
    /// follows ingress-nginx, but where following the specification costs its users nothing.
    pub compat: Option<Compat>,
}

/// Whom to follow where ingress-nginx and the specification of Ingress disagree.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Compat {
    /// ingress-nginx.
    Nginx,
    /// The specification.
    Strict,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            controller_name: crds::CONTROLLER_NAME.to_owned(),
            ingress_class: crds::DEFAULT_CLASS_NAME.to_owned(),
            watch_without_class: false,
            annotation_prefixes: [crds::ANNOTATION_PREFIX, crds::NGINX_ANNOTATION_PREFIX]
                .map(|prefix| prefix.trim_end_matches('/').to_owned())
                .into(),
            watch_namespaces: BTreeSet::new(),
            configmap: None,
            header_configmaps: None,
            ssl_passthrough: false,
            tcp_services: None,
            udp_services: None,
            own_ports: BTreeSet::new(),
            default_certificate_secret: None,
            admission_secret: None,
            default_backend_service: None,
            fake_certificate: None,
            adopt_default_class: false,
            allow_loopback_endpoints: false,
            locality: Locality::default(),
            compat: None,
        }
    }
}

impl Settings {
    /// May this ConfigMap hold headers?
    pub(crate) fn reads_headers_of(&self, configmap: &NamespacedName) -> bool {
        let named = self.header_configmaps.as_ref();
        named.is_none_or(|named| named.contains(configmap))
    }

    /// The ConfigMaps with settings and with ports.
    pub fn configmaps(&self) -> BTreeSet<&NamespacedName> {
        let all = [&self.configmap, &self.tcp_services, &self.udp_services];
        all.into_iter().flatten().collect()
    }

    /// The Secrets that the process itself needs, whoever else names them.
    pub fn own_secrets(&self) -> BTreeSet<&NamespacedName> {
        let all = [&self.default_certificate_secret, &self.admission_secret];
        all.into_iter().flatten().collect()
    }

    /// Is an Ingress of this namespace looked at?
    pub(crate) fn watches(&self, namespace: &str) -> bool {
        self.watch_namespaces.is_empty() || self.watch_namespaces.contains(namespace)
    }
}
