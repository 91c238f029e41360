//! The cgroups below which the pods of a cluster live: one folder per cluster in every hierarchy, one per node in it.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};

use crate::wait::eventually;

/// Killed programs leave their cgroup when the kernel has come round to them.
const EMPTY: Duration = Duration::from_secs(30);

/// Makes the cgroups of a cluster's nodes. With cgroup v2, all controllers that there are get enabled in them.
pub(super) fn create(cluster: &str, nodes: &[&str]) -> Result<()> {
    for (hierarchy, unified) in hierarchies()? {
        // Beside v1 hierarchies, the unified one has no controllers and the kubelet does not look at it.
        if unified && hierarchy != Path::new("/sys/fs/cgroup") {
            continue;
        }
        let made = make(&hierarchy, unified, cluster, nodes);
        made.with_context(|| format!("making a cgroup in {}", hierarchy.display()))?;
    }
    Ok(())
}

/// Removes the cgroups of a cluster whose programs have ended.
pub(super) async fn remove(cluster: &str) -> Result<()> {
    for (hierarchy, _) in hierarchies()? {
        let folder = hierarchy.join(cluster);
        eventually("the cgroups are empty", EMPTY, async || {
            remove_tree(&folder).with_context(|| folder.display().to_string())
        })
        .await?;
    }
    Ok(())
}

fn make(hierarchy: &Path, unified: bool, cluster: &str, nodes: &[&str]) -> Result<()> {
    let top = hierarchy.join(cluster);
    enable(hierarchy, unified)?;
    add(&top)?;
    enable(&top, unified)?;
    for node in nodes {
        let folder = top.join(node);
        add(&folder)?;
        enable(&folder, unified)?;
    }
    Ok(())
}

/// A new v1 cpuset has neither processors nor memory; a process can join it only when it has.
fn add(folder: &Path) -> Result<()> {
    fs::create_dir(folder)?;
    let parent = folder.parent().context("a cgroup has a parent")?;
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if folder.join(file).exists() && folder.join("cgroup.clone_children").exists() {
            fs::write(folder.join(file), fs::read(parent.join(file))?)?;
        }
    }
    Ok(())
}

fn enable(folder: &Path, unified: bool) -> Result<()> {
    if !unified {
        return Ok(());
    }
    for controller in fs::read_to_string(folder.join("cgroup.controllers"))?.split_whitespace() {
        fs::write(
            folder.join("cgroup.subtree_control"),
            format!("+{controller}"),
        )
        .with_context(|| format!("{}: {controller}", folder.display()))?;
    }
    Ok(())
}

fn remove_tree(folder: &Path) -> Result<()> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    Ok(fs::remove_dir(folder)?)
}

/// Where the hierarchies are mounted, and which of them is the unified one.
fn hierarchies() -> Result<Vec<(PathBuf, bool)>> {
    let mounts = fs::read_to_string("/proc/mounts")?;
    let found: Vec<(PathBuf, bool)> = mounts
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ').skip(1);
            let place = fields.next()?;
            match fields.next()? {
                "cgroup" => Some((PathBuf::from(place), false)),
                "cgroup2" => Some((PathBuf::from(place), true)),
                _ => None,
            }
        })
        .collect();
    if found.is_empty() {
        return Err(anyhow!("no cgroups are mounted below /sys/fs/cgroup"));
    }
    Ok(found)
}
