//! Instructions that the hot paths take, counted by valgrind: the same on a busy machine as on a quiet one.

mod requests;
mod work;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};
use tokio::process::Command;

pub use work::{Work, perform};

/// A count may grow to this part of what it was, in hundredths.
const LIMIT: u64 = 110;

/// Counts by name.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Counts(BTreeMap<String, u64>);

impl Counts {
    /// Those that were kept.
    pub fn read(file: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(file)
            .with_context(|| format!("cannot read {}", file.display()))?;
        serde_json::from_str(&text).with_context(|| format!("{} is not right", file.display()))
    }

    /// Keeps them.
    pub fn write(&self, file: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)? + "\n";
        std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
    }

    /// How these are beside those that were kept.
    pub fn compare(&self, kept: &Self) -> Comparison {
        let names = self.0.keys().chain(kept.0.keys()).cloned();
        let rows: BTreeMap<String, _> = names
            .map(|name| {
                let row = (kept.0.get(&name).copied(), self.0.get(&name).copied());
                (name, row)
            })
            .collect();
        Comparison { rows }
    }
}

/// Kept and new counts beside each other.
#[derive(Debug)]
pub struct Comparison {
    rows: BTreeMap<String, (Option<u64>, Option<u64>)>,
}

impl Comparison {
    /// Whether nothing has grown too much, and nothing is without a kept count or was not counted.
    pub fn is_good(&self) -> bool {
        self.rows
            .values()
            .all(|(kept, now)| verdict(*kept, *now).is_ok())
    }
}

fn verdict(kept: Option<u64>, now: Option<u64>) -> Result<f64, &'static str> {
    let (Some(kept), Some(now)) = (kept, now) else {
        return Err(if kept.is_none() {
            "not kept"
        } else {
            "not counted"
        });
    };
    if now.saturating_mul(100) > kept.saturating_mul(LIMIT) {
        return Err("grown too much");
    }
    #[expect(clippy::cast_precision_loss, reason = "a ratio")]
    Ok(now as f64 / kept.max(1) as f64 - 1.0)
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<48} {:>12} {:>12}", "instructions", "kept", "now")?;
        for (name, (kept, now)) in &self.rows {
            let show = |count: &Option<u64>| {
                count.map_or_else(|| "-".to_owned(), |count| count.to_string())
            };
            write!(f, "{name:<48} {:>12} {:>12}  ", show(kept), show(now))?;
            match verdict(*kept, *now) {
                Ok(growth) => writeln!(f, "{:+.1} %", growth * 100.0)?,
                Err(problem) => writeln!(f, "{problem}")?,
            }
        }
        Ok(())
    }
}

/// Counts everything. `this` is a program that passes `work NAME` on to [`perform`].
pub async fn count(this: &Path, lockgate: &Path) -> Result<Counts> {
    let home = tempfile::tempdir()?;
    let mut counts = Counts::default();
    for work in Work::ALL {
        let report = home.path().join(work.name());
        let status = valgrind(&report)
            .arg(format!("--toggle-collect=*{}*", work::MARKER))
            .arg(this)
            .args(["work", work.name()])
            .status()
            .await
            .context("cannot run valgrind")?;
        ensure!(status.success(), "{}: {status}", read(&report));
        counts
            .0
            .insert(work.title().to_owned(), collected(&report)? / work.times());
    }
    for kind in requests::Kind::ALL {
        let count = requests::per_request(lockgate, kind, home.path()).await?;
        counts.0.insert(kind.title.to_owned(), count);
    }
    Ok(counts)
}

/// Counts instructions and writes what it has to say to a file.
fn valgrind(report: &Path) -> Command {
    let mut command = Command::new("valgrind");
    command
        .args(VALGRIND)
        .arg(format!("--log-file={}", report.display()))
        .kill_on_drop(true);
    command
}

const VALGRIND: [&str; 2] = ["--tool=callgrind", "--callgrind-out-file=/dev/null"];

fn read(report: &Path) -> String {
    std::fs::read_to_string(report).unwrap_or_default()
}

/// The sum in valgrind's words.
fn collected(report: &Path) -> Result<u64> {
    let text = read(report);
    let line = text.lines().find_map(|line| line.split_once("Collected :"));
    let count = line.and_then(|(_, count)| count.trim().parse().ok());
    let count: u64 = count.with_context(|| format!("valgrind says: {text}"))?;
    ensure!(count > 0, "nothing was counted: {text}");
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(list: &[(&str, u64)]) -> Counts {
        Counts(
            list.iter()
                .map(|(name, count)| ((*name).to_owned(), *count))
                .collect(),
        )
    }

    #[test]
    fn growth_over_a_tenth_and_missing_counts_are_bad() {
        let kept = counts(&[("a", 1000), ("b", 50)]);
        for (now, good, why) in [
            (counts(&[("a", 1000), ("b", 50)]), true, "the same"),
            (
                counts(&[("a", 1100), ("b", 20)]),
                true,
                "a tenth more, and much less",
            ),
            (
                counts(&[("a", 1101), ("b", 50)]),
                false,
                "a little more than a tenth",
            ),
            (counts(&[("a", 1000)]), false, "one was not counted"),
            (
                counts(&[("a", 1000), ("b", 50), ("c", 1)]),
                false,
                "one was not kept",
            ),
        ] {
            assert_eq!(now.compare(&kept).is_good(), good, "{why}");
        }
    }

    #[test]
    fn the_sum_is_found() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(
            file.path(),
            "==1== Events    : Ir\n==1== Collected : 1234\n",
        )
        .unwrap();
        assert_eq!(collected(file.path()).unwrap(), 1234);
        std::fs::write(file.path(), "==1== nothing\n").unwrap();
        assert!(collected(file.path()).is_err());
    }
}
