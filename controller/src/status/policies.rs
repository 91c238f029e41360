//! The status of `RoutePolicies`: whether they can be used. Written by the leader only.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crds::{Condition, RoutePolicy, RoutePolicyStatus};
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use tracing::warn;
use translate::{NamespacedName, Problem, kinds};

use crate::backoff::Backoff;
use crate::reconcile::{Pass, PassObserver};

/// Time limit of a request.
const LIMIT: Duration = Duration::from_secs(15);

/// The one condition.
const ACCEPTED: &str = "Accepted";

/// What has to be written. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Policies {
    due: Arc<Mutex<BTreeMap<NamespacedName, Condition>>>,
    news: Arc<Notify>,
}

impl Policies {
    fn due(&self) -> MutexGuard<'_, BTreeMap<NamespacedName, Condition>> {
        // Every method leaves a state that the next one can go on with.
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What to write after this one. It stays due until the policy shows it.
    fn next(&self, after: Option<&NamespacedName>) -> Option<(NamespacedName, Condition)> {
        let due = self.due();
        let others = after.and_then(|after| {
            let mut others = due.range((Bound::Excluded(after), Bound::Unbounded));
            others.next()
        });
        let (name, condition) = others.or_else(|| due.first_key_value())?;
        Some((name.clone(), condition.clone()))
    }

    fn done(&self, name: &NamespacedName, written: &Condition) {
        let mut due = self.due();
        if due.get(name) == Some(written) {
            due.remove(name);
        }
    }
}

impl PassObserver for Policies {
    fn observe(&mut self, pass: &Pass<'_>) {
        let touched = pass.touched.iter();
        for object in touched.filter(|object| &*object.kind == kinds::ROUTE_POLICY) {
            let name = NamespacedName::new(&object.namespace, &object.name);
            let wanted = pass
                .snapshot
                .policies()
                .get(&name)
                .and_then(|policy| plan(policy, pass.report.problems_of(object)));
            match wanted {
                Some(condition) => self.due().insert(name, condition),
                None => self.due().remove(&name),
            };
        }
        self.news.notify_one();
    }
}

/// The condition that a policy should have; nothing if it has it. The time of its change is the writer's to add.
fn plan(policy: &RoutePolicy, problems: &[Problem]) -> Option<Condition> {
    let (status, reason, message) = match problems.first() {
        None => ("True", "Accepted", "it can be used".to_owned()),
        Some(problem) => ("False", "Invalid", problem.message.clone()),
    };
    let current = policy
        .status
        .iter()
        .flat_map(|status| &status.conditions)
        .find(|condition| condition.type_ == ACCEPTED);
    let since = current
        .filter(|condition| condition.status == status)
        .map(|condition| condition.last_transition_time.clone());
    let wanted = Condition {
        type_: ACCEPTED.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message,
        last_transition_time: since.unwrap_or_default(),
        observed_generation: policy.metadata.generation,
    };
    (current != Some(&wanted)).then_some(wanted)
}

/// Writes what is due whenever this process leads. Ends when the election does.
pub(crate) async fn run(client: Client, policies: Policies, mut leading: watch::Receiver<bool>) {
    while leading.wait_for(|leads| *leads).await.is_ok() {
        let lost = tokio::select! {
            biased;
            lost = leading.wait_for(|leads| !*leads) => lost.is_ok(),
            () = write(&client, &policies) => true,
        };
        if !lost {
            return;
        }
    }
}

async fn write(client: &Client, policies: &Policies) {
    let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(30));
    // One that cannot be written does not keep the others waiting for ever.
    let mut last = None;
    loop {
        let Some((name, planned)) = policies.next(last.as_ref()) else {
            policies.news.notified().await;
            continue;
        };
        last = Some(name.clone());
        match timeout(LIMIT, patch(client, &name, &planned)).await {
            Ok(Ok(())) => {
                policies.done(&name, &planned);
                backoff.reset();
            }
            Ok(Err(error)) => {
                warn!(policy = %name, %error, "The status of a RoutePolicy could not be written");
                sleep(backoff.delay()).await;
            }
            Err(_elapsed) => {
                warn!(policy = %name, "The status of a RoutePolicy was not written in time");
                sleep(backoff.delay()).await;
            }
        }
    }
}

async fn patch(client: &Client, name: &NamespacedName, planned: &Condition) -> kube::Result<()> {
    let mut condition = planned.clone();
    if condition.last_transition_time.is_empty() {
        // Kubernetes writes times in seconds.
        let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        condition.last_transition_time = now;
    }
    let status = RoutePolicyStatus {
        conditions: vec![condition],
    };
    let api: Api<RoutePolicy> = Api::namespaced(client.clone(), &name.namespace);
    let patch = Patch::Merge(json!({"status": status}));
    let parameters = PatchParams {
        field_manager: Some("lockgate".to_owned()),
        ..PatchParams::default()
    };
    match api.patch_status(&name.name, &parameters, &patch).await {
        Ok(_) => Ok(()),
        // It is gone, and its status with it.
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use crds::RoutePolicySpec;

    use super::*;

    #[test]
    fn a_status_is_written_once() {
        let mut policy = RoutePolicy::new("p", RoutePolicySpec::default());
        policy.metadata.generation = Some(2);
        let mut wanted = plan(&policy, &[]).unwrap();
        assert_eq!(
            (wanted.status.as_str(), wanted.reason.as_str()),
            ("True", "Accepted")
        );
        wanted.last_transition_time = "2026-01-01T00:00:00Z".to_owned();
        policy.status = Some(RoutePolicyStatus {
            conditions: vec![wanted],
        });
        assert_eq!(plan(&policy, &[]), None, "it has it already");
        policy.metadata.generation = Some(3);
        let wanted = plan(&policy, &[]).unwrap();
        assert_eq!(wanted.observed_generation, Some(3));
        assert_eq!(
            wanted.last_transition_time, "2026-01-01T00:00:00Z",
            "it is as true as before"
        );
    }
}
