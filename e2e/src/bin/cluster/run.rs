//! The life of a cluster, seen from outside: make its folder and its namespaces, wait, remove everything.

use std::ffi::OsStr;
use std::fs;
use std::process::Stdio;

use anyhow::{Context as _, Result};
use e2e::cluster::{self, Home};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

use crate::{Run, say};

/// The first process of the namespaces: it takes over what loses its parent, and everything ends with it. `/run` has
/// the names of network namespaces, and is private.
const FIRST: &str = "mount -t tmpfs tmpfs /run && mkdir /run/netns || exit; \"$@\"; exit $?";

pub(crate) async fn run(arguments: &Run) -> Result<bool> {
    cluster::check_requirements()?;
    Home::remove_leftovers().await?;
    let mut home = match &arguments.name {
        Some(name) => Home::named(name)?,
        None => Home::new()?,
    };
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let outcome = async {
        let cgroup = home.create_cgroups()?;
        let mut child = start(arguments, &home, &cgroup)?;
        fs::write(home.folder.join("pid"), std::process::id().to_string())?;
        let id = child.id().context("the namespaces have ended already")?;
        fs::write(home.folder.join("namespaces"), id.to_string())?;
        tokio::select! {
            status = child.wait() => return Ok(status?.success()),
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
        // The kernel ends everything in the namespaces with their first process.
        child.kill().await?;
        // Who lets a cluster wait ends it like this.
        Ok(arguments.command.is_empty())
    }
    .await;
    let keep = arguments.keep || !matches!(outcome, Ok(true));
    if keep {
        say(&format!("e2e: logs are kept in {}", home.folder.display()));
    }
    home.remove(keep).await?;
    outcome
}

fn start(arguments: &Run, home: &Home, cgroup: &str) -> Result<Child> {
    let parts = &arguments.parts;
    let mut command = Command::new("setpriv");
    // Should this program be killed, nothing must stay.
    command
        .args([
            "--pdeathsig",
            "KILL",
            "unshare",
            "--net",
            "--pid",
            "--mount",
        ])
        .args([
            "--fork",
            "--kill-child",
            "--mount-proc",
            "--propagation=private",
        ])
        .args(["bash", "-c", FIRST, "first"])
        .arg(std::env::current_exe()?)
        .arg("inside")
        .args([OsStr::new("--programs"), parts.programs.as_os_str()])
        .args([OsStr::new("--images"), parts.images.as_os_str()])
        .args(["--lockgate", &parts.lockgate, "--cgroup", cgroup])
        .args([OsStr::new("--state"), home.folder.as_os_str()])
        .arg("--")
        .args(&arguments.command);
    if arguments.command.is_empty() {
        command.stdin(Stdio::null());
    }
    Ok(command.kill_on_drop(true).spawn()?)
}
