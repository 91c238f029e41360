//! What came out, as a page of Markdown.

use std::fmt;

use super::{CASES, Case, Outcome, Peer, Phase, Sample, TOLERATED, as_float, describe, machine};

/// What the last column means.
const YARDSTICK: &str = "`floor` is a yardstick and no peer: a program that parses, passes on and does nothing else, on the libraries that \
     Lockgate is built on.\nIts column shows about how far any proxy on them could get. It is never the best peer and does not count for the \
     rate of the others;\n– where it serves no such case.";

/// Half of the values are at most this.
pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = *values.get(middle)?;
    Some(if values.len() % 2 == 1 {
        upper
    } else {
        f64::midpoint(upper, *values.get(middle - 1)?)
    })
}

/// One proxy in one case: medians over the rounds.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The proxy.
    pub peer: Peer,
    /// Requests per second.
    pub per_second: f64,
    /// Requests per second of user and system time.
    pub per_cpu_second: f64,
    /// Part of its core that was busy.
    pub busy: f64,
    /// Latencies at saturation in milliseconds.
    pub saturated: [f64; 3],
    /// The same at the rate of all.
    pub at_rate: Option<[f64; 3]>,
    /// What 99 of 100 answers did not exceed there in half of the quarters of a second, in milliseconds.
    pub typical_p99: Option<f64>,
    /// Resident memory in bytes.
    pub memory: f64,
}

/// The page.
#[derive(Debug)]
pub struct Report<'a> {
    /// What came out.
    pub outcome: &'a Outcome,
    /// How it was asked, in words.
    pub method: String,
    /// The day.
    pub date: String,
}

impl Report<'_> {
    /// Slices that others disturbed although they were repeated, and all slices.
    pub fn disturbed(&self) -> (usize, usize) {
        let samples = &self.outcome.samples;
        let bad = samples.iter().filter(|sample| sample.foreign > TOLERATED);
        (bad.count(), samples.len())
    }

    fn samples(&self, case: &Case, peer: Peer, phase: Phase) -> Vec<&Sample> {
        let all = self.outcome.samples.iter();
        all.filter(|sample| {
            sample.case == case.name && sample.peer == peer && sample.phase == phase
        })
        .collect()
    }

    /// The proxies of a case.
    pub fn rows(&self, case: &Case) -> Vec<Row> {
        let row = |peer| {
            let saturated = self.samples(case, peer, Phase::Saturated);
            let at_rate = self.samples(case, peer, Phase::AtRate);
            let over = |samples: &[&Sample], value: &dyn Fn(&Sample) -> f64| {
                median(samples.iter().map(|sample| value(sample)).collect())
            };
            let typical = at_rate.iter().filter_map(|sample| sample.slice.typical_p99);
            let latency = |samples: &[&Sample]| {
                Some([
                    over(samples, &|sample| sample.slice.latency[0])?,
                    over(samples, &|sample| sample.slice.latency[1])?,
                    over(samples, &|sample| sample.slice.latency[2])?,
                ])
            };
            Some(Row {
                peer,
                per_second: over(&saturated, &per_second)?,
                per_cpu_second: over(&saturated, &per_cpu_second)?,
                busy: over(&saturated, &|sample| sample.cpu / sample.slice.seconds)?,
                saturated: latency(&saturated)?,
                at_rate: latency(&at_rate),
                typical_p99: median(typical.collect()),
                memory: over(&saturated, &|sample| as_float(sample.memory))?,
            })
        };
        Peer::ALL.into_iter().filter_map(row).collect()
    }

    /// Lockgate's requests per CPU second over those of a peer, round by round: median, lowest, highest.
    fn ratio(&self, case: &Case, peer: Peer) -> Option<[f64; 3]> {
        let ours = self.samples(case, Peer::Lockgate, Phase::Saturated);
        let theirs = self.samples(case, peer, Phase::Saturated);
        let ratios: Vec<f64> = ours
            .iter()
            .filter_map(|our| {
                let their = theirs.iter().find(|their| their.round == our.round)?;
                Some(per_cpu_second(our) / per_cpu_second(their))
            })
            .collect();
        let lowest = ratios.iter().copied().fold(f64::INFINITY, f64::min);
        let highest = ratios.iter().copied().fold(0.0, f64::max);
        Some([median(ratios)?, lowest, highest])
    }

    fn summary(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let programs = self.outcome.programs.iter().map(|program| program.peer);
        // The yardstick, if it is there, comes last.
        let (yardstick, mut others): (Vec<Peer>, Vec<Peer>) = programs
            .filter(|peer| *peer != Peer::Lockgate)
            .partition(|peer| peer.is_yardstick());
        others.extend(&yardstick);
        write!(
            f,
            "| case | best peer | Lockgate : best | spread | p99 of a quarter second at 70 % : lowest of the peers |"
        )?;
        for peer in &others {
            write!(f, " : {} |", title(*peer))?;
        }
        write!(f, "\n| --- | --- | ---: | ---: | ---: |")?;
        f.write_str(&" ---: |".repeat(others.len()))?;
        writeln!(f)?;
        for case in &CASES {
            self.summary_of(case, &others, f)?;
        }
        if !yardstick.is_empty() {
            writeln!(f, "\n{YARDSTICK}")?;
        }
        Ok(())
    }

    fn summary_of(&self, case: &Case, others: &[Peer], f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = self.rows(case);
        let (ours, theirs): (Vec<&Row>, Vec<&Row>) =
            rows.iter().partition(|row| row.peer == Peer::Lockgate);
        let Some(ours) = ours.first().filter(|_| !theirs.is_empty()) else {
            return Ok(());
        };
        let peers = || theirs.iter().filter(|row| !row.peer.is_yardstick());
        let best = peers().max_by(|a, b| a.per_cpu_second.total_cmp(&b.per_cpu_second));
        write!(f, "| {} |", case.title)?;
        match best.and_then(|best| Some((best.peer, self.ratio(case, best.peer)?))) {
            Some((best, [middle, lowest, highest])) => write!(
                f,
                " {} | **{middle:.2}** | {lowest:.2} to {highest:.2} |",
                best.name()
            )?,
            None => write!(f, " | | |")?,
        }
        let tail = peers().filter_map(|row| row.typical_p99).reduce(f64::min);
        match ours.typical_p99.zip(tail) {
            Some((p99, tail)) => write!(f, " {p99:.2} : {tail:.2} ms |")?,
            None => write!(f, "  |")?,
        }
        for peer in others {
            match self.ratio(case, *peer) {
                Some([middle, ..]) => write!(f, " {middle:.2} |")?,
                None if !peer.takes_part(case) => write!(f, " – |")?,
                None => write!(f, " |")?,
            }
        }
        writeln!(f)
    }

    fn details(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for case in &CASES {
            let rows = self.rows(case);
            if rows.is_empty() {
                continue;
            }
            let rate = self
                .outcome
                .rates
                .iter()
                .find(|(name, _)| *name == case.name);
            let rate = rate.map_or_else(String::new, |(_, rate)| format!(" at {rate:.0}/s"));
            writeln!(f, "\n### {}\n", case.title)?;
            writeln!(
                f,
                "| proxy | requests/s | per CPU second | core busy | p50, p99, p99.9 at saturation (ms) | p50, p99, \
                 p99.9{rate} (ms) | p99 of a quarter second | memory |\n| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
            )?;
            for row in rows {
                let at_rate = row.at_rate.map_or_else(String::new, latencies);
                let typical = row.typical_p99;
                let typical = typical.map_or_else(String::new, |p99| format!("{p99:.2}"));
                writeln!(
                    f,
                    "| {} | {:.0} | {:.0} | {:.0} % | {} | {at_rate} | {typical} | {:.0} MiB |",
                    title(row.peer),
                    row.per_second,
                    row.per_cpu_second,
                    row.busy * 100.0,
                    latencies(row.saturated),
                    row.memory / 1_048_576.0
                )?;
            }
        }
        Ok(())
    }

    fn idle(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.outcome.idle.is_empty() {
            return Ok(());
        }
        writeln!(
            f,
            "\n### Memory per idle connection, of {}\n\n| proxy | plain | TLS |\n| --- | ---: | ---: |",
            machine::idle_connections()
        )?;
        for peer in Peer::ALL {
            let find = |case: &str| {
                let found = self
                    .outcome
                    .idle
                    .iter()
                    .find(|(name, other, _)| *name == case && *other == peer);
                found.map(|(_, _, bytes)| format!("{:.1} KiB", bytes / 1024.0))
            };
            if let (plain, tls @ Some(_)) | (plain @ Some(_), tls) =
                (find("idle"), find("idle-tls"))
            {
                let (plain, tls) = (plain.unwrap_or_default(), tls.unwrap_or_default());
                writeln!(f, "| {} | {plain} | {tls} |", peer.name())?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "# Lockgate beside its peers, {}\n\n{}\n",
            self.date, self.method
        )?;
        self.summary(f)?;
        self.details(f)?;
        self.idle(f)?;
        writeln!(f, "\n## Machine and versions\n\n- {}", describe())?;
        for program in &self.outcome.programs {
            writeln!(f, "- {}: {}", title(program.peer), program.version)?;
        }
        let (disturbed, all) = self.disturbed();
        writeln!(
            f,
            "- {disturbed} of {all} slices were disturbed: others took more than {:.0} % of a core, each time that they were repeated",
            TOLERATED * 100.0
        )?;
        for note in &self.outcome.notes {
            writeln!(f, "- {note}")?;
        }
        Ok(())
    }
}

fn title(peer: Peer) -> String {
    let kind = if peer.is_yardstick() {
        " (a yardstick)"
    } else {
        ""
    };
    format!("{}{kind}", peer.name())
}

fn per_second(sample: &Sample) -> f64 {
    as_float(sample.slice.requests) / sample.slice.seconds
}

fn per_cpu_second(sample: &Sample) -> f64 {
    as_float(sample.slice.requests) / sample.cpu
}

fn latencies([p50, p99, p999]: [f64; 3]) -> String {
    format!("{p50:.2}, {p99:.2}, {p999:.2}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::Slice;

    fn sample(peer: Peer, round: usize, requests: u64, cpu: f64) -> Sample {
        Sample {
            case: "http1",
            peer,
            phase: Phase::Saturated,
            round,
            slice: Slice {
                requests,
                seconds: 2.0,
                latency: [1.0, 2.0, 3.0],
                typical_p99: None,
            },
            cpu,
            foreign: 0.0,
            memory: 1 << 20,
        }
    }

    fn outcome(peers: &[Peer]) -> Outcome {
        let program = |peer: &Peer| crate::peers::Program {
            peer: *peer,
            file: "x".into(),
            version: "1".to_owned(),
        };
        let mut outcome = Outcome {
            programs: peers.iter().map(program).collect(),
            ..Outcome::default()
        };
        for (round, factor) in [(1, 1), (2, 2), (3, 3)] {
            for peer in peers {
                outcome.samples.push(match peer {
                    Peer::Lockgate => sample(*peer, round, 300 * factor, 1.0),
                    Peer::Nginx => sample(*peer, round, 200, 1.0),
                    Peer::Floor => sample(*peer, round, 1000 * factor, 1.0),
                    // More requests, and much more time for them.
                    Peer::Envoy | Peer::Traefik | Peer::Haproxy | Peer::HaproxyDebian => {
                        sample(*peer, round, 900, 9.0)
                    }
                });
            }
        }
        outcome
    }

    fn page(outcome: &Outcome) -> String {
        let report = Report {
            outcome,
            method: "method".to_owned(),
            date: "today".to_owned(),
        };
        report.to_string()
    }

    #[test]
    fn the_best_peer_is_the_one_with_the_most_requests_per_cpu_second() {
        let text = page(&outcome(&[Peer::Lockgate, Peer::Nginx, Peer::Envoy]));
        assert!(
            text.contains("| HTTP/1.1, 1 KiB | nginx | **3.00** | 1.50 to 4.50 |  | 3.00 | 6.00 |"),
            "{text}"
        );
        assert!(
            text.contains("| envoy | 450 | 100 | 450 % | 1.00, 2.00, 3.00 |  |  | 1 MiB |"),
            "{text}"
        );
        assert!(text.contains("0 of 9 slices were disturbed"), "{text}");
        assert!(!text.contains("yardstick"), "{text}");
    }

    #[test]
    fn the_yardstick_is_never_the_best_and_has_the_last_column() {
        // Wherever it comes in the list.
        let mut outcome = outcome(&[Peer::Floor, Peer::Lockgate, Peer::Nginx, Peer::Envoy]);
        for peer in [Peer::Lockgate, Peer::Nginx] {
            outcome.samples.push(Sample {
                case: "fresh",
                ..sample(peer, 1, 100, 1.0)
            });
        }
        let text = page(&outcome);
        let head = "| case | best peer | Lockgate : best | spread | p99 of a quarter second at 70 % : lowest of the peers | : nginx | : envoy | : floor (a yardstick) |\n\
                    | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |\n";
        assert!(text.contains(head), "{text}");
        let row = "| HTTP/1.1, 1 KiB | nginx | **3.00** | 1.50 to 4.50 |  | 3.00 | 6.00 | 0.30 |\n";
        assert!(text.contains(row), "{text}");
        let row = "| HTTP/1.1, new connection per request | nginx | **1.00** | 1.00 to 1.00 |  | 1.00 | | – |\n";
        assert!(text.contains(row), "{text}");
        assert!(
            text.contains("| floor (a yardstick) | 1000 | 2000 |"),
            "{text}"
        );
        assert_eq!(text.matches(YARDSTICK).count(), 1, "{text}");
    }

    #[test]
    fn beside_the_yardstick_alone_there_is_no_best_peer() {
        let text = page(&outcome(&[Peer::Lockgate, Peer::Floor]));
        assert!(
            text.contains("| HTTP/1.1, 1 KiB | | | |  | 0.30 |\n"),
            "{text}"
        );
    }

    #[test]
    fn the_yardstick_takes_part_where_one_backend_and_one_certificate_are_enough() {
        let serves = |peer: Peer| {
            let cases = CASES.iter().filter(|case| peer.takes_part(case));
            cases.map(|case| case.name).collect::<Vec<_>>()
        };
        let cases = [
            "http1",
            "headers",
            "upload",
            "https1",
            "h2-1",
            "h2-100",
            "grpc",
            "websocket",
        ];
        assert_eq!(serves(Peer::Floor), cases);
        assert_eq!(serves(Peer::Haproxy).len(), CASES.len());
    }

    #[test]
    fn medians_lie_in_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0]), Some(2.5));
        assert_eq!(median(Vec::new()), None);
    }
}
