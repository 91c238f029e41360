//! `e2e-cluster`: starts an etcd and a Kubernetes API server, installs what the repository ships, runs a command, ends
//! everything. `e2e/cluster/run.sh` calls it inside the namespaces that it makes.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, Result};
use clap::Parser;
use e2e::cluster::{self, Cluster, Programs};
use e2e::lockgate::Installation;
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};

/// Runs a command beside a real etcd and Kubernetes API server.
#[derive(Parser)]
struct Arguments {
    /// Folder with etcd, kube-apiserver and kubectl.
    #[arg(long)]
    programs: PathBuf,
    /// The binary under test.
    #[arg(long)]
    lockgate: PathBuf,
    /// Keep keys, data and logs even if the command succeeds.
    #[arg(long)]
    keep: bool,
    /// The command and its arguments.
    #[arg(required = true, last = true)]
    command: Vec<String>,
}

const PREFIX: &str = "lockgate-e2e-";
const LOCK: &str = "in-use";

#[tokio::main]
async fn main() -> ExitCode {
    match run(&Arguments::parse()).await {
        Ok(code) => code,
        Err(error) => {
            let _written = writeln!(std::io::stderr(), "e2e: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: &Arguments) -> Result<ExitCode> {
    let (program, rest) = arguments.command.split_first().context("no command")?;
    let programs = Programs::new(arguments.programs.clone(), arguments.lockgate.clone())?;
    remove_leftovers(&std::env::temp_dir())?;
    let private = fs::Permissions::from_mode(0o700);
    let folder = tempfile::Builder::new()
        .prefix(PREFIX)
        .permissions(private)
        .tempdir()?;
    // Held until the end: this is how a later run knows that the folder is in use.
    let lock = File::create(folder.path().join(LOCK))?;
    lock.try_lock()?;

    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let work = async {
        let start = Instant::now();
        let cluster = Cluster::start(programs.clone(), folder.path(), cluster::SHARED)
            .await
            .context("the cluster does not start")?;
        let installation = Installation::apply(cluster.access())
            .await
            .context("config/default")?;
        writeln!(
            std::io::stderr(),
            "e2e: API server up and config/default installed in namespace {} after {:.1} s; files in {}",
            installation.namespace,
            start.elapsed().as_secs_f64(),
            folder.path().display(),
        )?;
        let status = Command::new(program)
            .args(rest)
            .env("KUBECONFIG", folder.path().join("admin.kubeconfig"))
            .envs(programs.environment(cluster.access()))
            .kill_on_drop(true)
            .status()
            .await
            .with_context(|| program.clone())?;
        write!(std::io::stderr(), "{}", cluster.access().notes())?;
        anyhow::Ok(status.success())
    };
    // Whatever comes first: leaving this function drops, and so ends, everything that was started.
    let outcome = tokio::select! {
        outcome = work => outcome,
        _ = interrupt.recv() => Ok(false),
        _ = terminate.recv() => Ok(false),
    };
    let success = matches!(outcome, Ok(true));
    if arguments.keep || !success {
        let kept = folder.keep();
        writeln!(
            std::io::stderr(),
            "e2e: logs and data are kept in {}",
            kept.display()
        )?;
    }
    outcome.map(|success| {
        if success {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    })
}

/// Removes what runs that did not end well, or that were told to keep it, have left, except the newest.
fn remove_leftovers(parent: &Path) -> Result<()> {
    let mut unused = Vec::new();
    for entry in fs::read_dir(parent)? {
        let entry = entry?;
        if !entry.file_name().to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        let free = File::open(entry.path().join(LOCK)).is_ok_and(|lock| lock.try_lock().is_ok());
        if free {
            unused.push((entry.metadata()?.modified()?, entry.path()));
        }
    }
    unused.sort();
    unused.pop();
    for (_, folder) in unused {
        if let Err(error) = fs::remove_dir_all(&folder) {
            writeln!(
                std::io::stderr(),
                "e2e: {} stays: {error}",
                folder.display()
            )?;
        }
    }
    Ok(())
}
