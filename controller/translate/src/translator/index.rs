//! Which Ingresses have a part in what.

use std::collections::{BTreeMap, BTreeSet};

use model::{BackendId, HostPattern, WildcardDepth};

use crate::NamespacedName;
use crate::few::{Few, dense};
use crate::ingress::{Entry, Rank};

static NOBODY: Few<Rank> = Few::new();

/// Which Ingresses have a part in what. Hosts list them in the order of their rank.
#[derive(Debug, Default)]
pub(super) struct Index {
    hosts: BTreeMap<HostPattern, Few<Rank>>,
    tls_hosts: BTreeMap<HostPattern, Few<Rank>>,
    /// Names that stand for other hosts, with the Ingresses that say so.
    aliases: BTreeMap<HostPattern, Few<Rank>>,
    /// The names that stand for a host.
    aliases_of: BTreeMap<HostPattern, Few<HostPattern>>,
    /// Exact hosts by the name behind their first label, which is what a wildcard covers.
    below: BTreeMap<Box<str>, Few<HostPattern>>,
    backends: BTreeMap<BackendId, Few<NamespacedName>>,
    secrets: BTreeMap<NamespacedName, Few<NamespacedName>>,
    /// ConfigMaps with headers.
    configmaps: BTreeMap<NamespacedName, Few<NamespacedName>>,
    /// By the `RoutePolicy` that they name.
    policies: BTreeMap<NamespacedName, Few<NamespacedName>>,
    /// Those that make something of certificates of clients.
    clients: BTreeSet<NamespacedName>,
    /// By the policies of kind `GatewayPolicy` to which they do not keep.
    violators: BTreeMap<Box<str>, Few<NamespacedName>>,
}

impl Index {
    pub(super) fn insert(&mut self, entry: &Entry) {
        let name = &entry.rank.name;
        for pattern in entry.hosts.keys() {
            put(&mut self.hosts, pattern, &entry.rank);
            self.note_parent(pattern);
        }
        for (pattern, alias) in entry.aliases.iter() {
            put(&mut self.aliases, pattern, &entry.rank);
            put(&mut self.aliases_of, &alias.of, pattern);
            self.note_parent(pattern);
        }
        for pattern in entry.tls_hosts() {
            put(&mut self.tls_hosts, pattern, &entry.rank);
        }
        for id in entry.backends.keys() {
            put(&mut self.backends, id, name);
        }
        for secret in entry.secrets() {
            put(&mut self.secrets, secret, name);
        }
        for configmap in entry.header_configmaps.iter() {
            put(&mut self.configmaps, configmap, name);
        }
        if let Some(policy) = policy_of(entry) {
            put(&mut self.policies, &policy, name);
        }
        if entry.clients.is_some() {
            self.clients.insert(name.clone());
        }
        for policy in &entry.violates {
            put(&mut self.violators, policy, name);
        }
    }

    pub(super) fn remove(&mut self, entry: &Entry) {
        let name = &entry.rank.name;
        for pattern in entry.hosts.keys() {
            take(&mut self.hosts, pattern, &entry.rank);
            self.forget_parent(pattern);
        }
        for (pattern, alias) in entry.aliases.iter() {
            take(&mut self.aliases, pattern, &entry.rank);
            if !self.aliases.contains_key(pattern) {
                take(&mut self.aliases_of, &alias.of, pattern);
            }
            self.forget_parent(pattern);
        }
        for pattern in entry.tls_hosts() {
            take(&mut self.tls_hosts, pattern, &entry.rank);
        }
        for id in entry.backends.keys() {
            take(&mut self.backends, id, name);
        }
        for secret in entry.secrets() {
            take(&mut self.secrets, secret, name);
        }
        for configmap in entry.header_configmaps.iter() {
            take(&mut self.configmaps, configmap, name);
        }
        if let Some(policy) = policy_of(entry) {
            take(&mut self.policies, &policy, name);
        }
        self.clients.remove(name);
        for policy in &entry.violates {
            take(&mut self.violators, policy, name);
        }
    }

    /// Makes the large trees anew.
    pub(super) fn make_dense(&mut self) {
        dense(&mut self.hosts);
        dense(&mut self.tls_hosts);
        dense(&mut self.below);
        dense(&mut self.backends);
        dense(&mut self.secrets);
    }

    /// The Ingresses that name a ConfigMap with headers.
    pub(super) fn users_of_configmap(
        &self,
        name: &NamespacedName,
    ) -> impl Iterator<Item = &NamespacedName> {
        self.configmaps.get(name).into_iter().flat_map(Few::iter)
    }

    /// The Ingresses that name a `RoutePolicy`.
    pub(super) fn users_of_policy(
        &self,
        name: &NamespacedName,
    ) -> impl Iterator<Item = &NamespacedName> {
        self.policies.get(name).into_iter().flat_map(Few::iter)
    }

    /// The Ingresses that name any.
    pub(super) fn users_of_configmaps(&self) -> impl Iterator<Item = &NamespacedName> {
        self.configmaps.values().flat_map(Few::iter)
    }

    /// Does anybody make something of certificates of clients?
    pub(super) fn has_clients(&self) -> bool {
        !self.clients.is_empty()
    }

    /// The names with routes or with TLS settings that may get theirs from this pattern.
    pub(super) fn names_below(&self, pattern: &HostPattern) -> Vec<HostPattern> {
        let below: &dyn Fn(&HostPattern) -> bool = match pattern {
            HostPattern::Exact(_) => return Vec::new(),
            HostPattern::Wildcard { .. } => &|name| match name {
                HostPattern::Exact(name) => pattern.matches(name.as_str()),
                HostPattern::Wildcard { .. } | HostPattern::Any => false,
            },
            HostPattern::Any => &|name| *name != HostPattern::Any,
        };
        let routed = self.hosts.keys().chain(self.aliases.keys());
        let all = routed.chain(self.tls_hosts.keys());
        all.filter(|name| below(name)).cloned().collect()
    }

    fn note_parent(&mut self, pattern: &HostPattern) {
        if let Some(parent) = parent(pattern) {
            self.below
                .entry(parent.into())
                .or_default()
                .insert(pattern.clone());
        }
    }

    fn forget_parent(&mut self, pattern: &HostPattern) {
        if !self.hosts.contains_key(pattern)
            && !self.aliases.contains_key(pattern)
            && let Some(parent) = parent(pattern)
        {
            take(&mut self.below, &Box::from(parent), pattern);
        }
    }

    /// Hosts and the names that stand for some.
    pub(super) fn hosts(&self) -> impl Iterator<Item = &HostPattern> {
        self.hosts.keys().chain(self.aliases.keys())
    }

    /// The Ingresses that make a name stand for another host.
    pub(super) fn alias_ranks(&self, pattern: &HostPattern) -> &Few<Rank> {
        self.aliases.get(pattern).unwrap_or(&NOBODY)
    }

    /// The names that may stand for a host.
    pub(super) fn aliases_of(&self, pattern: &HostPattern) -> impl Iterator<Item = &HostPattern> {
        self.aliases_of.get(pattern).into_iter().flat_map(Few::iter)
    }

    pub(super) fn tls_hosts(&self) -> impl Iterator<Item = &HostPattern> {
        self.tls_hosts.keys()
    }

    /// The Ingresses with routes for a host.
    pub(super) fn ranks(&self, pattern: &HostPattern) -> &Few<Rank> {
        self.hosts.get(pattern).unwrap_or(&NOBODY)
    }

    /// The Ingresses with TLS settings for a host.
    pub(super) fn tls_ranks(&self, pattern: &HostPattern) -> &Few<Rank> {
        self.tls_hosts.get(pattern).unwrap_or(&NOBODY)
    }

    /// Does a TLS entry cover this host, by its name or by a wildcard? An entry for every name covers the routes for
    /// every host and no others, so that one Ingress cannot redirect everybody's hosts.
    pub(super) fn has_certificate(&self, pattern: &HostPattern) -> bool {
        if self.tls_hosts.contains_key(pattern) {
            return true;
        }
        let HostPattern::Exact(name) = pattern else {
            return false;
        };
        name.parent()
            .and_then(|suffix| HostPattern::parse(&format!("*.{suffix}")).ok())
            .is_some_and(|wildcard| self.tls_hosts.contains_key(&wildcard))
    }

    /// The hosts with routes whose answer to [`Index::has_certificate`] may hang on this TLS host.
    pub(super) fn hosts_covered_by(&self, pattern: &HostPattern) -> Vec<HostPattern> {
        let mut covered: Vec<HostPattern> = match pattern {
            HostPattern::Wildcard {
                suffix,
                depth: WildcardDepth::One,
            } => self
                .below
                .get(suffix.as_str())
                .into_iter()
                .flat_map(Few::iter)
                .cloned()
                .collect(),
            HostPattern::Exact(_) | HostPattern::Wildcard { .. } | HostPattern::Any => Vec::new(),
        };
        if self.hosts.contains_key(pattern) || self.aliases.contains_key(pattern) {
            covered.push(pattern.clone());
        }
        covered
    }

    pub(super) fn uses_backend(&self, id: &BackendId) -> bool {
        self.backends.contains_key(id)
    }

    pub(super) fn users_of_backend(&self, id: &BackendId) -> impl Iterator<Item = &NamespacedName> {
        self.backends.get(id).into_iter().flat_map(Few::iter)
    }

    pub(super) fn uses_secret(&self, name: &NamespacedName) -> bool {
        self.secrets.contains_key(name)
    }

    /// The Ingresses that ask for more than a `GatewayPolicy` permits.
    pub(super) fn violators(&self, policy: &str) -> impl Iterator<Item = &NamespacedName> {
        self.violators.get(policy).into_iter().flat_map(Few::iter)
    }

    pub(super) fn users_of_secret(
        &self,
        name: &NamespacedName,
    ) -> impl Iterator<Item = &NamespacedName> {
        self.secrets.get(name).into_iter().flat_map(Few::iter)
    }
}

/// The `RoutePolicy` that an Ingress names.
fn policy_of(entry: &Entry) -> Option<NamespacedName> {
    let policy = entry.annotations.policy_name.as_deref()?;
    Some(NamespacedName::new(&entry.rank.name.namespace, policy))
}

fn parent(pattern: &HostPattern) -> Option<&str> {
    match pattern {
        HostPattern::Exact(name) => name.parent(),
        HostPattern::Wildcard { .. } | HostPattern::Any => None,
    }
}

fn put<K: Clone + Ord, V: Clone + Ord>(map: &mut BTreeMap<K, Few<V>>, key: &K, value: &V) {
    if let Some(values) = map.get_mut(key) {
        values.insert(value.clone());
        return;
    }
    let mut values = Few::new();
    values.insert(value.clone());
    map.insert(key.clone(), values);
}

fn take<K: Ord, V: Ord>(map: &mut BTreeMap<K, Few<V>>, key: &K, value: &V) {
    if let Some(values) = map.get_mut(key) {
        values.remove(value);
        if values.is_empty() {
            map.remove(key);
        }
    }
}
