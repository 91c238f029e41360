//! What has to be looked at again after the file system reported something.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode, CreateKind, ModifyKind, RemoveKind, RenameMode};
use notify::{Event, EventKind};

use super::walk::is_manifest;

/// Several events of one save are taken together.
const SETTLE: Duration = Duration::from_millis(2);

/// Editors and `mv` take a file away for a moment before the new one appears under its name.
const VANISHED: Duration = Duration::from_millis(100);

/// Without a pause between the events they are acted upon after this time.
const LONGEST: Duration = Duration::from_millis(250);

/// A file that is being written is read when it is closed. Only where the system does not tell when that happens
/// (or never does, as with a program that keeps the file open) does it get read after this time.
const WRITING: Duration = if cfg!(target_os = "linux") {
    Duration::from_secs(30)
} else {
    Duration::from_millis(250)
};

/// A new folder may have been filled before it was watched.
const NEW_FOLDER: Duration = Duration::from_millis(250);

/// A writer is done with a file.
const CLOSED: EventKind = EventKind::Access(AccessKind::Close(AccessMode::Write));

/// Files to look at, and when.
#[derive(Debug, Default)]
pub(super) struct Pending {
    /// Everything has to be compared with what is known.
    all: bool,
    /// These files have to be read, relative to the folder.
    files: BTreeSet<PathBuf>,
    /// Being written since.
    writing: BTreeMap<PathBuf, Instant>,
    /// When to act on `all` and `files`.
    due: Option<Instant>,
    /// When the first of them was noticed.
    noticed: Option<Instant>,
    /// How far `due` may move.
    latest: Option<Instant>,
    /// When to compare everything once more.
    again: Option<Instant>,
}

/// What [`Pending::take`] hands out.
#[derive(Debug, Default, Eq, PartialEq)]
pub(super) struct Work {
    /// When the first reason for it was noticed.
    pub(super) noticed: Option<Instant>,
    /// Compare everything.
    pub(super) all: bool,
    /// Read these whatever they look like.
    pub(super) files: BTreeSet<PathBuf>,
    /// Leave these alone: they are being written.
    pub(super) writing: BTreeSet<PathBuf>,
}

impl Pending {
    /// Everything has to be compared at `when`.
    pub(super) fn all_at(&mut self, when: Instant) {
        self.all = true;
        self.act_at(when);
    }

    /// Notes an event of the file system below `root`.
    pub(super) fn note(&mut self, root: &Path, event: &Event, now: Instant) {
        if event.need_rescan() {
            self.all_at(now + SETTLE);
        }
        for path in &event.paths {
            match path.strip_prefix(root) {
                Ok(relative) => self.note_path(path, relative, event.kind, now),
                Err(_) => self.all_at(now + SETTLE),
            }
        }
        if self.due.is_some() {
            self.noticed.get_or_insert(now);
        }
    }

    fn note_path(&mut self, path: &Path, relative: &Path, kind: EventKind, now: Instant) {
        if is_hidden(relative) {
            return;
        }
        if is_mount(relative) {
            if !kind.is_access() || kind == CLOSED {
                self.all_at(now + SETTLE);
            }
            return;
        }
        let manifest = is_manifest(relative);
        match kind {
            CLOSED if manifest => {
                self.writing.remove(relative);
                self.read_at(relative, now + SETTLE);
            }
            EventKind::Create(CreateKind::Folder) => {
                self.all_at(now + SETTLE);
                self.again = Some(now + NEW_FOLDER);
            }
            EventKind::Create(_) if manifest && !is_whole(path) => {
                self.writing.insert(relative.to_owned(), now);
            }
            EventKind::Modify(ModifyKind::Data(_)) if manifest => {
                self.writing.insert(relative.to_owned(), now);
            }
            EventKind::Access(_) | EventKind::Modify(ModifyKind::Data(_)) => {}
            EventKind::Modify(ModifyKind::Metadata(_)) if self.writing.contains_key(relative) => {}
            EventKind::Remove(RemoveKind::File)
            | EventKind::Modify(ModifyKind::Name(RenameMode::From))
                if manifest =>
            {
                self.writing.remove(relative);
                self.read_at(relative, now + VANISHED);
            }
            EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(RenameMode::From)) => {
                self.all_at(now + VANISHED);
            }
            EventKind::Create(_) | EventKind::Modify(_) if manifest => {
                self.read_at(relative, now + SETTLE);
            }
            // Another file than a manifest, a folder or a link to one: comparing is cheap.
            EventKind::Create(_) | EventKind::Modify(_) | EventKind::Any | EventKind::Other => {
                self.all_at(now + SETTLE);
            }
        }
    }

    fn read_at(&mut self, relative: &Path, when: Instant) {
        self.files.insert(relative.to_owned());
        self.act_at(when);
    }

    /// A later time wins, so that what vanished gets its time to come back, up to a bound.
    fn act_at(&mut self, when: Instant) {
        let latest = *self.latest.get_or_insert(when + LONGEST);
        let due = self.due.map_or(when, |due| due.max(when));
        self.due = Some(due.min(latest));
    }

    /// When there is something to do next.
    pub(super) fn next(&self) -> Option<Instant> {
        let written = self.writing.values().min().map(|&since| since + WRITING);
        [self.due, self.again, written].into_iter().flatten().min()
    }

    /// What has to be done at `now`.
    pub(super) fn take(&mut self, now: Instant) -> Option<Work> {
        if self.again.is_some_and(|again| again <= now) {
            self.again = None;
            self.all_at(now);
        }
        let given_up: Vec<PathBuf> = self
            .writing
            .iter()
            .filter(|&(_, &since)| since + WRITING <= now)
            .map(|(path, _)| path.clone())
            .collect();
        for path in given_up {
            self.writing.remove(&path);
            self.read_at(&path, now);
        }
        self.due.filter(|&due| due <= now)?;
        self.due = None;
        self.latest = None;
        let mut files = std::mem::take(&mut self.files);
        files.retain(|path| !self.writing.contains_key(path));
        Some(Work {
            noticed: self.noticed.take(),
            all: std::mem::take(&mut self.all),
            files,
            writing: self.writing.keys().cloned().collect(),
        })
    }
}

/// Hidden files belong to editors and version control.
fn is_hidden(relative: &Path) -> bool {
    names(relative).any(|name| name.starts_with(b".") && !name.starts_with(b".."))
}

/// Names with two dots are the folders behind a mounted ConfigMap or Secret. The links in front of them do not
/// change when they do.
fn is_mount(relative: &Path) -> bool {
    names(relative).any(|name| name.starts_with(b".."))
}

fn names(relative: &Path) -> impl Iterator<Item = &[u8]> {
    relative.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.as_encoded_bytes()),
        Component::Prefix(_) | Component::RootDir | Component::CurDir | Component::ParentDir => {
            None
        }
    })
}

/// A link has its content at once; a new file of its own is written after it was made.
fn is_whole(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| !found.is_file() || found.nlink() > 1)
}

#[cfg(test)]
mod tests {
    use notify::event::{DataChange, Flag};

    use super::*;

    const ROOT: &str = "/manifests";

    fn event(kind: EventKind, name: &str) -> Event {
        Event::new(kind).add_path(Path::new(ROOT).join(name))
    }

    const WRITE: EventKind = EventKind::Modify(ModifyKind::Data(DataChange::Any));
    const FROM: EventKind = EventKind::Modify(ModifyKind::Name(RenameMode::From));
    const TO: EventKind = EventKind::Modify(ModifyKind::Name(RenameMode::To));

    fn after(events: &[(EventKind, &str)]) -> (Pending, Instant) {
        let now = Instant::now();
        let mut pending = Pending::default();
        for (kind, name) in events {
            pending.note(Path::new(ROOT), &event(*kind, name), now);
        }
        (pending, now)
    }

    fn files(noticed: Option<Instant>, names: &[&str]) -> Work {
        Work {
            noticed,
            files: names.iter().map(PathBuf::from).collect(),
            ..Work::default()
        }
    }

    #[test]
    fn a_file_is_read_when_its_writer_closes_it() {
        let (mut pending, now) = after(&[(WRITE, "a.yaml")]);
        assert_eq!(
            pending.take(now + Duration::from_secs(1)),
            None,
            "still open"
        );
        pending.note(Path::new(ROOT), &event(CLOSED, "a.yaml"), now);
        assert_eq!(
            pending.take(now),
            None,
            "further events of the same save are awaited"
        );
        assert_eq!(
            pending.take(now + SETTLE),
            Some(files(Some(now), &["a.yaml"]))
        );
        assert_eq!(pending.next(), None);
    }

    #[test]
    fn a_writer_that_never_closes_is_not_waited_for_forever() {
        let (mut pending, now) = after(&[(WRITE, "a.yaml")]);
        assert_eq!(pending.next(), Some(now + WRITING));
        assert_eq!(pending.take(now + WRITING), Some(files(None, &["a.yaml"])));
    }

    #[test]
    fn a_rename_over_a_file_is_one_change() {
        let (mut pending, now) = after(&[(FROM, "a.yaml"), (TO, "a.yaml")]);
        assert_eq!(
            pending.take(now + SETTLE),
            None,
            "what vanished may come back"
        );
        assert_eq!(
            pending.take(now + VANISHED),
            Some(files(Some(now), &["a.yaml"]))
        );
    }

    #[test]
    fn a_stream_of_events_does_not_put_the_work_off_forever() {
        let (mut pending, mut now) = after(&[(TO, "a.yaml")]);
        for _ in 0..1000 {
            now += SETTLE / 2;
            pending.note(Path::new(ROOT), &event(TO, "a.yaml"), now);
        }
        assert!(pending.take(now).is_some());
    }

    #[test]
    fn other_names_are_ignored_or_lead_to_a_comparison() {
        for (kind, name, all, why) in [
            (TO, "..data", true, "a ConfigMap mount was swapped"),
            (
                CLOSED,
                "..2026/a.yaml",
                true,
                "its files are read through their links",
            ),
            (TO, "folder", true, "a folder was moved in"),
            (
                EventKind::Remove(RemoveKind::Folder),
                "folder",
                true,
                "a folder went",
            ),
            (
                EventKind::Create(CreateKind::Folder),
                "folder",
                true,
                "a folder came",
            ),
            (WRITE, ".a.yaml.swp", false, "an editor's own file"),
            (WRITE, ".git/index.yaml", false, "a hidden folder"),
            (WRITE, "notes.txt", false, "not a manifest"),
            (
                EventKind::Access(AccessKind::Open(AccessMode::Any)),
                "a.yaml",
                false,
                "a reader",
            ),
        ] {
            let (mut pending, now) = after(&[(kind, name)]);
            let work = pending.take(now + VANISHED);
            assert_eq!(work.is_some_and(|work| work.all), all, "{why}");
        }
    }

    #[test]
    fn lost_events_lead_to_a_comparison() {
        let now = Instant::now();
        let mut pending = Pending::default();
        let lost = Event::new(EventKind::Other).set_flag(Flag::Rescan);
        pending.note(Path::new(ROOT), &lost, now);
        assert_eq!(pending.take(now + SETTLE).map(|work| work.all), Some(true));
    }
}
