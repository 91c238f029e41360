//! The page with the results.

use std::fmt::Write as _;
use std::time::Duration;

use crate::compare::usage;

use super::{Plan, objects};

/// What was measured of one controller at one size.
#[derive(Clone, Debug)]
pub struct Row {
    /// Its name.
    pub controller: &'static str,
    /// How many Ingresses there were.
    pub ingresses: usize,
    /// From its start until everything was served.
    pub ready: Duration,
    /// CPU seconds until then.
    pub start_cpu: f64,
    /// Bytes of memory then.
    pub resident: u64,
    /// Cores that it used while nothing happened.
    pub idle: f64,
    /// From the patch of an Ingress until it was in force.
    pub ingress: Vec<Duration>,
    /// Of a Secret.
    pub secret: Vec<Duration>,
    /// Of the `ConfigMap`; empty where there is none.
    pub config: Vec<Duration>,
    /// Of an `EndpointSlice`.
    pub endpoint: Vec<Duration>,
    /// Endpoint changes while there were many.
    pub changes: u32,
    /// How many per second.
    pub rate: f64,
    /// CPU seconds that they took.
    pub churn_cpu: f64,
    /// The same as cores.
    pub churn_share: f64,
    /// The 99th percentile of seconds from event to table, as the controller measures it.
    pub published: Option<f64>,
    /// Bytes of memory after them.
    pub resident_after: u64,
}

impl Row {
    /// One line for whoever waits.
    pub fn line(&self) -> String {
        format!(
            "{} with {} Ingresses: served after {:.1} s, {} MiB; Ingress {}, Secret {}, endpoint {}; {:.2} ms of CPU per change",
            self.controller,
            self.ingresses,
            self.ready.as_secs_f64(),
            self.resident >> 20,
            times(&self.ingress),
            times(&self.secret),
            times(&self.endpoint),
            self.per_change(),
        )
    }

    fn per_change(&self) -> f64 {
        self.churn_cpu * 1e3 / f64::from(self.changes.max(1))
    }
}

/// The page with these rows.
pub(super) fn render(plan: &Plan, rows: &[Row], notes: &[String]) -> String {
    let mut page = format!(
        "# A growing cluster, {date}\n\n\
         Written by `make bench-growth`. One etcd and one API server; each controller is a process on the same machine, one after the\n\
         other, with the same objects: each Ingress has a host, three paths, a Service with {endpoints} endpoints, every second one a\n\
         certificate of its own; up to 1,000 namespaces. Served: the last Ingress and fifty others answer, with their certificates. Times\n\
         of changes run from before the patch is sent until an answer shows it; median and longest of up to {changes}. Churn: {rate} patches\n\
         of EndpointSlices per second for {churn} s. Traefik waits up to two seconds between two configurations, which is its default.\n\n",
        date = plan.date,
        endpoints = objects::ENDPOINTS,
        changes = plan.changes,
        rate = plan.rate,
        churn = plan.churn.as_secs(),
    );
    page.push_str(
        "| Ingresses | controller | served after | CPU until then | memory | idle | one Ingress | one Secret | ConfigMap | one endpoint |\n\
         | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n",
    );
    // Writing to a string cannot fail.
    for row in rows {
        let _ = writeln!(
            page,
            "| {} | {} | {:.2} s | {:.2} s | {} MiB | {:.1} % | {} | {} | {} | {} |",
            row.ingresses,
            row.controller,
            row.ready.as_secs_f64(),
            row.start_cpu,
            row.resident >> 20,
            row.idle * 100.0,
            times(&row.ingress),
            times(&row.secret),
            times(&row.config),
            times(&row.endpoint),
        );
    }
    page.push_str(
        "\n| Ingresses | controller | endpoint changes | per second | CPU per change | cores | event to table, p99 | memory after |\n\
         | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |\n",
    );
    for row in rows {
        let published = row
            .published
            .map_or_else(|| "-".to_owned(), |p99| format!("{:.1} ms", p99 * 1e3));
        let _ = writeln!(
            page,
            "| {} | {} | {} | {:.0} | {:.2} ms | {:.2} | {published} | {} MiB |",
            row.ingresses,
            row.controller,
            row.changes,
            row.rate,
            row.per_change(),
            row.churn_share,
            row.resident_after >> 20,
        );
    }
    let _ = writeln!(page, "\n- {}", usage::machine());
    for note in notes {
        let _ = writeln!(page, "- not measured: {note}");
    }
    page
}

/// Median and longest.
fn times(times: &[Duration]) -> String {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    match (sorted.get(sorted.len() / 2), sorted.last()) {
        (Some(median), Some(longest)) => {
            format!("{}, {} ms", median.as_millis(), longest.as_millis())
        }
        _ => "-".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_and_longest_are_shown() {
        let given = [3, 1, 2].map(Duration::from_millis);
        assert_eq!(times(&given), "2, 3 ms");
        assert_eq!(times(&[]), "-");
    }
}
