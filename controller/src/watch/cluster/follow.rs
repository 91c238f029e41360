//! One watch: followed for as long as somebody listens, and reported.

use std::collections::BTreeSet;
use std::future::pending;
use std::pin::pin;

use futures::{FutureExt, StreamExt};
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::runtime::watcher::{self, Event, watcher};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tracing::{info, warn};
use translate::{Change, NamespacedName};

use super::super::failure::{Cause, Failure, Journal, describe_watch};
use super::super::kinds::Kind;
use super::super::line::{Line, Pace};
use super::super::secrets::Batch;
use super::super::{Closed, EventSender, SourceEvent};
use crate::backoff::Backoff;
use crate::telemetry;

/// Objects that are reported together at most.
const BATCH: usize = 64;

/// Where the events of a watch go.
pub(super) trait Sink<K>: Send {
    /// Takes the events that are there, in their order.
    fn take(&mut self, events: Vec<Event<K>>) -> impl Future<Output = Result<(), Closed>> + Send;

    /// The kind is forbidden and that is tolerated: it counts as listed.
    fn forbidden(&mut self);
}

pub(super) struct Watch<K> {
    pub(super) api: Api<K>,
    pub(super) config: watcher::Config,
    pub(super) line: Line,
    pub(super) journal: Journal,
    pub(super) pace: Pace,
    /// Can we do without this kind?
    pub(super) optional: bool,
}

/// Why a watcher is left.
enum Left {
    /// To begin anew with a list.
    Anew,
    Closed,
}

impl<K: Kind> Watch<K> {
    pub(super) async fn run(mut self, mut sink: impl Sink<K>) {
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
pub(super) struct Reporter {
    /// What was reported and not deleted since.
    pub(super) known: BTreeSet<NamespacedName>,
    /// While a list runs: what it holds so far.
    pub(super) relisted: Option<BTreeSet<NamespacedName>>,
    pub(super) events: EventSender,
    /// Told once, after the first list has been reported.
    pub(super) listed: Option<mpsc::UnboundedSender<()>>,
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
                    changes.extend(gone.map(|name| Change::Delete(name.reference(K::NAME))));
                    self.known = listed;
                    done = true;
                }
                Event::Apply(object) => {
                    self.known.insert(name_of(&object));
                    changes.push(Change::Apply(object.object()));
                }
                Event::Delete(object) => {
                    let name = name_of(&object);
                    self.known.remove(&name);
                    changes.push(Change::Delete(name.reference(K::NAME)));
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

fn name_of<K: Kind>(object: &K) -> NamespacedName {
    let namespace = object.meta().namespace.as_deref().unwrap_or_default();
    let name = object.meta().name.as_deref().unwrap_or_default();
    NamespacedName::new(namespace, name)
}

/// Hands the events of a watch of Secrets to whoever chooses among them.
pub(super) struct SecretSink {
    pub(super) watch: usize,
    pub(super) batches: mpsc::Sender<Batch>,
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
