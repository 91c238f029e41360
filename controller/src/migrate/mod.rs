//! What becomes of the Ingresses of ingress-nginx: `lockgate migrate`.
//!
//! The objects go through the same translation as when they are served; the report reads the verdicts off its result.

mod assess;
mod cluster;
mod fix;
mod flags;
mod markdown;
mod report;
mod steps;
mod text;

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use translate::{Change, kinds};

use self::flags::OldFlags;
use self::text::counted_ingresses;
use crate::args::{MigrateArgs, MigrateFormat};
use crate::files::Manifests;
use crate::render::{RenderError, evaluate};
use crate::watch::directory::implied_class;

/// The exit code where some route would answer 503.
const BLOCKED: u8 = 3;

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// Files cannot be read.
    #[error(transparent)]
    Files(#[from] RenderError),
    /// The cluster cannot be reached, or does not show its objects.
    #[error("{what}: {reason}")]
    Cluster {
        /// What failed.
        what: String,
        /// What the client or the API server says.
        reason: String,
    },
    /// The arguments of the old controller cannot be read.
    #[error("--controller-args: {0}")]
    Flags(String),
    /// The report cannot be written.
    #[error("cannot write the report")]
    Output(#[from] io::Error),
    /// The replacements cannot be written.
    #[error("cannot write into `{}`: {source}", .folder.display())]
    Fix {
        /// Where to.
        folder: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A replacement has no YAML form.
    #[error("cannot write a replacement as YAML: {0}")]
    Yaml(String),
    /// The report has no JSON form.
    #[error("cannot write the report as JSON")]
    Json(#[from] serde_json::Error),
}

/// What was read, and what could not be.
#[derive(Debug, Default)]
struct Inventory {
    changes: Vec<Change>,
    notes: Vec<String>,
}

/// Reads a cluster or files and prints what becomes of their Ingresses.
///
/// The exit code is 0 if all of them would be served, and 3 if some route would answer 503.
pub fn migrate(
    args: MigrateArgs,
    stdin: impl Read,
    out: &mut impl Write,
) -> Result<ExitCode, MigrateError> {
    let MigrateArgs {
        files,
        kubeconfig,
        context,
        namespace,
        ingress_class,
        controller_name,
        configmap,
        controller_args,
        fix,
        output,
    } = args;
    let old = match &controller_args {
        Some(text) => OldFlags::parse(text).map_err(MigrateError::Flags)?,
        None => OldFlags::default(),
    };
    let mut settings = old.settings(translate::Settings {
        controller_name,
        ingress_class,
        allow_loopback_endpoints: true,
        ..translate::Settings::default()
    });
    if configmap.is_some() {
        settings.configmap = configmap;
    }
    if !namespace.is_empty() {
        settings.watch_namespaces = namespace.into_iter().collect::<BTreeSet<_>>();
    }
    let inventory = if files.is_empty() {
        // As long as none is named.
        settings.header_configmaps = Some(BTreeSet::new());
        let place = cluster::Place {
            kubeconfig,
            context,
        };
        cluster::read(&place, &settings)?
    } else {
        settings.adopt_default_class = true;
        let mut manifests = Manifests::default();
        manifests.read(&files, stdin)?;
        of_files(manifests, &settings)
    };
    if settings.configmap.is_none() {
        settings.configmap = assess::only_configmap(&inventory.changes);
    }
    let prefixes = settings.annotation_prefixes.clone();
    let result = evaluate(inventory.changes, settings.clone());
    let mut report = assess::assess(&result, inventory.notes, settings, &old);
    if let Some(folder) = fix {
        let translator = &result.translator;
        let ours = translator
            .snapshot()
            .ingresses()
            .iter()
            .filter(|(name, _)| translator.report().claims(&name.reference(kinds::INGRESS)))
            .filter_map(|(name, ingress)| Some((name, ingress.unpack()?)));
        let fixed = fix::write(&folder, ours, &prefixes)?;
        report.notes.push(format!(
            "replacements for {} are in {}; commands.txt there applies them",
            counted_ingresses(fixed),
            folder.display()
        ));
    }
    match output {
        MigrateFormat::Text => text::write(&report, out)?,
        MigrateFormat::Markdown => markdown::write(&report, out)?,
        MigrateFormat::Json => {
            serde_json::to_writer_pretty(&mut *out, &report)?;
            writeln!(out)?;
        }
    }
    Ok(if report.summary.blocked == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(BLOCKED)
    })
}

fn of_files(manifests: Manifests, settings: &translate::Settings) -> Inventory {
    let mut changes = manifests.changes;
    // Files seldom have the class.
    changes.insert(0, Change::Apply(implied_class(settings)));
    let notes = manifests
        .problems
        .iter()
        // What is no Ingress is not looked at.
        .filter(|problem| problem.severity == translate::Severity::Error)
        .map(|problem| match problem.line {
            Some(line) => format!("{}:{line}: {}", problem.file.display(), problem.message),
            None => format!("{}: {}", problem.file.display(), problem.message),
        })
        .collect();
    Inventory { changes, notes }
}
