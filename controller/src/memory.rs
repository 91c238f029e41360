//! How much memory there may be and how much is used, so that something can be done before there is none.
//!
//! The limit is that of the control group, of version 1 or 2, or what the command line says. Against the former counts
//! what the kernel counts, but for pages of files that it can take back at any time; that includes the buffers of
//! sockets. Against the latter counts what is resident of this process.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use metrics::gauge;
use tokio::time::sleep;
use tracing::{info, warn};

use crate::telemetry;

/// How often it is looked at. A client with a gigabit per second sends six megabytes between two looks.
const PERIOD: Duration = Duration::from_millis(50);
/// How often once it is short: what is left then is a matter of a few megabytes.
const SHORT_PERIOD: Duration = Duration::from_millis(5);

/// What more than any machine has: version 1 says so where there is no limit.
const NO_LIMIT: u64 = 1 << 60;

/// How short memory is.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Pressure {
    /// There is enough.
    None,
    /// There is little.
    Shed,
    /// There is hardly any.
    Hold,
}

/// Which memory is watched.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum MemoryMark {
    /// As much as the control group of this process may have, if it has a limit.
    #[default]
    Group,
    /// So many bytes of this process.
    Bytes(u64),
    /// None.
    Off,
}

/// A limit, and where to read how much of it is used.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Memory {
    limit: u64,
    used: Used,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Used {
    /// Of this process.
    Resident(PathBuf),
    /// Of its control group: what is used, and in which line of which file stands what could be taken back.
    Group {
        usage: PathBuf,
        stat: PathBuf,
        reclaimable: &'static str,
    },
}

impl Memory {
    /// What is to be watched, if anything.
    fn of(mark: MemoryMark) -> Option<Self> {
        match mark {
            MemoryMark::Off => None,
            MemoryMark::Bytes(limit) => Some(Self {
                limit,
                used: Used::Resident("/proc/self/status".into()),
            }),
            MemoryMark::Group => {
                let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
                Self::of_group(&groups, Path::new("/sys/fs/cgroup"))
            }
        }
    }

    /// The smallest limit among those of the control groups that this process is in.
    fn of_group(groups: &str, mounted: &Path) -> Option<Self> {
        let lines = groups.lines().filter_map(|line| {
            let (_number, line) = line.split_once(':')?;
            line.split_once(':')
        });
        let mut smallest: Option<Self> = None;
        for (controllers, path) in lines {
            let (base, files) = if controllers.is_empty() {
                (mounted.to_owned(), &VERSION_2)
            } else if controllers.split(',').any(|name| name == "memory") {
                (mounted.join("memory"), &VERSION_1)
            } else {
                continue;
            };
            // In a container the path may be that of the host, and its own group is what is mounted.
            let inner = base.join(path.trim_start_matches('/'));
            for folder in inner.ancestors().take_while(|at| at.starts_with(&base)) {
                let Some(limit) = number(&folder.join(files.limit)) else {
                    continue;
                };
                let less = |known: &Self| limit < known.limit;
                if limit < NO_LIMIT && smallest.as_ref().is_none_or(less) {
                    smallest = Some(Self {
                        limit,
                        used: Used::Group {
                            usage: folder.join(files.usage),
                            stat: folder.join("memory.stat"),
                            reclaimable: files.reclaimable,
                        },
                    });
                }
            }
        }
        smallest
    }

    /// How much is used; nothing if that cannot be read.
    fn used(&self) -> Option<u64> {
        match &self.used {
            Used::Resident(status) => {
                let text = fs::read_to_string(status).ok()?;
                let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
                let kilobytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
                kilobytes.checked_mul(1024)
            }
            Used::Group {
                usage,
                stat,
                reclaimable,
            } => {
                let usage = number(usage)?;
                let stat = fs::read_to_string(stat).unwrap_or_default();
                let line = stat.lines().find_map(|line| {
                    let (name, number) = line.split_once(' ')?;
                    (name == *reclaimable).then(|| number.parse::<u64>().ok())?
                });
                Some(usage.saturating_sub(line.unwrap_or(0)))
            }
        }
    }
}

/// What files of a control group are called.
struct Files {
    limit: &'static str,
    usage: &'static str,
    reclaimable: &'static str,
}

const VERSION_2: Files = Files {
    limit: "memory.max",
    usage: "memory.current",
    reclaimable: "inactive_file",
};

const VERSION_1: Files = Files {
    limit: "memory.limit_in_bytes",
    usage: "memory.usage_in_bytes",
    reclaimable: "total_inactive_file",
};

/// The number in a file, if there is one: `max` is none.
fn number(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// How short memory is when so much of a limit is used. What has begun ends only some way below, so that it does not
/// begin again at once.
fn next(before: Pressure, used: u64, limit: u64) -> Pressure {
    let percent = used.saturating_mul(100) / limit.max(1);
    let hold = if before == Pressure::Hold { 88 } else { 93 };
    let shed = if before == Pressure::None { 85 } else { 80 };
    if percent >= hold {
        Pressure::Hold
    } else if percent >= shed {
        Pressure::Shed
    } else {
        Pressure::None
    }
}

/// Watches memory and tells `press` whenever it becomes shorter or less short. Ends if there is nothing to watch.
pub(crate) async fn watch(mark: MemoryMark, press: impl Fn(Pressure)) {
    let Some(memory) = Memory::of(mark) else {
        return;
    };
    info!(
        limit = memory.limit,
        "Idle connections are closed before memory runs out"
    );
    gauge!(telemetry::MEMORY_LIMIT).set(as_metric(memory.limit));
    let used_gauge = gauge!(telemetry::MEMORY_USED);
    let mut pressure = Pressure::None;
    loop {
        sleep(match pressure {
            Pressure::None => PERIOD,
            Pressure::Shed | Pressure::Hold => SHORT_PERIOD,
        })
        .await;
        let Some(used) = memory.used() else {
            continue;
        };
        used_gauge.set(as_metric(used));
        let now = next(pressure, used, memory.limit);
        if now > pressure {
            warn!(used, limit = memory.limit, pressure = ?now, "Memory is short");
        } else if now < pressure {
            info!(used, limit = memory.limit, pressure = ?now, "Memory is less short");
        }
        // Also without a change: the gateway may have been started only now.
        press(now);
        pressure = now;
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "metrics are floats, and memory is below 2^52 bytes"
)]
fn as_metric(bytes: u64) -> f64 {
    bytes as f64
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    fn tree(files: &[(&str, &str)]) -> TempDir {
        let folder = TempDir::new().unwrap();
        for (name, text) in files {
            let file = folder.path().join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
        folder
    }

    #[test]
    fn the_smallest_limit_on_the_way_to_the_root_counts() {
        let folder = tree(&[
            ("memory.max", "max\n"),
            ("pods/memory.max", "1000000\n"),
            ("pods/memory.current", "700000\n"),
            (
                "pods/memory.stat",
                "anon 1\ninactive_file 200000\nactive_file 3\n",
            ),
            ("pods/web/memory.max", "max\n"),
        ]);
        let memory = Memory::of_group("0::/pods/web\n", folder.path()).unwrap();
        assert_eq!(memory.limit, 1_000_000);
        assert_eq!(
            memory.used(),
            Some(500_000),
            "without what can be taken back"
        );
    }

    #[test]
    fn version_1_has_other_names_and_a_number_for_no_limit() {
        let groups = "12:cpu,cpuacct:/docker/abc\n5:memory:/docker/abc\n0::/\n";
        let folder = tree(&[
            // A container sees its own group, and the path of the host.
            ("memory/memory.limit_in_bytes", "2000000\n"),
            ("memory/memory.usage_in_bytes", "1500000\n"),
            (
                "memory/memory.stat",
                "inactive_file 1\ntotal_inactive_file 500000\n",
            ),
        ]);
        let memory = Memory::of_group(groups, folder.path()).unwrap();
        assert_eq!((memory.limit, memory.used()), (2_000_000, Some(1_000_000)));
        let folder = tree(&[("memory/memory.limit_in_bytes", "9223372036854771712\n")]);
        assert_eq!(Memory::of_group(groups, folder.path()), None);
    }

    #[test]
    fn without_a_limit_nothing_is_watched() {
        let folder = tree(&[("memory.max", "max\n")]);
        assert_eq!(Memory::of_group("0::/\n", folder.path()), None);
        assert_eq!(Memory::of_group("", folder.path()), None);
        assert_eq!(Memory::of(MemoryMark::Off), None);
    }

    #[test]
    fn this_process_has_memory() {
        let memory = Memory::of(MemoryMark::Bytes(1 << 30)).unwrap();
        let used = memory.used().unwrap();
        assert!((1 << 20..1 << 40).contains(&used), "{used}");
    }

    #[test]
    fn pressure_does_not_flicker() {
        let mut pressure = Pressure::None;
        for (percent, want) in [
            (84, Pressure::None),
            (85, Pressure::Shed),
            (80, Pressure::Shed),
            (79, Pressure::None),
            (84, Pressure::None),
            (93, Pressure::Hold),
            (88, Pressure::Hold),
            (87, Pressure::Shed),
            (92, Pressure::Shed),
            (200, Pressure::Hold),
            (10, Pressure::None),
        ] {
            pressure = next(pressure, percent * 1_000, 100_000);
            assert_eq!(pressure, want, "{percent}");
        }
    }
}
