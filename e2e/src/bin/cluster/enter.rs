//! A cluster that is there already: commands in it, and its end.

use std::env;
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use e2e::cluster::{self, CLIENT_NAMESPACE, Home, Running};
use e2e::wait::eventually;
use rustix::process::{Pid, Signal, kill_process};

use crate::{Enter, say};

const END: Duration = Duration::from_mins(1);

/// Whether the cluster is there and ready.
pub(crate) fn is_up(name: &str) -> bool {
    let state = Home::path(name);
    state.join("ready").exists() && Home::in_use(&state)
}

/// Becomes a command that is a client of the cluster.
pub(crate) fn enter(arguments: &Enter) -> Result<bool> {
    let state = Home::path(&arguments.name);
    ensure!(
        is_up(&arguments.name),
        "no cluster is up: start one with `make cluster-up`"
    );
    let first = first_process(&state)?;
    let folder = env::current_dir()?;
    let error = Command::new("nsenter")
        .args([&format!("--target={first}"), "--pid", "--mount"])
        // The name is one of the cluster's own mounts.
        .arg(format!(
            "--net=/proc/{first}/root/run/netns/{CLIENT_NAMESPACE}"
        ))
        .arg(format!("--wdns={}", folder.display()))
        // The command is a child of the cluster's processes as well: it has to end with this one.
        .args(["setpriv", "--pdeathsig", "KILL"])
        .args(&arguments.command)
        .env("KUBECONFIG", state.join("admin.kubeconfig"))
        .env("E2E_STATE", &state)
        .exec();
    Err(error).context("nsenter")
}

/// Installs Lockgate in any cluster.
pub(crate) async fn install(image: &str, state: &Path) -> Result<bool> {
    let running = Running::from_environment()?;
    cluster::install(&running.kubectl, state, image).await?;
    Ok(true)
}

/// Ends a cluster and waits until nothing of it is left.
pub(crate) async fn down(name: &str) -> Result<bool> {
    let state = Home::path(name);
    if Home::in_use(&state) {
        let pid = read_pid(&state.join("pid"))?;
        kill_process(pid, Signal::TERM)?;
        eventually("the cluster has ended", END, async || {
            if Home::in_use(&state) {
                bail!("{} is in use", state.display());
            }
            Ok(())
        })
        .await?;
        say("e2e: the cluster is down");
    } else {
        say("e2e: no cluster is up");
    }
    Home::remove_leftovers().await?;
    Ok(true)
}

/// The first process of the cluster's namespaces, as it is called outside.
fn first_process(state: &Path) -> Result<String> {
    let unshare = read_pid(&state.join("namespaces"))?.as_raw_nonzero();
    let children = fs::read_to_string(format!("/proc/{unshare}/task/{unshare}/children"))?;
    let first = children.split_whitespace().next();
    first
        .map(str::to_owned)
        .context("the cluster has just ended")
}

fn read_pid(file: &Path) -> Result<Pid> {
    let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
    Pid::from_raw(text.trim().parse()?).context("0 is no process")
}
