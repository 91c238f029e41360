//! What the system says about this process.

use std::collections::BTreeMap;
use std::fs;

/// What the system says about this process.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Process {
    pub(super) cpu_seconds: f64,
    pub(super) resident: f64,
    pub(super) mapped: f64,
    pub(super) read: f64,
    pub(super) written: f64,
}

impl Process {
    /// What cannot be read is 0.
    pub(super) fn read() -> Self {
        let file = |name: &str| fs::read_to_string(format!("/proc/self/{name}"));
        Self::parse(
            &file("stat").unwrap_or_default(),
            &file("status").unwrap_or_default(),
            &file("io").unwrap_or_default(),
        )
    }

    fn parse(stat: &str, status: &str, io: &str) -> Self {
        /// In which Linux counts processor time for programs, on every machine.
        const TICKS_PER_SECOND: f64 = 100.0;
        let fields = |text: &str| -> BTreeMap<String, f64> {
            let lines = text.lines().filter_map(|line| {
                let (name, rest) = line.split_once(':')?;
                let number = rest.split_whitespace().next()?.parse().ok()?;
                Some((name.to_owned(), number))
            });
            lines.collect()
        };
        let (status, io) = (fields(status), fields(io));
        let get = |of: &BTreeMap<String, f64>, name: &str| of.get(name).copied().unwrap_or(0.0);
        // The name of the program stands in brackets and may have spaces in it.
        let after = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let times = after.split_whitespace().skip(11).take(2);
        let ticks: f64 = times.filter_map(|text| text.parse::<f64>().ok()).sum();
        Self {
            cpu_seconds: ticks / TICKS_PER_SECOND,
            resident: get(&status, "VmRSS") * 1024.0,
            mapped: get(&status, "VmSize") * 1024.0,
            read: get(&io, "rchar"),
            written: get(&io, "wchar"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_is_understood() {
        let stat = "7 (a b) c) S 1 7 7 0 -1 4194560 1 0 0 0 150 50 0 0 20 0 5 0 99 1 2";
        let status = "Name:\tlockgate\nVmSize:\t  2048 kB\nVmRSS:\t1024 kB\n";
        let process = Process::parse(stat, status, "rchar: 11\nwchar: 12\n");
        let want = Process {
            cpu_seconds: 2.0,
            resident: 1_048_576.0,
            mapped: 2_097_152.0,
            read: 11.0,
            written: 12.0,
        };
        assert_eq!(process, want);
        let live = Process::read();
        assert!(
            live.resident > 0.0 && live.mapped > live.resident,
            "{live:?}"
        );
    }
}
