//! Orders to the program that owns the cluster's own programs.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;

/// A program may take its time to end.
const DEADLINE: Duration = Duration::from_mins(1);

/// Power over the programs of a cluster. They are called `etcd`, `kube-apiserver`, `kube-controller-manager`,
/// `kube-scheduler`, and, followed by a dash and the node's name, `containerd`, `kubelet`, `kube-proxy`.
#[derive(Clone, Debug)]
pub struct Control {
    socket: PathBuf,
}

impl Control {
    pub(super) fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// Asks a program to end and waits until it has.
    pub async fn stop(&self, name: &str) -> Result<()> {
        self.order("stop", name).await
    }

    /// Ends a program at once.
    pub async fn kill(&self, name: &str) -> Result<()> {
        self.order("kill", name).await
    }

    /// Starts a program that has ended; does not wait until it serves.
    pub async fn start(&self, name: &str) -> Result<()> {
        self.order("start", name).await
    }

    /// Stops a program in the middle of what it does: its connections stay open, nothing answers.
    pub async fn freeze(&self, name: &str) -> Result<()> {
        self.order("freeze", name).await
    }

    /// Lets a frozen program go on.
    pub async fn thaw(&self, name: &str) -> Result<()> {
        self.order("thaw", name).await
    }

    async fn order(&self, verb: &str, name: &str) -> Result<()> {
        let what = || format!("{verb} {name}");
        let answer = tokio::time::timeout(DEADLINE, self.ask(verb, name))
            .await
            .with_context(what)?
            .with_context(what)?;
        if answer != "ok" {
            bail!("{}: {answer}", what());
        }
        Ok(())
    }

    async fn ask(&self, verb: &str, name: &str) -> Result<String> {
        let mut stream = BufReader::new(UnixStream::connect(&self.socket).await?);
        stream
            .write_all(format!("{verb} {name}\n").as_bytes())
            .await?;
        let mut answer = String::new();
        stream.read_line(&mut answer).await?;
        Ok(answer.trim_end().to_owned())
    }
}
