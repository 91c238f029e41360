use std::future::pending;

use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::*;
use crate::fake_api::{Log, Reply, Store};

/// A replica that takes part in an election.
struct Replica {
    leading: watch::Receiver<bool>,
    log: Log,
    end: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

fn settings(identity: &str) -> Settings {
    Settings {
        identity: identity.to_owned(),
        ..Settings::new("lockgate-leader", |name| {
            (name == "POD_NAMESPACE").then(|| "lockgate".to_owned())
        })
    }
}

impl Replica {
    fn start(store: &Store, identity: &str) -> Self {
        let (client, log) = store.client();
        let (sender, leading) = watch::channel(false);
        let (end, ended) = oneshot::channel();
        let task = tokio::spawn(run(client, settings(identity), sender, async {
            if ended.await.is_err() {
                pending::<()>().await;
            }
        }));
        Self {
            leading,
            log,
            end,
            task,
        }
    }

    /// How long it takes until it leads, or no longer does.
    async fn until(&mut self, leads: bool) -> Duration {
        let start = Instant::now();
        let waited = timeout(
            Duration::from_mins(2),
            self.leading.wait_for(|now| *now == leads),
        );
        waited.await.expect("it happens").unwrap();
        start.elapsed()
    }

    fn leads(&self) -> bool {
        *self.leading.borrow()
    }

    async fn stop(self) {
        self.end.send(()).unwrap();
        timeout(Duration::from_mins(1), self.task)
            .await
            .expect("it ends")
            .unwrap();
    }
}

fn lease(store: &Store) -> Value {
    store.get("leases", "lockgate", "lockgate-leader").unwrap()["spec"].clone()
}

#[tokio::test(start_paused = true)]
async fn one_of_two_leads_and_renews() {
    let store = Store::default();
    let mut one = Replica::start(&store, "one");
    one.until(true).await;
    let two = Replica::start(&store, "two");
    sleep(Duration::from_mins(5)).await;
    assert!(one.leads() && !two.leads());
    let spec = lease(&store);
    assert_eq!(spec["holderIdentity"], "one");
    assert_eq!(spec["leaseDurationSeconds"], 15);
    assert_eq!(spec["leaseTransitions"], 0);
    assert!(one.log.count("update", "leases") >= 55);
    assert_eq!(two.log.count("update", "leases"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_ends_hands_over() {
    let store = Store::default();
    let mut one = Replica::start(&store, "one");
    one.until(true).await;
    let mut two = Replica::start(&store, "two");
    sleep(Duration::from_mins(1)).await;
    one.stop().await;
    assert_eq!(lease(&store)["holderIdentity"], "");
    assert!(two.until(true).await <= Duration::from_secs(5));
    assert_eq!(lease(&store)["leaseTransitions"], 1);
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_dies_is_followed_after_its_time() {
    let store = Store::default();
    let mut one = Replica::start(&store, "one");
    one.until(true).await;
    let mut two = Replica::start(&store, "two");
    sleep(Duration::from_mins(1)).await;
    one.task.abort();
    let waited = two.until(true).await;
    assert!(
        waited >= Duration::from_secs(10) && waited <= Duration::from_secs(25),
        "{waited:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_leader_without_a_server_gives_up_before_another_may_lead() {
    for reply in [
        || Reply::Hang,
        || Reply::Disconnect,
        || Reply::Refuse(500),
        || Reply::Refuse(403),
    ] {
        let store = Store::default();
        let mut one = Replica::start(&store, "one");
        one.until(true).await;
        sleep(Duration::from_mins(1)).await;
        for _ in 0..20 {
            store.fault("get", "leases", reply());
        }
        let waited = one.until(false).await;
        assert!(waited <= Duration::from_secs(10), "{waited:?}");
        // The server is back: the Lease still names it.
        assert!(one.until(true).await <= Duration::from_mins(2));
    }
}

#[tokio::test(start_paused = true)]
async fn who_loses_the_race_for_a_write_does_not_lead() {
    let store = Store::default();
    for verb in ["create", "update"] {
        let mut replica = Replica::start(&store, "one");
        store.fault(verb, "leases", Reply::Refuse(409));
        let waited = replica.until(true).await;
        assert!(
            waited >= Duration::from_secs(4),
            "{verb}: at the second attempt, {waited:?}"
        );
        replica.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_somebody_else_took_is_not_fought_for() {
    let store = Store::default();
    let mut one = Replica::start(&store, "one");
    one.until(true).await;
    let spec = json!({"holderIdentity": "somebody", "leaseDurationSeconds": 3600});
    store.put(
        "leases",
        "lockgate",
        "lockgate-leader",
        json!({"spec": spec}),
    );
    assert!(one.until(false).await <= Duration::from_secs(5));
    sleep(Duration::from_mins(10)).await;
    assert_eq!(lease(&store)["holderIdentity"], "somebody");
}

#[test]
fn the_pod_says_where_and_who() {
    let of = |variables: &'static [(&str, &str)]| {
        Settings::new("e", move |name| {
            let found = variables.iter().find(|(of, _)| *of == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    };
    let pod = of(&[("POD_NAMESPACE", "gateways"), ("POD_NAME", "lockgate-0")]);
    assert_eq!(pod.namespace, "gateways");
    assert_eq!(pod.name, "e");
    assert!(pod.identity.starts_with("lockgate-0_"), "{}", pod.identity);
    let again = of(&[("POD_NAMESPACE", "gateways"), ("POD_NAME", "lockgate-0")]);
    assert_ne!(
        pod.identity, again.identity,
        "a restarted container is another process"
    );
    assert!(
        of(&[("HOSTNAME", "laptop"), ("POD_NAME", "")])
            .identity
            .starts_with("laptop_")
    );
    assert!(pod.deadline < pod.duration, "never two leaders");
}
