//! TLS by server name: certificates of hosts, and what clients are asked for.

use std::sync::Arc;

use model::{ClientAuth, HostPattern, Origin, TlsHost};

use super::{Translator, Work, note_losers, replace};
use crate::conflict::Losers;
use crate::ingress::Entry;
use crate::{clients, conflict};

impl Translator {
    /// The server names that have to be done again.
    pub(super) fn tls_hosts(&mut self, work: &mut Work) {
        let mut patterns = std::mem::take(&mut work.tls_hosts);
        work.clients |= self.index.has_clients();
        if work.clients {
            let below: Vec<_> = patterns
                .iter()
                .flat_map(|pattern| self.index.names_below(pattern))
                .collect();
            patterns.extend(below);
        }
        for pattern in patterns {
            self.tls_host(&pattern, work);
        }
    }

    fn tls_host(&mut self, pattern: &HostPattern, work: &mut Work) {
        let (named, losers) = self.named_tls(pattern);
        // Whether there is an entry at all decides about redirects of the hosts that it covers.
        if work.clients || named.is_some() != self.model.tls_hosts.contains_key(pattern) {
            work.hosts.extend(self.index.hosts_covered_by(pattern));
        }
        let host = if work.clients {
            self.with_clients(pattern, named)
        } else {
            named
        };
        if replace(&mut self.model.tls_hosts, pattern, host.map(Arc::new)) {
            work.outcome.changes.tls_hosts.insert(pattern.clone());
        }
        note_losers(&mut self.tls_losers, pattern, &losers, &mut work.reports);
        // Who has TLS settings may decide about more than those.
        if self.wants_passthrough(pattern) {
            work.hosts.insert(pattern.clone());
            work.hosts.extend(self.index.aliases_of(pattern).cloned());
        }
    }

    /// What the TLS entries of Ingresses say about a name.
    fn named_tls(&self, pattern: &HostPattern) -> (Option<TlsHost>, Losers) {
        let entries = self.entries_of(self.index.tls_ranks(pattern));
        conflict::tls_host(pattern, entries, &self.globals)
    }

    /// Adds what clients are asked for. A name without TLS entry gets settings of its own where that is something else
    /// than on the name that would stand for it, and keeps the certificates of that one.
    fn with_clients(&self, pattern: &HostPattern, named: Option<TlsHost>) -> Option<TlsHost> {
        let (owner, auth) = self.asked_on(pattern);
        if let Some(mut host) = named {
            host.policy.client_auth = auth;
            return Some(host);
        }
        let owner = owner?;
        let cover = self.cover(pattern);
        let stands_for_it = cover
            .as_ref()
            .and_then(|cover| cover.policy.client_auth.clone());
        if auth == stands_for_it {
            return None;
        }
        let mut policy = self.globals.tls.clone();
        policy.client_auth = auth;
        Some(TlsHost {
            certificates: cover.map(|cover| cover.certificates).unwrap_or_default(),
            policy,
            origin: Origin::shared(&owner.object, &"metadata.annotations".into()),
        })
    }

    /// What is asked on the host that serves a name, and the first Ingress with routes there.
    fn asked_on(&self, pattern: &HostPattern) -> (Option<&Entry>, Option<Arc<ClientAuth>>) {
        let mut next = Some(pattern.clone());
        while let Some(name) = next {
            if let Some((owner, of)) = self.served_as(&name) {
                let Some(of) = of else {
                    return (Some(owner), None);
                };
                let entries = self.entries_of(self.index.ranks(&of));
                let clients = clients::of(entries, &self.snapshot);
                // Settings of its own are for a name that has routes of its own.
                let owner = (name == *pattern).then_some(owner);
                return (owner, clients.and_then(|clients| clients.auth()));
            }
            next = wider(&name);
        }
        (None, None)
    }

    /// The host whose routes a name has, and one of their owners. Nothing of a host for a name that redirects.
    fn served_as(&self, name: &HostPattern) -> Option<(&Entry, Option<HostPattern>)> {
        let own = self
            .entries_of(self.index.ranks(name))
            .find(|entry| !entry.annotations.is_canary());
        if let Some(owner) = own {
            return Some((owner, Some(name.clone())));
        }
        let mut aliases = self.entries_of(self.index.alias_ranks(name));
        let (owner, alias) = aliases.find_map(|entry| Some((entry, entry.aliases.get(name)?)))?;
        Some((owner, (!alias.redirects).then(|| alias.of.clone())))
    }

    /// The TLS settings that a name has that has none of its own.
    fn cover(&self, pattern: &HostPattern) -> Option<TlsHost> {
        let mut next = wider(pattern);
        while let Some(name) = next {
            let settings = self.with_clients(&name, self.named_tls(&name).0);
            if settings.is_some() {
                return settings;
            }
            next = wider(&name);
        }
        None
    }
}

/// The next pattern that may stand for a name.
pub(super) fn wider(pattern: &HostPattern) -> Option<HostPattern> {
    match pattern {
        HostPattern::Exact(name) => {
            let wildcard = name
                .parent()
                .and_then(|suffix| HostPattern::parse(&format!("*.{suffix}")).ok());
            Some(wildcard.unwrap_or(HostPattern::Any))
        }
        HostPattern::Wildcard { .. } => Some(HostPattern::Any),
        HostPattern::Any => None,
    }
}
