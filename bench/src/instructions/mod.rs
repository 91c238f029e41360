//! Instructions that the hot paths take, counted by valgrind: the same on a busy machine as on a quiet one.

mod beside;
mod requests;
mod work;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};
use tokio::process::Command;

use requests::Kind;
pub use work::{Work, perform};

/// A count may grow to this part of what it was, in hundredths.
const LIMIT: u64 = 110;

/// What is to cost nothing may grow to this part, in thousandths: where things lie in memory differs from run to run.
const FREE: u64 = 1015;

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

    /// Keeps them, but for those that are compared with others of the same run.
    pub fn write(&self, file: &Path) -> Result<()> {
        let mut kept = self.clone();
        for (with, _) in Kind::FREE {
            kept.0.remove(with);
        }
        let text = serde_json::to_string_pretty(&kept)? + "\n";
        std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
    }

    fn get(&self, name: &str) -> Option<u64> {
        self.0.get(name).copied()
    }

    /// How these are beside those that were kept.
    pub fn compare(&self, kept: &Self) -> Comparison {
        let free = Kind::FREE;
        let names = self.0.keys().chain(kept.0.keys()).cloned();
        let names = names.filter(|name| free.iter().all(|(with, _)| with != name));
        let rows: BTreeMap<String, _> = names
            .map(|name| {
                let row = (kept.0.get(&name).copied(), self.0.get(&name).copied());
                (name, row)
            })
            .collect();
        let pairs = free
            .iter()
            .map(|(with, without)| (*with, self.get(with), self.get(without)));
        Comparison {
            rows,
            pairs: pairs.collect(),
        }
    }
}

/// Kept and new counts beside each other.
#[derive(Debug)]
pub struct Comparison {
    rows: BTreeMap<String, (Option<u64>, Option<u64>)>,
    /// What should cost nothing: its name, and the counts with and without it.
    pairs: Vec<(&'static str, Option<u64>, Option<u64>)>,
}

impl Comparison {
    /// Whether nothing has grown too much, and nothing is without a kept count or was not counted.
    pub fn is_good(&self) -> bool {
        let mut kept = self.rows.values();
        let mut pairs = self.pairs.iter();
        kept.all(|(kept, now)| verdict(*kept, *now).is_ok())
            && pairs.all(|(_, with, without)| free(*with, *without).is_ok())
    }
}

/// How much more, as a part, the first is; an error where that is too much for what should cost nothing.
fn free(with: Option<u64>, without: Option<u64>) -> Result<f64, &'static str> {
    let (Some(with), Some(without)) = (with, without) else {
        return Err("not counted");
    };
    if with.saturating_mul(1000) > without.saturating_mul(FREE) {
        return Err("it should cost nothing");
    }
    #[expect(clippy::cast_precision_loss, reason = "a ratio")]
    Ok(with as f64 / without.max(1) as f64 - 1.0)
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
        writeln!(
            f,
            "\n{:<48} {:>12} {:>12}",
            "what should cost nothing", "without", "with"
        )?;
        for (name, with, without) in &self.pairs {
            let show = |count: &Option<u64>| {
                count.map_or_else(|| "-".to_owned(), |count| count.to_string())
            };
            write!(f, "{name:<48} {:>12} {:>12}  ", show(without), show(with))?;
            match free(*with, *without) {
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
        let valgrind = Valgrind::new(home.path(), work.name());
        let status = Command::new("valgrind")
            .args(valgrind.arguments())
            .arg(format!("--toggle-collect=*{}*", work::MARKER))
            .arg(this)
            .args(["work", work.name()])
            .kill_on_drop(true)
            .status()
            .await
            .context("cannot run valgrind")?;
        ensure!(status.success(), "{}: {status}", valgrind.words());
        let collected: u64 = valgrind.collected()?.iter().sum();
        ensure!(collected > 0, "nothing was counted: {}", valgrind.words());
        let title = work.title().to_owned();
        counts.0.insert(title, collected / work.times());
    }
    for kind in Kind::ALL {
        let per_request = requests::count(lockgate, kind, home.path()).await?;
        counts.0.insert(kind.title.to_owned(), per_request);
    }
    Ok(counts)
}

/// A run of valgrind that counts the instructions of each thread.
#[derive(Debug)]
struct Valgrind {
    /// What it has to say.
    log: PathBuf,
    /// The beginning of the names of its counts, one file for each thread.
    counts: PathBuf,
}

impl Valgrind {
    /// A run whose files are in `home` and have names of their own.
    fn new(home: &Path, name: &str) -> Self {
        Self {
            log: home.join(format!("{name}.log")),
            counts: home.join(format!("{name}.counts")),
        }
    }

    fn arguments(&self) -> [String; 4] {
        [
            "--tool=callgrind".to_owned(),
            "--separate-threads=yes".to_owned(),
            format!("--callgrind-out-file={}", self.counts.display()),
            format!("--log-file={}", self.log.display()),
        ]
    }

    /// What it said.
    fn words(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The instructions of each thread, the first one's first.
    fn collected(&self) -> Result<Vec<u64>> {
        let threads = (1_u8..).map(|thread| format!("{}-{thread:02}", self.counts.display()));
        let files = threads.map_while(|name| std::fs::read_to_string(name).ok());
        let counts: Result<Vec<u64>> = files.map(|text| total(&text)).collect();
        let counts = counts?;
        ensure!(!counts.is_empty(), "valgrind says: {}", self.words());
        Ok(counts)
    }
}

/// The sum in a file of counts.
fn total(counts: &str) -> Result<u64> {
    let line = counts.lines().find_map(|line| line.strip_prefix("totals:"));
    let total = line.and_then(|total| total.trim().parse().ok());
    total.context("a file of counts without its sum")
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

    /// The same with what every comparison has.
    fn with_pairs(list: &[(&str, u64)]) -> Counts {
        let mut counts = counts(list);
        for name in Kind::FREE.iter().flat_map(|pair| [pair.0, pair.1]) {
            counts.0.insert(name.to_owned(), 1);
        }
        counts
    }

    #[test]
    fn growth_over_a_tenth_and_missing_counts_are_bad() {
        let kept = with_pairs(&[("a", 1000), ("b", 50)]);
        for (now, good, why) in [
            (with_pairs(&[("a", 1000), ("b", 50)]), true, "the same"),
            (
                with_pairs(&[("a", 1100), ("b", 20)]),
                true,
                "a tenth more, and much less",
            ),
            (
                with_pairs(&[("a", 1101), ("b", 50)]),
                false,
                "a little more than a tenth",
            ),
            (with_pairs(&[("a", 1000)]), false, "one was not counted"),
            (
                with_pairs(&[("a", 1000), ("b", 50), ("c", 1)]),
                false,
                "one was not kept",
            ),
        ] {
            assert_eq!(now.compare(&kept).is_good(), good, "{why}");
        }
    }

    #[test]
    fn what_others_use_has_to_be_free() {
        let [first, second, third] = Kind::FREE;
        for (more, good) in [(1000, true), (1015, true), (1016, false), (900, true)] {
            let all = counts(&[
                (first.0, more),
                (first.1, 1000),
                (second.0, 1000),
                (second.1, 1000),
                (third.0, 1000),
                (third.1, 1000),
            ]);
            let comparison = all.compare(&all);
            assert_eq!(comparison.is_good(), good, "{more}");
            let text = comparison.to_string();
            assert_eq!(text.contains("it should cost nothing"), !good, "{text}");
        }
        let without = counts(&[(first.1, 1000), (second.1, 1000), (third.1, 1000)]);
        assert!(!without.compare(&without).is_good(), "it was not counted");
        let file = tempfile::NamedTempFile::new().unwrap();
        counts(&[(first.0, 1), (first.1, 2)])
            .write(file.path())
            .unwrap();
        let kept = Counts::read(file.path()).unwrap();
        assert_eq!(kept, counts(&[(first.1, 2)]), "it moves with the other one");
    }

    #[test]
    fn each_thread_has_its_sum() {
        let home = tempfile::tempdir().unwrap();
        let valgrind = Valgrind::new(home.path(), "a");
        assert!(valgrind.collected().is_err(), "nothing was counted");
        let write = |thread: &str, text: &str| {
            std::fs::write(home.path().join(format!("a.counts{thread}")), text).unwrap();
        };
        write("", "");
        write("-01", "events: Ir\nfn=(1) main\n1 1234\n\ntotals: 1234\n");
        write("-02", "events: Ir\ntotals: 5\n");
        assert_eq!(valgrind.collected().unwrap(), [1234, 5]);
        write("-03", "events: Ir\n");
        assert!(valgrind.collected().is_err(), "the third one was cut off");
    }
}
