//! Manifests in, routes and problems out: `lockgate render` and `lockgate check`. Nothing is served.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use jiff::Zoned;
use model::ObjectRef;
use table::{Reject, Table};
use translate::{Change, Problem, Reason, Severity, Translator, manifests};

use crate::args::{CheckArgs, RenderArgs, RenderFormat, ScopeArgs};
use crate::certificate::{CertificateError, default_certificate};
use crate::overview::Overview;
use crate::problems::Entry;
use crate::watch::FileProblem;
use crate::watch::directory::{Folder, FolderError, implied_class};

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    /// The folder cannot be read.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The default certificate cannot be made.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// A file cannot be read.
    #[error("cannot read `{}`: {source}", .file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The result cannot be written.
    #[error("cannot write the result: {0}")]
    Output(#[from] io::Error),
    /// The result has no JSON form.
    #[error("cannot write the result as JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// The result has no YAML form.
    #[error("cannot write the result as YAML: {0}")]
    Yaml(#[from] serde_saphyr::ser::Error),
}

/// Prints the routes that a folder leads to, and all problems.
pub fn render(args: RenderArgs, out: &mut impl Write) -> Result<(), RenderError> {
    let settings = translate::Settings {
        fake_certificate: Some(Arc::new(default_certificate(&Zoned::now())?)),
        ..folder_settings(args.scope)
    };
    let mut folder = Folder::open(&args.manifests, vec![implied_class(&settings)])?;
    let changes = folder.load();
    let files = folder.problems();
    let result = evaluate(changes, settings);
    let mut problems: Vec<Entry> = files.iter().map(Entry::of_file).collect();
    let report = result.translator.report();
    problems.extend(
        report
            .problems()
            .map(|(object, problem)| Entry::of_object(object, problem)),
    );
    problems.extend(result.rejects.iter().map(Entry::of_reject));
    problems.extend(
        report
            .unclaimed()
            .map(|(object, why)| Entry::of_unclaimed(object, why)),
    );
    let overview = Overview::new(&result.table, Vec::new(), problems);
    match args.output {
        RenderFormat::Table => write!(out, "{overview}")?,
        RenderFormat::Json => {
            serde_json::to_writer_pretty(&mut *out, &overview)?;
            writeln!(out)?;
        }
        RenderFormat::Yaml => write!(out, "{}", serde_saphyr::to_string(&overview)?)?,
    }
    Ok(())
}

/// Checks files and prints what is wrong with them. The exit code is 1 if there is an error.
pub fn check(
    args: CheckArgs,
    stdin: impl Read,
    out: &mut impl Write,
) -> Result<ExitCode, RenderError> {
    let settings = folder_settings(args.scope);
    let class = implied_class(&settings);
    let mut manifests = Manifests::default();
    manifests.read(&args.files, stdin)?;
    let mut changes = std::mem::take(&mut manifests.changes);
    // As if installed: the class that comes with Lockgate is there.
    changes.insert(0, Change::Apply(class));
    let findings = manifests.findings(&evaluate(changes, settings));
    for finding in &findings {
        writeln!(out, "{finding}")?;
    }
    let count = |severity| {
        findings
            .iter()
            .filter(|finding| finding.severity == severity)
            .count()
    };
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    writeln!(
        out,
        "{} checked: {}, {}",
        counted(manifests.objects, "object"),
        counted(errors, "error"),
        counted(warnings, "warning")
    )?;
    Ok(if errors == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// What is checked is taken as `lockgate run --manifests` would take it.
fn folder_settings(scope: ScopeArgs) -> translate::Settings {
    translate::Settings {
        adopt_default_class: true,
        allow_loopback_endpoints: true,
        ..scope.translation()
    }
}

struct Evaluation {
    translator: Translator,
    table: Table,
    rejects: Vec<Reject>,
}

fn evaluate(changes: Vec<Change>, settings: translate::Settings) -> Evaluation {
    let mut translator = Translator::new(settings);
    translator.apply(changes);
    let compiled = table::compile(translator.model());
    Evaluation {
        translator,
        table: compiled.table,
        rejects: compiled.rejects,
    }
}

/// One message of `lockgate check`.
#[derive(Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Finding {
    file: PathBuf,
    line: Option<usize>,
    severity: Severity,
    message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            file,
            line,
            severity,
            message,
        } = self;
        write!(f, "{}", file.display())?;
        if let Some(line) = line {
            write!(f, ":{line}")?;
        }
        write!(f, ": {severity}: {message}")
    }
}

/// What was read for a check.
#[derive(Debug, Default)]
struct Manifests {
    changes: Vec<Change>,
    /// Where each object stands.
    places: BTreeMap<ObjectRef, (PathBuf, Option<usize>)>,
    problems: Vec<FileProblem>,
    objects: usize,
}

impl Manifests {
    fn read(&mut self, files: &[PathBuf], mut stdin: impl Read) -> Result<(), RenderError> {
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

    fn findings(&self, result: &Evaluation) -> Vec<Finding> {
        let report = result.translator.report();
        let of_objects = report
            .problems()
            .map(|(object, problem)| self.finding(object, severity(problem), &problem.message));
        let of_rejects = result.rejects.iter().map(|reject| {
            let Reject { origin, reason } = reject;
            self.finding(
                &origin.object,
                Severity::Error,
                &format!("{}: {reason}", origin.field),
            )
        });
        let of_unclaimed = report.unclaimed().map(|(object, why)| {
            self.finding(
                object,
                Severity::Warning,
                &format!("Lockgate does not serve it: {why}"),
            )
        });
        let of_files = self.problems.iter().map(|problem| Finding {
            file: problem.file.clone(),
            line: problem.line,
            severity: problem.severity,
            message: problem.message.clone(),
        });
        let mut all: Vec<Finding> = of_files
            .chain(of_objects)
            .chain(of_rejects)
            .chain(of_unclaimed)
            .collect();
        all.sort();
        all
    }

    fn finding(&self, object: &ObjectRef, severity: Severity, message: &str) -> Finding {
        let (file, line) = match self.places.get(object) {
            Some((file, line)) => (file.clone(), *line),
            None => (PathBuf::from("command line"), None), // an object that only a flag names
        };
        Finding {
            file,
            line,
            severity,
            message: format!("{object}: {message}"),
        }
    }
}

/// Services and Secrets are often made by others (a Helm chart, cert-manager) than the files that name them.
fn severity(problem: &Problem) -> Severity {
    if matches!(
        problem.reason,
        Reason::ServiceNotFound | Reason::SecretNotFound
    ) {
        Severity::Warning
    } else {
        problem.severity
    }
}

fn reference(change: &Change) -> ObjectRef {
    match change {
        Change::Apply(object) => object.reference(),
        Change::Delete(object) => object.clone(),
    }
}

fn counted(count: usize, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {what}{plural}")
}
