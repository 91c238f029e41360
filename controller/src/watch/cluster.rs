//! The Kubernetes API as a source: one watch per kind and namespace.
//!
//! Whatever the API server does, a watch goes on trying and the last state stays: nothing in here ends the process.
//! What vanished while a watch was down is found by comparing the new list with what was reported before.

use std::collections::BTreeSet;
use std::future::pending;
use std::pin::pin;
use std::time::Duration;

use crds::{GatewayPolicy, ReferenceGrant, RoutePolicy};
use futures::{FutureExt, StreamExt};
use k8s_openapi::api::core::v1::{ConfigMap, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use k8s_openapi::{ClusterResourceScope, NamespaceResourceScope};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client};
use model::ObjectRef;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};
use translate::{Change, NamespacedName};

use super::failure::{Cause, Failure, Journal, describe_watch};
use super::kinds::{Kind, WATCHED_SECRETS};
use super::line::{self, Line, Pace};
use super::secrets::{self, Batch};
use super::{Closed, EventSender, SourceEvent, Wanted};
use crate::backoff::Backoff;
use crate::telemetry;

/// Objects that are reported together at most.
const BATCH: usize = 512;

/// How long the wanted Secrets are waited for before Secrets are listed all the same.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is watched.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scope {
    /// These namespaces; empty for all.
    pub(crate) namespaces: BTreeSet<String>,
    /// The ConfigMap with the settings.
    pub(crate) configmap: Option<NamespacedName>,
    /// Other ConfigMaps that settings name.
    pub(crate) further_configmaps: BTreeSet<NamespacedName>,
    /// Services that settings name. Watched one by one where their namespace is not watched.
    pub(crate) services: BTreeSet<NamespacedName>,
    /// Secrets that settings name. Watched one by one where their namespace is not watched.
    pub(crate) secrets: BTreeSet<NamespacedName>,
}

impl Scope {
    fn covers(&self, namespace: &str) -> bool {
        self.namespaces.is_empty() || self.namespaces.contains(namespace)
    }
}

/// Watches until nobody listens any more.
///
/// `wanted` names the Secrets to keep. It is asked for after [`SourceEvent::Listed`]; Secrets that it does not name are
/// dropped as they arrive.
pub(crate) async fn run(
    client: Client,
    scope: Scope,
    wanted: watch::Receiver<Wanted>,
    events: EventSender,
) {
    run_paced(client, scope, wanted, events, Pace::default()).await;
}

/// [`run`] with delays of the caller's choice.
pub(crate) async fn run_paced(
    client: Client,
    scope: Scope,
    mut wanted: watch::Receiver<Wanted>,
    events: EventSender,
    pace: Pace,
) {
    let (listed, mut first_lists) = mpsc::unbounded_channel();
    let mut source = Source {
        client,
        pace,
        events: events.clone(),
        listed,
        tasks: JoinSet::new(),
        count: 0,
    };
    source.watch_all_but_secrets(&scope);
    let expected = source.count;
    wanted.mark_unchanged();
    let sync = async {
        for _ in 0..expected {
            first_lists.recv().await;
        }
        events.send(SourceEvent::Listed).await?;
        // The reconcile loop answers at once; should it not, every Secret it wants is read by name afterwards.
        let _ = timeout(PATIENCE, wanted.changed()).await;
        let watches = source.watch_secrets(&scope, wanted.clone());
        for _ in 0..watches {
            first_lists.recv().await;
        }
        events.send(SourceEvent::Synced).await
    };
    if sync.await.is_err() {
        return;
    }
    // A watch ends only when nobody listens any more. Dropping the set ends the others.
    source.tasks.join_next().await;
}

struct Source {
    client: Client,
    pace: Pace,
    events: EventSender,
    listed: mpsc::UnboundedSender<()>,
    tasks: JoinSet<()>,
    count: usize,
}

impl Source {
    fn watch_all_but_secrets(&mut self, scope: &Scope) {
        self.watch_namespaced::<Ingress>(scope, &watcher::Config::default());
        self.watch_namespaced::<Service>(scope, &watcher::Config::default());
        self.watch_namespaced::<EndpointSlice>(scope, &watcher::Config::default());
        self.watch_namespaced::<RoutePolicy>(scope, &watcher::Config::default());
        self.watch_namespaced::<ReferenceGrant>(scope, &watcher::Config::default());
        self.watch_of_cluster::<IngressClass>(scope);
        self.watch_of_cluster::<GatewayPolicy>(scope);
        for service in &scope.services {
            if !scope.covers(&service.namespace) {
                let by_name = format!("metadata.name={}", service.name);
                self.watch_one::<Service>(
                    &service.namespace,
                    watcher::Config::default().fields(&by_name),
                );
                let by_label = format!("kubernetes.io/service-name={}", service.name);
                self.watch_one::<EndpointSlice>(
                    &service.namespace,
                    watcher::Config::default().labels(&by_label),
                );
            }
        }
        let configmaps: BTreeSet<_> = scope
            .configmap
            .iter()
            .chain(&scope.further_configmaps)
            .collect();
        for configmap in configmaps {
            let by_name = format!("metadata.name={}", configmap.name);
            self.watch_one::<ConfigMap>(
                &configmap.namespace,
                watcher::Config::default().fields(&by_name),
            );
        }
    }

    fn watch_namespaced<K>(&mut self, scope: &Scope, config: &watcher::Config)
    where
        K: Kind + kube::Resource<Scope = NamespaceResourceScope>,
    {
        if scope.namespaces.is_empty() {
            self.spawn::<K>("", config.clone(), Api::all, false);
        }
        for namespace in &scope.namespaces {
            self.watch_one::<K>(namespace, config.clone());
        }
    }

    fn watch_one<K>(&mut self, namespace: &str, config: watcher::Config)
    where
        K: Kind + kube::Resource<Scope = NamespaceResourceScope>,
    {
        let api = |client| Api::namespaced(client, namespace);
        self.spawn::<K>(namespace, config, api, false);
    }

    /// Classes and policies belong to the whole cluster: an installation for a few namespaces may not be allowed to see
    /// them.
    fn watch_of_cluster<K>(&mut self, scope: &Scope)
    where
        K: Kind + kube::Resource<Scope = ClusterResourceScope>,
    {
        let optional = !scope.namespaces.is_empty();
        self.spawn::<K>("", watcher::Config::default(), Api::all, optional);
    }

    fn spawn<K: Kind>(
        &mut self,
        namespace: &str,
        config: watcher::Config,
        api: impl FnOnce(Client) -> Api<K>,
        optional: bool,
    ) {
        let (client, line) = line::client(&self.client, K::NAME, &self.pace);
        let watch = Watch {
            api: api(client),
            config,
            line,
            journal: Journal::new("Watch", K::NAME, namespace),
            pace: self.pace.clone(),
            optional,
        };
        let sink = Reporter {
            known: BTreeSet::new(),
            relisted: None,
            events: self.events.clone(),
            listed: Some(self.listed.clone()),
        };
        self.tasks.spawn(watch.run(sink));
        self.count += 1;
    }

    /// Starts the watches of Secrets and what chooses among them; returns how many first lists follow.
    fn watch_secrets(&mut self, scope: &Scope, wanted: watch::Receiver<Wanted>) -> usize {
        let (batches, received) = mpsc::channel(4);
        let of_type = watcher::Config::default().fields(WATCHED_SECRETS);
        let mut places: Vec<(String, watcher::Config)> = if scope.namespaces.is_empty() {
            vec![(String::new(), of_type)]
        } else {
            let place = |namespace: &String| (namespace.clone(), of_type.clone());
            scope.namespaces.iter().map(place).collect()
        };
        for secret in scope.secrets.iter().filter(|s| !scope.covers(&s.namespace)) {
            let fields = format!("{WATCHED_SECRETS},metadata.name={}", secret.name);
            places.push((
                secret.namespace.to_string(),
                watcher::Config::default().fields(&fields),
            ));
        }
        let watches = places.len();
        for (index, (namespace, config)) in places.into_iter().enumerate() {
            let (client, line) = line::client(&self.client, Secret::NAME, &self.pace);
            let watch = Watch {
                api: if namespace.is_empty() {
                    Api::all(client)
                } else {
                    Api::namespaced(client, &namespace)
                },
                config,
                line,
                journal: Journal::new("Watch", Secret::NAME, &namespace),
                pace: self.pace.clone(),
                optional: false,
            };
            let sink = SecretSink {
                watch: index,
                batches: batches.clone(),
            };
            self.tasks.spawn(watch.run(sink));
        }
        self.tasks.spawn(secrets::keep(
            self.client.clone(),
            wanted,
            received,
            self.events.clone(),
            self.listed.clone(),
            self.pace.clone(),
        ));
        watches
    }
}

/// Where the events of a watch go.
trait Sink<K>: Send {
    /// Takes the events that are there, in their order.
    fn take(&mut self, events: Vec<Event<K>>) -> impl Future<Output = Result<(), Closed>> + Send;

    /// The kind is forbidden and that is tolerated: it counts as listed.
    fn forbidden(&mut self);
}

struct Watch<K> {
    api: Api<K>,
    config: watcher::Config,
    line: Line,
    journal: Journal,
    pace: Pace,
    /// Can we do without this kind?
    optional: bool,
}

/// Why a watcher is left.
enum Left {
    /// To begin anew with a list.
    Anew,
    Closed,
}

impl<K: Kind> Watch<K> {
    async fn run(mut self, mut sink: impl Sink<K>) {
        while let Left::Anew = self.follow(&mut sink).await {}
    }

    /// Follows one watcher until it has to be replaced.
    async fn follow(&mut self, sink: &mut impl Sink<K>) -> Left {
        let mut stream = pin!(watcher(self.api.clone(), self.config.clone()));
        let mut listing = true;
        let mut backoff = self.pace.backoff.clone();
        loop {
            let limit = async {
                if listing {
                    sleep(self.pace.list).await;
                } else {
                    // A quiet watch is not a broken one; the watcher itself notices a dead connection.
                    pending::<()>().await;
                }
            };
            let mut next = tokio::select! {
                next = stream.next() => next,
                () = limit => {
                    let failure = Failure::timeout("a list did not go on");
                    self.pause(&failure, &mut backoff).await;
                    return Left::Anew;
                }
            };
            let mut batch = Vec::new();
            let error = loop {
                match next {
                    Some(Ok(event)) => {
                        listing = matches!(event, Event::Init | Event::InitApply(_));
                        batch.push(event.modify(Kind::strip));
                    }
                    Some(Err(error)) => break Some(error),
                    None => return Left::Anew,
                }
                if batch.len() >= BATCH {
                    break None;
                }
                let Some(ready) = stream.next().now_or_never() else {
                    break None;
                };
                next = ready;
            };
            // `Init` comes before the request for the list and says nothing about the server.
            let news = batch.iter().any(|event| !matches!(event, Event::Init));
            if !batch.is_empty() && sink.take(batch).await.is_err() {
                return Left::Closed;
            }
            if news {
                self.journal.recovered();
                backoff.reset();
            }
            if let Some(error) = error {
                listing = lists_next(&error);
                if self.failed(&error, sink, &mut backoff).await {
                    return Left::Anew;
                }
            }
        }
    }

    /// Deals with an error of the watcher; true if the watcher has to be replaced.
    async fn failed(
        &mut self,
        error: &watcher::Error,
        sink: &mut impl Sink<K>,
        backoff: &mut Backoff,
    ) -> bool {
        let failure = describe_watch(error);
        self.line.failed();
        if self.optional && failure.cause == Cause::Forbidden {
            if self.journal.tolerated(Instant::now()) {
                warn!(
                    kind = K::NAME,
                    "Not allowed to watch this kind. {}",
                    K::WITHOUT
                );
            }
            sink.forbidden();
            sleep(self.pace.forbidden).await;
            return false;
        }
        if K::OPTIONAL && is_unknown(error) {
            if self.journal.tolerated(Instant::now()) {
                info!(
                    kind = K::NAME,
                    "The API server does not know this kind; it is done without until it does"
                );
            }
            // What was known of it stays: its objects are deleted one by one before the kind goes.
            sink.forbidden();
            sleep(self.pace.forbidden).await;
            return false;
        }
        if failure.cause == Cause::Gone {
            // The server answers, and a list will do: no reason to wait as long as for one that was away.
            backoff.reset();
        }
        self.pause(&failure, backoff).await;
        // The watcher itself starts again from a list if a running watch says so, but not if its start is refused.
        failure.cause == Cause::Gone && matches!(error, watcher::Error::WatchStartFailed(_))
    }

    async fn pause(&mut self, failure: &Failure, backoff: &mut Backoff) {
        let reason = failure.cause.label();
        metrics::counter!(telemetry::WATCH_RESTARTS, "kind" => K::NAME, "reason" => reason)
            .increment(1);
        self.journal.failed(failure, Instant::now());
        sleep(backoff.delay()).await;
    }
}

/// Is the kind one that the server has never heard of?
fn is_unknown(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status)) => status.code == 404,
        watcher::Error::InitialListFailed(_)
        | watcher::Error::WatchStartFailed(_)
        | watcher::Error::NoResourceVersion
        | watcher::Error::WatchError(_)
        | watcher::Error::WatchFailed(_) => false,
    }
}

/// Does the watcher go on with a list after this error? Otherwise it starts the watch again, and then it may be quiet.
fn lists_next(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::InitialListFailed(_) | watcher::Error::NoResourceVersion => true,
        watcher::Error::WatchError(status) => status.code == 410,
        watcher::Error::WatchStartFailed(_) | watcher::Error::WatchFailed(_) => false,
    }
}

/// Reports every object of a watch.
struct Reporter {
    /// What was reported and not deleted since.
    known: BTreeSet<(Box<str>, Box<str>)>,
    /// While a list runs: what it holds so far.
    relisted: Option<BTreeSet<(Box<str>, Box<str>)>>,
    events: EventSender,
    /// Told once, after the first list has been reported.
    listed: Option<mpsc::UnboundedSender<()>>,
}

impl Reporter {
    fn first_list_done(&mut self) {
        if let Some(listed) = self.listed.take() {
            // Nobody hears it if the source has been dropped; then nobody needs to.
            let _ = listed.send(());
        }
    }
}

impl<K: Kind> Sink<K> for Reporter {
    async fn take(&mut self, events: Vec<Event<K>>) -> Result<(), Closed> {
        let mut changes = Vec::with_capacity(events.len());
        let mut done = false;
        for event in events {
            match event {
                Event::Init => self.relisted = Some(BTreeSet::new()),
                Event::InitApply(object) => {
                    let name = name_of(&object);
                    if let Some(relisted) = &mut self.relisted {
                        relisted.insert(name.clone());
                    }
                    self.known.insert(name);
                    changes.push(Change::Apply(object.object()));
                }
                Event::InitDone => {
                    let listed = self.relisted.take().unwrap_or_default();
                    let gone = self.known.difference(&listed);
                    changes.extend(gone.map(|(namespace, name)| {
                        Change::Delete(ObjectRef::new(K::NAME, namespace, name))
                    }));
                    self.known = listed;
                    done = true;
                }
                Event::Apply(object) => {
                    self.known.insert(name_of(&object));
                    changes.push(Change::Apply(object.object()));
                }
                Event::Delete(object) => {
                    let (namespace, name) = name_of(&object);
                    let reference = ObjectRef::new(K::NAME, &namespace, &name);
                    self.known.remove(&(namespace, name));
                    changes.push(Change::Delete(reference));
                }
            }
        }
        if !changes.is_empty() {
            self.events.send(SourceEvent::Changes(changes)).await?;
        }
        if done {
            self.first_list_done();
        }
        Ok(())
    }

    fn forbidden(&mut self) {
        self.first_list_done();
    }
}

fn name_of<K: Kind>(object: &K) -> (Box<str>, Box<str>) {
    let namespace = object.meta().namespace.as_deref().unwrap_or_default();
    let name = object.meta().name.as_deref().unwrap_or_default();
    (namespace.into(), name.into())
}

/// Hands the events of a watch of Secrets to whoever chooses among them.
struct SecretSink {
    watch: usize,
    batches: mpsc::Sender<Batch>,
}

impl Sink<Secret> for SecretSink {
    async fn take(&mut self, events: Vec<Event<Secret>>) -> Result<(), Closed> {
        let batch = Batch {
            watch: self.watch,
            events,
        };
        self.batches.send(batch).await.map_err(|_| Closed)
    }

    fn forbidden(&mut self) {}
}

#[cfg(test)]
mod tests;
