//! What the kernel says about processes and the machine.

use std::fs;

use anyhow::{Context as _, Result};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_setaffinity};

/// The core of the proxies.
pub(super) const PROXY_CORE: usize = 0;
/// The core of everything else: load generator and backends.
pub(super) const OTHER_CORE: usize = 1;

/// Keeps this thread, and what it starts, on one core.
pub(super) fn pin(core: usize) -> Result<()> {
    let mut cores = CpuSet::new();
    cores.set(core);
    sched_setaffinity(None, &cores).context("two cores are needed")
}

/// Connections without a request, where nothing is in the way of them.
const IDLE: usize = 10_000;

/// Lets this process and its children open as many files as ten thousand connections need.
pub(super) fn raise_file_limit() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let enough = Some(65_536);
    for wanted in [maximum.max(enough), maximum] {
        let limit = Rlimit {
            current: wanted,
            maximum: wanted,
        };
        // Who may not raise the hard limit gets up to it.
        if setrlimit(Resource::Nofile, limit).is_ok() {
            return;
        }
    }
}

/// How many connections are held without a request: ten thousand where there are descriptors for that. A proxy that keeps
/// a second descriptor for the backend of each connection accepts half as many as it has.
pub(crate) fn idle_connections() -> usize {
    let Rlimit { current, .. } = getrlimit(Resource::Nofile);
    let affordable = current.map_or(u64::MAX, |limit| limit / 20 * 9);
    usize::try_from(affordable).map_or(IDLE, |affordable| affordable.min(IDLE))
}

/// A process and its descendants.
pub(super) fn family(process: u32) -> Vec<u32> {
    let mut family = vec![process];
    let mut next = 0;
    while let Some(&member) = family.get(next) {
        next += 1;
        let Ok(tasks) = fs::read_dir(format!("/proc/{member}/task")) else {
            continue;
        };
        for task in tasks.flatten() {
            let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            family.extend(
                children
                    .split_whitespace()
                    .filter_map(|id| id.parse::<u32>().ok()),
            );
        }
    }
    family
}

/// What `look` finds of a process and of its descendants. Of a child that has ended meanwhile there is nothing to find.
fn of_family(process: u32, look: impl Fn(u32) -> Result<u64>) -> Result<u64> {
    let mut sum = 0;
    for member in family(process) {
        match look(member) {
            Err(_) if member != process && has_ended(member) => {}
            found => sum += found?,
        }
    }
    Ok(sum)
}

/// Is there no such process, or nothing left of it but its exit code?
fn has_ended(process: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{process}/status"));
    status.map_or(true, |text| text.contains("\nState:\tZ"))
}

/// User and system time of a process and its descendants, in seconds.
pub(crate) fn cpu_seconds(process: u32) -> Result<f64> {
    let ticks = of_family(process, |member| {
        let [user, system, ..] = times(&format!("/proc/{member}/stat"))?;
        Ok(user + system)
    })?;
    Ok(in_seconds(ticks))
}

/// The same of this process and of its children that have ended.
pub(crate) fn own_cpu_seconds() -> Result<f64> {
    Ok(in_seconds(times("/proc/self/stat")?.iter().sum()))
}

/// Time that anybody has spent on any core, and time that the hypervisor has taken away, in seconds.
pub(crate) fn busy_seconds() -> Result<f64> {
    let text = fs::read_to_string("/proc/stat")?;
    let line = text.lines().next().unwrap_or_default();
    let fields: Vec<u64> = line
        .split_whitespace()
        .skip(1)
        .filter_map(|f| f.parse().ok())
        .collect();
    // user, nice, system, idle, iowait, irq, softirq, steal
    let [user, nice, system, _, _, _, _, steal, ..] = fields[..] else {
        anyhow::bail!("/proc/stat is not as expected: {line}");
    };
    Ok(in_seconds(user + nice + system + steal))
}

/// User and system time, and those of children that have ended.
fn times(file: &str) -> Result<[u64; 4]> {
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {file}"))?;
    let (_, fields) = text.rsplit_once(')').context("no name in stat")?;
    let mut fields = fields.split_whitespace().skip(11).map(str::parse);
    let mut next = || Ok::<u64, anyhow::Error>(fields.next().context("stat is too short")??);
    Ok([next()?, next()?, next()?, next()?])
}

fn in_seconds(ticks: u64) -> f64 {
    #[expect(
        clippy::cast_precision_loss,
        reason = "centiseconds of a few years are exact"
    )]
    let (ticks, per_second) = (ticks as f64, rustix::param::clock_ticks_per_second() as f64);
    ticks / per_second
}

/// Resident memory of a process and its descendants in bytes; what they share counts once.
pub(crate) fn memory(process: u32) -> Result<u64> {
    let kib = of_family(process, |member| {
        let file = format!("/proc/{member}/smaps_rollup");
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {file}"))?;
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
        let size = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok());
        size.with_context(|| format!("no Pss in {file}"))
    })?;
    Ok(kib * 1024)
}

/// The machine in one line.
pub fn describe() -> String {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("unknown processor", |(_, model)| model);
    let cores = cpus
        .lines()
        .filter(|line| line.starts_with("processor"))
        .count();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{model}, {cores} cores, Linux {}", kernel.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_of_this_process_is_seen() {
        let before = (own_cpu_seconds().unwrap(), busy_seconds().unwrap());
        let begun = std::time::Instant::now();
        let mut work = 0_u64;
        while own_cpu_seconds().unwrap() < before.0 + 0.05 {
            work = work.wrapping_add(1);
            assert!(begun.elapsed().as_secs() < 30, "{work} turns");
        }
        assert!(busy_seconds().unwrap() > before.1);
        let id = std::process::id();
        assert!(cpu_seconds(id).unwrap() >= before.0);
        assert!((1 << 20..1 << 36).contains(&memory(id).unwrap()));
    }

    #[test]
    fn a_child_that_has_ended_holds_nothing() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        // It is there until somebody asks how it ended.
        while !has_ended(child.id()) {
            std::thread::yield_now();
        }
        assert!(memory(std::process::id()).unwrap() > 0);
        assert!(cpu_seconds(std::process::id()).is_ok());
        child.wait().unwrap();
    }

    #[test]
    fn children_belong_to_the_family() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let found = family(std::process::id()).contains(&child.id());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(found);
    }
}
