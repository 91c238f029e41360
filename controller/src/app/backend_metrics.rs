//! What is known of backends, as Prometheus text.
//!
//! It is written when somebody asks for it: nothing of it is counted on the way of a request, and the series of a
//! backend go with it. Only backends have series that have had something to tell.

use std::fmt::Write;

use gateway::BackendState;

/// A metric, and how it is read from the state of one backend.
#[derive(Debug)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// `gauge` or `counter`.
    pub kind: &'static str,
    /// What it says.
    pub help: &'static str,
    samples: fn(&BackendState) -> Vec<(&'static str, u64)>,
}

/// All of them. Each has the labels `namespace`, `service` and `service_port`, and those of its samples.
pub const METRICS: [Metric; 5] = [
    Metric {
        name: "lockgate_backend_endpoints_out",
        kind: "gauge",
        help: "Endpoints that are left alone for now, by namespace, service, port and cause.",
        samples: |state| {
            vec![
                ("cause=\"ejected\"", state.ejected.into()),
                ("cause=\"unhealthy\"", state.unhealthy.into()),
            ]
        },
    },
    Metric {
        name: "lockgate_backend_panics",
        kind: "gauge",
        help: "1 while so few endpoints are left that all of them are used, by namespace, service and port.",
        samples: |state| vec![("", state.panics.into())],
    },
    Metric {
        name: "lockgate_endpoint_ejections_total",
        kind: "counter",
        help: "How often an endpoint was ejected, by namespace, service, port and cause.",
        samples: |state| {
            vec![
                ("cause=\"failures\"", state.ejections_by_failures),
                ("cause=\"error-rate\"", state.ejections_by_rate),
            ]
        },
    },
    Metric {
        name: "lockgate_health_checks_total",
        kind: "counter",
        help: "Checks of the health of endpoints, by namespace, service, port and outcome.",
        samples: |state| {
            vec![
                ("outcome=\"passed\"", state.checks_passed),
                ("outcome=\"failed\"", state.checks_failed),
            ]
        },
    },
    Metric {
        name: "lockgate_backend_requests_refused_total",
        kind: "counter",
        help: "Requests answered with 503 because the backend had enough to do, by namespace, service, port and limit.",
        samples: |state| {
            vec![
                ("limit=\"requests\"", state.refused_requests),
                ("limit=\"pending\"", state.refused_pending),
                ("limit=\"endpoint\"", state.refused_endpoint),
            ]
        },
    },
];

/// Appends the metrics of up to `limit` backends to `text`.
pub(crate) fn render(states: &[BackendState], limit: usize, text: &mut String) {
    let told: Vec<&BackendState> = states
        .iter()
        .filter(|state| tells(state))
        .take(limit)
        .collect();
    for metric in &METRICS {
        let Metric {
            name,
            kind,
            help,
            samples,
        } = metric;
        // Writing to a String cannot fail.
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for state in &told {
            let (namespace, service) = (&state.backend.namespace, &state.backend.service);
            let port = &state.backend.port;
            for (label, value) in samples(state) {
                let comma = if label.is_empty() { "" } else { "," };
                // Names of Services and ports have nothing in them that would have to be escaped.
                let _ = writeln!(
                    text,
                    "{name}{{namespace=\"{namespace}\",service=\"{service}\",service_port=\"{port}\"{comma}{label}}} {value}"
                );
            }
        }
    }
}

/// Has anything happened to it?
fn tells(state: &BackendState) -> bool {
    METRICS
        .iter()
        .flat_map(|metric| (metric.samples)(state))
        .any(|(_, value)| value > 0)
}
