//! What a machine needs for a cluster with nodes, and what to do where it is missing.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use super::tool;

/// Where distributions put the plugins that connect pods.
const CNI: [&str; 3] = ["/usr/lib/cni", "/opt/cni/bin", "/usr/libexec/cni"];
const PLUGINS: [&str; 4] = ["host-local", "loopback", "portmap", "ptp"];

/// Tools of the machine, and the packages that have them.
const TOOLS: [(&str, &str); 7] = [
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("iptables", "iptables"),
    ("unshare", "util-linux"),
    ("nsenter", "util-linux"),
    ("setpriv", "util-linux"),
    ("mount", "mount"),
];

/// What the kernel has to have: how it is tried in a namespace made for it, what it is called.
const KERNEL: [(&str, &str); 4] = [
    (
        "ip link add lan0 type bridge",
        "bridge devices (module bridge)",
    ),
    (
        "ip link add one0 type veth peer name two0",
        "pairs of devices (module veth)",
    ),
    (
        "echo 'table ip t { chain c { type nat hook prerouting priority 0; ct state new counter dnat to 192.0.2.1; }; }' | nft -f -",
        "nftables with address translation (modules nf_tables, nft_ct, nft_nat)",
    ),
    (
        "mount -t tmpfs tmpfs /mnt && mkdir /mnt/a /mnt/b /mnt/c && mount -t overlay overlay -o lowerdir=/mnt/a:/mnt/b /mnt/c",
        "overlayfs (module overlay)",
    ),
];

/// Says everything that is missing, not only the first.
pub fn check() -> Result<()> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "a cluster with nodes needs root: containers, mounts and cgroups are made (the other tests run without: make test)"
    );
    let mut missing: Vec<String> = TOOLS
        .iter()
        .filter(|(tool, _)| !in_path(tool))
        .map(|(tool, package)| format!("{tool} (package {package})"))
        .collect();
    if let Err(error) = cni_plugins() {
        missing.push(error.to_string());
    }
    ensure!(
        missing.is_empty(),
        "a cluster with nodes needs, and this machine lacks: {}",
        missing.join("; ")
    );
    for (trial, feature) in KERNEL {
        let arguments = ["--net", "--mount", "--fork", "sh", "-e", "-c", trial];
        if let Err(error) = tool::run("unshare", &arguments, "") {
            missing.push(format!("{feature}: {error:#}"));
        }
    }
    ensure!(
        missing.is_empty(),
        "a cluster with nodes needs of the kernel, and it lacks: {}",
        missing.join("; ")
    );
    // Nodes have folders of their own there.
    let folder = env::temp_dir();
    for hidden in ["/run", "/var/lib", "/var/log"] {
        ensure!(
            !folder.starts_with(hidden),
            "TMPDIR must not be below {hidden}: {}",
            folder.display()
        );
    }
    Ok(())
}

/// The folder of the CNI plugins.
pub(super) fn cni_plugins() -> Result<PathBuf> {
    CNI.iter()
        .map(PathBuf::from)
        .find(|folder| PLUGINS.iter().all(|plugin| folder.join(plugin).exists()))
        .with_context(|| {
            format!(
                "CNI plugins {} in {} (package containernetworking-plugins)",
                PLUGINS.join(", "),
                CNI.join(" or "),
            )
        })
}

/// How containerd keeps file systems of containers below `folder`: overlayfs does not work on every file system, on
/// another overlayfs for example.
pub(super) fn snapshotter(folder: &Path) -> &'static str {
    let trial = folder.join("trial");
    let script = "cd \"$1\" && mkdir a b c d && mount -t overlay overlay -o lowerdir=a,upperdir=b,workdir=c d";
    let works = fs::create_dir(&trial).is_ok() && {
        let folder = trial.display().to_string();
        let arguments = ["--mount", "--", "sh", "-e", "-c", script, "trial", &folder];
        tool::run("unshare", &arguments, "").is_ok()
    };
    // What is left of a trial that failed hinders nobody.
    let _removed = fs::remove_dir_all(&trial);
    if works { "overlayfs" } else { "native" }
}

fn in_path(tool: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|folder| folder.join(tool).exists())
}
