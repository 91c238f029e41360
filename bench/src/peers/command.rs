//! What the programs have in common that measure proxies side by side.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};

use super::machine::{OTHER_CORE, pin, raise_file_limit};

/// Where the programs are that are measured.
#[derive(Debug, clap::Args)]
pub struct Programs {
    /// Lockgate's binary as it is shipped.
    #[arg(long, value_name = "FILE")]
    lockgate: PathBuf,
    /// The binary of the backend [default: `origin` beside this program]
    #[arg(long, value_name = "FILE")]
    origin: Option<PathBuf>,
    /// The virtual environment of Python with the packages of the peers.
    #[arg(long, value_name = "DIR")]
    pub packages: PathBuf,
}

impl Programs {
    /// Lockgate's binary.
    pub fn lockgate(&self) -> Result<PathBuf> {
        let found = self.lockgate.canonicalize();
        found.context("there is no such binary of Lockgate")
    }

    /// The backend's.
    pub fn origin(&self) -> Result<PathBuf> {
        let origin = match &self.origin {
            Some(origin) => origin.clone(),
            None => beside("origin")?,
        };
        origin.canonicalize().context("there is no origin")
    }
}

/// The program of this name beside this one.
pub fn beside(name: &str) -> Result<PathBuf> {
    Ok(std::env::current_exe()?.with_file_name(name))
}

/// What was asked for, or everything.
pub fn or_all<T: Clone>(asked: Vec<T>, all: &[T]) -> Vec<T> {
    if asked.is_empty() {
        all.to_vec()
    } else {
        asked
    }
}

/// Runs a measurement on the core that is left to generators and backends.
pub fn run_beside(measurement: impl Future<Output = Result<ExitCode>>) -> Result<ExitCode> {
    // Before there are threads: they and all children are to be there, too.
    pin(OTHER_CORE)?;
    raise_file_limit();
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(measurement)
}
