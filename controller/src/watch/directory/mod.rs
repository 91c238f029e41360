//! Manifests on disk, watched for changes.
//!
//! The folder is read by a thread of its own. A change is taken over when its writer has closed the file; a file
//! that does not parse keeps its last good version. Events only say where to look: what counts is the state of the
//! folder, which is also compared from time to time in case an event was lost.

mod pending;
mod tree;
mod walk;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use k8s_openapi::api::networking::v1::{IngressClass, IngressClassSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tracing::{info, warn};
use translate::{Change, Object};

use super::{Closed, EventSender, FileProblem, SourceEvent};
use pending::Pending;
pub(crate) use tree::Folder;
pub use tree::FolderError;

/// How often everything is compared although nothing was reported.
const COMPARE_EVERY: Duration = Duration::from_secs(10);

/// The same where the system cannot report changes.
const POLL_EVERY: Duration = Duration::from_secs(1);

/// The IngressClass that an installation comes with. In a folder it need not be written out.
pub(crate) fn implied_class(settings: &translate::Settings) -> Object {
    Object::from(IngressClass {
        metadata: ObjectMeta {
            name: Some(settings.ingress_class.clone()),
            ..ObjectMeta::default()
        },
        spec: Some(IngressClassSpec {
            controller: Some(settings.controller_name.clone()),
            ..IngressClassSpec::default()
        }),
    })
}

/// What wakes the thread up.
enum Wake {
    Changed(notify::Result<notify::Event>),
    Stop,
}

/// Ends the thread when it is dropped.
#[derive(Debug)]
pub(crate) struct Directory {
    wake: Sender<Wake>,
}

impl Drop for Directory {
    fn drop(&mut self) {
        // An error means that the thread has ended already.
        let _ = self.wake.send(Wake::Stop);
    }
}

/// Starts to read and watch `folder`.
pub(crate) fn spawn(folder: Folder, events: EventSender) -> io::Result<Directory> {
    let (wake, woken) = channel();
    let thread = Thread {
        watch: Watch::new(folder.root().to_owned(), wake.clone()),
        folder,
        pending: Pending::default(),
        events,
        reported: Vec::new(),
    };
    thread::Builder::new()
        .name("manifests".to_owned())
        .spawn(move || match thread.run(&woken) {
            Ok(()) | Err(Closed) => {}
        })?;
    Ok(Directory { wake })
}

struct Thread {
    watch: Watch,
    folder: Folder,
    pending: Pending,
    events: EventSender,
    /// The faults that were sent last.
    reported: Vec<FileProblem>,
}

impl Thread {
    fn run(mut self, woken: &Receiver<Wake>) -> Result<(), Closed> {
        // Watched before it is read, so that no change falls in between.
        self.watch.establish();
        for changes in self.folder.load_in_parts() {
            self.events
                .blocking_send(Instant::now(), SourceEvent::Changes(changes))?;
        }
        self.report(Instant::now(), Vec::new())?;
        self.events
            .blocking_send(Instant::now(), SourceEvent::Synced)?;
        let mut compared = Instant::now();
        loop {
            let compare = compared + self.watch.interval();
            let next = self
                .pending
                .next()
                .map_or(compare, |next| next.min(compare));
            match woken.recv_timeout(next.saturating_duration_since(Instant::now())) {
                Ok(Wake::Changed(Ok(event))) => {
                    self.pending
                        .note(self.folder.root(), &event, Instant::now());
                }
                Ok(Wake::Changed(Err(error))) => {
                    warn!(%error, "The manifests folder was not reported on for a moment; comparing all files");
                    self.pending.all_at(Instant::now());
                }
                Ok(Wake::Stop) | Err(RecvTimeoutError::Disconnected) => return Ok(()),
                Err(RecvTimeoutError::Timeout) => {}
            }
            let now = Instant::now();
            if now >= compare {
                compared = now;
                self.pending.all_at(now);
            }
            if let Some(work) = self.pending.take(now) {
                if work.all {
                    self.watch.establish();
                }
                let changes = self.folder.refresh(&work);
                self.report(work.noticed.unwrap_or(now), changes)?;
            }
        }
    }

    fn report(&mut self, at: Instant, changes: Vec<Change>) -> Result<(), Closed> {
        let problems = self.folder.problems();
        if problems != self.reported {
            self.reported.clone_from(&problems);
            self.events
                .blocking_send(at, SourceEvent::FileProblems(problems))?;
        }
        if changes.is_empty() {
            return Ok(());
        }
        self.events.blocking_send(at, SourceEvent::Changes(changes))
    }
}

/// The subscription to changes of the folder.
struct Watch {
    root: PathBuf,
    wake: Sender<Wake>,
    /// The watcher and the folder that it was set up for.
    active: Option<(RecommendedWatcher, (u64, u64))>,
    /// Has the reason why there is none been told?
    told: bool,
}

impl Watch {
    fn new(root: PathBuf, wake: Sender<Wake>) -> Self {
        Self {
            root,
            wake,
            active: None,
            told: false,
        }
    }

    fn interval(&self) -> Duration {
        if self.active.is_some() {
            COMPARE_EVERY
        } else {
            POLL_EVERY
        }
    }

    /// Subscribes, also anew when another folder has taken the place of the one that was watched.
    fn establish(&mut self) {
        let current = identity(&self.root);
        if self.active.as_ref().map(|(_, of)| *of) == current && current.is_some() {
            return;
        }
        self.active = None;
        match self.subscribe() {
            Ok(watcher) => {
                self.active = current.map(|identity| (watcher, identity));
                if std::mem::take(&mut self.told) {
                    info!(folder = %self.root.display(), "Changes of the manifests folder are reported again");
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut self.told, true) {
                    warn!(folder = %self.root.display(), %error,
                        "The system does not report changes of the manifests folder; looking once a second");
                }
            }
        }
    }

    fn subscribe(&self) -> notify::Result<RecommendedWatcher> {
        let wake = self.wake.clone();
        let mut watcher = notify::recommended_watcher(move |event| {
            // An error means that the thread has ended.
            let _ = wake.send(Wake::Changed(event));
        })?;
        watcher.watch(&self.root, RecursiveMode::Recursive)?;
        Ok(watcher)
    }
}

fn identity(folder: &Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;

    let metadata = std::fs::metadata(folder).ok()?;
    Some((metadata.dev(), metadata.ino()))
}
