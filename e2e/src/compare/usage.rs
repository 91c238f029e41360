//! What pods use, as the kernel counts it.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};

/// What some processes have used.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Usage {
    /// User and system time in seconds.
    pub(crate) cpu: f64,
    /// Resident memory in bytes.
    pub(crate) resident: u64,
}

impl Usage {
    /// Of the process in this folder of `/proc`; `None` when it has ended.
    fn read(folder: &Path) -> Result<Option<Self>> {
        let read = |file: &str| fs::read_to_string(folder.join(file));
        let (Ok(stat), Ok(status)) = (read("stat"), read("status")) else {
            return Ok(None);
        };
        Ok(Some(Self {
            cpu: cpu(&stat)?,
            resident: resident(&status).unwrap_or_default(),
        }))
    }
}

/// What one process has used until now.
pub(crate) fn of_process(id: u32) -> Result<Usage> {
    let used = Usage::read(&Path::new("/proc").join(id.to_string()))?;
    used.with_context(|| format!("process {id} has ended"))
}

/// Adds up the processes of the pods with these UIDs; `None` where the nodes' processes cannot be seen from here.
pub(super) fn of_pods(uids: &[String]) -> Result<Option<Usage>> {
    let mut sum = None;
    for entry in fs::read_dir("/proc")? {
        let folder = entry?.path();
        // Processes that have ended in the meantime have used nothing of late.
        let Ok(cgroup) = fs::read_to_string(folder.join("cgroup")) else {
            continue;
        };
        if !uids.iter().any(|uid| belongs(&cgroup, uid)) {
            continue;
        }
        let Some(used) = Usage::read(&folder)? else {
            continue;
        };
        let sum = sum.get_or_insert_with(Usage::default);
        sum.cpu += used.cpu;
        sum.resident += used.resident;
    }
    Ok(sum)
}

/// Whether the cgroups of a process are those of a pod. systemd writes the UID with underscores.
fn belongs(cgroup: &str, uid: &str) -> bool {
    cgroup.contains(&format!("pod{uid}"))
        || cgroup.contains(&format!("pod{}", uid.replace('-', "_")))
}

fn cpu(stat: &str) -> Result<f64> {
    // The name before it may contain anything.
    let (_, fields) = stat.rsplit_once(')').context("no name in stat")?;
    let mut fields = fields.split_whitespace().skip(11).map(str::parse::<u64>);
    let mut next = || fields.next().context("stat is too short");
    let ticks = next()?? + next()??;
    #[expect(
        clippy::cast_precision_loss,
        reason = "hundredths of a few days are exact"
    )]
    let (ticks, rate) = (ticks as f64, rustix::param::clock_ticks_per_second() as f64);
    Ok(ticks / rate)
}

fn resident(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// Time that the machine's cores have worked for anybody, and all their time, in the kernel's own unit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cores {
    busy: u64,
    all: u64,
}

impl Cores {
    /// Until now.
    pub(super) fn read() -> Result<Self> {
        Self::parse(&fs::read_to_string("/proc/stat")?)
    }

    fn parse(stat: &str) -> Result<Self> {
        let line = stat.lines().next().unwrap_or_default();
        let fields = line.split_whitespace().skip(1).map(str::parse);
        let fields: Vec<u64> = fields.collect::<Result<_, _>>()?;
        // Guests, which come after these, are in the time of users already.
        let [user, nice, system, idle, iowait, irq, softirq, steal, ..] = fields[..] else {
            bail!("/proc/stat is not as expected: {line}");
        };
        let busy = user + nice + system + irq + softirq + steal;
        Ok(Self {
            busy,
            all: busy + idle + iowait,
        })
    }

    /// How much of the time between the two the cores have worked, in per cent.
    pub(super) fn busy_until(self, later: Self) -> u64 {
        let all = later.all.saturating_sub(self.all).max(1);
        later.busy.saturating_sub(self.busy) * 100 / all
    }
}

/// The processor, the number of cores, the kernel.
pub(crate) fn machine() -> String {
    let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = processors
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("unknown processor", |(_, model)| model);
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{model}, {cores} cores, Linux {}", kernel.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_found_by_the_pod_in_its_cgroup() {
        let uid = "0b6d6f0c-5b0a-4f3e-9a52-8a2f1f0f7a11";
        for (cgroup, wanted) in [
            (format!("4:cpu:/kubepods/burstable/pod{uid}/abc\n0::/\n"), true),
            (
                "0::/kubepods.slice/kubepods-pod0b6d6f0c_5b0a_4f3e_9a52_8a2f1f0f7a11.slice/cri-x.scope".to_owned(),
                true,
            ),
            ("0::/kubepods/pod1b6d6f0c-5b0a-4f3e-9a52-8a2f1f0f7a11/abc".to_owned(), false),
            ("0::/user.slice".to_owned(), false),
        ] {
            assert_eq!(belongs(&cgroup, uid), wanted, "{cgroup}");
        }
        assert_eq!(of_pods(&[uid.to_owned()]).unwrap(), None);
    }

    #[test]
    fn work_of_all_cores_is_a_share_of_their_time() {
        let before = Cores::parse("cpu  100 0 50 800 50 0 0 0 0 0\ncpu0 1 2 3\n").unwrap();
        let later = Cores::parse("cpu  110 0 60 865 50 0 5 10 99 0\n").unwrap();
        assert_eq!(before.busy_until(later), 35);
        assert!(Cores::read().unwrap().all > 0);
    }

    #[test]
    fn time_and_memory_are_read_from_the_kernel() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194560 0 0 0 0 150 50 0 0 20 0 1 0 1 1 1";
        let rate = rustix::param::clock_ticks_per_second();
        assert_eq!(rate, 100, "as everywhere");
        assert!((cpu(stat).unwrap() - 2.0).abs() < 1e-9);
        assert_eq!(resident("VmPeak: 1 kB\nVmRSS:\t   12 kB\n"), Some(12 << 10));
        let own = fs::read_to_string("/proc/self/status").unwrap();
        assert!(resident(&own).unwrap() > 1 << 20);
    }
}
