//! Manifests in files and folders that are read once.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use model::ObjectRef;
use translate::{Change, Severity, manifests};

use crate::render::RenderError;
use crate::watch::FileProblem;
use crate::watch::directory::Folder;

/// What was read.
#[derive(Debug, Default)]
pub(crate) struct Manifests {
    /// The objects, in their order.
    pub(crate) changes: Vec<Change>,
    /// Where each object stands.
    pub(crate) places: BTreeMap<ObjectRef, (PathBuf, Option<usize>)>,
    /// What is wrong with the files.
    pub(crate) problems: Vec<FileProblem>,
    /// How many objects there were.
    pub(crate) objects: usize,
}

impl Manifests {
    /// Reads files and folders; `-` is the standard input.
    pub(crate) fn read(
        &mut self,
        files: &[PathBuf],
        mut stdin: impl Read,
    ) -> Result<(), RenderError> {
        for file in files {
            let failed = |source| RenderError::File {
                file: file.clone(),
                source,
            };
            if file == Path::new("-") {
                let mut text = String::new();
                stdin.read_to_string(&mut text).map_err(failed)?;
                self.add_text(Path::new("<stdin>"), &text);
            } else if file.is_dir() {
                self.add_folder(file)?;
            } else {
                self.add_text(file, &std::fs::read_to_string(file).map_err(failed)?);
            }
        }
        Ok(())
    }

    fn add_text(&mut self, file: &Path, text: &str) {
        let parsed = manifests::parse(text);
        self.problems.extend(
            parsed
                .problems
                .into_iter()
                .map(|problem| FileProblem::new(file, problem)),
        );
        for (object, line) in parsed.objects.into_iter().zip(parsed.lines) {
            self.add(Change::Apply(object), file, Some(line));
        }
    }

    fn add_folder(&mut self, root: &Path) -> Result<(), RenderError> {
        let mut folder = Folder::open(root, Vec::new())?;
        for change in folder.load() {
            let reference = reference(&change);
            if let Some((file, line)) = folder.place_of(&reference) {
                self.add(change, &root.join(file), line);
            }
        }
        self.problems
            .extend(folder.problems().into_iter().map(|problem| FileProblem {
                file: root.join(&problem.file),
                ..problem
            }));
        Ok(())
    }

    fn add(&mut self, change: Change, file: &Path, line: Option<usize>) {
        self.objects += 1;
        let object = reference(&change);
        if let Some((first, first_line)) = self.places.get(&object) {
            let at = first_line.map_or_else(String::new, |line| format!(":{line}"));
            self.problems.push(FileProblem {
                file: file.to_owned(),
                line,
                severity: Severity::Warning,
                message: format!(
                    "{object} stands in {}{at} already; the one here is not used",
                    first.display()
                ),
                stale: false,
            });
            return;
        }
        self.places.insert(object, (file.to_owned(), line));
        self.changes.push(change);
    }
}

fn reference(change: &Change) -> ObjectRef {
    match change {
        Change::Apply(object) => object.reference(),
        Change::Delete(object) => object.clone(),
    }
}
