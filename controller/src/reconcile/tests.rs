use std::time::Duration;

use table::TableReader;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use translate::manifests;

use super::*;
use crate::watch::{self as source, EventSender};

const PATIENCE: Duration = Duration::from_secs(20);

struct Loop {
    events: EventSender,
    shared: Shared,
    tables: TableReader,
    task: JoinHandle<()>,
}

fn start(from_folder: bool) -> Loop {
    let (events, received) = source::channel();
    let (writer, tables) = table::channel(table::compile(&RoutingModel::default()).table);
    let shared = Shared::default();
    let settings = translate::Settings {
        watch_without_class: true,
        ..translate::Settings::default()
    };
    let reconciler = Reconciler::new(
        Translator::new(settings),
        Publisher::new(writer),
        None,
        shared.clone(),
        from_folder,
    );
    Loop {
        events,
        shared,
        tables,
        task: tokio::spawn(reconciler.run(received)),
    }
}

impl Loop {
    async fn send(&self, text: &str) {
        let objects = manifests::parse(text).objects;
        let changes = objects.into_iter().map(Change::Apply).collect();
        self.events
            .send(SourceEvent::Changes(changes))
            .await
            .unwrap();
    }

    async fn reached(&self, condition: impl FnMut(&Progress) -> bool) -> Progress {
        let mut progress = self.shared.progress.subscribe();
        let reached = timeout(PATIENCE, progress.wait_for(condition)).await;
        *reached.unwrap().unwrap()
    }

    fn serves(&self, host: &str) -> bool {
        self.tables.pin().knows_host(host)
    }
}

fn ingress(host: &str) -> String {
    format!(
        "apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {{name: {host}}}
spec:
  rules: [{{host: {host}, http: {{paths: [{{path: /, pathType: Prefix, backend: {{service: {{name: web, port: {{number: 80}}}}}}}}]}}}}]
  tls: [{{hosts: [{host}], secretName: tls}}]
"
    )
}

const SECRET: &str = "apiVersion: v1\nkind: Secret\nmetadata: {name: tls}\ntype: kubernetes.io/tls\n\
    stringData: {tls.crt: broken, tls.key: broken}\n";

#[tokio::test]
async fn nothing_is_published_before_everything_has_been_reported_once() {
    let running = start(false);
    running.send(&ingress("a.test")).await;
    running.events.send(SourceEvent::Listed).await.unwrap();
    let mut wanted = running.shared.wanted.subscribe();
    let known = timeout(PATIENCE, wanted.wait_for(|wanted| !wanted.is_empty())).await;
    let names: Vec<String> = known
        .unwrap()
        .unwrap()
        .keys()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        names,
        ["default/tls"],
        "the source learns which Secrets to deliver"
    );
    assert!(!running.serves("a.test"));
    running.events.send(SourceEvent::Synced).await.unwrap();
    running.reached(|progress| progress.generation == 1).await;
    assert!(running.serves("a.test"));
}

#[tokio::test]
async fn an_empty_source_leads_to_a_table_too() {
    let running = start(false);
    running.events.send(SourceEvent::Synced).await.unwrap();
    let progress = running.reached(|progress| progress.passes > 0).await;
    assert_eq!(progress.generation, 1);
}

#[tokio::test]
async fn a_burst_of_changes_takes_few_passes_and_the_last_one_counts() {
    let running = start(false);
    running.events.send(SourceEvent::Synced).await.unwrap();
    running.reached(|progress| progress.generation == 1).await;
    for number in 0..500 {
        running.send(&ingress(&format!("h{number}.test"))).await;
    }
    let (tables, mut progress) = (running.tables.clone(), running.shared.progress.subscribe());
    let last = progress.wait_for(|_| tables.pin().knows_host("h499.test"));
    let passes = timeout(PATIENCE, last).await.unwrap().unwrap().passes;
    assert!(passes < 100, "{passes} passes for 500 changes");
    assert!(running.serves("h0.test"));
}

#[tokio::test]
async fn a_folder_delivers_a_secret_once_and_it_is_there_when_it_is_wanted() {
    let running = start(true);
    running.send(SECRET).await;
    running.events.send(SourceEvent::Synced).await.unwrap();
    running.reached(|progress| progress.generation == 1).await;
    running.send(&ingress("a.test")).await;
    running.reached(|progress| progress.generation == 2).await;
    let problems: Vec<String> = running
        .shared
        .problems
        .all()
        .into_iter()
        .map(|entry| entry.message)
        .collect();
    assert!(
        problems.iter().any(
            |text| text.contains("`tls.crt` is not PEM") || text.contains("has no certificate")
        ),
        "the Secret is known: {problems:?}"
    );
}

struct Nothing;

impl PassObserver for Nothing {
    fn observe(&mut self, _pass: &Pass<'_>) {}
}

#[tokio::test]
async fn questions_are_answered_with_what_is_known() {
    let (events, received) = source::channel();
    let (writer, _tables) = table::channel(table::compile(&RoutingModel::default()).table);
    let shared = Shared::default();
    let settings = translate::Settings {
        watch_without_class: true,
        ..translate::Settings::default()
    };
    let (ask, questions) = crate::admission::questions();
    let reconciler = Reconciler::new(
        Translator::new(settings),
        Publisher::new(writer),
        None,
        shared.clone(),
        false,
    );
    tokio::spawn(reconciler.reviewing(Nothing, questions).run(received));
    let about = async |text: &str| {
        let object = manifests::parse(text).objects.remove(0);
        let (reply, known) = tokio::sync::oneshot::channel();
        ask.send(Question { object, reply }).await.unwrap();
        timeout(PATIENCE, known).await.unwrap().unwrap()
    };
    let known = about(&ingress("a.test")).await;
    assert!(matches!(known, Known::TooEarly), "{known:?}");
    events.send(SourceEvent::Synced).await.unwrap();
    let mut progress = shared.progress.subscribe();
    let synced = progress.wait_for(|progress| progress.generation == 1);
    timeout(PATIENCE, synced).await.unwrap().unwrap();
    let known = about(&ingress("a.test")).await;
    assert!(matches!(known, Known::Ours { .. }), "{known:?}");
    let known = about(SECRET).await;
    assert!(matches!(known, Known::Foreign), "{known:?}");
    drop(ask);
    // It goes on without anybody who asks.
    let object = manifests::parse(&ingress("b.test")).objects.remove(0);
    let change = SourceEvent::Changes(vec![Change::Apply(object)]);
    events.send(change).await.unwrap();
    let passed = progress.wait_for(|progress| progress.generation == 2);
    timeout(PATIENCE, passed).await.unwrap().unwrap();
}

#[tokio::test]
async fn it_ends_with_its_source() {
    let running = start(false);
    drop(running.events);
    timeout(PATIENCE, running.task).await.unwrap().unwrap();
}
