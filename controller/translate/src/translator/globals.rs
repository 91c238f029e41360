//! What is neither a host nor a backend nor a certificate.

use std::sync::Arc;

use k8s_openapi::api::core::v1::ConfigMap;

use model::{
    Action, BackendId, CertificateId, EndpointSet, ListenerSelector, Origin, PathMatch,
    RareOptions, Route, RouteMatch, TlsHost, WeightedBackend,
};

use super::{SELF_SIGNED, Translator, Work};
use crate::annotation::Annotations;
use crate::configmap::GlobalHeaders;
use crate::headers::Fields;
use crate::report::Reason;
use crate::{NamespacedName, Problem, access, configmap, headers, kinds, route, service};

impl Translator {
    pub(super) fn configmap(&mut self, work: &mut Work) {
        let (mut globals, mut problems) =
            configmap::globals(self.snapshot.configmap().map(Arc::as_ref), &self.settings);
        globals.errors.backend = self.fallback_backend();
        self.global_headers(&mut globals.headers, &mut problems);
        self.settings_problems = problems;
        if globals != self.globals {
            work.backends.extend(self.asked_backend());
            // Ports have some of the settings, too.
            work.ports = true;
            self.globals = globals;
            work.backends.extend(self.asked_backend());
            work.hosts.extend(self.index.hosts().cloned());
            work.reports
                .extend(self.index.users_of_configmaps().cloned());
            work.tls_hosts.extend(self.index.tls_hosts().cloned());
            // Some names have settings only because clients are asked for certificates there.
            work.tls_hosts.extend(self.model.tls_hosts.keys().cloned());
        }
    }

    /// Takes in a ConfigMap beside the one with the settings.
    pub(super) fn header_configmap(
        &mut self,
        name: NamespacedName,
        configmap: Option<ConfigMap>,
        work: &mut Work,
    ) {
        if !self.settings.reads_headers_of(&name) {
            return;
        }
        let before = self.snapshot.header_configmap(&name);
        if before.map(|before| &before.data) == configmap.as_ref().map(|after| &after.data) {
            return;
        }
        let headers = &self.globals.headers;
        let named = [&headers.request_from, &headers.response_from];
        work.configmap |= named.iter().any(|named| named.as_ref() == Some(&name));
        work.header_configmaps.insert(name.clone());
        self.snapshot.set_header_configmap(name, configmap);
    }

    /// The hosts whose headers stand in ConfigMaps that have changed.
    pub(super) fn header_configmaps(&self, work: &mut Work) {
        for configmap in std::mem::take(&mut work.header_configmaps) {
            for user in self.index.users_of_configmap(&configmap) {
                work.reports.insert(user.clone());
                let entry = self.entries.get(user);
                for pattern in entry.into_iter().flat_map(|entry| entry.hosts.keys()) {
                    work.hosts.insert(pattern.clone());
                    work.hosts.extend(self.index.aliases_of(pattern).cloned());
                }
            }
        }
    }

    /// Reads the ConfigMaps that the settings name.
    fn global_headers(&self, headers: &mut GlobalHeaders, problems: &mut Vec<Problem>) {
        headers.readable = self.settings.header_configmaps.clone().map(Arc::new);
        let mut read = |key: &str, from: Option<&NamespacedName>| {
            let Some(name) = from else {
                return Fields::new();
            };
            let mut report = |text: &str| {
                let field = format!("data[{key}]");
                problems.push(Problem::error(Reason::InvalidSetting, &field, text));
            };
            match headers::fields(name, headers, &self.snapshot) {
                Ok(read) => {
                    let (fields, faults) = headers::without_variables(read);
                    for fault in faults {
                        report(&format!("ConfigMap {name}: {fault}; it is left out"));
                    }
                    fields
                }
                Err(why) => {
                    report(&format!("{why}; there are no such headers"));
                    Fields::new()
                }
            }
        };
        let request = read("proxy-set-headers", headers.request_from.as_ref());
        let response = read("add-headers", headers.response_from.as_ref());
        headers.request = request;
        headers.response = response;
    }

    /// The backend that is asked about the requests of everybody.
    pub(super) fn asked_backend(&self) -> Option<BackendId> {
        let external = self.globals.access.external.as_ref().ok()?.as_ref()?;
        external.backend.clone()
    }

    pub(super) fn fallback_backend(&self) -> Option<BackendId> {
        self.settings
            .default_backend_service
            .as_ref()
            .map(service::first_port)
    }

    /// What is neither a host nor a backend nor a certificate.
    pub(super) fn globals(&mut self, work: &mut Work) {
        let default_tls = self.default_tls();
        let fallback = self.fallback();
        let model = &mut self.model;
        if model.default_tls != default_tls
            || model.fallback != fallback
            || model.trust != self.globals.trust
            || model.log_format != self.globals.log_format
            || model.client_bounds != self.globals.client_bounds
            || model.refuse_unknown_names != self.globals.refuse_unknown_names
        {
            model.default_tls = default_tls;
            model.fallback = fallback;
            model.trust = self.globals.trust.clone();
            model.log_format.clone_from(&self.globals.log_format);
            model.client_bounds = self.globals.client_bounds;
            model.refuse_unknown_names = self.globals.refuse_unknown_names;
            work.outcome.changes.globals = true;
        }
    }

    pub(super) fn default_tls(&self) -> Option<Arc<TlsHost>> {
        let of_secret = self
            .settings
            .default_certificate_secret
            .as_ref()
            .filter(|name| self.snapshot.certificate(name).is_some());
        let (certificate, origin) = if let Some(name) = of_secret {
            let object = name.reference(kinds::SECRET);
            let id = CertificateId::secret(&name.namespace, &name.name);
            (id, Origin::new(object, ""))
        } else {
            self.settings.fake_certificate.as_ref()?;
            (CertificateId::new(SELF_SIGNED), Origin::default())
        };
        Some(Arc::new(TlsHost {
            certificates: vec![certificate],
            policy: self.globals.tls.clone(),
            origin,
        }))
    }

    /// Without an endpoint the built-in page answers, as with ingress-nginx.
    pub(super) fn fallback(&self) -> Option<Arc<Route>> {
        let service = self.settings.default_backend_service.as_ref()?;
        let id = self.fallback_backend()?;
        match self.model.endpoints.get(&id).map(Arc::as_ref) {
            Some(EndpointSet::Addresses(addresses)) if !addresses.is_empty() => {}
            Some(EndpointSet::Dns { .. }) => {}
            Some(EndpointSet::Addresses(_) | EndpointSet::Invalid(_)) | None => return None,
        }
        let mut filters = route::filters(&Annotations::default(), false, &self.globals);
        let access = access::of_all(&self.globals);
        let action = match &access {
            Err(reason) => Action::Respond {
                status: 503,
                reason: (*reason).to_owned(),
            },
            Ok(_) => Action::Forward(vec![WeightedBackend {
                backend: id,
                weight: 1,
            }]),
        };
        filters.extend(access.into_iter().flatten());
        filters.splice(0..0, self.globals.access.refusals());
        Some(Arc::new(Route {
            matches: RouteMatch::path(PathMatch::everything()),
            listeners: ListenerSelector::All,
            filters: filters.into(),
            action,
            timeouts: self.globals.timeouts,
            body_limit: self.globals.body_limit,
            options: RareOptions::default(),
            origin: Origin::new(service.reference(kinds::SERVICE), ""),
        }))
    }
}
