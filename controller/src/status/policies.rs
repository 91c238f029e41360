//! The status of policies: whether they can be used, and whether somebody asks for more. Written by the leader only.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crds::{Condition, GatewayPolicy, GatewayPolicyStatus, RoutePolicy, RoutePolicyStatus};
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use model::ObjectRef;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use tracing::warn;
use translate::{NamespacedName, Problem, Reason, Severity, kinds};

use crate::backoff::Backoff;
use crate::reconcile::{Pass, PassObserver};

/// Time limit of a request.
const LIMIT: Duration = Duration::from_secs(15);

/// Can it be used?
const ACCEPTED: &str = "Accepted";

/// Does an object ask for more than it permits?
const VIOLATED: &str = "Violated";

/// What has to be written. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Policies {
    due: Arc<Mutex<BTreeMap<ObjectRef, Vec<Condition>>>>,
    news: Arc<Notify>,
}

impl Policies {
    fn due(&self) -> MutexGuard<'_, BTreeMap<ObjectRef, Vec<Condition>>> {
        // Every method leaves a state that the next one can go on with.
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What to write after this one. It stays due until it is written.
    fn next(&self, after: Option<&ObjectRef>) -> Option<(ObjectRef, Vec<Condition>)> {
        let due = self.due();
        let others = after.and_then(|after| {
            let mut others = due.range((Bound::Excluded(after), Bound::Unbounded));
            others.next()
        });
        let (object, conditions) = others.or_else(|| due.first_key_value())?;
        Some((object.clone(), conditions.clone()))
    }

    fn done(&self, object: &ObjectRef, written: &Vec<Condition>) {
        let mut due = self.due();
        if due.get(object) == Some(written) {
            due.remove(object);
        }
    }
}

impl PassObserver for Policies {
    fn observe(&mut self, pass: &Pass<'_>) {
        for object in pass.touched {
            let problems = pass.report.problems_of(object);
            let wanted = match &*object.kind {
                kinds::GATEWAY_POLICY => {
                    let policy = pass.snapshot.gateway_policies().get(&*object.name);
                    policy.and_then(|policy| plan_gateway(policy, problems))
                }
                kinds::ROUTE_POLICY => {
                    let name = NamespacedName::new(&object.namespace, &object.name);
                    let policy = pass.snapshot.policies().get(&name);
                    policy.and_then(|policy| plan_route(policy, problems))
                }
                _ => continue,
            };
            match wanted {
                Some(conditions) => self.due().insert(object.clone(), conditions),
                None => self.due().remove(object),
            };
        }
        self.news.notify_one();
    }
}

/// What a condition says: status, reason and message.
type Said = (&'static str, &'static str, String);

/// Can it be used?
fn accepted(problem: Option<&Problem>) -> Said {
    match problem {
        None => ("True", "Accepted", "it can be used".to_owned()),
        Some(problem) => ("False", "Invalid", problem.message.clone()),
    }
}

/// The conditions that a policy should have; nothing if it has them.
fn plan_route(policy: &RoutePolicy, problems: &[Problem]) -> Option<Vec<Condition>> {
    let status = policy.status.as_ref();
    let current = status.map(|status| status.conditions.as_slice());
    let said = [(ACCEPTED, accepted(problems.first()))];
    conditions(said, current, policy.metadata.generation)
}

/// The same, and whether somebody asks for more than it permits.
fn plan_gateway(policy: &GatewayPolicy, problems: &[Problem]) -> Option<Vec<Condition>> {
    let mut faults = problems.iter();
    let fault = faults.find(|problem| problem.severity == Severity::Error);
    let mut violations = problems.iter();
    let violation = violations.find(|problem| problem.reason == Reason::PolicyViolation);
    let violated = match violation {
        None => (
            "False",
            "Respected",
            "no Ingress asks for more than it permits".to_owned(),
        ),
        Some(problem) => ("True", "Refused", problem.message.clone()),
    };
    let status = policy.status.as_ref();
    let current = status.map(|status| status.conditions.as_slice());
    let said = [(ACCEPTED, accepted(fault)), (VIOLATED, violated)];
    conditions(said, current, policy.metadata.generation)
}

/// Conditions that say this, unless they are there. The time of a change is the writer's to add.
fn conditions<const N: usize>(
    said: [(&str, Said); N],
    current: Option<&[Condition]>,
    generation: Option<i64>,
) -> Option<Vec<Condition>> {
    let current = current.unwrap_or_default();
    let wanted = said.map(|(type_, (status, reason, message))| {
        let since = current
            .iter()
            .find(|condition| condition.type_ == type_ && condition.status == status)
            .map(|condition| condition.last_transition_time.clone());
        Condition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message,
            last_transition_time: since.unwrap_or_default(),
            observed_generation: generation,
        }
    });
    (current != wanted).then(|| wanted.into())
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
        let Some((object, planned)) = policies.next(last.as_ref()) else {
            policies.news.notified().await;
            continue;
        };
        last = Some(object.clone());
        match timeout(LIMIT, patch(client, &object, &planned)).await {
            Ok(Ok(())) => {
                policies.done(&object, &planned);
                backoff.reset();
            }
            Ok(Err(error)) => {
                warn!(policy = %object, %error, "The status of a policy could not be written");
                sleep(backoff.delay()).await;
            }
            Err(_elapsed) => {
                warn!(policy = %object, "The status of a policy was not written in time");
                sleep(backoff.delay()).await;
            }
        }
    }
}

async fn patch(client: &Client, object: &ObjectRef, planned: &[Condition]) -> kube::Result<()> {
    let mut conditions = planned.to_vec();
    for condition in &mut conditions {
        if condition.last_transition_time.is_empty() {
            // Kubernetes writes times in seconds.
            let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
            condition.last_transition_time = now;
        }
    }
    let name = &object.name;
    if &*object.kind == kinds::GATEWAY_POLICY {
        let api: Api<GatewayPolicy> = Api::all(client.clone());
        set(&api, name, &GatewayPolicyStatus { conditions }).await
    } else {
        let api: Api<RoutePolicy> = Api::namespaced(client.clone(), &object.namespace);
        set(&api, name, &RoutePolicyStatus { conditions }).await
    }
}

async fn set<K>(api: &Api<K>, name: &str, status: &impl Serialize) -> kube::Result<()>
where
    K: Clone + DeserializeOwned + std::fmt::Debug,
{
    let patch = Patch::Merge(json!({"status": status}));
    let parameters = PatchParams {
        field_manager: Some("lockgate".to_owned()),
        ..PatchParams::default()
    };
    match api.patch_status(name, &parameters, &patch).await {
        Ok(_) => Ok(()),
        // It is gone, and its status with it.
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use crds::{GatewayPolicySpec, RoutePolicySpec};
    use tokio::time::{Instant, advance};
    use translate::{Change, Settings, Translator, manifests};

    use super::*;
    use crate::fake_api::Store;

    #[test]
    fn a_status_is_written_once() {
        let mut policy = GatewayPolicy::new("p", GatewayPolicySpec::default());
        policy.metadata.generation = Some(2);
        let mut wanted = plan_gateway(&policy, &[]).unwrap();
        let shown: Vec<_> = wanted
            .iter()
            .map(|condition| (condition.type_.as_str(), condition.status.as_str()))
            .collect();
        assert_eq!(shown, [("Accepted", "True"), ("Violated", "False")]);
        for condition in &mut wanted {
            condition.last_transition_time = "2026-01-01T00:00:00Z".to_owned();
        }
        policy.status = Some(GatewayPolicyStatus { conditions: wanted });
        assert_eq!(plan_gateway(&policy, &[]), None, "it has it already");
        policy.metadata.generation = Some(3);
        let wanted = plan_gateway(&policy, &[]).unwrap();
        assert_eq!(wanted[0].observed_generation, Some(3));
        assert_eq!(
            wanted[0].last_transition_time, "2026-01-01T00:00:00Z",
            "it is as true as before"
        );
    }

    #[test]
    fn a_policy_for_routes_is_accepted_or_not() {
        let mut policy = RoutePolicy::new("p", RoutePolicySpec::default());
        policy.metadata.generation = Some(2);
        let mut wanted = plan_route(&policy, &[]).unwrap();
        assert_eq!(wanted.len(), 1);
        assert_eq!(
            (wanted[0].status.as_str(), wanted[0].reason.as_str()),
            ("True", "Accepted")
        );
        wanted[0].last_transition_time = "2026-01-01T00:00:00Z".to_owned();
        policy.status = Some(RoutePolicyStatus { conditions: wanted });
        assert_eq!(plan_route(&policy, &[]), None, "it has it already");
    }

    const WORLD: &str = "
{apiVersion: networking.k8s.io/v1, kind: Ingress, metadata: {name: web, namespace: shop}, spec: {rules: [{host: shop.test}]}}
---
{apiVersion: lockgate.dev/v1alpha1, kind: GatewayPolicy, metadata: {name: blog}, spec: {namespaces: [blog], hosts: [shop.test]}}
---
{apiVersion: lockgate.dev/v1alpha1, kind: GatewayPolicy, metadata: {name: odd}, spec: {namespaces: [odd], hosts: ['a b']}}
";

    #[tokio::test(start_paused = true)]
    async fn the_leader_writes_who_asks_for_more() {
        let store = Store::default();
        for name in ["blog", "odd"] {
            store.put("gatewaypolicies", "", name, json!({"spec": {}}));
        }
        let mut translator = Translator::new(Settings {
            watch_without_class: true,
            ..Settings::default()
        });
        let objects = manifests::parse(WORLD).objects.into_iter();
        let touched = translator.apply(objects.map(Change::Apply)).touched;
        let mut policies = Policies::default();
        policies.observe(&Pass {
            snapshot: translator.snapshot(),
            report: translator.report(),
            rejects: &[],
            touched: &touched,
        });
        let leading = watch::Sender::new(false);
        let (client, _log) = store.client();
        let task = tokio::spawn(run(client, policies.clone(), leading.subscribe()));
        advance(Duration::from_mins(1)).await;
        let status = |name: &str| store.get("gatewaypolicies", "", name).unwrap()["status"].clone();
        assert!(status("blog").is_null(), "another one leads");
        leading.send_replace(true);
        let deadline = Instant::now() + Duration::from_mins(1);
        while !policies.due().is_empty() {
            assert!(Instant::now() < deadline, "it is written in time");
            sleep(Duration::from_millis(10)).await;
        }
        let violated = &status("blog")["conditions"][1];
        assert_eq!(violated["type"], "Violated");
        assert_eq!(violated["status"], "True");
        assert!(
            violated["message"].as_str().unwrap().contains("shop/web"),
            "{violated}"
        );
        let accepted = &status("odd")["conditions"][0];
        assert_eq!(accepted["status"], "False");
        assert!(
            accepted["message"]
                .as_str()
                .unwrap()
                .contains("spec.hosts[0]"),
            "{accepted}"
        );
        task.abort();
    }
}
