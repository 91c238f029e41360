use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::task::JoinHandle;
use translate::{Change, NamespacedName, Object, Settings, Translator, kinds};

use super::*;
use crate::fake_api::{Log, Reply, Store};
use crate::reconcile::{Pass, PassObserver};
use crate::status::plan::{Publish, Validity};

/// A writer on a server, and the loop that feeds it.
struct Scene {
    store: Store,
    log: Log,
    translator: Translator,
    board: Board,
    leading: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Scene {
    fn start(publish: Publish) -> Self {
        let store = Store::default();
        let (client, log) = store.client();
        let now = Timestamp::now().as_second();
        // A Secret called `old` holds a certificate that has expired.
        let board = Board::new(
            publish,
            Arc::new(move |secret: &NamespacedName| {
                let end = if &*secret.name == "old" {
                    now - 60
                } else {
                    now + 10_000_000
                };
                Some(Validity {
                    not_before: now - 1_000_000,
                    not_after: end,
                })
            }),
        );
        let leading = watch::Sender::new(true);
        let reporter = Reporter {
            controller: "lockgate.dev/ingress-controller".to_owned(),
            instance: "lockgate-0".to_owned(),
        };
        let task = tokio::spawn(run(
            client,
            board.clone(),
            leading.subscribe(),
            reporter,
            Pace::default(),
        ));
        let mut translator = Translator::new(Settings::default());
        let class = json!({
            "metadata": {"name": "lockgate"},
            "spec": {"controller": "lockgate.dev/ingress-controller"},
        });
        let class: k8s_openapi::api::networking::v1::IngressClass =
            serde_json::from_value(class).unwrap();
        translator.apply([Change::Apply(Object::from(class))]);
        Self {
            store,
            log,
            translator,
            board,
            leading,
            task,
        }
    }

    fn published(addresses: &[&str]) -> Self {
        Self::start(Publish::Addresses(
            addresses.iter().map(|text| text.parse().unwrap()).collect(),
        ))
    }

    /// What the watch brings of an Ingress goes through the loop.
    fn deliver(&mut self, name: &str) {
        let object = ObjectRef::new(kinds::INGRESS, "shop", name);
        let change = match self.store.get("ingresses", "shop", name) {
            Some(stored) => Change::Apply(Object::from(
                serde_json::from_value::<Ingress>(stored).unwrap(),
            )),
            None => Change::Delete(object.clone()),
        };
        self.pass(vec![change], [object].into());
    }

    fn pass(&mut self, changes: Vec<Change>, mut touched: BTreeSet<ObjectRef>) {
        touched.extend(self.translator.apply(changes).touched);
        self.board.observe(&Pass {
            snapshot: self.translator.snapshot(),
            report: self.translator.report(),
            rejects: &[],
            touched: &touched,
        });
    }

    fn put(&mut self, name: &str, ingress: Value) {
        self.store.put("ingresses", "shop", name, ingress);
        self.deliver(name);
    }

    /// The addresses in the status of an Ingress.
    fn addresses(&self, name: &str) -> Value {
        let ingress = self.store.get("ingresses", "shop", name).unwrap();
        ingress["status"]["loadBalancer"]["ingress"].clone()
    }

    /// Time enough for everything that is due.
    async fn settle() {
        sleep(Duration::from_mins(1)).await;
    }

    fn writes(&self) -> usize {
        self.log.count("patch", "ingresses/status")
    }

    /// The notes of all Events that were sent, with their reasons.
    fn told(&self) -> Vec<String> {
        let all = self.log.all();
        let events = all.iter().filter(|seen| seen.resource == "events");
        events
            .map(|seen| match seen.verb {
                "create" => format!(
                    "{} {}",
                    seen.body["reason"].as_str().unwrap(),
                    seen.body["note"].as_str().unwrap()
                ),
                verb => format!("{verb} {}", seen.body["series"]["count"]),
            })
            .collect()
    }
}

fn ours() -> Value {
    json!({"spec": {
        "ingressClassName": "lockgate",
        "defaultBackend": {"service": {"name": "web", "port": {"number": 80}}},
    }})
}

/// Ours, and nothing is wrong with it.
fn faultless() -> Value {
    json!({"spec": {"ingressClassName": "lockgate", "rules": [{"host": "a.test"}]}})
}

fn theirs() -> Value {
    json!({"spec": {"ingressClassName": "another"}})
}

#[tokio::test(start_paused = true)]
async fn statuses_are_written_once_and_cleared_when_the_class_changes() {
    let mut scene = Scene::published(&["192.0.2.1", "lb.test"]);
    scene.put("web", faultless());
    scene.put("other", theirs());
    Scene::settle().await;
    let written = json!([{"ip": "192.0.2.1"}, {"hostname": "lb.test"}]);
    assert_eq!(scene.addresses("web"), written);
    assert_eq!(scene.addresses("other"), Value::Null);
    scene.deliver("web");
    Scene::settle().await;
    assert_eq!(scene.writes(), 1, "what is right is not written");

    let mut given_away = theirs();
    given_away["status"] = json!({"loadBalancer": {"ingress": written}});
    scene.put("web", given_away.clone());
    scene.put("other", given_away.clone());
    Scene::settle().await;
    assert_eq!(scene.addresses("web"), Value::Null);
    assert_eq!(scene.addresses("other"), written, "it never was ours");
    assert_eq!(scene.writes(), 2);
    assert!(!scene.task.is_finished());
}

#[tokio::test(start_paused = true)]
async fn statuses_follow_the_service() {
    let mut scene = Scene::start(Publish::Service(NamespacedName::new(
        "lockgate", "lockgate",
    )));
    scene.put("web", faultless());
    Scene::settle().await;
    assert_eq!(scene.writes(), 0, "the Service is not there yet");
    for address in ["192.0.2.1", "192.0.2.2"] {
        let service: k8s_openapi::api::core::v1::Service = serde_json::from_value(json!({
            "metadata": {"namespace": "lockgate", "name": "lockgate"},
            "spec": {"type": "LoadBalancer"},
            "status": {"loadBalancer": {"ingress": [{"ip": address}]}},
        }))
        .unwrap();
        scene.pass(vec![Change::Apply(Object::from(service))], BTreeSet::new());
        Scene::settle().await;
        assert_eq!(scene.addresses("web"), json!([{"ip": address}]));
    }
    assert_eq!(scene.writes(), 2);
}

#[tokio::test(start_paused = true)]
async fn only_the_leader_writes_and_a_new_one_writes_everything() {
    let mut scene = Scene::published(&["192.0.2.1"]);
    scene.leading.send_replace(false);
    scene.put("web", ours());
    Scene::settle().await;
    assert!(scene.log.texts().is_empty());
    scene.leading.send_replace(true);
    Scene::settle().await;
    assert_eq!(scene.addresses("web"), json!([{"ip": "192.0.2.1"}]));
    assert_eq!(scene.told().len(), 1);

    // It loses the leadership in the middle of a write, and gets it back.
    scene.store.fault("patch", "ingresses/status", Reply::Hang);
    scene.put("web", ours());
    sleep(Duration::from_secs(1)).await;
    scene.leading.send_replace(false);
    Scene::settle().await;
    assert_eq!(scene.addresses("web"), Value::Null);
    scene.leading.send_replace(true);
    Scene::settle().await;
    assert_eq!(scene.addresses("web"), json!([{"ip": "192.0.2.1"}]));
    assert_eq!(
        scene.told().last().unwrap(),
        "patch 2",
        "the same Event, seen again"
    );
    drop(scene.leading);
    scene.task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_conflict_is_decided_again_on_what_is_there() {
    let mut scene = Scene::published(&["192.0.2.1"]);
    scene.put("web", faultless());
    // Nobody has told us of this version yet.
    let mut changed = faultless();
    changed["metadata"]["annotations"] = json!({"a": "b"});
    scene.store.put("ingresses", "shop", "web", changed);
    Scene::settle().await;
    assert_eq!(scene.addresses("web"), json!([{"ip": "192.0.2.1"}]));
    let texts = scene.log.texts();
    assert_eq!(
        texts,
        [
            "patch ingresses/status shop/web",
            "get ingresses shop/web",
            "patch ingresses/status shop/web",
        ]
    );
    let stored = scene.store.get("ingresses", "shop", "web").unwrap();
    assert_eq!(
        stored["metadata"]["annotations"]["a"], "b",
        "their change is kept"
    );

    // Somebody else has written just what we wanted to write.
    scene.store.put("ingresses", "shop", "next", faultless());
    let early = scene.store.get("ingresses", "shop", "next").unwrap();
    let mut done = faultless();
    done["status"] = json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}});
    scene.store.put("ingresses", "shop", "next", done);
    let early: Ingress = serde_json::from_value(early).unwrap();
    let object = ObjectRef::new(kinds::INGRESS, "shop", "next");
    scene.pass(vec![Change::Apply(Object::from(early))], [object].into());
    Scene::settle().await;
    assert_eq!(scene.writes(), 3, "one refused attempt, and none after it");
}

#[tokio::test(start_paused = true)]
async fn a_write_that_fails_is_not_lost() {
    for reply in [
        || Reply::Refuse(401),
        || Reply::Refuse(403),
        || Reply::Refuse(429),
        || Reply::Refuse(500),
        || Reply::Hang,
        || Reply::Disconnect,
    ] {
        let mut scene = Scene::published(&["192.0.2.1"]);
        for _ in 0..5 {
            scene.store.fault("patch", "ingresses/status", reply());
            scene.store.fault("create", "events", reply());
        }
        scene.put("web", ours());
        for _ in 0..20 {
            Scene::settle().await;
        }
        assert_eq!(scene.addresses("web"), json!([{"ip": "192.0.2.1"}]));
        assert_eq!(scene.writes(), 6);
        assert_eq!(scene.told().len(), 6);
        assert!(!scene.store.has_faults());
    }
}

#[tokio::test(start_paused = true)]
async fn one_object_that_is_refused_does_not_hold_up_the_others() {
    let mut scene = Scene::published(&["192.0.2.1"]);
    for _ in 0..12 {
        scene
            .store
            .fault("patch", "ingresses/status", Reply::Refuse(422));
    }
    for index in 0..12 {
        scene.put(&format!("refused-{index}"), faultless());
    }
    sleep(Duration::from_secs(1)).await;
    scene.put("web", faultless());
    sleep(Duration::from_secs(1)).await;
    assert_eq!(scene.addresses("web"), json!([{"ip": "192.0.2.1"}]));
}

#[tokio::test(start_paused = true)]
async fn an_ingress_that_is_gone_is_forgotten() {
    let mut scene = Scene::published(&["192.0.2.1"]);
    scene.put("web", faultless());
    scene.store.remove("ingresses", "shop", "web");
    for _ in 0..10 {
        Scene::settle().await;
    }
    assert_eq!(scene.log.texts(), ["patch ingresses/status shop/web"]);
    scene.deliver("web");
    Scene::settle().await;
    assert_eq!(scene.writes(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_problem_is_told_once_when_it_lasts_and_again_when_it_returns() {
    let mut scene = Scene::start(Publish::Nothing);
    scene.put("web", ours());
    sleep(Duration::from_secs(1)).await;
    assert!(scene.told().is_empty(), "the Service may be about to come");
    Scene::settle().await;
    let told = scene.told();
    assert_eq!(told.len(), 1);
    assert!(
        told[0].starts_with("ServiceNotFound spec.defaultBackend"),
        "{told:?}"
    );
    for _ in 0..3 {
        scene.deliver("web");
        Scene::settle().await;
    }
    assert_eq!(scene.told().len(), 1, "no news");

    scene.put("web", faultless());
    Scene::settle().await;
    scene.put("web", ours());
    Scene::settle().await;
    assert_eq!(
        scene.told()[1..],
        [
            "ServiceNotFound ".to_owned() + &told[0]["ServiceNotFound ".len()..],
            "patch 2".to_owned()
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_problem_in_a_namespace_that_is_being_deleted_is_not_tried_again() {
    let mut scene = Scene::start(Publish::Nothing);
    let mut refusal = crate::fake_api::status(403);
    refusal["details"] = json!({"causes": [{
        "reason": "NamespaceTerminating",
        "message": "namespace test is being terminated",
        "field": "metadata.namespace",
    }]});
    scene
        .store
        .fault("create", "events", Reply::Json(403, refusal));
    scene.put("web", ours());
    Scene::settle().await;
    sleep(Duration::from_hours(1)).await;
    // Another attempt would have been heard: the fault is over after the first answer.
    assert_eq!(scene.told().len(), 1, "{:?}", scene.told());
}

#[tokio::test(start_paused = true)]
async fn a_problem_that_is_solved_at_once_is_not_told() {
    let mut scene = Scene::start(Publish::Nothing);
    scene.put("web", ours());
    sleep(Duration::from_secs(2)).await;
    scene.put("web", faultless());
    Scene::settle().await;
    assert!(scene.told().is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_expired_certificate_is_told_to_the_owners_of_ingresses() {
    let mut scene = Scene::start(Publish::Nothing);
    let mut ingress = faultless();
    ingress["spec"]["tls"] = json!([{"hosts": ["a.test"], "secretName": "old"}]);
    scene.put("web", ingress);
    Scene::settle().await;
    let told = scene.told();
    let expired = told
        .iter()
        .find(|text| text.starts_with("CertificateExpired"));
    assert!(expired.unwrap().contains("Secret shop/old"), "{told:?}");
}

/// A Secret with an authority and its revocation list, whose time is over.
fn outdated_lists(name: &str) -> k8s_openapi::api::core::v1::Secret {
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = rcgen::KeyPair::generate().unwrap();
    let authority = rcgen::CertifiedIssuer::self_signed(params, key).unwrap();
    let list = rcgen::CertificateRevocationListParams {
        this_update: rcgen::date_time_ymd(2020, 1, 1),
        next_update: rcgen::date_time_ymd(2021, 1, 1),
        crl_number: rcgen::SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: Vec::new(),
        key_identifier_method: rcgen::KeyIdMethod::Sha256,
    };
    let list = list.signed_by(&authority).unwrap().pem().unwrap();
    let bytes = |pem: String| k8s_openapi::ByteString(pem.into_bytes());
    k8s_openapi::api::core::v1::Secret {
        metadata: serde_json::from_value(json!({"name": name, "namespace": "shop"})).unwrap(),
        data: Some(
            [
                ("ca.crt".to_owned(), bytes(authority.pem())),
                ("ca.crl".to_owned(), bytes(list)),
            ]
            .into(),
        ),
        ..Default::default()
    }
}

#[tokio::test(start_paused = true)]
async fn a_revocation_list_whose_time_is_over_is_told_to_the_owners_of_ingresses() {
    let mut scene = Scene::start(Publish::Nothing);
    let mut ingress = faultless();
    ingress["metadata"]["annotations"] =
        json!({"nginx.ingress.kubernetes.io/auth-tls-secret": "shop/clients"});
    scene.put("web", ingress);
    let lists = Change::Apply(Object::from(outdated_lists("clients")));
    scene.pass(vec![lists], BTreeSet::new());
    Scene::settle().await;
    let told = scene.told();
    let expired = told
        .iter()
        .find(|text| text.starts_with("RevocationListExpired"));
    let expired = expired.unwrap_or_else(|| panic!("{told:?}"));
    assert!(
        expired.contains("Secret shop/clients expired at 2021-01-01T00:00:00Z"),
        "{expired}"
    );
}

#[tokio::test(start_paused = true)]
async fn many_problems_are_told_without_a_flood() {
    let mut scene = Scene::start(Publish::Nothing);
    for index in 0..200 {
        scene.put(&format!("web-{index}"), ours());
    }
    sleep(Duration::from_secs(4)).await;
    let soon = scene.told().len();
    assert!((20..=60).contains(&soon), "{soon} in the first second");
    Scene::settle().await;
    // Each lacks its Service, and all but the first have the same default backend.
    assert_eq!(scene.told().len(), 200 + 199);
}
