//! The loop between a source and the gateway: collect changes, translate, compile, publish, report.

mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use metrics::{gauge, histogram};
use model::{Changes, ObjectRef, RoutingModel};
use table::Reject;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout_at;
use tracing::{debug, info};
use translate::{
    Change, NamespacedName, Outcome, PackedObject, Report, Snapshot, Translator, kinds,
};

use self::words::{describe, only_endpoints};
use crate::admission::{Known, Question};
use crate::debounce::{Debounce, Passed, thread_time};
use crate::expiry::ExpiryBook;
use crate::problems::ProblemBook;
use crate::publish::{Published, Publisher};
use crate::telemetry;
use crate::watch::{SourceEvent, Stamped, Wanted};

/// What one pass found, for whoever tells the owners of the objects.
pub(crate) struct Pass<'a> {
    /// Every object as it is now.
    pub(crate) snapshot: &'a Snapshot,
    /// Which objects are ours and what is wrong with them.
    pub(crate) report: &'a Report,
    /// The entries that the table could not take.
    pub(crate) rejects: &'a [Reject],
    /// Objects for which report or rejects may differ from the pass before, and every Ingress and policy that has
    /// changed in any way.
    pub(crate) touched: &'a BTreeSet<ObjectRef>,
}

/// Looks at each pass, from the first full sync on. It runs inside the loop: it must not block.
pub(crate) trait PassObserver: Send {
    /// Called once per pass, after the table has been published.
    fn observe(&mut self, pass: &Pass<'_>);
}

impl PassObserver for Box<dyn PassObserver> {
    fn observe(&mut self, pass: &Pass<'_>) {
        (**self).observe(pass);
    }
}

impl<A: PassObserver, B: PassObserver> PassObserver for (A, B) {
    fn observe(&mut self, pass: &Pass<'_>) {
        self.0.observe(pass);
        self.1.observe(pass);
    }
}

/// How far the loop has come. Tests and readiness wait on it instead of on a clock.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Progress {
    /// Passes since the start, also those that changed nothing.
    pub passes: u64,
    /// Reports of what is wrong with the files of a folder.
    pub reports: u64,
    /// The table that is served; 0 before the first full sync.
    pub generation: u64,
}

/// The loop and what it owns.
pub(crate) struct Reconciler {
    translator: Translator,
    publisher: Publisher,
    observer: Option<Box<dyn PassObserver>>,
    /// Of the admission webhook.
    questions: Option<mpsc::Receiver<Question>>,
    shared: Shared,
    debounce: Debounce,
    /// Of the table, then of the gateway.
    rejects: Vec<Reject>,
    refused: Refused,
    /// All Secrets of a folder: it does not deliver one again when it is wanted later.
    shelf: Option<Shelf>,
    state: State,
}

/// What cannot be served as it was asked for.
#[derive(Debug, Default)]
struct Refused {
    /// Entries that the table could not take.
    by_table: Vec<Reject>,
    /// Entries that the gateway cannot act on at the moment.
    by_gateway: Vec<Reject>,
}

type Shelf = BTreeMap<NamespacedName, PackedObject>;

/// What the loop writes and others read.
#[derive(Clone, Debug)]
pub(crate) struct Shared {
    pub(crate) problems: Arc<ProblemBook>,
    pub(crate) expiry: Arc<ExpiryBook>,
    pub(crate) progress: watch::Sender<Progress>,
    /// The Secrets that some Ingress or setting names.
    pub(crate) wanted: watch::Sender<Wanted>,
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            problems: Arc::default(),
            expiry: Arc::default(),
            progress: watch::Sender::new(Progress::default()),
            wanted: watch::Sender::new(Wanted::new()),
        }
    }
}

/// What has been received and not acted upon.
#[derive(Debug, Default)]
struct State {
    /// Has the source reported everything once?
    synced: bool,
    /// When the oldest change that was not acted upon was noticed.
    first: Option<Instant>,
    /// Have objects been taken in that are not translated yet?
    untranslated: bool,
    /// What has been translated but not published: the time before the first full sync.
    unpublished: Changes,
    touched: BTreeSet<ObjectRef>,
    wanted: Wanted,
    /// Does `wanted` differ from what the source was told last?
    wanted_changed: bool,
    /// How many times a Secret has become wanted.
    wants: u64,
    passed: Option<Passed>,
}

impl Reconciler {
    pub(crate) fn new(
        translator: Translator,
        publisher: Publisher,
        observer: Option<Box<dyn PassObserver>>,
        shared: Shared,
        from_folder: bool,
    ) -> Self {
        Self {
            translator,
            publisher,
            observer,
            questions: None,
            shared,
            debounce: Debounce::default(),
            rejects: Vec::new(),
            refused: Refused::default(),
            shelf: from_folder.then(Shelf::new),
            state: State::default(),
        }
    }

    /// Answers the questions of the admission webhook, too, which looks at each pass for its certificate.
    pub(crate) fn reviewing(
        mut self,
        observer: impl PassObserver + 'static,
        questions: mpsc::Receiver<Question>,
    ) -> Self {
        let observer: Box<dyn PassObserver> = match self.observer.take() {
            Some(first) => Box::new((first, observer)),
            None => Box::new(observer),
        };
        self.observer = Some(observer);
        self.questions = Some(questions);
        self
    }

    /// Runs until the source is gone.
    pub(crate) async fn run(mut self, mut events: mpsc::Receiver<Stamped>) {
        let mut questions = self.questions.take();
        loop {
            let due = self.due();
            let received = async {
                match due {
                    Some(due) => timeout_at(due.into(), events.recv()).await,
                    None => Ok(events.recv().await),
                }
            };
            let received = tokio::select! {
                // Nothing that has happened waits for what may happen.
                biased;
                received = received => received,
                question = next(&mut questions) => {
                    self.answer(question);
                    continue;
                }
            };
            match received {
                Ok(Some(stamped)) => self.take(stamped),
                Ok(None) => return,
                Err(_due) => self.pass(),
            }
            if self.due().is_some_and(|due| due <= Instant::now()) {
                // What is queued already belongs to the same pass.
                while let Ok(stamped) = events.try_recv() {
                    self.take(stamped);
                }
                self.pass();
            }
        }
    }

    /// Says what is known of an object that is not there yet.
    fn answer(&mut self, Question { object, reply }: Question) {
        let known = if self.publisher.generation() == 0 {
            Known::TooEarly
        } else {
            // What was applied just before counts, too; it is published when it is due.
            if self.state.untranslated {
                self.translate();
            }
            match self.translator.preview(&object) {
                None => Known::Foreign,
                Some(preview) => Known::Ours {
                    rejected: self
                        .rejects
                        .iter()
                        .filter(|reject| *reject.origin.object == *preview.object())
                        .cloned()
                        .collect(),
                    preview: Box::new(preview),
                },
            }
        };
        // Whoever asked may have given up.
        let _ = reply.send(known);
    }

    /// When to act on what has been received.
    fn due(&self) -> Option<Instant> {
        let first = self.state.first.filter(|_| self.state.synced)?;
        Some(self.debounce.due(first, self.state.passed))
    }

    fn take(&mut self, Stamped { at, event }: Stamped) {
        match event {
            SourceEvent::Changes(changes) => {
                self.take_in(changes);
                self.state.first.get_or_insert(at);
            }
            SourceEvent::Hindered(rejects) => {
                self.refused.by_gateway = rejects;
                let differing = self.update_rejects();
                if !differing.is_empty() {
                    // A pass tells their owners.
                    self.state.touched.extend(differing);
                    self.state.first.get_or_insert(at);
                }
            }
            SourceEvent::FileProblems(problems) => {
                self.shared.problems.update_files(problems);
                self.shared
                    .progress
                    .send_modify(|progress| progress.reports += 1);
            }
            SourceEvent::Listed => {
                self.translate();
                // Also when it is the empty set: the source waits for it.
                self.tell_wanted();
            }
            SourceEvent::Synced => {
                if !self.state.synced {
                    self.state.synced = true;
                    // There is a first table even if there is no object at all.
                    self.state.unpublished.globals = true;
                    self.state.first.get_or_insert(at);
                }
            }
        }
    }

    /// Hands objects over at once: before the first full sync there can be very many, and a translator keeps them in fewer
    /// bytes.
    fn take_in(&mut self, mut changes: Vec<Change>) {
        // Whoever reports back compares what an object says of itself, its status for one, with what it should say.
        let with_status = changes.iter().map(reference_of).filter(|object| {
            matches!(
                &*object.kind,
                kinds::INGRESS | kinds::ROUTE_POLICY | kinds::GATEWAY_POLICY
            )
        });
        self.state.touched.extend(with_status);
        if let Some(shelf) = &mut self.shelf {
            let wanted = &self.state.wanted;
            changes.retain(|change| match put(shelf, change) {
                // It comes from there when it is wanted.
                Some(secret) => wanted.contains_key(&secret),
                None => true,
            });
        }
        self.translator.take(changes);
        self.state.untranslated = true;
    }

    fn translate(&mut self) {
        self.state.untranslated = false;
        let wanted = self.settle();
        let Some(secrets) = &self.shelf else {
            return;
        };
        for name in &wanted {
            let secret = secrets.get(name).and_then(PackedObject::unpack);
            self.translator.take(secret.map(Change::Apply));
        }
        if !wanted.is_empty() {
            self.settle();
        }
    }

    /// Translates what was taken in and returns the Secrets that have to come again.
    fn settle(&mut self) -> BTreeSet<NamespacedName> {
        let Outcome {
            changes,
            touched,
            secrets_wanted,
            secrets_unwanted,
            translated: _,
        } = self.translator.settle();
        for name in &secrets_wanted {
            self.state.wants += 1;
            self.state.wanted.insert(name.clone(), self.state.wants);
        }
        for name in &secrets_unwanted {
            self.state.wanted.remove(name);
        }
        self.state.wanted_changed |= !secrets_wanted.is_empty() || !secrets_unwanted.is_empty();
        self.state.unpublished.extend(changes);
        self.state.touched.extend(touched);
        secrets_wanted
    }

    /// Tells the source which Secrets are wanted.
    fn tell_wanted(&mut self) {
        self.state.wanted_changed = false;
        self.shared.wanted.send_replace(self.state.wanted.clone());
    }

    fn pass(&mut self) {
        let Some(first) = self.state.first.take() else {
            return;
        };
        let start = thread_time();
        self.translate();
        let changes = std::mem::take(&mut self.state.unpublished);
        let mut touched = std::mem::take(&mut self.state.touched);
        if !changes.is_empty() {
            touched.extend(self.publish(first, &changes));
        }
        let report = self.translator.report();
        self.shared.problems.update_objects(&touched, report);
        if self.shelf.is_some() {
            self.shared.problems.update_unclaimed(report);
        }
        if let Some(observer) = &mut self.observer {
            observer.observe(&Pass {
                snapshot: self.translator.snapshot(),
                report,
                rejects: &self.rejects,
                touched: &touched,
            });
        }
        if self.state.wanted_changed {
            self.tell_wanted();
        }
        self.state.passed = Some(Passed {
            end: Instant::now(),
            took: thread_time().saturating_sub(start),
        });
        let generation = self.publisher.generation();
        self.shared.progress.send_modify(|progress| {
            progress.passes += 1;
            progress.generation = generation;
        });
    }

    /// Publishes a table and returns the objects of which it now takes less or more than before.
    fn publish(&mut self, first: Instant, changes: &Changes) -> BTreeSet<ObjectRef> {
        let model = self.translator.model();
        let Published {
            generation,
            rejects,
        } = self.publisher.publish(model, changes);
        let elapsed = first.elapsed();
        histogram!(telemetry::PUBLISH_SECONDS).record(elapsed);
        #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
        gauge!(telemetry::GENERATION).set(generation as f64);
        self.shared.expiry.update(model, &changes.certificates);
        let what = describe(changes);
        let hosts = model.hosts.len();
        if generation == 1 {
            let (routes, certificates) = (count_routes(model), model.certificates.len());
            info!(
                hosts,
                routes,
                certificates,
                ?elapsed,
                "Published the first table"
            );
        } else if only_endpoints(changes) && self.shelf.is_none() {
            // Pods of a cluster come and go by themselves: nobody has asked for this change.
            debug!(generation, hosts, ?elapsed, "Published {what}");
        } else {
            info!(generation, hosts, ?elapsed, "Published {what}");
        }
        self.refused.by_table = rejects;
        self.update_rejects()
    }

    /// Returns the objects of which more or less is refused than before.
    fn update_rejects(&mut self) -> BTreeSet<ObjectRef> {
        let Refused {
            by_table,
            by_gateway,
        } = &self.refused;
        self.rejects = by_table.iter().chain(by_gateway).cloned().collect();
        self.shared.problems.update_rejects(&self.rejects)
    }
}

async fn next(questions: &mut Option<mpsc::Receiver<Question>>) -> Question {
    if let Some(receiver) = questions
        && let Some(question) = receiver.recv().await
    {
        return question;
    }
    // Nobody asks, or nobody is left who could.
    std::future::pending().await
}

fn reference_of(change: &Change) -> ObjectRef {
    match change {
        Change::Apply(object) => object.reference(),
        Change::Delete(object) => object.clone(),
    }
}

/// Takes over what happened to a Secret, and returns its name; `None` for an object of another kind.
fn put(shelf: &mut Shelf, change: &Change) -> Option<NamespacedName> {
    let ObjectRef {
        kind,
        namespace,
        name,
    } = reference_of(change);
    if *kind != *kinds::SECRET {
        return None;
    }
    let name = NamespacedName { namespace, name };
    match change {
        Change::Apply(object) => shelf.insert(name.clone(), PackedObject::new(object)),
        Change::Delete(_) => shelf.remove(&name),
    };
    Some(name)
}

fn count_routes(model: &RoutingModel) -> usize {
    model.hosts.values().map(|host| host.routes.len()).sum()
}

#[cfg(test)]
mod tests;
