//! `e2e-cluster`: starts clusters for the end-to-end tests and ends them. `e2e/cluster/run.sh` calls it.

use std::ffi::OsString;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

mod api;
mod enter;
mod inside;
mod run;

/// Clusters for the end-to-end tests.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Run a command beside an etcd and an API server. Needs network and process namespaces of its own.
    Api(Api),
    /// Start a Kubernetes with nodes, run a command as a client of it or wait, end it.
    Run(Run),
    /// The part of `run` that is inside the namespaces.
    #[command(hide = true)]
    Inside(Inside),
    /// Run a command as a client of a cluster that `run` has started.
    Enter(Enter),
    /// Install Lockgate in the cluster of KUBECONFIG and wait until it is rolled out.
    Install {
        /// The image, which the nodes have or can pull.
        #[arg(long)]
        lockgate: String,
        /// A folder for the kustomization.
        #[arg(long)]
        state: PathBuf,
    },
    /// Whether a cluster that `run` has started is ready.
    IsUp {
        /// Its name.
        #[arg(long)]
        name: String,
    },
    /// End a cluster that `run` has started, and remove what earlier runs have left.
    Down {
        /// Its name.
        #[arg(long)]
        name: String,
    },
}

#[derive(Args)]
struct Api {
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
    command: Vec<OsString>,
}

#[derive(Args)]
struct Run {
    #[command(flatten)]
    parts: Parts,
    /// What it is called by `enter` and `down`.
    #[arg(long)]
    name: Option<String>,
    /// Keep logs even if the command succeeds.
    #[arg(long)]
    keep: bool,
    /// The command and its arguments; without, the cluster waits for its end.
    #[arg(last = true)]
    command: Vec<OsString>,
}

#[derive(Args)]
struct Inside {
    #[command(flatten)]
    parts: Parts,
    /// The folder for everything that it writes.
    #[arg(long)]
    state: PathBuf,
    /// The cgroup that was made for it.
    #[arg(long)]
    cgroup: String,
    /// The command and its arguments.
    #[arg(last = true)]
    command: Vec<OsString>,
}

#[derive(Args)]
struct Enter {
    /// The cluster's name.
    #[arg(long)]
    name: String,
    /// The command and its arguments.
    #[arg(required = true, last = true)]
    command: Vec<OsString>,
}

#[derive(Args)]
struct Parts {
    /// Folder with the programs of Kubernetes.
    #[arg(long)]
    programs: PathBuf,
    /// Folder with the archives of all images.
    #[arg(long)]
    images: PathBuf,
    /// The image of Lockgate, one of them.
    #[arg(long, default_value = "localhost/lockgate:e2e")]
    lockgate: String,
}

#[tokio::main]
async fn main() -> ExitCode {
    let done = match Arguments::parse().action {
        Action::Api(arguments) => api::run(&arguments).await,
        Action::Run(arguments) => run::run(&arguments).await,
        Action::Inside(arguments) => inside::run(&arguments).await,
        Action::Enter(arguments) => enter::enter(&arguments),
        Action::Install { lockgate, state } => enter::install(&lockgate, &state).await,
        Action::IsUp { name } => Ok(enter::is_up(&name)),
        Action::Down { name } => enter::down(&name).await,
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            say(&format!("e2e: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn say(line: &str) {
    let _written = writeln!(std::io::stderr(), "{line}");
}
