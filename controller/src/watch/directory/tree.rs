//! The manifests folder as it was last read, and what differs when it is read again.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::ObjectRef;
use translate::manifests;
use translate::{Change, Object, PackedObject, Severity};

use super::super::FileProblem;
use super::pending::Work;
use super::walk::Found;

/// A larger file is a mistake rather than a manifest.
const MAX_FILE_BYTES: u64 = 64 * 1024 * 1024;

/// Objects that are handed out together when everything is read for the first time.
const PART: usize = 512;

/// The folder cannot be used at all.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the manifests folder `{}`: {source}", .folder.display())]
pub struct FolderError {
    folder: PathBuf,
    source: io::Error,
}

/// A folder of manifests: its files, what they hold and which object comes from which.
#[derive(Debug)]
pub(crate) struct Folder {
    root: PathBuf,
    files: BTreeMap<PathBuf, File>,
    /// The files that hold an object, in the order of their names; the first one counts. Nearly always there is one.
    holders: BTreeMap<ObjectRef, Vec<Arc<Path>>>,
    /// Objects that more than one file holds.
    contested: BTreeSet<ObjectRef>,
    /// What was handed out last.
    served: BTreeMap<ObjectRef, PackedObject>,
    /// Objects that are there unless a file holds them.
    implied: BTreeMap<ObjectRef, PackedObject>,
    /// Folders that could not be read.
    unreadable: Vec<FileProblem>,
}

/// One file of the folder.
#[derive(Debug, Default)]
struct File {
    signature: Option<Signature>,
    objects: BTreeMap<ObjectRef, Entry>,
    /// Are the objects the whole of an error-free version?
    whole: bool,
    problems: Vec<FileProblem>,
}

#[derive(Debug)]
struct Entry {
    object: PackedObject,
    line: Option<usize>,
}

/// Tells versions of a file apart without reading it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Signature {
    device: u64,
    inode: u64,
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl From<&Metadata> for Signature {
    fn from(of: &Metadata) -> Self {
        Self {
            device: of.dev(),
            inode: of.ino(),
            length: of.len(),
            modified: (of.mtime(), of.mtime_nsec()),
            changed: (of.ctime(), of.ctime_nsec()),
        }
    }
}

impl Folder {
    /// The folder at `root`, of which nothing has been read yet. `implied` are objects that exist unless a file
    /// holds another version of them.
    pub(crate) fn open(root: &Path, implied: Vec<Object>) -> Result<Self, FolderError> {
        let failed = |source| FolderError {
            folder: root.to_owned(),
            source,
        };
        fs::read_dir(root).map_err(failed)?;
        Ok(Self {
            root: std::path::absolute(root).map_err(failed)?,
            files: BTreeMap::new(),
            holders: BTreeMap::new(),
            contested: BTreeSet::new(),
            served: BTreeMap::new(),
            implied: implied
                .into_iter()
                .map(|object| (object.reference(), PackedObject::new(&object)))
                .collect(),
            unreadable: Vec::new(),
        })
    }

    /// Reads everything for the first time.
    pub(crate) fn load(&mut self) -> Vec<Change> {
        self.load_in_parts().flatten().collect()
    }

    /// The same. Objects come in parts, because they take much memory until somebody has taken them in.
    pub(crate) fn load_in_parts(&mut self) -> impl Iterator<Item = Vec<Change>> {
        let mut affected: BTreeSet<ObjectRef> = self.implied.keys().cloned().collect();
        self.compare(&BTreeSet::new(), &mut affected);
        std::iter::from_fn(move || {
            let part = std::iter::from_fn(|| affected.pop_first());
            let part: BTreeSet<ObjectRef> = part.take(PART).collect();
            (!part.is_empty()).then(|| self.differences(part))
        })
    }

    /// Does the work and returns what differs from before.
    pub(super) fn refresh(&mut self, work: &Work) -> Vec<Change> {
        let mut affected = BTreeSet::new();
        for file in &work.files {
            self.look_at(file, true, &mut affected);
        }
        if work.all {
            self.compare(&work.writing, &mut affected);
        }
        self.differences(affected)
    }

    /// All faults, by file and line.
    pub(crate) fn problems(&self) -> Vec<FileProblem> {
        let of_files = self.files.values().flat_map(|file| file.problems.clone());
        let doubles = self.contested.iter().flat_map(|object| {
            let holders = self.holders.get(object).into_iter().flatten();
            let first = holders.clone().next();
            holders
                .skip(1)
                .filter_map(move |file| Some((object, first?, file)))
        });
        let doubles = doubles.map(|(object, first, file)| FileProblem {
            line: self.line_of(file, object),
            file: file.to_path_buf(),
            severity: Severity::Warning,
            message: format!(
                "{object} stands in {} too, which comes first by name; the one here is not used",
                first.display()
            ),
            stale: false,
        });
        let mut all: Vec<FileProblem> = of_files
            .chain(doubles)
            .chain(self.unreadable.iter().cloned())
            .collect();
        all.sort();
        all
    }

    /// Where an object that is in use stands.
    pub(crate) fn place_of(&self, object: &ObjectRef) -> Option<(&Path, Option<usize>)> {
        let file: &Path = self.holders.get(object)?.first()?;
        Some((file, self.line_of(file, object)))
    }

    /// The folder itself, as an absolute path.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    fn line_of(&self, file: &Path, object: &ObjectRef) -> Option<usize> {
        self.files.get(file)?.objects.get(object)?.line
    }

    /// Compares all files with what is known of them; those in `skip` are left as they are.
    fn compare(&mut self, skip: &BTreeSet<PathBuf>, affected: &mut BTreeSet<ObjectRef>) {
        let mut found = Found::default();
        found.walk(&self.root, Path::new(""), &mut Vec::new());
        let gone: Vec<PathBuf> = self
            .files
            .keys()
            .filter(|path| !found.files.contains(*path) && !found.hides(path))
            .cloned()
            .collect();
        self.unreadable = found.unreadable;
        for path in found.files.into_iter().chain(gone) {
            if !skip.contains(&path) {
                self.look_at(&path, false, affected);
            }
        }
    }

    /// Brings one file up to date.
    fn look_at(&mut self, path: &Path, always: bool, affected: &mut BTreeSet<ObjectRef>) {
        let full = self.root.join(path);
        let metadata = match fs::metadata(&full) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.root.is_dir() => {
                if let Some(file) = self.files.remove(path) {
                    self.disown(path, file.objects.into_keys(), affected);
                }
                return;
            }
            Err(error) => return self.keep(path, None, None, &error.to_string()),
        };
        if !metadata.is_file() {
            return;
        }
        let signature = Signature::from(&metadata);
        let known = self.files.get(path).and_then(|file| file.signature);
        if known == Some(signature) && !always {
            return;
        }
        if metadata.len() > MAX_FILE_BYTES {
            return self.keep(path, Some(signature), None, "it is larger than 64 MiB");
        }
        match fs::read_to_string(&full) {
            Ok(text) => self.read(path, signature, &text, affected),
            Err(error) => self.keep(path, Some(signature), None, &error.to_string()),
        }
    }

    /// Takes over the text of a file, or keeps what was there before if the text has an error.
    fn read(
        &mut self,
        path: &Path,
        signature: Signature,
        text: &str,
        affected: &mut BTreeSet<ObjectRef>,
    ) {
        let parsed = manifests::parse(text);
        let error = parsed
            .problems
            .iter()
            .find(|problem| problem.severity == Severity::Error);
        if let Some(error) = error {
            // Nothing that is served now gets lost by a mistake in an edit. On the first read there is nothing to
            // lose: the documents that are in order are served.
            if self.files.get(path).is_some_and(|file| file.whole) {
                return self.keep(path, Some(signature), Some(error.line), &error.message);
            }
        }
        let mut file = File {
            signature: Some(signature),
            objects: BTreeMap::new(),
            whole: error.is_none(),
            problems: parsed
                .problems
                .into_iter()
                .map(|problem| FileProblem::new(path, problem))
                .collect(),
        };
        for (object, line) in parsed.objects.into_iter().zip(parsed.lines) {
            let line = Some(line);
            let reference = object.reference();
            if file.objects.contains_key(&reference) {
                file.problems.push(FileProblem {
                    file: path.to_owned(),
                    line,
                    severity: Severity::Warning,
                    message: format!(
                        "{reference} stands in this file twice; the first one is used"
                    ),
                    stale: false,
                });
                continue;
            }
            let object = PackedObject::new(&object);
            file.objects.insert(reference, Entry { object, line });
        }
        let shared: Arc<Path> = path.into();
        for reference in file.objects.keys() {
            let holders = self.holders.entry(reference.clone()).or_default();
            if let Err(place) = holders.binary_search(&shared) {
                holders.reserve_exact(1);
                holders.insert(place, Arc::clone(&shared));
            }
            if holders.len() > 1 {
                self.contested.insert(reference.clone());
            }
            affected.insert(reference.clone());
        }
        let held: BTreeSet<ObjectRef> = file.objects.keys().cloned().collect();
        let before = self.files.insert(path.to_owned(), file);
        let before = before.map(|file| file.objects).unwrap_or_default();
        let gone: Vec<ObjectRef> = before
            .into_keys()
            .filter(|reference| !held.contains(reference))
            .collect();
        self.disown(path, gone.into_iter(), affected);
    }

    /// Notes that a file cannot be used now; what it held before stays.
    fn keep(
        &mut self,
        path: &Path,
        signature: Option<Signature>,
        line: Option<usize>,
        reason: &str,
    ) {
        let file = self.files.entry(path.to_owned()).or_default();
        let stale = !file.objects.is_empty();
        let consequence = if stale {
            "the last good version of this file is still served"
        } else {
            "nothing in this file is served"
        };
        file.signature = signature;
        file.problems = vec![FileProblem {
            file: path.to_owned(),
            line,
            severity: Severity::Error,
            message: format!("{reason}; {consequence}"),
            stale,
        }];
    }

    fn disown(
        &mut self,
        path: &Path,
        objects: impl Iterator<Item = ObjectRef>,
        affected: &mut BTreeSet<ObjectRef>,
    ) {
        for object in objects {
            if let Some(holders) = self.holders.get_mut(&object) {
                holders.retain(|holder| **holder != *path);
                if holders.len() < 2 {
                    self.contested.remove(&object);
                }
                if holders.is_empty() {
                    self.holders.remove(&object);
                }
            }
            affected.insert(object);
        }
    }

    /// What has become of these objects since they were handed out last.
    fn differences(&mut self, affected: BTreeSet<ObjectRef>) -> Vec<Change> {
        let mut changes = Vec::new();
        for reference in affected {
            let current = self
                .holders
                .get(&reference)
                .and_then(|holders| holders.first())
                .and_then(|path| self.files.get(&**path)?.objects.get(&reference))
                .map(|entry| &entry.object)
                .or_else(|| self.implied.get(&reference));
            match current {
                Some(object) if self.served.get(&reference) == Some(object) => {}
                Some(object) => {
                    changes.extend(object.unpack().map(Change::Apply));
                    self.served.insert(reference, object.clone());
                }
                None => {
                    if self.served.remove(&reference).is_some() {
                        changes.push(Change::Delete(reference));
                    }
                }
            }
        }
        changes
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use tempfile::TempDir;

    use super::*;

    const SERVICE: &str =
        "apiVersion: v1\nkind: Service\nmetadata: {name: NAME}\nspec: {ports: [{port: 80}]}\n";

    fn service(name: &str) -> String {
        SERVICE.replace("NAME", name)
    }

    fn write(root: &TempDir, name: &str, bytes: impl AsRef<[u8]>) {
        let path = root.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    fn names(changes: &[Change]) -> Vec<String> {
        let name = |change: &Change| match change {
            Change::Apply(object) => format!("+{}", object.reference().name),
            Change::Delete(object) => format!("-{}", object.name),
        };
        changes.iter().map(name).collect()
    }

    fn everything() -> Work {
        Work {
            all: true,
            ..Work::default()
        }
    }

    #[test]
    fn only_what_differs_is_handed_out() {
        let root = TempDir::new().unwrap();
        write(
            &root,
            "a.yaml",
            format!("{}---\n{}", service("one"), service("two")),
        );
        write(&root, "notes.txt", "not a manifest");
        write(&root, ".hidden.yaml", service("hidden"));
        let mut folder = Folder::open(root.path(), Vec::new()).unwrap();
        assert_eq!(names(&folder.load()), ["+one", "+two"]);
        assert!(folder.refresh(&everything()).is_empty());
        write(
            &root,
            "a.yaml",
            format!("# moved\n{}---\n{}", service("two"), service("three")),
        );
        assert_eq!(names(&folder.refresh(&everything())), ["-one", "+three"]);
        fs::remove_file(root.path().join("a.yaml")).unwrap();
        assert_eq!(names(&folder.refresh(&everything())), ["-three", "-two"]);
    }

    #[test]
    fn an_implied_object_gives_way_to_a_file_and_comes_back() {
        let root = TempDir::new().unwrap();
        let implied = manifests::parse(&service("web")).objects;
        let mut folder = Folder::open(root.path(), implied).unwrap();
        assert_eq!(names(&folder.load()), ["+web"]);
        write(&root, "a.yaml", service("web").replace("80", "81"));
        assert_eq!(names(&folder.refresh(&everything())), ["+web"]);
        fs::remove_file(root.path().join("a.yaml")).unwrap();
        assert_eq!(
            names(&folder.refresh(&everything())),
            ["+web"],
            "the implied one again"
        );
        assert!(folder.problems().is_empty());
    }

    #[test]
    fn what_cannot_be_read_is_told_and_nothing_is_lost() {
        let root = TempDir::new().unwrap();
        write(&root, "a.yaml", service("one"));
        write(&root, "deep/b.yaml", service("two"));
        let mut folder = Folder::open(root.path(), Vec::new()).unwrap();
        folder.load();
        write(&root, "a.yaml", [0xff, 0xfe]);
        symlink("..", root.path().join("deep/circle")).unwrap();
        symlink("nowhere.yaml", root.path().join("dangling.yaml")).unwrap();
        assert!(folder.refresh(&everything()).is_empty());
        let told: Vec<String> = folder
            .problems()
            .iter()
            .map(|problem| format!("{}: {}", problem.file.display(), problem.message))
            .collect();
        assert_eq!(
            told,
            [
                "a.yaml: stream did not contain valid UTF-8; the last good version of this file is still served",
                "deep/circle: this folder cannot be read: it leads back to a folder above it; what was read from it before is still served",
            ]
        );
    }

    #[test]
    fn the_first_error_in_a_file_spares_its_other_documents_and_a_later_one_spares_all() {
        let root = TempDir::new().unwrap();
        let bad = "kind: Service\napiVersion: v1\nmetadata: {name: bad}\nspec: {ports: 7}\n";
        write(&root, "a.yaml", format!("{bad}---\n{}", service("good")));
        let mut folder = Folder::open(root.path(), Vec::new()).unwrap();
        assert_eq!(names(&folder.load()), ["+good"]);
        write(
            &root,
            "a.yaml",
            format!("{}---\n{}", service("bad"), service("good")),
        );
        assert_eq!(names(&folder.refresh(&everything())), ["+bad"], "mended");
        write(&root, "a.yaml", bad);
        assert!(folder.refresh(&everything()).is_empty(), "broken again");
        assert!(folder.problems().iter().all(|problem| problem.stale));
    }

    #[test]
    fn files_that_are_being_written_are_left_alone() {
        let root = TempDir::new().unwrap();
        let mut folder = Folder::open(root.path(), Vec::new()).unwrap();
        folder.load();
        write(&root, "a.yaml", service("half"));
        let work = Work {
            writing: BTreeSet::from([PathBuf::from("a.yaml")]),
            ..everything()
        };
        assert!(folder.refresh(&work).is_empty());
        assert_eq!(names(&folder.refresh(&everything())), ["+half"]);
    }
}
