//! What differs between two models.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::{BackendId, CertificateId, HostPattern, RoutingModel};

/// The entries of a [`RoutingModel`] that were added, replaced or removed since an earlier one.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Changes {
    /// Keys of [`RoutingModel::hosts`].
    pub hosts: BTreeSet<HostPattern>,
    /// Keys of [`RoutingModel::tls_hosts`].
    pub tls_hosts: BTreeSet<HostPattern>,
    /// Keys of [`RoutingModel::backends`].
    pub backends: BTreeSet<BackendId>,
    /// Keys of [`RoutingModel::endpoints`].
    pub endpoints: BTreeSet<BackendId>,
    /// Keys of [`RoutingModel::certificates`].
    pub certificates: BTreeSet<CertificateId>,
    /// Any of [`RoutingModel::streams`].
    pub streams: bool,
    /// Any of the other fields that are not maps, or the listeners.
    pub globals: bool,
}

impl Changes {
    /// Is there nothing to do?
    pub fn is_empty(&self) -> bool {
        let Self {
            hosts,
            tls_hosts,
            backends,
            endpoints,
            certificates,
            streams,
            globals,
        } = self;
        hosts.is_empty()
            && tls_hosts.is_empty()
            && backends.is_empty()
            && endpoints.is_empty()
            && certificates.is_empty()
            && !streams
            && !globals
    }

    /// Adds what `other` names.
    pub fn extend(&mut self, other: Self) {
        let Self {
            hosts,
            tls_hosts,
            backends,
            endpoints,
            certificates,
            streams,
            globals,
        } = other;
        self.hosts.extend(hosts);
        self.tls_hosts.extend(tls_hosts);
        self.backends.extend(backends);
        self.endpoints.extend(endpoints);
        self.certificates.extend(certificates);
        self.streams |= streams;
        self.globals |= globals;
    }

    /// Compares two models entry by entry. Entries shared by both are not looked into.
    pub fn between(old: &RoutingModel, new: &RoutingModel) -> Self {
        Self {
            hosts: differing(&old.hosts, &new.hosts),
            tls_hosts: differing(&old.tls_hosts, &new.tls_hosts),
            backends: differing(&old.backends, &new.backends),
            endpoints: differing(&old.endpoints, &new.endpoints),
            certificates: differing(&old.certificates, &new.certificates),
            streams: old.streams != new.streams,
            globals: old.listeners != new.listeners
                || old.default_tls != new.default_tls
                || old.fallback != new.fallback
                || old.trust != new.trust
                || old.log_format != new.log_format
                || old.client_bounds != new.client_bounds,
        }
    }
}

fn differing<K: Clone + Ord, V: Eq>(
    old: &BTreeMap<K, Arc<V>>,
    new: &BTreeMap<K, Arc<V>>,
) -> BTreeSet<K> {
    let replaced = new.iter().filter(|(key, value)| {
        old.get(key)
            .is_none_or(|before| !Arc::ptr_eq(before, value) && before != *value)
    });
    let removed = old.iter().filter(|(key, _)| !new.contains_key(key));
    replaced
        .chain(removed)
        .map(|(key, _)| key.clone())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{EndpointSet, VirtualHost};

    #[test]
    fn only_what_differs_is_named() {
        let mut old = RoutingModel::default();
        let host = |text: &str| HostPattern::parse(text).unwrap();
        old.hosts.insert(host("same.test"), Arc::default());
        old.hosts.insert(host("gone.test"), Arc::default());
        let mut new = old.clone();
        new.hosts.remove(&host("gone.test"));
        new.hosts
            .insert(host("new.test"), Arc::new(VirtualHost::default()));
        let id = BackendId::new("a", "b", "c");
        new.endpoints
            .insert(id.clone(), Arc::new(EndpointSet::default()));
        let changes = Changes::between(&old, &new);
        assert_eq!(
            changes.hosts,
            BTreeSet::from([host("gone.test"), host("new.test")])
        );
        assert_eq!(changes.endpoints, BTreeSet::from([id]));
        assert!(!changes.globals);
        assert!(Changes::between(&new, &new.clone()).is_empty());
    }
}
