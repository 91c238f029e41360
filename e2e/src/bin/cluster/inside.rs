//! The part of a run that is inside the cluster's namespaces. It ends when it is killed, or when its command has ended.

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::time::Instant;

use anyhow::{Context as _, Result};
use e2e::cluster::{self, CLIENT_NAMESPACE, Kubernetes, Materials};
use tokio::process::Command;

use crate::{Inside, say};

pub(crate) async fn run(arguments: &Inside) -> Result<bool> {
    let Inside { parts, state, .. } = arguments;
    let start = Instant::now();
    let materials = Materials {
        programs: parts.programs.clone(),
        images: parts.images.clone(),
        state: state.clone(),
        cgroup: arguments.cgroup.clone(),
    };
    let kubernetes = Kubernetes::start(&materials)
        .await
        .context("the cluster does not start")?;
    say(&format!(
        "e2e: two nodes are ready after {:.1} s",
        start.elapsed().as_secs_f64()
    ));
    cluster::install(&kubernetes.kubectl, state, &parts.lockgate)
        .await
        .context("Lockgate is not rolled out")?;
    say(&format!(
        "e2e: Lockgate is rolled out after {:.1} s; files in {}",
        start.elapsed().as_secs_f64(),
        state.display()
    ));
    fs::write(state.join("ready"), "")?;
    let Some((program, rest)) = arguments.command.split_first() else {
        // Somebody else decides when it ends.
        std::future::pending::<()>().await;
        return Ok(true);
    };
    let status = Command::new("nsenter")
        .arg(format!("--net=/run/netns/{CLIENT_NAMESPACE}"))
        .arg(program)
        .args(rest)
        .env("KUBECONFIG", state.join("admin.kubeconfig"))
        .env("E2E_STATE", state)
        .env("PATH", cluster::path(&parts.programs)?)
        .kill_on_drop(true)
        .status()
        .await
        .with_context(|| program.display().to_string())?;
    if let Some(signal) = status.signal() {
        say(&format!("e2e: the command was ended by signal {signal}"));
    }
    if let Ok(notes) = fs::read_to_string(state.join("notes")) {
        say(notes.trim_end());
    }
    Ok(status.success())
}
