//! Whom a policy concerns.

use crds::RoutePolicy;

use super::{Translator, Work};
use crate::permit::Permits;
use crate::{NamespacedName, kinds};

impl Translator {
    /// Takes in a policy. It concerns the Ingresses that name it, those that it names, and those that it has named.
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
            let specs = before.into_iter().chain(after);
            let targets = specs
                .flat_map(|spec| &spec.target_refs)
                .filter(|target| target.kind == kinds::INGRESS)
                .map(|target| NamespacedName::new(&name.namespace, &target.name));
            let ingresses = self.snapshot.ingresses();
            work.ingresses
                .extend(targets.filter(|target| ingresses.contains_key(target)));
            work.ingresses
                .extend(self.index.users_of_policy(&name).cloned());
            work.policies.insert(name.clone());
        }
        match policy {
            Some(policy) => self.snapshot.put_policy(name, policy),
            None => self.snapshot.remove_policy(&name),
        }
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
