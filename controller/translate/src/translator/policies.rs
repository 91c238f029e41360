//! Whom a policy concerns.

use std::collections::BTreeSet;

use crds::{RoutePolicy, RoutePolicySpec};

use super::{Translator, Work};
use crate::permit::Permits;
use crate::{NamespacedName, policy};

impl Translator {
    /// Takes in a policy. It concerns the Ingresses that it has named, too.
    pub(super) fn put_policy(
        &mut self,
        name: NamespacedName,
        policy: Option<RoutePolicy>,
        work: &mut Work,
    ) {
        let before = self.snapshot.policies().get(&name);
        let before = before.map(|policy| &policy.spec);
        let after = policy.as_ref().map(|policy| &policy.spec);
        // Most changes are to its status.
        if before != after {
            let concerned = self.concerned(&name, before.into_iter().chain(after));
            work.ingresses.extend(concerned);
            work.policies.insert(name.clone());
        }
        match policy {
            Some(policy) => self.snapshot.put_policy(name, policy),
            None => self.snapshot.remove_policy(&name),
        }
    }

    /// The Ingresses that a policy with these contents concerns: those that it names, and those that name it.
    pub(super) fn concerned<'a>(
        &self,
        name: &NamespacedName,
        specs: impl IntoIterator<Item = &'a RoutePolicySpec>,
    ) -> BTreeSet<NamespacedName> {
        let ingresses = self.snapshot.ingresses();
        specs
            .into_iter()
            .flat_map(policy::targets)
            .map(|target| NamespacedName::new(&name.namespace, target))
            .filter(|target| ingresses.contains_key(target))
            .chain(self.index.users_of_policy(name).cloned())
            .collect()
    }

    /// Reads the policies of kind `GatewayPolicy`. They concern the namespaces for which they now say something else.
    pub(super) fn read_permits(&mut self, work: &mut Work) {
        let permits = Permits::new(self.snapshot.gateway_policies());
        let before = std::mem::replace(&mut self.permits, permits);
        let same_hosts = self.permits.bind_as(&before);
        let mut of_namespace: Option<(&str, bool)> = None;
        // Those of one namespace follow each other.
        for name in self.snapshot.ingresses().keys() {
            let concerned = match of_namespace {
                Some((namespace, concerned)) if *name.namespace == *namespace => concerned,
                _ => !same_hosts || !self.permits.rule_as(&before, &name.namespace),
            };
            of_namespace = Some((&name.namespace, concerned));
            if concerned {
                work.ingresses.insert(name.clone());
            }
        }
    }
}
