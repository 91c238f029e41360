//! `kubectl`, as a user types it.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, Command};

/// No command may take longer.
const DEADLINE: Duration = Duration::from_secs(30);

/// One user's access to one API server.
#[derive(Clone, Debug)]
pub struct Kubectl {
    program: PathBuf,
    kubeconfig: PathBuf,
    home: PathBuf,
}

impl Kubectl {
    /// `home` holds its cache.
    pub fn new(program: &Path, kubeconfig: &Path, home: &Path) -> Self {
        Self {
            program: program.to_owned(),
            kubeconfig: kubeconfig.to_owned(),
            home: home.to_owned(),
        }
    }

    /// The program.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Whose access it has, and to what.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Runs a command and returns what it printed.
    pub async fn run(&self, arguments: &[&str]) -> Result<String> {
        self.run_with_input(arguments, "").await
    }

    /// Runs a command that reads `input`.
    pub async fn run_with_input(&self, arguments: &[&str], input: &str) -> Result<String> {
        self.run_within(DEADLINE, arguments, input).await
    }

    /// Runs a command that may take as long as `deadline`, such as `kubectl wait`.
    pub async fn run_within(
        &self,
        deadline: Duration,
        arguments: &[&str],
        input: &str,
    ) -> Result<String> {
        let (printed, _warnings) = self.run_showing(deadline, arguments, input).await?;
        Ok(printed)
    }

    /// Runs a command that reads `input`, and returns what it printed as its result, and beside that.
    pub async fn run_showing(
        &self,
        deadline: Duration,
        arguments: &[&str],
        input: &str,
    ) -> Result<(String, String)> {
        let what = || format!("kubectl {}", arguments.join(" "));
        let mut child = Command::new(&self.program)
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .args(arguments)
            .env_clear()
            .env("HOME", &self.home)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(what)?;
        let mut stdin = child.stdin.take().context("no standard input")?;
        let done = async {
            // A command that reads no input may have closed it already.
            let _written = stdin.write_all(input.as_bytes()).await;
            drop(stdin);
            child.wait_with_output().await
        };
        let output = tokio::time::timeout(deadline, done)
            .await
            .with_context(|| format!("{}: not done after {deadline:?}", what()))??;
        if !output.status.success() {
            bail!(
                "{}: {}",
                what(),
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        let [printed, beside] = [output.stdout, output.stderr].map(String::from_utf8);
        Ok((printed?, beside?))
    }

    /// Starts a command whose output is read while it runs. Dropping the child ends it.
    pub fn spawn(&self, arguments: &[&str]) -> Result<Child> {
        Command::new(&self.program)
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .args(arguments)
            .env_clear()
            .env("HOME", &self.home)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("kubectl {}", arguments.join(" ")))
    }

    /// Starts `kubectl proxy` on a Unix socket; it ends when the child is dropped.
    pub fn proxy(&self, socket: &Path) -> Result<Child> {
        self.spawn(&["proxy", "--unix-socket", &socket.display().to_string()])
    }

    /// Runs a command where nothing can be awaited, and returns whatever it printed.
    pub fn run_blocking(&self, arguments: &[&str]) -> String {
        let output = std::process::Command::new(&self.program)
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .arg("--request-timeout=20s")
            .args(arguments)
            .env_clear()
            .env("HOME", &self.home)
            .stdin(Stdio::null())
            .output();
        output.map_or_else(
            |error| format!("kubectl: {error}"),
            |output| {
                let [printed, errors] =
                    [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
                format!("{printed}{errors}")
            },
        )
    }

    /// `kubectl apply` of a YAML stream.
    pub async fn apply(&self, namespace: &str, manifests: &str) -> Result<()> {
        self.run_with_input(
            &["apply", "--namespace", namespace, "--filename", "-"],
            manifests,
        )
        .await
        .map(drop)
    }

    /// `kubectl get … -o json`.
    pub async fn json(&self, arguments: &[&str]) -> Result<Value> {
        let text = self
            .run(&[arguments, &["--output", "json"]].concat())
            .await?;
        Ok(serde_json::from_str(&text)?)
    }
}
