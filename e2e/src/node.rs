//! What a test does to the nodes of the harness, and to the programs that run in pods on them. The test program shares the
//! process and mount namespaces of the nodes, so it sees their processes and network namespaces.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Command;

use crate::cluster::NODES;

/// The process of a pod's container, found by the pod's name in its environment.
#[derive(Clone, Copy, Debug)]
pub struct Process {
    pid: Pid,
}

impl Process {
    /// The process whose environment has `POD_NAME` set to that name; none where the cluster is not one of the harness.
    pub fn of_pod(name: &str) -> Result<Option<Self>> {
        let wanted = format!("POD_NAME={name}");
        for entry in fs::read_dir("/proc")? {
            let entry = entry?;
            let pid = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok());
            let Some(pid) = pid.and_then(Pid::from_raw) else {
                continue;
            };
            // A process may have ended since.
            let Ok(environment) = fs::read(entry.path().join("environ")) else {
                continue;
            };
            let mut variables = environment.split(|&byte| byte == 0);
            if variables.any(|variable| variable == wanted.as_bytes()) {
                return Ok(Some(Self { pid }));
            }
        }
        Ok(None)
    }

    /// Ends it at once.
    pub fn kill(self) -> Result<()> {
        Ok(kill_process(self.pid, Signal::KILL)?)
    }

    /// Drops every packet of TCP that these addresses send to its ports, until [`Process::hear`]. Its node still
    /// reaches it, so that Kubernetes takes it for ready.
    pub async fn be_deaf_to(self, addresses: &[&str]) -> Result<()> {
        let all = addresses.join(", ");
        let rule = format!("ip saddr {{ {all} }} meta l4proto tcp drop");
        drop_in(&self.network(), &[("input", rule)]).await
    }

    /// Undoes [`Process::be_deaf_to`].
    pub async fn hear(self) -> Result<()> {
        drop_nothing_in(&self.network()).await
    }

    /// Its network namespace.
    fn network(self) -> String {
        self.file("ns/net").display().to_string()
    }

    /// Lets its container run out of memory: its cgroup gets a limit, something in it takes more, and the kernel ends
    /// the process.
    pub fn run_out_of_memory(self) -> Result<()> {
        let (folder, limit) = self.memory_cgroup()?;
        let write = |file: PathBuf, text: &str| {
            fs::write(&file, text).with_context(|| file.display().to_string())
        };
        // The kernel looks for the one that it would miss the least.
        write(self.file("oom_score_adj"), "1000")?;
        let (limit, most) = (folder.join(limit), self.resident()? + (64 << 20));
        write(limit, &most.to_string())?;
        let procs = folder.join("cgroup.procs");
        // It joins before it takes anything, and `tail` keeps all of it.
        let wanted = most + (64 << 20);
        let script = format!(
            "echo $$ > {} && head -c {wanted} /dev/zero | tail -c {wanted} > /dev/null",
            procs.display(),
        );
        let mut greedy = std::process::Command::new("timeout")
            .args(["20", "sh", "-c", &script])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("timeout")?;
        // Alone it takes too much, too: the kernel ends it next, or else its time does.
        std::thread::spawn(move || greedy.wait());
        Ok(())
    }

    /// The folder of its cgroup that has the limit of memory, and the name of the limit.
    fn memory_cgroup(self) -> Result<(PathBuf, &'static str)> {
        let cgroups = fs::read_to_string(self.file("cgroup"))?;
        let of = |controllers: &str| {
            cgroups.lines().find_map(|line| {
                let (_, rest) = line.split_once(':')?;
                let (names, path) = rest.split_once(':')?;
                let found = names.split(',').any(|name| name == controllers);
                found.then(|| path.trim_start_matches('/').to_owned())
            })
        };
        if let Some(path) = of("memory") {
            let folder = Path::new("/sys/fs/cgroup/memory").join(path);
            return Ok((folder, "memory.limit_in_bytes"));
        }
        let path = of("").context("it is in no cgroup")?;
        Ok((Path::new("/sys/fs/cgroup").join(path), "memory.max"))
    }

    /// Memory that it has in use, in bytes.
    pub fn resident(self) -> Result<u64> {
        let status = fs::read_to_string(self.file("status"))?;
        let kib = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next())
            .context("no VmRSS")?;
        Ok(kib.parse::<u64>()? * 1024)
    }

    /// CPU time that it has used, in hundredths of a second.
    pub fn ticks(self) -> Result<u64> {
        let stat = fs::read_to_string(self.file("stat"))?;
        // The name of the program, in brackets, may have spaces in it.
        let (_, fields) = stat.rsplit_once(')').context("no name")?;
        let fields: Vec<&str> = fields.split_whitespace().collect();
        let [user, system] = [11, 12].map(|index| fields.get(index).copied());
        Ok(user.context("no utime")?.parse::<u64>()?
            + system.context("no stime")?.parse::<u64>()?)
    }

    fn file(self, name: &str) -> PathBuf {
        Path::new("/proc")
            .join(self.pid.as_raw_nonzero().to_string())
            .join(name)
    }
}

/// The router between the nodes, the control plane and the clients.
#[derive(Clone, Copy, Debug)]
pub struct Router;

/// The network namespace of process 1.
const ROUTER: &str = "/proc/1/ns/net";
/// Only this module uses the table.
const TABLE: &str = "inet lockgate-e2e-cut";

impl Router {
    /// Pulls the cable of a node.
    pub async fn unplug(self, node: &str) -> Result<()> {
        self.link(node, "down").await
    }

    /// Puts it back. The load balancer forgets the connections of the lost node first: a client may use the port of a dead
    /// connection for a new one, which would then go to this node whatever becomes of it.
    pub async fn plug(self, node: &str) -> Result<()> {
        let place = NODES.iter().find(|place| place.name == node);
        let address = place.context("no such node")?.address.to_string();
        // It fails where there is none.
        let _forgotten = in_namespace(
            ROUTER,
            "conntrack",
            &["--delete", "--reply-src", &address],
            "",
        )
        .await;
        self.link(node, "up").await
    }

    async fn link(self, node: &str, state: &str) -> Result<()> {
        let link = format!("to-{node}");
        in_namespace(ROUTER, "ip", &["link", "set", &link, state], "")
            .await
            .map(drop)
    }

    /// Drops every packet between these addresses and the API server, until [`Router::let_through`].
    pub async fn cut_from_api_server(self, addresses: &[&str]) -> Result<()> {
        let all = addresses.join(", ");
        let to = format!("ip saddr {{ {all} }} tcp dport 6443 drop");
        let from = format!("ip daddr {{ {all} }} tcp sport 6443 drop");
        drop_in(ROUTER, &[("input", to), ("output", from)]).await
    }

    /// Undoes [`Router::cut_from_api_server`].
    pub async fn let_through(self) -> Result<()> {
        drop_nothing_in(ROUTER).await
    }
}

/// Adds one rule at each of these hooks of a network namespace.
async fn drop_in(namespace: &str, rules: &[(&str, String)]) -> Result<()> {
    let chains = rules.iter().map(|(hook, rule)| {
        format!("chain {hook} {{ type filter hook {hook} priority 0; {rule}; }}\n")
    });
    let table = format!("table {TABLE} {{\n{}}}\n", chains.collect::<String>());
    nft(namespace, &table).await
}

/// Undoes [`drop_in`].
async fn drop_nothing_in(namespace: &str) -> Result<()> {
    nft(
        namespace,
        &format!("table {TABLE} {{}}\ndelete table {TABLE}\n"),
    )
    .await
}

async fn nft(namespace: &str, commands: &str) -> Result<()> {
    in_namespace(namespace, "nft", &["-f", "-"], commands)
        .await
        .map(drop)
}

/// Runs a program in a network namespace and returns what it printed.
pub async fn in_namespace(
    namespace: &str,
    program: &str,
    arguments: &[&str],
    input: &str,
) -> Result<String> {
    use tokio::io::AsyncWriteExt as _;

    let mut child = Command::new("nsenter")
        .arg(format!("--net={namespace}"))
        .arg(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("nsenter")?;
    let mut stdin = child.stdin.take().context("no standard input")?;
    stdin.write_all(input.as_bytes()).await?;
    drop(stdin);
    let output = child.wait_with_output().await?;
    if !output.status.success() {
        bail!(
            "{program} {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8(output.stdout)?)
}
