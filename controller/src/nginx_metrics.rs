//! What ingress-nginx says of itself in its metrics, under its names, where somebody asks for it.
//!
//! The gateway counts requests under those names; everything else is a matter of state and is written out for each
//! scrape, so that it costs nothing in between.

mod process;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use model::{BackendId, CertificateId, EndpointSet};
use table::{ActionDescription, Description, Table};
use tokio::sync::watch;

use self::process::Process;
use crate::expiry::escaped;
use crate::reconcile::Progress;
use crate::telemetry;

/// Names without their prefix, types and texts, in the order of the output.
pub const STATES: [(&str, &str, &str); 19] = [
    (
        "nginx_process_connections",
        "gauge",
        "Client connections, by state: `active`, of which `writing` with a request at a backend and `waiting` without.",
    ),
    (
        "nginx_process_connections_total",
        "counter",
        "Client connections, `accepted` and `handled`.",
    ),
    ("nginx_process_requests_total", "counter", "Requests."),
    (
        "nginx_process_num_procs",
        "gauge",
        "Always 1: Lockgate is one process.",
    ),
    (
        "nginx_process_cpu_seconds_total",
        "counter",
        "Processor time.",
    ),
    (
        "nginx_process_resident_memory_bytes",
        "gauge",
        "Memory that is resident.",
    ),
    (
        "nginx_process_virtual_memory_bytes",
        "gauge",
        "Memory that is mapped.",
    ),
    (
        "nginx_process_read_bytes_total",
        "counter",
        "Bytes read, sockets included.",
    ),
    (
        "nginx_process_write_bytes_total",
        "counter",
        "Bytes written, sockets included.",
    ),
    (
        "nginx_process_oldest_start_time_seconds",
        "gauge",
        "When the process started, in seconds since 1970.",
    ),
    (
        "config_hash",
        "gauge",
        "The number of the routing table that is served.",
    ),
    (
        "config_last_reload_successful",
        "gauge",
        "1 as soon as a table is served.",
    ),
    (
        "config_last_reload_successful_timestamp_seconds",
        "gauge",
        "When the present table was published, in seconds since 1970.",
    ),
    ("success", "counter", "Tables published."),
    (
        "errors",
        "counter",
        "Always 0: a table that cannot be published does not exist.",
    ),
    (
        "ssl_expire_time_seconds",
        "gauge",
        "When the certificate of a host expires, in seconds since 1970.",
    ),
    (
        "orphan_ingress",
        "gauge",
        "1 for an Ingress whose Service does not exist (`no-service`) or has no endpoint (`no-endpoint`).",
    ),
    (
        "leader_election_status",
        "gauge",
        "1 while this process writes statuses and Events.",
    ),
    (
        "build_info",
        "gauge",
        "Always 1; the label says which build this is.",
    ),
];

/// Names that ingress-nginx has and Lockgate does not, with the reason.
pub const MEANINGLESS: [(&str, &str); 6] = [
    (
        "ingress_upstream_latency_seconds",
        "a summary that ingress-nginx itself calls deprecated; `connect_duration_seconds` has the same as a histogram",
    ),
    (
        "ssl_certificate_info",
        "`lockgate_certificate_expiry_timestamp_seconds` and `/debug/routes` say what is in certificates",
    ),
    (
        "check_success, check_errors",
        "a review renders no configuration; `lockgate_admission_reviews_total` counts them",
    ),
    (
        "admission_tested_ingresses, admission_tested_duration, admission_render_ingresses, admission_render_duration, admission_roundtrip_duration, admission_config_size",
        "the same",
    ),
    (
        "nginx_process_connections{state=\"reading\"}",
        "a connection whose request is being read is `waiting`",
    ),
    (
        "identifier (a label of ssl_expire_time_seconds)",
        "certificates are told apart by `secret_name`",
    ),
];

/// The prefix of all these names.
pub const PREFIX: &str = "nginx_ingress_controller_";

/// What ingress-nginx says about itself on each of its metrics.
#[derive(Clone, Debug, Default)]
pub(crate) struct Labels {
    /// `controller_class`: the controller of the IngressClass.
    pub(crate) class: String,
    /// `controller_namespace`: that of the pod.
    pub(crate) namespace: String,
    /// `controller_pod`: its name.
    pub(crate) pod: String,
}

/// What is written for a scrape.
pub(crate) struct NginxMetrics {
    labels: Labels,
    election: String,
    started: u64,
    /// The number of the table and when it was published.
    published: Mutex<(u64, u64)>,
    /// What was said of this table, which takes a while to find out.
    of_table: Mutex<(u64, String)>,
}

/// What is counted elsewhere.
pub(crate) struct Counted<'a> {
    /// Our own metrics.
    pub(crate) own: &'a str,
    /// Requests at backends.
    pub(crate) in_flight: u32,
}

impl NginxMetrics {
    pub(crate) fn new(labels: Labels, election: &str) -> Self {
        Self {
            labels,
            election: election.to_owned(),
            started: now(),
            published: Mutex::default(),
            of_table: Mutex::default(),
        }
    }

    /// Notes when tables are published, until there are no more.
    pub(crate) async fn follow(&self, mut progress: watch::Receiver<Progress>) {
        loop {
            let generation = progress.borrow_and_update().generation;
            {
                let mut published = self
                    .published
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                if published.0 != generation {
                    *published = (generation, now());
                }
            }
            if progress.changed().await.is_err() {
                return;
            }
        }
    }

    /// Appends everything to `text`.
    pub(crate) fn render(&self, counted: &Counted<'_>, table: &Table, text: &mut String) {
        let Labels {
            class,
            namespace,
            pod,
        } = &self.labels;
        let own = [
            ("controller_class", class.as_str()),
            ("controller_namespace", namespace),
            ("controller_pod", pod),
        ];
        let (generation, published) = *self
            .published
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let process = Process::read();
        let sum = |name: &str| sum(counted.own, name);
        let open = sum("lockgate_connections_open");
        let busy = f64::from(counted.in_flight).min(open);
        for (name, kind, about) in STATES {
            // Writing to a String cannot fail.
            let _ = writeln!(
                text,
                "# HELP {PREFIX}{name} {about}\n# TYPE {PREFIX}{name} {kind}"
            );
            let mut line = |more: &[(&str, &str)], value: f64| {
                let labels: Vec<_> = own.iter().chain(more).copied().collect();
                series(text, name, &labels, value);
            };
            match name {
                "nginx_process_connections" => {
                    line(&[("state", "active")], open);
                    line(&[("state", "writing")], busy);
                    line(&[("state", "waiting")], open - busy);
                }
                "nginx_process_connections_total" => {
                    let accepted = sum("lockgate_connections_total");
                    let refused = sum("lockgate_connections_refused_total");
                    line(&[("state", "accepted")], accepted);
                    line(&[("state", "handled")], (accepted - refused).max(0.0));
                }
                "nginx_process_requests_total" => line(&[], sum("lockgate_requests_total")),
                "nginx_process_num_procs" => line(&[], 1.0),
                "nginx_process_cpu_seconds_total" => line(&[], process.cpu_seconds),
                "nginx_process_resident_memory_bytes" => line(&[], process.resident),
                "nginx_process_virtual_memory_bytes" => line(&[], process.mapped),
                "nginx_process_read_bytes_total" => line(&[], process.read),
                "nginx_process_write_bytes_total" => line(&[], process.written),
                "nginx_process_oldest_start_time_seconds" => line(&[], exact(self.started)),
                "config_hash" | "success" => line(&[], exact(generation)),
                "config_last_reload_successful" => line(&[], f64::from(u8::from(generation > 0))),
                "config_last_reload_successful_timestamp_seconds" => line(&[], exact(published)),
                "errors" => line(&[], 0.0),
                "leader_election_status" => {
                    line(&[("name", &self.election)], sum(telemetry::LEADER));
                }
                "build_info" => line(
                    &[("release", telemetry::VERSION), ("repository", "lockgate")],
                    1.0,
                ),
                // Those of the table follow.
                _ => {
                    let of_table = self.of_table(table, &own);
                    let lines = of_table.lines().filter(|line| {
                        line.strip_prefix(PREFIX)
                            .is_some_and(|rest| rest.starts_with(&format!("{name}{{")))
                    });
                    for line in lines {
                        text.push_str(line);
                        text.push('\n');
                    }
                }
            }
        }
    }

    /// What there is to say about a table; found out once.
    fn of_table(&self, table: &Table, own: &[(&str, &str)]) -> String {
        let mut known = self.of_table.lock().unwrap_or_else(PoisonError::into_inner);
        if known.0 != table.generation() || known.1.is_empty() {
            let mut text = String::new();
            self.describe(&table.describe(), own, &mut text);
            *known = (table.generation(), text);
        }
        known.1.clone()
    }

    fn describe(&self, table: &Description, own: &[(&str, &str)], text: &mut String) {
        for (host, tls) in &table.tls {
            let Some((id, _)) = tls.certificates.first() else {
                continue;
            };
            let Some(certificate) = table.certificates.get(id) else {
                continue;
            };
            let (host, secret) = (host.to_string(), secret_name(id));
            let labels = [
                ("namespace", self.labels.namespace.as_str()),
                ("class", &self.labels.class),
                ("host", &host),
                ("secret_name", secret),
            ];
            series(
                text,
                "ssl_expire_time_seconds",
                &labels,
                exact(u64::try_from(certificate.not_after).unwrap_or_default()),
            );
        }
        for (namespace, name, kind) in orphans(table) {
            let more = [
                ("namespace", namespace.as_str()),
                ("ingress", &name),
                ("type", kind),
            ];
            let labels: Vec<_> = own.iter().chain(&more).copied().collect();
            series(text, "orphan_ingress", &labels, 1.0);
        }
    }
}

/// Ingresses with a route to a Service that is not there, or has no endpoint.
fn orphans(table: &Description) -> BTreeSet<(String, String, &'static str)> {
    let state = |id: &BackendId| match table.backends.get(id) {
        None | Some(None) => Some("no-service"),
        Some(Some(backend)) => match &*backend.endpoints {
            EndpointSet::Addresses(addresses) if addresses.is_empty() => Some("no-endpoint"),
            EndpointSet::Addresses(_) | EndpointSet::Dns { .. } => None,
            EndpointSet::Invalid(_) => Some("no-service"),
        },
    };
    let mut orphans = BTreeSet::new();
    for route in table.hosts.values().flatten() {
        if let ActionDescription::Forward(backends) = &route.action {
            let object = &route.origin.object;
            for kind in backends.iter().filter_map(|(id, _)| state(id)) {
                orphans.insert((object.namespace.to_string(), object.name.to_string(), kind));
            }
        }
    }
    orphans
}

/// The name of the Secret, without its namespace.
fn secret_name(id: &CertificateId) -> &str {
    let text = id.as_str();
    text.split_once('/').map_or(text, |(_, name)| name)
}

fn series(text: &mut String, name: &str, labels: &[(&str, &str)], value: f64) {
    let _ = write!(text, "{PREFIX}{name}{{");
    for (number, (label, value)) in labels.iter().enumerate() {
        let comma = if number == 0 { "" } else { "," };
        let _ = write!(text, "{comma}{label}=\"{}\"", escaped(value));
    }
    let _ = writeln!(text, "}} {value}");
}

/// The sum of the series of one metric.
fn sum(metrics: &str, name: &str) -> f64 {
    metrics
        .lines()
        .filter(|line| {
            line.strip_prefix(name)
                .is_some_and(|rest| rest.starts_with(['{', ' ']))
        })
        .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
        .sum()
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_secs()
}

#[expect(
    clippy::cast_precision_loss,
    reason = "times and numbers of tables are below 2^53"
)]
fn exact(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use model::{
        Action, Backend, HostPattern, ListenerSelector, NormalPath, ObjectRef, Origin, PathMatch,
        RareOptions, Route, RouteMatch, RoutingModel, Timeouts, VirtualHost, WeightedBackend,
    };

    use super::*;

    #[test]
    fn a_sum_is_of_one_metric() {
        let text =
            "a_total{x=\"1\"} 2\na_total{x=\"2\"} 3\na_total_more 7\n# TYPE a_total counter\nb 4\n";
        assert!((sum(text, "a_total") - 5.0).abs() < 0.01);
        assert!((sum(text, "b") - 4.0).abs() < 0.01);
    }

    fn world() -> Table {
        let mut model = RoutingModel::default();
        let id = |name: &str| BackendId::new("shop", name, "80");
        let backend = Arc::new(Backend {
            protocol: model::BackendProtocol::Http1,
            seed: None,
            health: None,
            origin: Origin::default(),
        });
        model.backends.insert(id("empty"), backend);
        model.endpoints.insert(id("empty"), Arc::default());
        let route = |path: &str, service: &str| Route {
            matches: RouteMatch::path(PathMatch::Prefix(NormalPath::parse(path).unwrap())),
            listeners: ListenerSelector::All,
            filters: model::Filters::default(),
            action: Action::Forward(vec![WeightedBackend {
                backend: id(service),
                weight: 1,
            }]),
            timeouts: Timeouts::default(),
            body_limit: None,
            options: RareOptions::default(),
            origin: Origin::new(ObjectRef::new("Ingress", "shop", "we\"b"), ""),
        };
        let routes = vec![route("/a", "empty"), route("/b", "gone")];
        let host = HostPattern::parse("shop.test").unwrap();
        model.hosts.insert(host, Arc::new(VirtualHost { routes }));
        table::compile(&model).table
    }

    #[tokio::test]
    async fn every_state_is_written_in_the_text_format() {
        let labels = Labels {
            class: "k8s.io/ingress-nginx".to_owned(),
            namespace: "lockgate".to_owned(),
            pod: "lockgate-0".to_owned(),
        };
        let metrics = NginxMetrics::new(labels, "leader");
        let progress = watch::Sender::new(Progress {
            generation: 3,
            ..Progress::default()
        });
        let receiver = progress.subscribe();
        drop(progress);
        metrics.follow(receiver).await;
        let counted = Counted {
            own: "lockgate_connections_open{listener=\"http\"} 5\nlockgate_connections_total{listener=\"http\"} 9\n\
                lockgate_connections_refused_total{listener=\"http\",reason=\"x\"} 2\nlockgate_requests_total{host=\"a\"} 40\nlockgate_leader 1\n",
            in_flight: 2,
        };
        let mut text = String::new();
        metrics.render(&counted, &world(), &mut text);
        let own = "controller_class=\"k8s.io/ingress-nginx\",controller_namespace=\"lockgate\",controller_pod=\"lockgate-0\"";
        for want in [
            format!("nginx_process_connections{{{own},state=\"active\"}} 5"),
            format!("nginx_process_connections{{{own},state=\"writing\"}} 2"),
            format!("nginx_process_connections{{{own},state=\"waiting\"}} 3"),
            format!("nginx_process_connections_total{{{own},state=\"accepted\"}} 9"),
            format!("nginx_process_connections_total{{{own},state=\"handled\"}} 7"),
            format!("nginx_process_requests_total{{{own}}} 40"),
            format!("config_last_reload_successful{{{own}}} 1"),
            format!("success{{{own}}} 3"),
            format!("leader_election_status{{{own},name=\"leader\"}} 1"),
            format!(
                "orphan_ingress{{{own},namespace=\"shop\",ingress=\"we\\\"b\",type=\"no-endpoint\"}} 1"
            ),
            format!(
                "orphan_ingress{{{own},namespace=\"shop\",ingress=\"we\\\"b\",type=\"no-service\"}} 1"
            ),
        ] {
            let want = format!("{PREFIX}{want}");
            assert!(text.lines().any(|line| line == want), "{want}\n{text}");
        }
        for (name, kind, _) in STATES {
            let head = format!("# TYPE {PREFIX}{name} {kind}");
            assert_eq!(
                text.lines().filter(|line| *line == head).count(),
                1,
                "{name}"
            );
        }
        let timestamp = format!("{PREFIX}config_last_reload_successful_timestamp_seconds");
        assert!(sum(&text, &timestamp) > 1_700_000_000.0, "{text}");
    }
}
