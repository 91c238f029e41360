//! The problems of one object, gathered from everything that it has a part in.

use std::collections::{BTreeMap, BTreeSet};

use model::{BackendId, ObjectRef};

use super::{Translator, Work};
use crate::annotation::Verify;
use crate::ingress::Entry;
use crate::ingress::tls::TlsEntry;
use crate::policy;
use crate::report::{Problem, Reason, RevocationTerm};
use crate::secret::{self, SecretFault, UsersFault};
use crate::service::Remark;
use crate::{NamespacedName, backend_tls, headers, health, kinds, permit};

impl Translator {
    /// Writes the reports that have to be written anew.
    pub(super) fn reports(&mut self, work: &mut Work) {
        for name in std::mem::take(&mut work.reports) {
            let problems = self
                .entries
                .get(&name)
                .map(|entry| self.problems_of(entry))
                .unwrap_or_default();
            let term = self
                .entries
                .get(&name)
                .and_then(|entry| self.revocation_of(entry));
            let object = name.reference(kinds::INGRESS);
            let later = self.report.set_revocation(&object, term);
            if self.report.set_problems(&object, problems) || later {
                work.outcome.touched.insert(object);
            }
        }
        for name in std::mem::take(&mut work.policies) {
            let policy = self.snapshot.policies().get(&name);
            let problems = policy.map(|policy| policy::problems(&policy.spec));
            let object = name.reference(kinds::ROUTE_POLICY);
            if self
                .report
                .set_problems(&object, problems.unwrap_or_default())
            {
                work.outcome.touched.insert(object);
            }
        }
        for name in std::mem::take(&mut work.gateway_policies) {
            let policy = self.snapshot.gateway_policies().get(&name);
            let problems = policy
                .map(|policy| permit::problems(&policy.spec, self.index.violators(&name)))
                .unwrap_or_default();
            let object = ObjectRef::new(kinds::GATEWAY_POLICY, "", &name);
            if self.report.set_problems(&object, problems) {
                work.outcome.touched.insert(object);
            }
        }
        self.report_fallback(work);
        self.report_configmaps(work);
    }

    /// What is wrong with the server that the settings name.
    pub(super) fn asked_backend_problem(&self) -> Option<Problem> {
        let asked = self.asked_backend();
        let state = asked.as_ref().and_then(|id| self.backends.get(id));
        match &state?.remark {
            Some(Remark::Fault(reason, text)) => Some(Problem::error(
                *reason,
                "data[global-auth-url]",
                &format!(
                    "{text}; routes whose Ingress has no `auth-url` of its own answer 503 rather than without it"
                ),
            )),
            Some(Remark::Hint(..)) | None => None,
        }
    }

    /// The time of the revocation lists that it asks for.
    fn revocation_of(&self, entry: &Entry) -> Option<RevocationTerm> {
        let part = entry.clients.as_deref()?;
        let secret = part
            .secret
            .as_ref()
            .filter(|_| part.verify != Verify::Off)?;
        let (not_before, not_after) = self.snapshot.clients(secret).ok()?.validity?;
        Some(RevocationTerm {
            secret: secret.clone(),
            not_before,
            not_after,
        })
    }

    fn problems_of(&self, entry: &Entry) -> Vec<Problem> {
        let mut problems = entry.problems.clone();
        let lost = |losers: Option<&crate::conflict::Losers>| {
            losers
                .and_then(|losers| losers.get(&entry.rank.name))
                .cloned()
                .unwrap_or_default()
        };
        for pattern in entry.hosts.keys().chain(entry.aliases.keys()) {
            problems.extend(lost(self.host_losers.get(pattern)));
        }
        for pattern in entry.tls_hosts() {
            problems.extend(lost(self.tls_losers.get(pattern)));
        }
        for (id, naming) in entry.backends.iter() {
            let remark = self
                .backends
                .get(id)
                .and_then(|state| state.remark.as_ref());
            let copied = entry.mirror.as_ref().and_then(|to| to.backend.as_ref());
            if copied == Some(id) {
                problems.extend(remark.map(Remark::problem_of_copies));
            }
            if naming.count > 0 {
                problems.extend(remark.map(|remark| remark.problem(naming)));
            }
            let backend = self.model.backends.get(id);
            let counts = backend.and_then(|backend| backend.health.as_deref());
            problems.extend(health::overruled(entry, id, counts));
        }
        if let Some(basic) = &entry.basic
            && let Err(fault) = self.snapshot.users(&basic.secret, basic.form)
        {
            let reason = match fault {
                UsersFault::Missing => Reason::SecretNotFound,
                UsersFault::NoFile | UsersFault::NoMap | UsersFault::Nobody => {
                    Reason::InvalidSecret
                }
            };
            problems.push(Problem::error(
                reason,
                "metadata.annotations",
                &format!(
                    "`auth-secret`, Secret {}: {fault}; the routes of this Ingress answer 503 rather than without it",
                    basic.secret
                ),
            ));
        }
        for (annotation, fault) in [
            (
                "custom-headers",
                headers::custom(entry, &self.globals, &self.snapshot).err(),
            ),
            (
                "auth-proxy-set-headers",
                headers::asked(entry, &self.globals, &self.snapshot).err(),
            ),
        ] {
            problems.extend(fault.map(|fault| {
                Problem::error(
                    Reason::InvalidConfigMap,
                    "metadata.annotations",
                    &format!("`{annotation}`: {fault}; the routes of this Ingress answer 503 rather than without it"),
                )
            }));
        }
        if let Some(part) = &entry.backend_tls
            && let Some(secret) = &part.secret
            && let Err(fault) = backend_tls::of(part, &self.snapshot)
        {
            problems.push(Problem::error(
                reason(&fault),
                "metadata.annotations",
                &format!(
                    "`proxy-ssl-secret`, Secret {secret}: {fault}; the routes of this Ingress answer 503 rather than without it"
                ),
            ));
        }
        if let Some(part) = &entry.clients
            && let Some(secret) = &part.secret
            && let Err(fault) = self.snapshot.clients(secret)
        {
            problems.push(Problem::error(
                reason(&fault),
                "metadata.annotations",
                &format!(
                    "`auth-tls-secret`, Secret {secret}: {fault}; the hosts of this Ingress answer 503 rather than without it"
                ),
            ));
        }
        for tls in &entry.tls {
            problems.extend(self.secret_problem(tls));
        }
        problems
    }

    fn secret_problem(&self, tls: &TlsEntry) -> Option<Problem> {
        let name = tls.secret.as_ref()?;
        let field = format!("{}.secretName", tls.field);
        let certificate = self.snapshot.certificate(name);
        if let Some(fault) = self.snapshot.secret_fault(name) {
            let consequence = if certificate.is_some() {
                "its last good version goes on serving"
            } else {
                "the default certificate serves instead"
            };
            return Some(Problem::error(
                reason(fault),
                &field,
                &format!("Secret {name}: {fault}; {consequence}"),
            ));
        }
        let certificate = certificate?;
        let mut missed = tls
            .hosts
            .iter()
            .filter(|pattern| !secret::covers(certificate, pattern));
        let first = missed.next()?;
        let more = match missed.count() {
            0 => String::new(),
            more => format!(" (and {more} others)"),
        };
        Some(Problem::warning(
            Reason::CertificateMismatch,
            &field,
            &format!(
                "the certificate of Secret {name} does not name host `{first}`{more}; it is served, but clients will refuse it"
            ),
        ))
    }

    /// Secrets that the process itself needs have no Ingress to report on, so they get their problems themselves.
    pub(super) fn report_own_secret(&mut self, name: &NamespacedName, work: &mut Work) {
        if !self.settings.own_secrets().contains(name) {
            return;
        }
        let mut problems = Vec::new();
        if let Some(fault) = self.snapshot.secret_fault(name) {
            let is_served = self.snapshot.certificate(name).is_some();
            for (secret, what, without) in [
                (
                    &self.settings.default_certificate_secret,
                    "the default certificate",
                    "a self-signed certificate serves instead",
                ),
                (
                    &self.settings.admission_secret,
                    "the certificate of the admission webhook",
                    "nothing is reviewed",
                ),
            ] {
                if secret.as_ref() != Some(name) {
                    continue;
                }
                let consequence = if is_served {
                    "its last good version goes on serving"
                } else {
                    without
                };
                problems.push(Problem::error(
                    reason(fault),
                    "",
                    &format!("{what} cannot be used: {fault}; {consequence}"),
                ));
            }
        }
        let object = name.reference(kinds::SECRET);
        if self.report.set_problems(&object, problems) {
            work.outcome.touched.insert(object);
        }
    }

    /// The same for the Service that answers what no route matches.
    fn report_fallback(&mut self, work: &mut Work) {
        let (Some(name), Some(id)) = (
            &self.settings.default_backend_service,
            self.fallback_backend(),
        ) else {
            return;
        };
        let remark = self
            .backends
            .get(&id)
            .and_then(|state| state.remark.as_ref());
        let problem = match remark {
            Some(Remark::Fault(reason, text)) => Some(Problem::error(
                *reason,
                "",
                &format!(
                    "the default backend cannot be used: {text}; requests that match nothing get the built-in 404"
                ),
            )),
            Some(Remark::Hint(..)) | None => None,
        };
        let object = name.reference(kinds::SERVICE);
        if self
            .report
            .set_problems(&object, problem.into_iter().collect())
        {
            work.outcome.touched.insert(object);
        }
    }

    /// The problems of the slices of these Services, from all their backends.
    pub(super) fn report_slices(&mut self, services: &BTreeSet<NamespacedName>, work: &mut Work) {
        let mut reports: BTreeMap<ObjectRef, Vec<Problem>> = BTreeMap::new();
        // A slice may have moved from one Service to another: forget first, then report.
        for service in services {
            let forgotten = self.slices_reported.remove(service).into_iter().flatten();
            reports.extend(forgotten.map(|object| (object, Vec::new())));
        }
        for service in services {
            let mut found: BTreeMap<&ObjectRef, BTreeSet<&Problem>> = BTreeMap::new();
            for (object, problem) in
                backends_of(&self.backends, service).flat_map(|(_, state)| &state.slices)
            {
                found.entry(object).or_default().insert(problem);
            }
            if !found.is_empty() {
                let objects = found.keys().map(|object| (*object).clone()).collect();
                self.slices_reported.insert(service.clone(), objects);
            }
            for (object, problems) in found {
                reports.insert(object.clone(), problems.into_iter().cloned().collect());
            }
        }
        for (object, problems) in reports {
            if self.report.set_problems(&object, problems) {
                work.outcome.touched.insert(object);
            }
        }
    }
}

/// The backends of one Service.
pub(super) fn backends_of<'a, V>(
    backends: &'a BTreeMap<BackendId, V>,
    service: &NamespacedName,
) -> impl Iterator<Item = (&'a BackendId, &'a V)> {
    backends
        .range(BackendId::new(&service.namespace, &service.name, "")..)
        .take_while(|(id, _)| *id.namespace == *service.namespace && *id.service == *service.name)
}

fn reason(fault: &SecretFault) -> Reason {
    match fault {
        SecretFault::Missing => Reason::SecretNotFound,
        SecretFault::Empty(_)
        | SecretFault::Pem(..)
        | SecretFault::Nothing(..)
        | SecretFault::Encrypted
        | SecretFault::Certificate { .. }
        | SecretFault::Algorithm(_)
        | SecretFault::Key
        | SecretFault::Order(_)
        | SecretFault::Authority(_)
        | SecretFault::NoAuthority(_)
        | SecretFault::RevocationList { .. }
        | SecretFault::Mismatch => Reason::InvalidSecret,
    }
}
