//! The same size for the real binary: its start, its memory, and its own account of how long changes take.

use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;
use serde_json::Value;

use super::objects::{Objects, Size};
use crate::certs;
use crate::process::Lockgate;

/// Services whose endpoints are in a file of their own.
const LOOSE: usize = 20;

/// Objects in one of the other files.
const IN_ONE_FILE: usize = 300;

/// Time between two changes.
const QUIET: Duration = Duration::from_millis(100);

/// How long a change may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// What came out.
#[derive(Debug, Serialize)]
pub struct ProcessReport {
    /// From the start of the process to readiness, in seconds: reading all files is in it.
    pub ready_seconds: f64,
    /// Resident memory when it was ready, in MiB.
    pub resident_mib: u64,
    /// The same after the changes.
    pub resident_after_mib: u64,
    /// Changes of one endpoint, each in a file of its own.
    pub changes: usize,
    /// From the event to the published table as the process measures it, on average, in milliseconds.
    pub publish_mean_ms: f64,
}

impl fmt::Display for ProcessReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the process\n  ready after        {:.1} s, with all files read\n  one endpoint       {:.3} ms on \
             average from event to published table ({} times)\n  resident memory    {} MiB, {} MiB after the changes",
            self.ready_seconds,
            self.publish_mean_ms,
            self.changes,
            self.resident_mib,
            self.resident_after_mib
        )
    }
}

/// Runs the binary on a folder with this many objects.
pub async fn run_process(binary: &Path, size: Size, changes: usize) -> Result<ProcessReport> {
    let objects = Objects::new(size)?;
    let home = tempfile::tempdir()?;
    let manifests = home.path().join("manifests");
    std::fs::create_dir_all(&manifests)?;
    write_all(&objects, &manifests)?;
    let log = home.path().join("lockgate.log");
    let further = ["--access-log", "off"].map(Into::into);
    let begun = Instant::now();
    let lockgate = Lockgate::start(binary, &manifests, &log, &further).await?;
    let ready = begun.elapsed();
    let resident_mib = lockgate.resident()? >> 20;

    let before = Publishes::read(&lockgate).await?;
    let mut last = before;
    for step in 0..changes {
        // Changes that follow each other closely are collected, which is not what is measured here.
        tokio::time::sleep(QUIET).await;
        let number = step % LOOSE.min(size.ingresses);
        write_loose(&objects, &manifests, number, step / LOOSE % 250 + 1)?;
        let written = Instant::now();
        loop {
            let now = Publishes::read(&lockgate).await?;
            if now.count > last.count {
                last = now;
                break;
            }
            ensure!(
                written.elapsed() < PATIENCE,
                "a changed file led to no table:\n{}",
                lockgate.log_tail()
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    let publishes = last.count - before.count;
    Ok(ProcessReport {
        ready_seconds: ready.as_secs_f64(),
        resident_mib,
        resident_after_mib: lockgate.resident()? >> 20,
        changes,
        publish_mean_ms: (last.seconds - before.seconds) * 1000.0 / publishes.max(1.0),
    })
}

/// What the process counts about its tables.
#[derive(Clone, Copy, Debug)]
struct Publishes {
    count: f64,
    seconds: f64,
}

impl Publishes {
    async fn read(lockgate: &Lockgate) -> Result<Self> {
        Ok(Self {
            count: lockgate.metric("lockgate_publish_seconds_count").await?,
            seconds: lockgate.metric("lockgate_publish_seconds_sum").await?,
        })
    }
}

fn write_all(objects: &Objects, folder: &Path) -> Result<()> {
    let mut documents = String::new();
    let mut count = 0;
    let mut files = 0;
    let loose: Vec<Value> = (0..LOOSE).map(|number| objects.slice(number, 0)).collect();
    for value in objects.all() {
        let value = value?;
        if loose.contains(&value) {
            continue;
        }
        documents.push_str(&serde_json::to_string(&value)?);
        documents.push_str("\n---\n");
        count += 1;
        if count % IN_ONE_FILE == 0 {
            certs::write(&folder.join(format!("part-{files}.yaml")), &documents)?;
            documents.clear();
            files += 1;
        }
    }
    certs::write(&folder.join(format!("part-{files}.yaml")), &documents)?;
    for number in 0..LOOSE {
        write_loose(objects, folder, number, 0)?;
    }
    Ok(())
}

fn write_loose(objects: &Objects, folder: &Path, number: usize, revision: usize) -> Result<()> {
    let text = serde_json::to_string(&objects.slice(number, revision))?;
    certs::write(&folder.join(format!("slice-{number}.yaml")), &text)
        .with_context(|| format!("slice {number}"))
}
