//! The api tier: an etcd, an API server, what the repository ships, a command.

use std::time::Instant;

use anyhow::{Context as _, Result};
use e2e::cluster::{self, Cluster, Home, Programs};
use e2e::lockgate::Installation;
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};

use crate::{Api, say};

pub(crate) async fn run(arguments: &Api) -> Result<bool> {
    let (program, rest) = arguments.command.split_first().context("no command")?;
    let programs = Programs::new(arguments.programs.clone(), arguments.lockgate.clone())?;
    Home::remove_leftovers().await?;
    let home = Home::new()?;
    let folder = home.folder.clone();

    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let work = async {
        let start = Instant::now();
        let cluster = Cluster::start(programs.clone(), &folder, cluster::SHARED)
            .await
            .context("the cluster does not start")?;
        let installation = Installation::apply(cluster.access())
            .await
            .context("config/default")?;
        say(&format!(
            "e2e: API server up and config/default installed in namespace {} after {:.1} s; files in {}",
            installation.namespace,
            start.elapsed().as_secs_f64(),
            folder.display(),
        ));
        let status = Command::new(program)
            .args(rest)
            .env("KUBECONFIG", folder.join("admin.kubeconfig"))
            .envs(programs.environment(cluster.access()))
            .kill_on_drop(true)
            .status()
            .await
            .with_context(|| program.display().to_string())?;
        say(cluster.access().notes().trim_end());
        anyhow::Ok(status.success())
    };
    // Whatever comes first: what was started ends when its owner is dropped.
    let outcome = tokio::select! {
        outcome = work => outcome,
        _ = interrupt.recv() => Ok(false),
        _ = terminate.recv() => Ok(false),
    };
    let keep = arguments.keep || !matches!(outcome, Ok(true));
    if keep {
        say(&format!("e2e: logs are kept in {}", folder.display()));
    }
    home.remove(keep).await?;
    outcome
}
