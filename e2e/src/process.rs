//! Programs that run beside the tests and never outlive them.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process_group};

use crate::wait::eventually;

/// A running program in a process group of its own, its log (standard error) in a file and its standard output in
/// another one beside it. Dropping it kills the group.
#[derive(Debug)]
pub struct Program {
    name: String,
    child: Child,
    group: Pid,
    log: PathBuf,
}

impl Program {
    /// Starts `program` with nothing of the caller's environment but `environment`.
    pub fn start<A: AsRef<OsStr>>(
        name: &str,
        program: &Path,
        arguments: impl IntoIterator<Item = A>,
        environment: &[(&str, &str)],
        log: PathBuf,
    ) -> Result<Self> {
        let append = |path: &Path| File::options().create(true).append(true).open(path);
        let child = Command::new(program)
            .args(arguments)
            .env_clear()
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(append(&log.with_extension("out"))?)
            .stderr(append(&log)?)
            .process_group(0)
            .spawn()
            .with_context(|| format!("{} does not start", program.display()))?;
        let group = i32::try_from(child.id())
            .ok()
            .and_then(Pid::from_raw)
            .ok_or_else(|| anyhow!("no process id"))?;
        Ok(Self {
            name: name.to_owned(),
            child,
            group,
            log,
        })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal to the program and what it started.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill_process_group(self.group, signal)
            .with_context(|| format!("{} takes no signal", self.name))
    }

    /// Ends the program at once and waits until it is gone.
    pub fn kill(&mut self) -> Result<()> {
        self.signal(Signal::KILL)?;
        self.child.wait()?;
        Ok(())
    }

    /// Waits until the program has ended by itself.
    pub async fn ended(&mut self, deadline: Duration) -> Result<ExitStatus> {
        let name = self.name.clone();
        let child = &mut self.child;
        eventually(&format!("{name} ends"), deadline, async || {
            child.try_wait()?.ok_or_else(|| anyhow!("still running"))
        })
        .await
    }

    /// Fails, with the end of its log, when the program has ended.
    pub fn check_running(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("{} has ended with {status}:\n{}", self.name, self.tail(20));
        }
        Ok(())
    }

    /// Everything that the program has logged so far.
    pub fn log(&self) -> String {
        std::fs::read(&self.log).map_or_else(
            |error| format!("{}: {error}", self.log.display()),
            |bytes| String::from_utf8_lossy(&bytes).into_owned(),
        )
    }

    /// The last lines that the program has logged.
    pub fn tail(&self, lines: usize) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().rev().take(lines).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // An ended program that was waited for may have lost its number to another one: ask first.
        if matches!(self.child.try_wait(), Ok(None)) {
            let _gone = self.kill();
        }
    }
}
