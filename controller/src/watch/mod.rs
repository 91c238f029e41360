//! Sources of objects: the Kubernetes API or a directory of manifests.
//!
//! A source is a task that reports what it sees through an [`EventSender`]. Everything behind that channel is the
//! same for both.

pub(crate) mod cluster;
pub(crate) mod directory;
pub(crate) mod failure;
pub(crate) mod kinds;
mod line;
mod secrets;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use table::Reject;
use tokio::sync::mpsc;
use translate::manifests::ManifestProblem;
use translate::{Change, NamespacedName, Severity};

/// How many events may wait for the reconcile loop before a source has to wait itself.
const QUEUED_EVENTS: usize = 16;

/// The Secrets that are wanted, and since when: a number that grows whenever one becomes wanted. One that was unwanted
/// for a moment has another number than before, because nobody has kept it.
pub(crate) type Wanted = BTreeMap<NamespacedName, u64>;

/// What a source has to say.
#[derive(Debug)]
pub(crate) enum SourceEvent {
    /// Objects that appeared, changed or vanished.
    Changes(Vec<Change>),
    /// Every kind but the Secrets has listed once: the objects are translated, so that it is known which Secrets
    /// are wanted, and nothing is published yet. A source that does not choose among Secrets leaves it out.
    Listed,
    /// Everything has been reported once. From now on tables are published.
    Synced,
    /// What a table asks for and the gateway cannot do at the moment; replaces the list that was sent before.
    Hindered(Vec<Reject>),
    /// The faults of the manifests folder; replaces the list that was sent before.
    FileProblems(Vec<FileProblem>),
}

/// A fault of one file of the manifests folder.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct FileProblem {
    /// The file, relative to the folder.
    pub(crate) file: PathBuf,
    /// The line, counted from 1, where one can be named.
    pub(crate) line: Option<usize>,
    /// How bad it is.
    pub(crate) severity: Severity,
    /// What is wrong and what follows from it.
    pub(crate) message: String,
    /// Is an older version of this file served because this one cannot be read?
    pub(crate) stale: bool,
}

impl FileProblem {
    /// A fault that was found while `file` was parsed.
    pub(crate) fn new(file: &Path, problem: ManifestProblem) -> Self {
        Self {
            file: file.to_owned(),
            line: Some(problem.line),
            severity: problem.severity,
            message: problem.message,
            stale: false,
        }
    }
}

/// An event and when the source learned of it.
#[derive(Debug)]
pub(crate) struct Stamped {
    pub(crate) at: Instant,
    pub(crate) event: SourceEvent,
}

/// The reconcile loop has ended: the source can stop.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("nobody listens to this source any more")]
pub(crate) struct Closed;

/// The end of the channel that a source writes to.
#[derive(Clone, Debug)]
pub(crate) struct EventSender(mpsc::Sender<Stamped>);

impl EventSender {
    /// Reports an event; waits while too many are queued.
    pub(crate) async fn send(&self, event: SourceEvent) -> Result<(), Closed> {
        let at = Instant::now();
        self.0.send(Stamped { at, event }).await.map_err(|_| Closed)
    }

    /// The same for somebody who is no source: it does not keep the loop alive.
    pub(crate) fn downgrade(&self) -> WeakEventSender {
        WeakEventSender(self.0.downgrade())
    }

    /// As [`EventSender::send`], for sources on a thread of their own. `at` is when the change was noticed.
    pub(crate) fn blocking_send(&self, at: Instant, event: SourceEvent) -> Result<(), Closed> {
        self.0
            .blocking_send(Stamped { at, event })
            .map_err(|_| Closed)
    }
}

/// As [`EventSender`], as long as there is a source.
#[derive(Clone, Debug)]
pub(crate) struct WeakEventSender(mpsc::WeakSender<Stamped>);

impl WeakEventSender {
    /// Reports an event; waits while too many are queued.
    pub(crate) async fn send(&self, event: SourceEvent) -> Result<(), Closed> {
        let sender = self.0.upgrade().map(EventSender);
        sender.ok_or(Closed)?.send(event).await
    }
}

/// The channel between a source and the reconcile loop.
pub(crate) fn channel() -> (EventSender, mpsc::Receiver<Stamped>) {
    let (sender, receiver) = mpsc::channel(QUEUED_EVENTS);
    (EventSender(sender), receiver)
}
