//! TLS by server name.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use model::{CertificateId, Changes, HostPattern, RoutingModel, TlsHost};
use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, aws_lc_rs};

use crate::certificates::{self, HostCertificates, LoadedCertificate};
use crate::clients::ClientVerifier;
use crate::hosts::{self, HostMap, Patterned};
use crate::policies::{Base, Policies, PolicyId};
use crate::reject::{Part, Reject, Rejects};
use crate::shards::{Keyed, Sharded};
use crate::text::Text;

/// How TLS is spoken with the clients that ask for the names of one pattern.
pub struct TlsEntry {
    /// The pattern; `None` for the default.
    pub pattern: Option<HostPattern>,
    /// The policy that `config` implements.
    pub policy: PolicyId,
    /// The same for all policies that differ only in what is made of certificates of clients.
    pub transport: PolicyId,
    /// Judges the certificates of clients, where they are asked for.
    pub clients: Option<Arc<ClientVerifier>>,
    /// Everything that rustls needs for the handshake.
    pub config: Arc<ServerConfig>,
}

impl fmt::Debug for TlsEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsEntry")
            .field("pattern", &self.pattern)
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}

/// A compiled entry with what it was made from.
pub(crate) struct TlsState {
    key: Text,
    pattern: Arc<HostPattern>,
    pub(crate) source: Arc<TlsHost>,
    /// `None` refuses handshakes.
    pub(crate) entry: Option<Arc<TlsEntry>>,
    /// The certificates that serve.
    pub(crate) served: Vec<Arc<LoadedCertificate>>,
    /// They are the default's, for want of own ones.
    pub(crate) by_default: bool,
    /// Keeps ticket keys and sessions for the next table.
    _base: Option<Arc<Base>>,
}

impl Patterned for TlsState {
    fn pattern(&self) -> &HostPattern {
        &self.pattern
    }

    fn key(&self) -> &Text {
        &self.key
    }
}

/// Which entries name a certificate.
#[derive(Clone)]
struct Users {
    certificate: CertificateId,
    patterns: Arc<BTreeSet<Arc<HostPattern>>>,
}

impl Keyed for Users {
    type Key = CertificateId;

    fn key(&self) -> &CertificateId {
        &self.certificate
    }
}

/// All that a table knows about TLS.
#[derive(Clone)]
pub(crate) struct Tls {
    provider: Arc<CryptoProvider>,
    policies: Policies,
    certificates: Sharded<Arc<LoadedCertificate>>,
    users: Sharded<Users>,
    hosts: HostMap<TlsState>,
    default: Option<Arc<TlsState>>,
    /// Names without an entry do not get the default.
    refuse_unknown: bool,
    /// Entries that have the default's certificates.
    by_default: Arc<BTreeSet<Arc<HostPattern>>>,
}

/// Configurations made during one compilation, by policy and certificates: many hosts behind one wildcard
/// certificate share one. Addresses stand for certificates, which all live until the compilation ends.
type Configs = BTreeMap<(PolicyId, Vec<usize>), Arc<ServerConfig>>;

impl Tls {
    pub(crate) fn new() -> Self {
        Self {
            provider: Arc::new(aws_lc_rs::default_provider()),
            policies: Policies::new(),
            certificates: Sharded::new(),
            users: Sharded::new(),
            hosts: HostMap::new(),
            default: None,
            refuse_unknown: false,
            by_default: Arc::default(),
        }
    }

    pub(crate) fn find(&self, server_name: Option<&str>) -> Option<&Arc<TlsEntry>> {
        let state = match server_name {
            Some(name) => self.hosts.find(name),
            None => self.hosts.any(),
        };
        let default = self.default.as_ref().filter(|_| !self.refuse_unknown);
        state.or(default)?.entry.as_ref()
    }

    /// The pattern whose entry decides about a name, unless that is the default.
    pub(crate) fn pattern_for(&self, server_name: &str) -> Option<&HostPattern> {
        self.hosts.find(server_name).map(|state| state.pattern())
    }

    pub(crate) fn default(&self) -> Option<&Arc<TlsState>> {
        self.default.as_ref()
    }

    pub(crate) fn hosts(&self) -> impl Iterator<Item = &Arc<TlsState>> {
        self.hosts.iter()
    }

    pub(crate) fn certificates(&self) -> impl Iterator<Item = &Arc<LoadedCertificate>> {
        self.certificates.iter()
    }

    /// Compiles what `changes` names, and what depends on it.
    pub(crate) fn update(
        &mut self,
        model: &RoutingModel,
        changes: &Changes,
        rejects: &mut Rejects,
    ) {
        let mut configs = Configs::new();
        let mut affected: BTreeSet<Arc<HostPattern>> =
            changes.tls_hosts.iter().cloned().map(Arc::new).collect();
        for id in &changes.certificates {
            self.load_certificate(id, model, rejects);
            if let Some(users) = self.users.get(id) {
                affected.extend(users.patterns.iter().cloned());
            }
        }
        self.refuse_unknown = model.refuse_unknown_names;
        if self.default_is_affected(changes) {
            self.compile_default(model.default_tls.as_ref(), &mut configs, rejects);
            affected.extend(self.by_default.iter().cloned());
        }
        for pattern in affected {
            self.compile_host(
                &pattern,
                model.tls_hosts.get(&pattern),
                &mut configs,
                rejects,
            );
        }
    }

    fn default_is_affected(&self, changes: &Changes) -> bool {
        changes.globals
            || self.default.as_ref().is_some_and(|default| {
                let named = &default.source.certificates;
                named.iter().any(|id| changes.certificates.contains(id))
            })
    }

    fn load_certificate(
        &mut self,
        id: &CertificateId,
        model: &RoutingModel,
        rejects: &mut Rejects,
    ) {
        let mut faults = Vec::new();
        if let Some(source) = model.certificates.get(id) {
            let key = certificates::load(source, &self.provider)
                .map_err(|fault| {
                    faults.push(Reject {
                        origin: source.origin.clone(),
                        reason: format!("{fault}; hosts that name it are served with another one of theirs, or with the default"),
                    });
                })
                .ok();
            self.certificates.insert(Arc::new(LoadedCertificate {
                id: id.clone(),
                source: Arc::clone(source),
                key: key.map(|loaded| loaded.key),
            }));
        } else {
            self.certificates.remove(id);
        }
        rejects.set(Part::Certificate(id.clone()), faults);
    }

    fn compile_default(
        &mut self,
        source: Option<&Arc<TlsHost>>,
        configs: &mut Configs,
        rejects: &mut Rejects,
    ) {
        // First without: the default has nothing to fall back to.
        self.default = None;
        let mut faults = Vec::new();
        self.default = source.map(|source| {
            let pattern = Arc::new(HostPattern::Any);
            Arc::new(self.compile_state(&pattern, None, source, configs, &mut faults))
        });
        rejects.set(Part::DefaultTls, faults);
    }

    fn compile_host(
        &mut self,
        pattern: &Arc<HostPattern>,
        source: Option<&Arc<TlsHost>>,
        configs: &mut Configs,
        rejects: &mut Rejects,
    ) {
        let mut faults = Vec::new();
        let state = source.map(|source| {
            let entry_pattern = Some(HostPattern::clone(pattern));
            self.compile_state(pattern, entry_pattern, source, configs, &mut faults)
        });
        let by_default = state.as_ref().is_some_and(|state| state.by_default);
        let before = match state {
            Some(state) => self.hosts.insert(Arc::new(state)),
            None => self.hosts.remove(pattern),
        };
        let before = before.map(|state| Arc::clone(&state.source));
        self.update_users(pattern, before.as_deref(), source.map(|source| &**source));
        if by_default != self.by_default.contains(pattern) {
            let set = Arc::make_mut(&mut self.by_default);
            if by_default {
                set.insert(Arc::clone(pattern));
            } else {
                set.remove(pattern);
            }
        }
        rejects.set(Part::TlsHost(HostPattern::clone(pattern)), faults);
    }

    fn compile_state(
        &mut self,
        pattern: &Arc<HostPattern>,
        entry_pattern: Option<HostPattern>,
        source: &Arc<TlsHost>,
        configs: &mut Configs,
        faults: &mut Vec<Reject>,
    ) -> TlsState {
        let own = source
            .certificates
            .iter()
            .filter_map(|id| self.certificates.get(id));
        let mut served: Vec<_> = own
            .filter(|certificate| certificate.key.is_some())
            .cloned()
            .collect();
        let by_default = served.is_empty();
        if let (true, Some(default)) = (by_default, &self.default) {
            served.clone_from(&default.served);
        }
        let base = self
            .policies
            .get_or_make(&source.policy, || Base::new(&source.policy, &self.provider))
            // Serving with weaker settings than were asked for is worse than not serving.
            .map_err(|fault| {
                faults.push(Reject {
                    origin: source.origin.clone(),
                    reason: format!("{fault}; TLS handshakes for `{pattern}` are refused"),
                });
            })
            .ok();
        let entry = base.as_ref().filter(|_| !served.is_empty()).map(|base| {
            Arc::new(TlsEntry {
                pattern: entry_pattern,
                policy: base.id,
                transport: base.transport,
                clients: base.clients.clone(),
                config: config_for(base, &served, configs),
            })
        });
        TlsState {
            key: hosts::key(pattern),
            pattern: Arc::clone(pattern),
            source: Arc::clone(source),
            entry,
            served,
            by_default,
            _base: base,
        }
    }

    fn update_users(
        &mut self,
        pattern: &Arc<HostPattern>,
        before: Option<&TlsHost>,
        after: Option<&TlsHost>,
    ) {
        let named = |host: Option<&TlsHost>| -> BTreeSet<CertificateId> {
            host.map(|host| host.certificates.iter().cloned().collect())
                .unwrap_or_default()
        };
        let (before, after) = (named(before), named(after));
        for id in before.symmetric_difference(&after) {
            let mut users = self.users.remove(id).unwrap_or_else(|| Users {
                certificate: id.clone(),
                patterns: Arc::default(),
            });
            let patterns = Arc::make_mut(&mut users.patterns);
            if after.contains(id) {
                patterns.insert(Arc::clone(pattern));
            } else {
                patterns.remove(pattern);
            }
            if !patterns.is_empty() {
                self.users.insert(users);
            }
        }
    }
}

fn config_for(
    base: &Base,
    served: &[Arc<LoadedCertificate>],
    configs: &mut Configs,
) -> Arc<ServerConfig> {
    let addresses = served
        .iter()
        .map(|certificate| Arc::as_ptr(certificate).addr())
        .collect();
    let config = configs.entry((base.id, addresses)).or_insert_with(|| {
        let served = served.iter().cloned().collect();
        let resolver = HostCertificates::new(served, Arc::clone(base.provider()));
        Arc::new(base.with_certificates(Arc::new(resolver)))
    });
    Arc::clone(config)
}

#[cfg(test)]
mod tests {
    use model::TlsPolicy;

    use super::*;

    #[test]
    fn nothing_is_kept_of_hosts_that_are_gone() {
        let host = |certificates: &[&str]| {
            Arc::new(TlsHost {
                certificates: certificates
                    .iter()
                    .map(|id| CertificateId::new(id))
                    .collect(),
                policy: TlsPolicy::default(),
                origin: model::Origin::default(),
            })
        };
        let mut model = RoutingModel::default();
        let mut tls = Tls::new();
        let mut rejects = Rejects::default();
        let pattern = HostPattern::parse("a.test").unwrap();
        for certificates in [&["x", "y"][..], &["y", "y", "z"], &[]] {
            let before = model.clone();
            model.tls_hosts.insert(pattern.clone(), host(certificates));
            tls.update(&model, &Changes::between(&before, &model), &mut rejects);
            let mut named: Vec<_> = certificates.iter().collect();
            named.dedup();
            assert_eq!(tls.users.len(), named.len());
            assert_eq!(tls.by_default.len(), 1);
        }
        let before = std::mem::take(&mut model);
        tls.update(&model, &Changes::between(&before, &model), &mut rejects);
        assert_eq!(tls.users.len(), 0);
        assert_eq!(tls.by_default.len(), 0);
        assert!(tls.hosts.iter().next().is_none());
    }
}
