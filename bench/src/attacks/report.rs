//! What came out, as a page of Markdown.

use std::fmt;

use super::{Attack, Fate, Outcome, Row, What};
use crate::peers::{describe, median};

/// The page.
#[derive(Debug)]
pub struct Report<'a> {
    /// What came out.
    pub outcome: &'a Outcome,
    /// The attacks in their order.
    pub attacks: &'a [Attack],
    /// The day.
    pub date: String,
}

/// How it was done, for the page.
const METHOD: &str = "\
Written by `make attacks`. Each proxy is started anew for each attack, with one worker alone on one core; attackers, backends and a well-behaved
client share the other one, the attackers with less weight. Limits are Lockgate's defaults, and the same for the others where they
have such a limit: 30 s for a header section, 60 s for a body or a write that stands still, 75 s idle, 64 KiB of header section, 128 fields, 128
streams. The well-behaved client sends 200 requests a second over TLS on 8 connections, a fresh one after 20 requests, whatever becomes of
those before; latency counts from when a request was due, and what takes 5 s has failed. Memory is the proportional set size of all processes of a
proxy: before the attack, the most that was seen, 3 s after it. CPU is user and system time during the attack.";

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "# Attacks, {}\n\n{METHOD}\n", self.date)?;
        writeln!(f, "{}.", describe())?;
        let foreign = self.outcome.rows.iter().map(|row| row.foreign).collect();
        if let Some(foreign) = median(foreign) {
            let most = self.outcome.rows.iter().map(|row| row.foreign);
            let most = most.fold(0.0, f64::max);
            writeln!(
                f,
                "Others took {foreign:.2} cores of this machine in half of the attacks, {most:.2} at most."
            )?;
        }
        writeln!(f)?;
        for program in &self.outcome.programs {
            writeln!(f, "- {}: {}", program.peer.name(), program.version)?;
        }
        for attack in self.attacks {
            let rows: Vec<&Row> = self
                .outcome
                .rows
                .iter()
                .filter(|row| row.attack.name == attack.name)
                .collect();
            if rows.is_empty() {
                continue;
            }
            writeln!(f, "\n## {}\n", title(attack))?;
            writeln!(
                f,
                "| proxy | memory, MiB: before, worst, after | CPU, s of {} s | client: requests, failed, p99 | attackers |",
                attack.seconds
            )?;
            writeln!(f, "| --- | ---: | ---: | ---: | --- |")?;
            for row in rows {
                line(f, row)?;
            }
        }
        if !self.outcome.notes.is_empty() {
            writeln!(f, "\n## Notes\n")?;
            for note in &self.outcome.notes {
                writeln!(f, "- {note}")?;
            }
        }
        Ok(())
    }
}

fn title(attack: &Attack) -> String {
    if attack.what == What::Nothing {
        return "No attack".to_owned();
    }
    let mut letters = attack.title.chars();
    let first = letters.next().map(|letter| letter.to_ascii_uppercase());
    first.into_iter().chain(letters).collect()
}

fn line(f: &mut fmt::Formatter<'_>, row: &Row) -> fmt::Result {
    let [before, worst, after] = row.memory.map(|bytes| bytes >> 20);
    let requests = row.during.answers + row.during.failed;
    let mut failed = row.during.failed.to_string();
    if row.after.failed > 0 {
        failed = format!("{failed} (and {} afterwards)", row.after.failed);
    }
    writeln!(
        f,
        "| {} | {before}, {worst}, {after} | {:.1} | {requests}, {failed}, {:.1} ms | {} |",
        row.peer.name(),
        row.cpu,
        row.during.p99_ms,
        told(&row.fate)
    )
}

fn told(fate: &Fate) -> String {
    let mut parts = Vec::new();
    let mut say = |number: u64, what: &str| {
        if number > 0 {
            parts.push(format!("{number} {what}"));
        }
    };
    say(fate.opened, "connections");
    say(fate.closed, "ended by the proxy");
    say(fate.refused, "not accepted");
    say(fate.sent, "sent");
    for (status, number) in &fate.statuses {
        say(*number, &format!("× {status}"));
    }
    say(fate.believed, "**believed**");
    if parts.is_empty() {
        parts.push("–".to_owned());
    }
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::super::ATTACKS;
    use super::*;
    use crate::load::Collector;
    use crate::peers::Peer;

    #[test]
    fn a_page_has_a_table_for_each_attack_that_was_made() {
        let row = |index: usize, believed| Row {
            attack: ATTACKS[index],
            peer: Peer::Lockgate,
            memory: [20 << 20, 30 << 20, 21 << 20],
            cpu: 1.25,
            seconds: 10.0,
            foreign: 0.5,
            during: Collector::default().figures(),
            after: Collector::default().figures(),
            fate: Fate {
                opened: 7,
                statuses: vec![("431".to_owned(), 5)],
                believed,
                ..Fate::default()
            },
        };
        let outcome = Outcome {
            rows: vec![row(0, 0), row(11, 1)],
            ..Outcome::default()
        };
        let report = Report {
            outcome: &outcome,
            attacks: &ATTACKS,
            date: "2026-01-02".to_owned(),
        };
        let page = report.to_string();
        assert_eq!(page.matches("\n## ").count(), 2, "{page}");
        assert!(
            page.contains(
                "| lockgate | 20, 30, 21 | 1.2 | 0, 0, 0.0 ms | 7 connections, 5 × 431 |"
            ),
            "{page}"
        );
        assert_eq!(outcome.complaints().len(), 1, "who was believed");
    }
}
