//! What came out of a soak.

use std::fmt;

use serde::Serialize;

use super::Held;
use crate::load::Figures;

/// How much memory may be more in the last quarter than in the first one, in per cent.
pub const GROWTH: f64 = 5.0;
/// Fewer requests say nothing about memory.
const ENOUGH: u64 = 200_000;

/// What came out.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Clients by what they do. All of their failures count.
    pub clients: Vec<(&'static str, Figures)>,
    /// Answers to those of them that ask the hosts that change, over TLS.
    pub planned: u64,
    /// In flight while a process was told to end.
    pub drained: Figures,
    /// Requests that may not be sent twice and failed with the endpoint that they had reached.
    pub excepted: u64,
    /// Tables that replaced each other.
    pub swaps: u64,
    /// Certificates that replaced each other.
    pub rotations: u64,
    /// Changes that were written and seen to be served by each process.
    pub changes: u64,
    /// How often an endpoint fell into trouble or got out of it.
    pub moods: u64,
    /// How often a process followed another one.
    pub rolls: u64,
    /// From the written file to the first answer by it from each process, half of all.
    pub visible_p50_ms: f64,
    /// From the written file to the first answer by it from each process, 99 of 100.
    pub visible_p99_ms: f64,
    /// Mean resident memory of the process that stayed by quarter of the requests, in MiB; the first twentieth is left out.
    pub resident_mib: [f64; 4],
    /// What that process held before the first request.
    pub held_before: Held,
    /// What it held after the last one.
    pub held_after: Held,
    /// Whether it was given the time that idle connections to backends are kept.
    pub settled: bool,
    /// How long it took.
    pub seconds: f64,
}

impl Report {
    /// Answers to all clients.
    pub fn answers(&self) -> u64 {
        self.clients
            .iter()
            .map(|(_, figures)| figures.answers)
            .sum()
    }

    /// Failures of any kind.
    pub fn failed(&self) -> u64 {
        let clients = self.clients.iter().map(|(_, figures)| figures.failed);
        clients.sum::<u64>() + self.drained.failed
    }

    /// How much more memory there is in the last quarter than in the first one, in per cent.
    pub fn growth(&self) -> f64 {
        let [first, .., last] = self.resident_mib;
        if first > 0.0 {
            (last / first - 1.0) * 100.0
        } else {
            0.0
        }
    }

    /// What is not as it has to be.
    pub fn complaints(&self) -> Vec<String> {
        let mut complaints = Vec::new();
        if self.failed() > 0 {
            complaints.push(format!("{} requests failed", self.failed()));
        }
        if self.planned >= ENOUGH && self.growth() > GROWTH {
            complaints.push(format!("memory has grown by {:.1} %", self.growth()));
        }
        let Held { connections, .. } = self.held_after;
        if connections > self.held_before.connections {
            complaints.push(format!("{connections} connections of clients are left"));
        }
        if self.settled && !self.held_after.is_back_to(self.held_before) {
            complaints.push(format!(
                "{:?} were held before and {:?} are held afterwards",
                self.held_before, self.held_after
            ));
        }
        complaints
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "soak: {} requests, {} failed, while the table was swapped {} times, {} certificates rotated, one of two processes \
             was replaced {} times and an endpoint changed its mood {} times",
            self.answers(),
            self.failed(),
            self.swaps,
            self.rotations,
            self.rolls,
            self.moods
        )?;
        for (name, figures) in &self.clients {
            writeln!(f, "  {name:<20} {figures}")?;
        }
        writeln!(f, "  {:<20} {}", "in flight at SIGTERM", self.drained)?;
        writeln!(
            f,
            "  {} POSTs failed with the endpoint that they had reached: they may not be sent twice",
            self.excepted
        )?;
        writeln!(
            f,
            "  {} changes, from the written file to the first answer by it: p50 {:.0} ms, p99 {:.0} ms",
            self.changes, self.visible_p50_ms, self.visible_p99_ms
        )?;
        let [first, second, third, last] = self.resident_mib;
        writeln!(
            f,
            "  {:.1} s; resident memory of the process that stayed, by quarter: {first:.1}, {second:.1}, {third:.1}, {last:.1} MiB \
             ({:+.1} %)",
            self.seconds,
            self.growth()
        )?;
        let Held {
            descriptors,
            threads,
            tasks,
            connections,
        } = self.held_before;
        let after = self.held_after;
        write!(
            f,
            "  held by it before and after: {descriptors} and {} file descriptors, {threads} and {} threads, {tasks} and {} tasks of \
             workers, {connections} and {} connections of clients",
            after.descriptors, after.threads, after.tasks, after.connections
        )
    }
}

/// Means of memory by quarter of the requests, in MiB. The first twentieth warms up.
pub(super) fn quarters(samples: &[(u64, u64)], requests: u64) -> [f64; 4] {
    let mut sums = [(0.0, 0.0); 4];
    for &(sent, bytes) in samples {
        if sent < requests / 20 {
            continue;
        }
        let quarter = sent.saturating_mul(4) / requests.max(1);
        let quarter = usize::try_from(quarter).unwrap_or(3).min(3);
        if let Some((sum, count)) = sums.get_mut(quarter) {
            *sum += mib(bytes);
            *count += 1.0;
        }
    }
    sums.map(|(sum, count)| if count > 0.0 { sum / count } else { 0.0 })
}

#[expect(clippy::cast_precision_loss, reason = "memory of this machine")]
fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::Collector;

    fn report(resident_mib: [f64; 4]) -> Report {
        let held = Held {
            descriptors: 20,
            threads: 5,
            tasks: 4,
            connections: 0,
        };
        Report {
            clients: vec![("all", Collector::default().figures())],
            planned: ENOUGH,
            drained: Collector::default().figures(),
            excepted: 3,
            swaps: 1,
            rotations: 1,
            changes: 1,
            moods: 1,
            rolls: 1,
            visible_p50_ms: 1.0,
            visible_p99_ms: 1.0,
            resident_mib,
            held_before: held,
            held_after: held,
            settled: true,
            seconds: 1.0,
        }
    }

    #[test]
    fn memory_counts_by_quarter_without_the_beginning() {
        let mib = |number: u64| number << 20;
        let samples = [
            (0, mib(900)),
            (100, mib(10)),
            (200, mib(20)),
            (300, mib(30)),
            (600, mib(40)),
            (990, mib(50)),
            (1200, mib(70)),
        ];
        let told =
            |samples: &[(u64, u64)], requests| format!("{:.0?}", quarters(samples, requests));
        assert_eq!(told(&samples, 1000), "[15, 30, 40, 60]");
        assert_eq!(told(&[], 0), "[0, 0, 0, 0]");
    }

    #[test]
    fn what_fails_grows_or_is_left_is_told() {
        assert_eq!(report([40.0, 41.0, 41.0, 41.9]).complaints(), [""; 0]);
        assert_eq!(report([40.0, 41.0, 41.0, 30.0]).complaints(), [""; 0]);
        assert_eq!(report([40.0, 41.0, 41.0, 42.1]).complaints().len(), 1);
        let mut leaky = report([40.0; 4]);
        leaky.held_after.descriptors += 5;
        assert_eq!(leaky.complaints().len(), 1);
        leaky.settled = false;
        assert_eq!(leaky.complaints(), [""; 0], "idle ones to backends");
        leaky.held_after.connections = 1;
        assert_eq!(leaky.complaints().len(), 1);
        let mut failing = report([40.0; 4]);
        failing.drained.failed = 1;
        assert_eq!(failing.complaints().len(), 1);
    }
}
