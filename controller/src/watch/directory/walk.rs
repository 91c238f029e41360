//! Which manifests are in the folder.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use translate::Severity;

use super::super::FileProblem;

/// Deeper nesting is a mistake, or a circle of links.
const MAX_DEPTH: usize = 16;

/// Is this the name of a file that is read?
pub(super) fn is_manifest(path: &Path) -> bool {
    path.extension().is_some_and(|extension| {
        ["yaml", "yml", "json"]
            .iter()
            .any(|known| extension.eq_ignore_ascii_case(known))
    })
}

/// What a walk through the folder finds.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) files: BTreeSet<PathBuf>,
    pub(super) unreadable: Vec<FileProblem>,
}

impl Found {
    /// Is `path` below a folder that could not be read?
    pub(super) fn hides(&self, path: &Path) -> bool {
        self.unreadable
            .iter()
            .any(|problem| path.starts_with(&problem.file))
    }

    /// Goes through the folder `relative` below `root`; `above` are the folders on the way there.
    pub(super) fn walk(&mut self, root: &Path, relative: &Path, above: &mut Vec<(u64, u64)>) {
        if let Err(reason) = self.try_walk(root, relative, above) {
            self.unreadable.push(FileProblem {
                file: relative.to_owned(),
                line: None,
                severity: Severity::Error,
                message: format!(
                    "this folder cannot be read: {reason}; what was read from it before is still served"
                ),
                stale: true,
            });
        }
    }

    fn try_walk(
        &mut self,
        root: &Path,
        relative: &Path,
        above: &mut Vec<(u64, u64)>,
    ) -> Result<(), String> {
        let folder = root.join(relative);
        let metadata = fs::metadata(&folder).map_err(|error| error.to_string())?;
        let identity = (metadata.dev(), metadata.ino());
        if above.contains(&identity) {
            return Err("it leads back to a folder above it".to_owned());
        }
        if above.len() >= MAX_DEPTH {
            return Err(format!("it is nested more than {MAX_DEPTH} folders deep"));
        }
        above.push(identity);
        let entries = fs::read_dir(&folder).map_err(|error| error.to_string());
        let outcome = entries.and_then(|entries| {
            for entry in entries {
                let name = entry.map_err(|error| error.to_string())?.file_name();
                // Also what lies behind a mounted ConfigMap: its files are linked from the folder itself.
                if name.as_encoded_bytes().starts_with(b".") {
                    continue;
                }
                let relative = relative.join(&name);
                match fs::metadata(root.join(&relative)) {
                    Ok(found) if found.is_dir() => self.walk(root, &relative, above),
                    Ok(_) if is_manifest(&relative) => {
                        self.files.insert(relative);
                    }
                    Ok(_) | Err(_) => {} // a link that leads nowhere is no file
                }
            }
            Ok(())
        });
        above.pop();
        outcome
    }
}
