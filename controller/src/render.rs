//! Manifests in, routes and problems out: `lockgate render` and `lockgate check`. Nothing is served.

use std::fmt;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use jiff::Zoned;
use k8s_openapi::jiff::Timestamp;
use model::ObjectRef;
use table::{Reject, Table};
use translate::{Change, Problem, Reason, Severity, Translator};

use crate::args::{CheckArgs, RenderArgs, RenderFormat, ScopeArgs};
use crate::certificate::{CertificateError, default_certificate};
use crate::files::Manifests;
use crate::overview::Overview;
use crate::problems::Entry;
use crate::status::plan;
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
    let settings = scope.translation();
    translate::Settings {
        adopt_default_class: true,
        allow_loopback_endpoints: true,
        // Whoever names some wants to see what follows from that.
        header_configmaps: settings.header_configmaps.filter(|named| !named.is_empty()),
        ..settings
    }
}

/// What became of objects.
pub(crate) struct Evaluation {
    pub(crate) translator: Translator,
    pub(crate) table: Table,
    pub(crate) rejects: Vec<Reject>,
}

/// Translates and compiles, as when serving.
pub(crate) fn evaluate(changes: Vec<Change>, settings: translate::Settings) -> Evaluation {
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

impl Manifests {
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
        let now = Timestamp::now();
        let of_lists = report.revocations().filter_map(|(object, term)| {
            let note = plan::revocation(term, now)?;
            let counts = (term.not_before..term.not_after).contains(&now.as_second());
            let severity = if counts {
                Severity::Warning
            } else {
                Severity::Error
            };
            Some(self.finding(object, severity, &note.message))
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
            .chain(of_lists)
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

/// A number and what is counted.
pub(crate) fn counted(count: usize, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {what}{plural}")
}
