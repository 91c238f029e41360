//! The page with the results.

use std::fmt::Write as _;

use super::{Case, Sample, generator};

/// What is said about the run beside its figures.
#[derive(Debug)]
pub(super) struct Facts {
    /// As in the page's title.
    pub(super) date: String,
    /// How many rounds of how many seconds.
    pub(super) rounds: usize,
    /// Length of one run.
    pub(super) seconds: u64,
    /// The bytes of an answer's body.
    pub(super) body: usize,
    /// How many pods answer.
    pub(super) origins: u32,
    /// One line each: machine, versions.
    pub(super) lines: Vec<String>,
    /// The gateways, the one that is compared to the others first.
    pub(super) gateways: Vec<String>,
}

/// Writes the page.
pub(super) fn render(facts: &Facts, samples: &[Sample]) -> String {
    let mut page = format!(
        "# Through the load balancer of a cluster, {date}\n\n\
         Written by `make e2e-load`. wrk and h2load outside of the cluster, through a Service of type LoadBalancer to the\n\
         gateway's two pods on two nodes, and on to {origins} pods that answer with {body} bytes. {rounds} rounds of {seconds} s for each case, the\n\
         gateways taking turns; medians of the rounds, errors are sums. Kept connections: {connections} (HTTP/1.1, wrk), {http2} with\n\
         {streams} streams each (HTTP/2, h2load); X25519 and AES-128-GCM. Both gateways write an access log. Everything shares the cores\n\
         of one machine: clients, nodes, control plane, pods. CPU time is user and system time of all pods of the gateway; memory is\n\
         theirs together at the end of a run.\n\n",
        date = facts.date,
        origins = facts.origins,
        body = facts.body,
        rounds = facts.rounds,
        seconds = facts.seconds,
        connections = generator::CONNECTIONS,
        http2 = generator::CONNECTIONS_HTTP2,
        streams = generator::STREAMS,
    );
    page.push_str(
        "| case | gateway | requests per second | p50 | p99 | p99.9 | requests | errors | CPU seconds | requests per CPU second | memory |\n\
         | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n",
    );
    for case in Case::ALL {
        for gateway in &facts.gateways {
            let of = Of {
                samples,
                case,
                gateway,
            };
            // Writing to a string cannot fail.
            let _ = writeln!(
                page,
                "| {} | {gateway} | {:.0} | {} | {} | {} | {} | {} | {} | {} | {} |",
                case.name(),
                of.median(Sample::throughput).unwrap_or_default(),
                of.latency(0),
                of.latency(1),
                of.latency(2),
                of.samples().map(|sample| sample.shot.requests).sum::<u64>(),
                of.samples().map(|sample| sample.shot.errors).sum::<u64>(),
                or_dash(of.median(|sample| sample.cpu), 1, ""),
                or_dash(of.median(Sample::per_cpu_second), 0, ""),
                or_dash(of.median(Sample::mebibytes), 0, " MiB"),
            );
        }
    }
    ratios(&mut page, facts, samples);
    page.push('\n');
    for line in &facts.lines {
        let _ = writeln!(page, "- {line}");
    }
    page
}

fn ratios(page: &mut String, facts: &Facts, samples: &[Sample]) {
    let Some((first, others)) = facts.gateways.split_first() else {
        return;
    };
    for other in others {
        let _ = write!(
            page,
            "\n| {first} : {other}, within a round | median | lowest | highest |\n| --- | ---: | ---: | ---: |\n",
        );
        for case in Case::ALL {
            let figures: [(&str, Figure); 2] = [
                ("requests per second", |sample| Some(sample.throughput())),
                ("requests per CPU second", Sample::per_cpu_second),
            ];
            for (what, figure) in figures {
                let of = |gateway| Of {
                    samples,
                    case,
                    gateway,
                };
                let (mine, theirs) = (of(first), of(other));
                let mut ratios: Vec<f64> = mine
                    .samples()
                    .filter_map(|sample| {
                        let beside = theirs.samples().find(|other| other.round == sample.round)?;
                        Some(figure(sample)? / figure(beside)?)
                    })
                    .collect();
                ratios.sort_by(f64::total_cmp);
                let (Some(middle), Some(low), Some(high)) =
                    (median(&ratios), ratios.first(), ratios.last())
                else {
                    continue;
                };
                let case = case.name();
                let _ = writeln!(
                    page,
                    "| {case}: {what} | {middle:.2} | {low:.2} | {high:.2} |"
                );
            }
        }
    }
}

type Figure = fn(&Sample) -> Option<f64>;

/// The samples of one gateway in one case.
#[derive(Clone, Copy)]
struct Of<'a> {
    samples: &'a [Sample],
    case: Case,
    gateway: &'a str,
}

impl<'a> Of<'a> {
    fn samples(self) -> impl Iterator<Item = &'a Sample> {
        self.samples
            .iter()
            .filter(move |sample| sample.case == self.case && sample.gateway == self.gateway)
    }

    fn median<F>(self, figure: impl Fn(&Sample) -> F) -> Option<f64>
    where
        F: Into<Option<f64>>,
    {
        let mut figures: Vec<f64> = self
            .samples()
            .filter_map(|sample| figure(sample).into())
            .collect();
        figures.sort_by(f64::total_cmp);
        median(&figures)
    }

    fn latency(self, index: usize) -> String {
        or_dash(
            self.median(|sample| sample.shot.latency.get(index).copied()),
            1,
            " ms",
        )
    }
}

/// The middle of sorted figures.
fn median(sorted: &[f64]) -> Option<f64> {
    let upper = sorted.get(sorted.len() / 2)?;
    let lower = sorted.get(sorted.len().checked_sub(1)? / 2)?;
    Some(f64::midpoint(*lower, *upper))
}

fn or_dash(figure: Option<f64>, digits: usize, unit: &str) -> String {
    figure.map_or_else(
        || "-".to_owned(),
        |figure| format!("{figure:.digits$}{unit}"),
    )
}

#[cfg(test)]
mod tests {
    use super::super::Shot;
    use super::*;

    fn sample(gateway: &str, round: usize, requests: u64, cpu: Option<f64>) -> Sample {
        Sample {
            gateway: gateway.to_owned(),
            case: Case::Https1,
            round,
            shot: Shot {
                requests,
                errors: 1,
                seconds: 2.0,
                latency: [1.0, 2.0, 3.0],
            },
            cpu,
            resident: Some(3 << 20),
        }
    }

    #[test]
    fn figures_are_medians_and_ratios_are_taken_within_a_round() {
        let facts = Facts {
            date: "2030-01-01".to_owned(),
            rounds: 3,
            seconds: 2,
            body: 1024,
            origins: 3,
            lines: vec!["A machine".to_owned()],
            gateways: vec!["A".to_owned(), "B".to_owned()],
        };
        let samples = [
            sample("A", 1, 100, Some(1.0)),
            sample("B", 1, 200, Some(1.0)),
            sample("A", 2, 400, Some(2.0)),
            sample("B", 2, 200, Some(2.0)),
            sample("A", 3, 300, Some(1.0)),
            sample("B", 3, 200, None),
        ];
        let page = render(&facts, &samples);
        for line in [
            "| HTTPS, HTTP/1.1 | A | 150 | 1.0 ms | 2.0 ms | 3.0 ms | 800 | 3 | 1.0 | 200 | 3 MiB |",
            "| HTTPS, HTTP/1.1 | B | 100 | 1.0 ms | 2.0 ms | 3.0 ms | 600 | 3 | 1.5 | 150 | 3 MiB |",
            "| HTTPS, HTTP/1.1: requests per second | 1.50 | 0.50 | 2.00 |",
            "| HTTPS, HTTP/1.1: requests per CPU second | 1.25 | 0.50 | 2.00 |",
            "- A machine",
        ] {
            assert!(
                page.lines().any(|found| found == line),
                "no {line} in {page}"
            );
        }
    }

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[1.0]), Some(1.0));
        assert_eq!(median(&[1.0, 2.0]), Some(1.5));
        assert_eq!(median(&[1.0, 2.0, 9.0]), Some(2.0));
    }
}
