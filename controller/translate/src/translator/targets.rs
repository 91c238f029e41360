//! Certificates and backends: what routes and TLS hosts point to.

use std::sync::Arc;

use model::CertificateId;

use super::{BackendState, SecretChange, Translator, Work, problems, replace};
use crate::{health, service};

impl Translator {
    /// Takes in a Secret that somebody wants; whether that is so still is found out when everything is settled. Others wait.
    pub(super) fn secret(
        &mut self,
        change: SecretChange,
        work: &mut Work,
        waiting: &mut Vec<SecretChange>,
    ) {
        if !self.wanted.contains(change.name()) {
            waiting.push(change);
            return;
        }
        match change {
            SecretChange::Apply(name, secret) => {
                self.snapshot.put_secret(&name, &secret);
                work.secrets.insert(name);
            }
            SecretChange::Delete(name) => {
                self.snapshot.remove_secret(&name);
                work.secrets.insert(name);
            }
        }
    }

    /// Settles who is wanted, then takes in what came.
    pub(super) fn secrets(&mut self, changes: Vec<SecretChange>, work: &mut Work) {
        for name in &work.secrets {
            let wanted = self.settings.own_secrets().contains(name) || self.index.uses_secret(name);
            if wanted && self.wanted.insert(name.clone()) {
                work.outcome.secrets_wanted.insert(name.clone());
            } else if !wanted && self.wanted.remove(name) {
                work.outcome.secrets_unwanted.insert(name.clone());
                self.snapshot.forget_secret(name);
            }
        }
        let mut unwanted = Vec::new();
        for change in changes {
            self.secret(change, work, &mut unwanted);
        }
        for name in std::mem::take(&mut work.secrets) {
            let id = CertificateId::secret(&name.namespace, &name.name);
            let certificate = self.snapshot.certificate(&name).cloned();
            if replace(&mut self.model.certificates, &id, certificate) {
                work.outcome.changes.certificates.insert(id);
            }
            work.reports
                .extend(self.index.users_of_secret(&name).cloned());
            for user in self.index.users_of_secret(&name) {
                let entry = self.entries.get(user).map(|entry| &**entry);
                let asks = entry.filter(|entry| {
                    let basic = entry.basic.as_ref().map(|basic| &basic.secret);
                    let tls = entry
                        .backend_tls
                        .as_ref()
                        .and_then(|tls| tls.secret.as_ref());
                    let clients = entry
                        .clients
                        .as_ref()
                        .and_then(|clients| clients.secret.as_ref());
                    [basic, tls, clients].contains(&Some(&name))
                });
                let checks = |entry: &&crate::ingress::Entry| {
                    let health = entry.annotations.health.as_ref();
                    health.is_some_and(|health| health.check.is_some())
                };
                // Their checks speak TLS with it.
                if let Some(entry) = entry.filter(checks) {
                    work.backends.extend(entry.backends.keys().cloned());
                }
                for pattern in asks.into_iter().flat_map(|entry| entry.hosts.keys()) {
                    work.hosts.insert(pattern.clone());
                    work.hosts.extend(self.index.aliases_of(pattern).cloned());
                    if self.index.has_clients() {
                        work.tls_hosts.insert(pattern.clone());
                        work.tls_hosts
                            .extend(self.index.aliases_of(pattern).cloned());
                    }
                }
            }
            self.report_own_secret(&name, work);
        }
    }

    pub(super) fn backends(&mut self, work: &mut Work) {
        let (fallback, asked) = (self.fallback_backend(), self.asked_backend());
        for service in &work.services {
            let of_service = problems::backends_of(&self.model.backends, service).map(|(id, _)| id);
            work.backends.extend(of_service.cloned());
        }
        let mut services = std::mem::take(&mut work.services);
        for id in std::mem::take(&mut work.backends) {
            services.insert(service::service_of(&id));
            let used = self.index.uses_backend(&id)
                || fallback.as_ref() == Some(&id)
                || asked.as_ref() == Some(&id)
                || self.ports.uses(&id);
            let (backend, endpoints, state) = if used {
                let mut resolved = service::resolve(&id, &self.snapshot, &self.settings);
                let users = self.index.users_of_backend(&id);
                let users = users.filter_map(|name| Some(&**self.entries.get(name)?));
                resolved.backend.health = health::of(&id, users, &self.snapshot).map(Arc::new);
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
                // Somebody's word may count that did not before.
                work.reports
                    .extend(self.index.users_of_backend(&id).cloned());
            }
            if replace(&mut self.model.endpoints, &id, endpoints) {
                work.outcome.changes.endpoints.insert(id.clone());
            }
            let remark = state.as_ref().and_then(|state| state.remark.clone());
            let before = match state {
                Some(state) if state.remark.is_some() || !state.slices.is_empty() => {
                    self.backends.insert(id.clone(), state)
                }
                Some(_) | None => self.backends.remove(&id),
            };
            if before.and_then(|state| state.remark) != remark {
                work.reports
                    .extend(self.index.users_of_backend(&id).cloned());
                // Nothing else about a port differs for that.
                work.ports |= self.ports.uses(&id);
            }
        }
        self.report_slices(&services, work);
    }
}
