use kube::runtime::watcher::Event;
use metrics_exporter_prometheus::PrometheusBuilder;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use translate::{Change, Object};

use super::*;
use crate::fake_api::{Log, Reply, Store, status};
use crate::watch::{Stamped, channel};

/// A source on a server, and what it has told.
struct Scene {
    store: Store,
    log: Log,
    wanted: watch::Sender<Wanted>,
    since: u64,
    events: mpsc::Receiver<Stamped>,
    task: JoinHandle<()>,
}

impl Scene {
    fn start(store: Store, scope: Scope) -> Self {
        let (client, log) = store.client();
        let (sender, events) = channel();
        let wanted = watch::Sender::new(Wanted::new());
        let task = tokio::spawn(run(client, scope, wanted.subscribe(), sender));
        Self {
            store,
            log,
            wanted,
            since: 0,
            events,
            task,
        }
    }

    /// What comes next, in words; a failure if nothing comes within ten minutes of the test's clock.
    async fn next(&mut self) -> Vec<String> {
        let limit = Duration::from_mins(10);
        let stamped = timeout(limit, self.events.recv())
            .await
            .expect("an event in time")
            .unwrap();
        match stamped.event {
            SourceEvent::Listed => vec!["listed".to_owned()],
            SourceEvent::Synced => vec!["synced".to_owned()],
            SourceEvent::Changes(changes) => changes.iter().map(words).collect(),
            other @ (SourceEvent::FileProblems(_) | SourceEvent::Hindered(_)) => {
                panic!("{other:?}")
            }
        }
    }

    /// Everything up to and including this.
    async fn until(&mut self, end: &str) -> Vec<String> {
        let mut all = Vec::new();
        while all.last().map(String::as_str) != Some(end) {
            all.extend(self.next().await);
        }
        all
    }

    /// Nothing comes for ten minutes.
    async fn silence(&mut self) {
        let event = timeout(Duration::from_mins(10), self.events.recv()).await;
        assert!(event.is_err(), "{event:?}");
    }

    fn want(&self, names: &[&str]) {
        let wanted = names.iter().map(|name| (name.parse().unwrap(), self.since));
        self.wanted.send_replace(wanted.collect());
    }

    /// Goes through the first full sync.
    async fn synced(store: Store, wanted: &[&str]) -> Self {
        let mut scene = Self::start(store, Scope::default());
        scene.until("listed").await;
        scene.want(wanted);
        scene.until("synced").await;
        scene
    }
}

fn words(change: &Change) -> String {
    match change {
        Change::Apply(Object::Secret(secret)) => {
            let data = secret.data.as_ref().and_then(|data| data.get("tls.crt"));
            let data = data.map(|data| String::from_utf8(data.0.clone()).unwrap());
            let name = secret.metadata.name.as_deref().unwrap();
            format!("+ Secret {name} {}", data.unwrap_or_default())
        }
        Change::Apply(object) => format!("+ {}", object.reference()),
        Change::Delete(object) => format!("- {object}"),
    }
}

fn ingress() -> Value {
    json!({"spec": {"ingressClassName": "lockgate"}})
}

/// `text` is base64.
fn secret(text: &str) -> Value {
    json!({"type": "kubernetes.io/tls", "data": {"tls.crt": text, "tls.key": "a2V5"}})
}

const ONE: &str = "b25l";
const TWO: &str = "dHdv";

#[tokio::test(start_paused = true)]
async fn everything_is_listed_then_wanted_secrets_then_changes_follow() {
    let store = Store::default();
    store.put("ingresses", "shop", "web", ingress());
    store.put(
        "ingressclasses",
        "",
        "lockgate",
        json!({"spec": {"controller": "c"}}),
    );
    store.put("services", "shop", "web", json!({"spec": {}}));
    store.put(
        "endpointslices",
        "shop",
        "web-1",
        json!({"addressType": "IPv4", "endpoints": []}),
    );
    store.put("configmaps", "lockgate", "lockgate", json!({"data": {}}));
    store.put("secrets", "shop", "web-tls", secret(ONE));
    store.put("secrets", "shop", "nobodys", secret(TWO));
    let scope = Scope {
        configmap: Some("lockgate/lockgate".parse().unwrap()),
        ..Scope::default()
    };
    let mut scene = Scene::start(store, scope);
    let mut listed = scene.until("listed").await;
    listed.sort();
    assert_eq!(
        listed,
        [
            "+ ConfigMap lockgate/lockgate",
            "+ EndpointSlice shop/web-1",
            "+ Ingress shop/web",
            "+ IngressClass lockgate",
            "+ Service shop/web",
            "listed",
        ]
    );
    assert_eq!(
        scene.log.count("list", "secrets"),
        0,
        "it is not known yet which are wanted"
    );
    scene.want(&["shop/web-tls"]);
    assert_eq!(
        scene.until("synced").await,
        ["+ Secret web-tls one", "synced"]
    );

    scene.store.put("ingresses", "shop", "new", ingress());
    assert_eq!(scene.next().await, ["+ Ingress shop/new"]);
    scene.store.remove("services", "shop", "web");
    assert_eq!(scene.next().await, ["- Service shop/web"]);
    scene.store.put("secrets", "shop", "nobodys", secret(ONE));
    scene.store.put("secrets", "shop", "web-tls", secret(TWO));
    assert_eq!(
        scene.next().await,
        ["+ Secret web-tls two"],
        "the other one is nobody's"
    );

    let asked = |verb: &str, resource: &str| -> String {
        let all = scene.log.all();
        all.iter()
            .find(|seen| seen.verb == verb && seen.resource == resource)
            .unwrap()
            .query
            .clone()
    };
    assert!(asked("list", "secrets").contains("fieldSelector=type%21%3Dhelm.sh%2Frelease.v1%2C"));
    assert!(asked("list", "configmaps").contains("fieldSelector=metadata.name%3Dlockgate"));
    assert!(asked("watch", "ingresses").contains("allowWatchBookmarks=true"));
    drop(scene.events);
    scene.store.put("ingresses", "shop", "last", ingress());
    scene.task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_source_recovers_from_every_answer_to_a_list() {
    let faults: [fn() -> Reply; 9] = [
        || Reply::Refuse(401),
        || Reply::Refuse(403),
        || Reply::Refuse(410),
        || Reply::Refuse(429),
        || Reply::Refuse(500),
        || Reply::Hang,
        || Reply::HangAfter("{\"items\": ["),
        || Reply::Text(200, "<html>not an API server</html>"),
        || Reply::Disconnect,
    ];
    for (index, fault) in faults.iter().enumerate() {
        let store = Store::default();
        store.put("ingresses", "shop", "web", ingress());
        for _ in 0..3 {
            store.fault("list", "ingresses", fault());
            store.fault("list", "secrets", fault());
        }
        let mut scene = Scene::start(store, Scope::default());
        assert_eq!(
            scene.until("listed").await,
            ["+ Ingress shop/web", "listed"],
            "fault {index}"
        );
        scene.want(&[]);
        assert_eq!(scene.until("synced").await, ["synced"], "fault {index}");
        assert!(!scene.store.has_faults(), "fault {index} was met");
        assert_eq!(scene.log.count("list", "ingresses"), 4, "fault {index}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_source_recovers_from_every_answer_to_a_watch() {
    let faults: [fn() -> Reply; 10] = [
        || Reply::Refuse(401),
        || Reply::Refuse(403),
        || Reply::Refuse(410),
        || Reply::Refuse(500),
        || Reply::Hang,
        || Reply::Disconnect,
        || Reply::Text(200, "<html>not an API server</html>\n"),
        || Reply::Events(vec![]),
        || Reply::Events(vec![json!({"type": "ERROR", "object": status(410)})]),
        || Reply::Events(vec![json!({"type": "ERROR", "object": status(500)})]),
    ];
    for (index, fault) in faults.iter().enumerate() {
        let store = Store::default();
        for _ in 0..3 {
            store.fault("watch", "ingresses", fault());
        }
        let mut scene = Scene::synced(store, &[]).await;
        // Until the watch works, the change is found by no watch or by a new list.
        while scene.store.has_faults() || scene.log.count("watch", "ingresses") < 4 {
            sleep(Duration::from_secs(1)).await;
        }
        scene.store.put("ingresses", "shop", "new", ingress());
        assert_eq!(scene.next().await, ["+ Ingress shop/new"], "fault {index}");
    }
}

#[tokio::test(start_paused = true)]
async fn restarts_are_counted_by_kind_and_reason() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let store = Store::default();
    for reply in [
        Reply::Refuse(401),
        Reply::Refuse(403),
        Reply::Refuse(500),
        Reply::Hang,
        Reply::Disconnect,
        Reply::Events(vec![]),
        Reply::Events(vec![json!({"type": "ERROR", "object": status(410)})]),
    ] {
        store.fault("watch", "services", reply);
    }
    let scene = Scene::synced(store, &[]).await;
    while scene.store.has_faults() {
        sleep(Duration::from_secs(1)).await;
    }
    sleep(Duration::from_mins(1)).await;
    let text = recorder.handle().render();
    let mut counted: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("lockgate_watch_restarts_total{kind=\"Service\","))
        .collect();
    counted.sort_unstable();
    assert_eq!(
        counted,
        [
            "reason=\"closed\"} 1",
            "reason=\"connection\"} 1",
            "reason=\"forbidden\"} 1",
            "reason=\"gone\"} 1",
            "reason=\"server-error\"} 1",
            "reason=\"timeout\"} 1",
            "reason=\"unauthorized\"} 1",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_is_refused_as_too_old_begins_with_a_list() {
    for fault in [
        Reply::Refuse(410),
        Reply::Events(vec![json!({"type": "ERROR", "object": status(410)})]),
    ] {
        let store = Store::default();
        store.put("ingresses", "shop", "kept", ingress());
        store.put("ingresses", "shop", "gone", ingress());
        let mut scene = Scene::synced(store, &[]).await;
        scene.store.fault("watch", "ingresses", fault);
        scene.store.remove_unseen("ingresses", "shop", "gone");
        assert_eq!(
            scene.until("- Ingress shop/gone").await,
            ["+ Ingress shop/kept", "- Ingress shop/gone"],
            "what vanished while the watch was down"
        );
        assert_eq!(scene.log.count("list", "ingresses"), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_was_away_for_long_is_asked_for_a_list_at_once_when_it_says_too_old() {
    let scene = Scene::synced(Store::default(), &[]).await;
    for _ in 0..8 {
        scene.store.fault("watch", "ingresses", Reply::Refuse(500));
    }
    scene.store.fault("watch", "ingresses", Reply::Refuse(410));
    scene.store.close_watches("ingresses");
    while scene.store.has_faults() {
        sleep(Duration::from_millis(10)).await;
    }
    let start = Instant::now();
    while scene.log.count("list", "ingresses") < 2 {
        sleep(Duration::from_millis(10)).await;
    }
    assert!(
        start.elapsed() < Duration::from_secs(1),
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn a_server_that_closes_every_watch_is_not_hammered() {
    let store = Store::default();
    for _ in 0..1000 {
        store.fault("watch", "ingresses", Reply::Events(vec![]));
    }
    let scene = Scene::synced(store, &[]).await;
    let start = Instant::now();
    sleep(Duration::from_mins(2)).await;
    let watches = scene.log.count("watch", "ingresses");
    assert!(
        (6..=20).contains(&watches),
        "{watches} in {:?}",
        start.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn a_quiet_watch_is_left_alone() {
    let mut scene = Scene::synced(Store::default(), &[]).await;
    sleep(Duration::from_secs(250)).await;
    assert_eq!(scene.log.count("watch", "ingresses"), 1);
    scene.store.put("ingresses", "shop", "web", ingress());
    assert_eq!(scene.next().await, ["+ Ingress shop/web"]);
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_failed_and_is_quiet_afterwards_does_not_list_again() {
    for fault in [
        Reply::Refuse(500),
        Reply::Hang,
        Reply::Events(vec![json!({"type": "ERROR", "object": status(500)})]),
    ] {
        let store = Store::default();
        store.fault("watch", "ingresses", fault);
        let scene = Scene::synced(store, &[]).await;
        sleep(Duration::from_mins(4)).await;
        assert!(!scene.store.has_faults());
        assert_eq!(scene.log.count("watch", "ingresses"), 2);
        assert_eq!(scene.log.count("list", "ingresses"), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_died_silently_is_noticed() {
    let store = Store::default();
    let (keep_open, events) = mpsc::unbounded_channel();
    store.fault("watch", "ingresses", Reply::Follow(events));
    let scene = Scene::synced(store, &[]).await;
    sleep(Duration::from_mins(5)).await;
    assert_eq!(scene.log.count("watch", "ingresses"), 2);
    drop(keep_open);
}

#[tokio::test(start_paused = true)]
async fn namespaces_are_watched_one_by_one() {
    let store = Store::default();
    store.put("ingresses", "a", "web", ingress());
    store.put("ingresses", "b", "web", ingress());
    store.put("ingresses", "c", "web", ingress());
    store.put("secrets", "system", "default-tls", secret(ONE));
    for _ in 0..100 {
        store.fault("list", "ingressclasses", Reply::Refuse(403));
        store.fault("list", "gatewaypolicies", Reply::Refuse(403));
    }
    let scope = Scope {
        namespaces: ["a".to_owned(), "b".to_owned()].into(),
        services: ["a/web".parse().unwrap(), "system/fallback".parse().unwrap()].into(),
        secrets: ["system/default-tls".parse().unwrap()].into(),
        ..Scope::default()
    };
    let mut scene = Scene::start(store, scope);
    let mut listed = scene.until("listed").await;
    listed.sort();
    assert_eq!(
        listed,
        ["+ Ingress a/web", "+ Ingress b/web", "listed"],
        "without classes"
    );
    scene.want(&["system/default-tls"]);
    assert_eq!(
        scene.until("synced").await,
        ["+ Secret default-tls one", "synced"]
    );
    let mut asked: Vec<String> = scene
        .log
        .all()
        .iter()
        .filter(|seen| {
            let of_cluster = ["gatewaypolicies", "ingressclasses"];
            seen.verb == "list" && !of_cluster.contains(&seen.resource.as_str())
        })
        .map(|seen| format!("{} {}", seen.namespace, seen.resource))
        .collect();
    asked.sort();
    assert_eq!(
        asked,
        [
            "a endpointslices",
            "a ingresses",
            "a referencegrants",
            "a routepolicies",
            "a secrets",
            "a services",
            "b endpointslices",
            "b ingresses",
            "b referencegrants",
            "b routepolicies",
            "b secrets",
            "b services",
            "system endpointslices",
            "system secrets",
            "system services",
        ]
    );
    sleep(Duration::from_secs(70)).await;
    assert_eq!(
        scene.log.count("list", "ingressclasses"),
        3,
        "tried again now and then"
    );
}

#[tokio::test(start_paused = true)]
async fn without_classes_an_installation_for_the_cluster_does_not_become_ready() {
    let store = Store::default();
    for _ in 0..1000 {
        store.fault("list", "ingressclasses", Reply::Refuse(403));
    }
    let mut scene = Scene::start(store, Scope::default());
    scene.silence().await;
}

fn policy() -> Value {
    json!({"spec": {"namespaces": ["shop"], "hosts": ["shop.test"]}})
}

#[tokio::test(start_paused = true)]
async fn policies_of_the_cluster_that_the_server_does_not_know_are_done_without_until_it_does() {
    let store = Store::default();
    store.put("gatewaypolicies", "", "shop", policy());
    for _ in 0..2 {
        store.fault("list", "gatewaypolicies", Reply::Refuse(404));
    }
    let mut scene = Scene::synced(store, &[]).await;
    assert_eq!(scene.next().await, ["+ GatewayPolicy shop"]);
}

#[tokio::test(start_paused = true)]
async fn policies_are_known_before_anything_is_served() {
    let store = Store::default();
    store.put("gatewaypolicies", "", "shop", policy());
    let mut scene = Scene::start(store, Scope::default());
    let before = scene.until("listed").await;
    assert_eq!(before, ["+ GatewayPolicy shop", "listed"]);
}

#[tokio::test(start_paused = true)]
async fn policies_that_may_not_be_read_keep_an_installation_for_the_cluster_from_becoming_ready() {
    let store = Store::default();
    for _ in 0..1000 {
        store.fault("list", "gatewaypolicies", Reply::Refuse(403));
    }
    let mut scene = Scene::start(store, Scope::default());
    scene.silence().await;
}

#[tokio::test(start_paused = true)]
async fn policies_outlive_a_server_that_has_forgotten_their_kind() {
    let store = Store::default();
    store.put("gatewaypolicies", "", "shop", policy());
    let mut scene = Scene::start(store, Scope::default());
    scene.until("listed").await;
    scene.want(&[]);
    scene.until("synced").await;
    for _ in 0..1000 {
        scene
            .store
            .fault("list", "gatewaypolicies", Reply::Refuse(404));
        scene
            .store
            .fault("watch", "gatewaypolicies", Reply::Refuse(404));
    }
    scene.store.close_watches("gatewaypolicies");
    scene.silence().await;
}

#[tokio::test(start_paused = true)]
async fn policies_that_the_server_does_not_know_are_done_without_until_it_does() {
    let store = Store::default();
    let policy = json!({"spec": {"deny": [{"path": {"prefix": "/a"}}]}});
    store.put("routepolicies", "shop", "web", policy);
    for _ in 0..2 {
        store.fault("list", "routepolicies", Reply::Refuse(404));
    }
    let mut scene = Scene::synced(store, &[]).await;
    assert_eq!(scene.next().await, ["+ RoutePolicy shop/web"]);
}

#[tokio::test(start_paused = true)]
async fn policies_that_may_not_be_read_keep_it_from_becoming_ready() {
    let store = Store::default();
    for _ in 0..1000 {
        store.fault("list", "routepolicies", Reply::Refuse(403));
    }
    let mut scene = Scene::start(store, Scope::default());
    scene.silence().await;
}

#[tokio::test(start_paused = true)]
async fn a_secret_that_becomes_wanted_is_read() {
    let store = Store::default();
    store.put("secrets", "shop", "web-tls", secret(ONE));
    store.put(
        "secrets",
        "shop",
        "opaque",
        json!({"type": "Opaque", "data": {"tls.crt": ONE}}),
    );
    let mut scene = Scene::synced(store, &[]).await;
    scene.want(&["shop/web-tls", "shop/absent", "shop/opaque"]);
    let mut read = scene.next().await;
    read.extend(scene.next().await);
    read.sort();
    assert_eq!(
        read,
        ["+ Secret opaque ", "+ Secret web-tls one"],
        "of a wrong type only the fact"
    );
    scene.store.put("secrets", "shop", "absent", secret(TWO));
    assert_eq!(
        scene.next().await,
        ["+ Secret absent two"],
        "the watch brings it"
    );
    scene.store.remove("secrets", "shop", "web-tls");
    assert_eq!(scene.next().await, ["- Secret shop/web-tls"]);
    scene.want(&["shop/opaque"]);
    assert_eq!(
        scene.next().await,
        ["- Secret shop/absent"],
        "kept no longer than wanted"
    );
    scene.store.put("secrets", "shop", "absent", secret(ONE));
    scene.silence().await;
    scene.since += 1;
    scene.want(&["shop/opaque"]);
    assert_eq!(
        scene.next().await,
        ["+ Secret opaque "],
        "it was unwanted for a moment"
    );
}

#[tokio::test(start_paused = true)]
async fn reading_a_secret_is_tried_again() {
    let store = Store::default();
    store.put("secrets", "shop", "web-tls", secret(ONE));
    for reply in [
        Reply::Refuse(403),
        Reply::Refuse(500),
        Reply::Hang,
        Reply::Disconnect,
    ] {
        store.fault("get", "secrets", reply);
    }
    let mut scene = Scene::synced(store, &[]).await;
    scene.want(&["shop/web-tls"]);
    assert_eq!(scene.next().await, ["+ Secret web-tls one"]);
    assert_eq!(scene.log.count("get", "secrets"), 5);
}

#[tokio::test(start_paused = true)]
async fn of_a_read_and_a_watch_the_newer_version_wins() {
    let store = Store::default();
    let old = store.put("secrets", "shop", "web-tls", secret(ONE));
    let mut scene = Scene::synced(store, &[]).await;
    // The watch is behind: it tells of the old version, and of a deletion before it, after the new one was read.
    scene.store.close_watches("nothing");
    let new = scene.store.put("secrets", "shop", "web-tls", secret(TWO));
    scene.want(&["shop/web-tls"]);
    assert_eq!(scene.next().await, ["+ Secret web-tls two"]);
    for (kind, text) in [("MODIFIED", ONE), ("DELETED", ONE)] {
        let mut object = secret(text);
        object["metadata"] = json!({
            "namespace": "shop", "name": "web-tls", "resourceVersion": old.to_string(),
        });
        scene
            .store
            .tell("secrets", &json!({"type": kind, "object": object}));
    }
    scene.silence().await;

    // The read is behind: the watch has brought a newer version before the answer comes.
    let (client, _) = scene.store.client();
    let stale: Secret = Api::namespaced(client, "shop")
        .get("web-tls")
        .await
        .unwrap();
    assert_eq!(
        stale.metadata.resource_version.as_deref(),
        Some(new.to_string().as_str())
    );
    let mut keeper = secrets::tests_support::keeper(&["shop/web-tls"]);
    let ticket = keeper.reading("shop/web-tls");
    let mut newer = stale.clone();
    newer.metadata.resource_version = Some((new + 1).to_string());
    assert_eq!(keeper.watched(Event::Apply(newer.clone())).len(), 1);
    assert!(
        keeper.answered(&ticket, Some(stale.clone())).is_empty(),
        "overtaken"
    );
    let ticket = keeper.reading("shop/web-tls");
    assert_eq!(keeper.watched(Event::Delete(newer)).len(), 1);
    assert!(
        keeper.answered(&ticket, Some(stale)).is_empty(),
        "deleted meanwhile"
    );
}

#[tokio::test(start_paused = true)]
async fn a_secret_that_vanished_while_the_watch_was_down_is_deleted() {
    for read_by_name in [false, true] {
        let store = Store::default();
        store.put("secrets", "shop", "web-tls", secret(ONE));
        let mut scene = if read_by_name {
            let mut scene = Scene::synced(store, &[]).await;
            scene.want(&["shop/web-tls"]);
            assert_eq!(scene.next().await, ["+ Secret web-tls one"]);
            scene
        } else {
            Scene::synced(store, &["shop/web-tls"]).await
        };
        scene.store.fault("watch", "secrets", Reply::Refuse(410));
        scene.store.remove_unseen("secrets", "shop", "web-tls");
        assert_eq!(
            scene.next().await,
            ["- Secret shop/web-tls"],
            "{read_by_name}"
        );
    }
}
