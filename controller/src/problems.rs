//! What is wrong at the moment, for the log, the metrics and the debug page.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use metrics::gauge;
use model::ObjectRef;
use serde::Serialize;
use table::Reject;
use tracing::{info, warn};
use translate::{Problem, Report, Severity};

use crate::telemetry;
use crate::watch::FileProblem;

/// How many problems are logged after one change; the debug page lists all of them.
const LOGGED: usize = 50;

/// Problems by what they concern.
#[derive(Debug, Default)]
pub(crate) struct ProblemBook(Mutex<Book>);

#[derive(Debug, Default)]
struct Book {
    objects: BTreeMap<ObjectRef, Vec<Entry>>,
    rejects: BTreeMap<ObjectRef, Vec<Entry>>,
    files: Vec<FileProblem>,
    unclaimed: Vec<Entry>,
}

/// One problem as the debug page shows it.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub(crate) struct Entry {
    /// The object, or the file.
    pub(crate) concerns: String,
    pub(crate) severity: Severity,
    /// The kind of problem, in one word.
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.severity, self.concerns, self.message)
    }
}

impl Entry {
    pub(crate) fn of_object(object: &ObjectRef, problem: &Problem) -> Self {
        Self {
            concerns: object.to_string(),
            severity: problem.severity,
            reason: problem.reason.as_str(),
            message: problem.message.clone(),
        }
    }

    pub(crate) fn of_reject(reject: &Reject) -> Self {
        Self {
            concerns: reject.origin.to_string(),
            severity: Severity::Error,
            reason: "Rejected",
            message: reject.reason.clone(),
        }
    }

    /// An Ingress that is left to others.
    pub(crate) fn of_unclaimed(object: &ObjectRef, why: &str) -> Self {
        Self {
            concerns: object.to_string(),
            severity: Severity::Warning,
            reason: "NotOurs",
            message: format!("Lockgate does not serve it: {why}"),
        }
    }

    pub(crate) fn of_file(problem: &FileProblem) -> Self {
        let file = problem.file.display();
        Self {
            concerns: problem
                .line
                .map_or_else(|| file.to_string(), |line| format!("{file}:{line}")),
            severity: problem.severity,
            reason: "Manifest",
            message: problem.message.clone(),
        }
    }
}

impl ProblemBook {
    /// Replaces the problems of these objects and logs those that are new.
    pub(crate) fn update_objects(&self, touched: &BTreeSet<ObjectRef>, report: &Report) {
        let mut book = self.lock();
        let mut fresh = Vec::new();
        for object in touched {
            let problems = report.problems_of(object);
            let entries = problems
                .iter()
                .map(|of| Entry::of_object(object, of))
                .collect();
            replace(&mut book.objects, object, entries, &mut fresh);
        }
        book.finish(&fresh);
    }

    /// Replaces the Ingresses that are left to others and logs those that are new. Whoever puts one into a folder
    /// means it to be served.
    pub(crate) fn update_unclaimed(&self, report: &Report) {
        let mut book = self.lock();
        let entries: Vec<Entry> = report
            .unclaimed()
            .map(|(object, why)| Entry::of_unclaimed(object, why))
            .collect();
        let fresh: Vec<Entry> = entries
            .iter()
            .filter(|entry| !book.unclaimed.contains(entry))
            .cloned()
            .collect();
        book.unclaimed = entries;
        book.finish(&fresh);
    }

    /// Replaces what the table could not take, logs what is new and returns the objects for which that differs.
    pub(crate) fn update_rejects(&self, rejects: &[Reject]) -> BTreeSet<ObjectRef> {
        let mut by_object: BTreeMap<ObjectRef, Vec<Entry>> = BTreeMap::new();
        for reject in rejects {
            by_object
                .entry(ObjectRef::clone(&reject.origin.object))
                .or_default()
                .push(Entry::of_reject(reject));
        }
        let mut book = self.lock();
        let mut differing: BTreeSet<ObjectRef> = book
            .rejects
            .keys()
            .filter(|object| !by_object.contains_key(object))
            .cloned()
            .collect();
        let mut fresh = Vec::new();
        for object in &differing {
            book.rejects.remove(object);
        }
        for (object, entries) in by_object {
            if book.rejects.get(&object) != Some(&entries) {
                replace(&mut book.rejects, &object, entries, &mut fresh);
                differing.insert(object);
            }
        }
        book.finish(&fresh);
        differing
    }

    /// Replaces the faults of the manifests folder and logs those that are new.
    pub(crate) fn update_files(&self, problems: Vec<FileProblem>) {
        let mut book = self.lock();
        let fresh: Vec<Entry> = problems
            .iter()
            .filter(|problem| !book.files.contains(problem))
            .map(Entry::of_file)
            .collect();
        book.files = problems;
        book.finish(&fresh);
    }

    /// All problems: of files, of objects, of table entries.
    pub(crate) fn all(&self) -> Vec<Entry> {
        let book = self.lock();
        let files = book.files.iter().map(Entry::of_file);
        files.chain(book.others().cloned()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        // Every update replaces whole values, so a panic in between leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn replace(
    entries: &mut BTreeMap<ObjectRef, Vec<Entry>>,
    object: &ObjectRef,
    new: Vec<Entry>,
    fresh: &mut Vec<Entry>,
) {
    let old = if new.is_empty() {
        entries.remove(object)
    } else {
        entries.insert(object.clone(), new.clone())
    };
    let old = old.unwrap_or_default();
    if !old.is_empty() && new.is_empty() {
        info!(%object, "The problems of this object are solved");
    }
    fresh.extend(new.into_iter().filter(|entry| !old.contains(entry)));
}

impl Book {
    /// All but those of files.
    fn others(&self) -> impl Iterator<Item = &Entry> {
        let objects = self.objects.values().chain(self.rejects.values());
        objects.flatten().chain(&self.unclaimed)
    }

    /// Logs the new problems and counts those that are left.
    fn finish(&self, fresh: &[Entry]) {
        for Entry {
            concerns,
            severity,
            reason,
            message,
        } in fresh.iter().take(LOGGED)
        {
            warn!(%severity, reason, "{concerns}: {message}");
        }
        if fresh.len() > LOGGED {
            warn!(
                more = fresh.len() - LOGGED,
                "There are more problems; /debug/routes lists all of them"
            );
        }
        let mut errors = 0_u32;
        let mut warnings = 0_u32;
        let severities = self
            .others()
            .map(|entry| entry.severity)
            .chain(self.files.iter().map(|file| file.severity));
        for severity in severities {
            match severity {
                Severity::Error => errors += 1,
                Severity::Warning => warnings += 1,
            }
        }
        gauge!(telemetry::PROBLEMS, "severity" => "error").set(errors);
        gauge!(telemetry::PROBLEMS, "severity" => "warning").set(warnings);
        let stale: u32 = self.files.iter().map(|file| u32::from(file.stale)).sum();
        gauge!(telemetry::STALE_FILES).set(stale);
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use model::Origin;

    use super::*;

    fn reject(name: &str, reason: &str) -> Reject {
        Reject {
            origin: Origin::new(ObjectRef::new("Ingress", "a", name), "spec.rules[0]"),
            reason: reason.to_owned(),
        }
    }

    #[test]
    fn only_objects_whose_rejects_differ_are_named() {
        let book = ProblemBook::default();
        let (one, two) = (reject("one", "bad"), reject("two", "bad"));
        let named = |rejects: &[Reject]| -> Vec<String> {
            let differing = book.update_rejects(rejects);
            differing
                .iter()
                .map(|object| object.name.to_string())
                .collect()
        };
        assert_eq!(named(&[one.clone(), two.clone()]), ["one", "two"]);
        assert!(named(&[one.clone(), two]).is_empty());
        assert_eq!(named(&[one, reject("two", "worse")]), ["two"]);
        assert_eq!(named(&[]), ["one", "two"], "they are solved");
        assert!(book.all().is_empty());
    }

    #[test]
    fn a_file_is_named_with_its_line() {
        let book = ProblemBook::default();
        book.update_files(vec![FileProblem {
            file: PathBuf::from("shop/web.yaml"),
            line: Some(7),
            severity: Severity::Error,
            message: "it is not YAML".to_owned(),
            stale: true,
        }]);
        let all: Vec<String> = book.all().iter().map(ToString::to_string).collect();
        assert_eq!(all, ["error: shop/web.yaml:7: it is not YAML"]);
    }
}
