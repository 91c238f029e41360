//! Metric names of the control plane, and where log lines go.

use std::io::{self, IsTerminal};
use std::sync::{Mutex, PoisonError};

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram, gauge};
use metrics_exporter_prometheus::PrometheusBuilder;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

use crate::histograms::{Bounds, Histograms, MOST_BOUNDS, Metrics, OwnBounds};

/// Gauge: the number of the table that is served.
pub const GENERATION: &str = "lockgate_table_generation";

/// Histogram: seconds from the moment a change was noticed until the table that holds it was published.
pub const PUBLISH_SECONDS: &str = "lockgate_publish_seconds";

/// Gauge: problems of objects and files, by `severity`.
pub const PROBLEMS: &str = "lockgate_problems";

/// Gauge: manifest files of which an older version is served because the present one cannot be read.
pub const STALE_FILES: &str = "lockgate_manifest_files_stale";

/// Counter: watches of the Kubernetes API that had to be started again, by `kind` and `reason`.
pub const WATCH_RESTARTS: &str = "lockgate_watch_restarts_total";

/// Counter: writes to the status of Ingresses, by `outcome`.
pub const STATUS_WRITES: &str = "lockgate_status_writes_total";

/// Counter: Events sent to the owners of objects, by `outcome`.
pub const EVENTS: &str = "lockgate_events_total";

/// Counter: reviews of the admission webhook, by `outcome`.
pub const ADMISSION_REVIEWS: &str = "lockgate_admission_reviews_total";

/// Gauge: 1 while this process is the one that writes statuses and Events, 0 otherwise.
pub const LEADER: &str = "lockgate_leader";

/// Gauge: when a certificate expires, in seconds since 1970, by `certificate`.
pub const CERTIFICATE_EXPIRY: &str = "lockgate_certificate_expiry_timestamp_seconds";

/// Gauge: how many certificates are served.
pub const CERTIFICATES: &str = "lockgate_certificates";

/// Gauge: how much memory there may be, in bytes.
pub const MEMORY_LIMIT: &str = "lockgate_memory_limit_bytes";

/// Gauge: how much of it is used, in bytes.
pub const MEMORY_USED: &str = "lockgate_memory_used_bytes";

/// Gauge: always 1; `version` says which build this is.
pub const BUILD_INFO: &str = "lockgate_build_info";

/// The version of this build.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Upper bounds of the buckets of every duration.
const SECONDS: &[f64] = &[
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
    60.0,
];

/// Upper bounds of the buckets of every size.
const BYTES: &[f64] = &[
    256.0,
    1_024.0,
    4_096.0,
    16_384.0,
    65_536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
    67_108_864.0,
    268_435_456.0,
];

/// How log lines are written.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, clap::ValueEnum)]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// Text for people.
    #[default]
    Text,
}

/// Why log or metrics cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter cannot be read.
    #[error("the log level `{given}` cannot be read: {reason}")]
    Filter {
        /// What was given.
        given: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Another library has taken the place.
    #[error("the log is set up already: {0}")]
    Log(#[from] TryInitError),
    /// A histogram has more buckets than there is room for.
    #[error("the histogram {0} has more than {MOST_BOUNDS} bounds")]
    Bounds(&'static str),
    /// Another library has taken the place.
    #[error("the metrics are kept by something else already")]
    Metrics,
}

/// Libraries that say more than an operator of Lockgate wants to know. What concerns a request stands in the access
/// log, with its reason.
const QUIET: &str = "pingora_core=error,pingora_proxy=off,pingora_cache=error,pingora_pool=error,\
    rustls=warn,h2=warn,hyper=warn,hyper_util=warn,tower=warn,kube_client=off,kube_runtime=off,hickory_proto=error,hickory_resolver=error";

/// Sends log lines to standard error. `level` is a level, or directives as the variable `RUST_LOG` takes them; that
/// variable prevails, and directives prevail over what keeps libraries quiet.
pub fn log(format: LogFormat, level: &str) -> Result<(), TelemetryError> {
    let variable = std::env::var("RUST_LOG")
        .ok()
        .filter(|given| !given.is_empty());
    let level = variable.as_deref().unwrap_or(level);
    let filter = filter(level)?;
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        // It would say so on standard error, which is what cannot be written, and panic.
        .log_internal_errors(false);
    let registry = tracing_subscriber::registry().with(filter);
    match format {
        LogFormat::Json => registry
            .with(
                lines
                    .json()
                    .flatten_event(true)
                    .with_current_span(false)
                    .with_span_list(false),
            )
            .try_init()?,
        LogFormat::Text => registry.with(lines.with_target(false)).try_init()?,
    }
    Ok(())
}

fn filter(level: &str) -> Result<EnvFilter, TelemetryError> {
    EnvFilter::try_new(format!("info,{QUIET},{level}")).map_err(|error| TelemetryError::Filter {
        given: level.to_owned(),
        reason: error.to_string(),
    })
}

/// Starts to keep metrics, once per process, and hands out where they are read.
///
/// Histograms have the bounds that go with their names, or those of their unit.
pub(crate) fn metrics(own: OwnBounds) -> Result<Metrics, TelemetryError> {
    static INSTALLED: Mutex<Option<Metrics>> = Mutex::new(None);
    let mut installed = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(metrics) = &*installed {
        return Ok(metrics.clone());
    }
    if let Some((name, _)) = own.iter().find(|(_, bounds)| bounds.len() > MOST_BOUNDS) {
        return Err(TelemetryError::Bounds(name));
    }
    let others = PrometheusBuilder::new().build_recorder();
    let (metrics, recorder) = Metrics::new(others, Histograms::new(own, of_unit));
    metrics::set_global_recorder(recorder).map_err(|_| TelemetryError::Metrics)?;
    describe_metrics();
    *installed = Some(metrics.clone());
    Ok(metrics)
}

fn of_unit(name: &str) -> Bounds {
    if name.ends_with("_bytes") {
        BYTES
    } else {
        SECONDS
    }
}

/// Registers names, units and help texts with the `metrics` facade.
pub fn describe_metrics() {
    describe_gauge!(
        GENERATION,
        "The number of the routing table that is served."
    );
    describe_histogram!(
        PUBLISH_SECONDS,
        Unit::Seconds,
        "From the moment a change was noticed until the table that holds it was published."
    );
    describe_gauge!(PROBLEMS, "Problems of objects and files, by severity.");
    describe_gauge!(
        STALE_FILES,
        "Manifest files of which an older version is served because the present one cannot be read."
    );
    describe_counter!(
        WATCH_RESTARTS,
        "Watches of the Kubernetes API that had to be started again, by kind and reason."
    );
    describe_counter!(
        STATUS_WRITES,
        "Writes to the status of Ingresses, by outcome."
    );
    describe_counter!(EVENTS, "Events sent to the owners of objects, by outcome.");
    describe_counter!(
        ADMISSION_REVIEWS,
        "Reviews that the admission webhook was asked for, by outcome: `allowed`, `refused`, or `failed` where it could not judge."
    );
    describe_gauge!(
        LEADER,
        "1 while this process is the one that writes statuses and Events."
    );
    describe_gauge!(
        MEMORY_LIMIT,
        Unit::Bytes,
        "How much memory there may be, where that is watched (`--max-memory`)."
    );
    describe_gauge!(
        MEMORY_USED,
        Unit::Bytes,
        "How much of that memory is used, without what the kernel can take back at any time."
    );
    describe_gauge!(BUILD_INFO, "Always 1; the label says which build this is.");
    gauge!(BUILD_INFO, "version" => VERSION).set(1);
    for severity in ["error", "warning"] {
        gauge!(PROBLEMS, "severity" => severity).set(0);
    }
    gauge!(STALE_FILES).set(0);
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::filter::LevelFilter;

    use super::*;

    #[test]
    fn no_bound_is_left_out() {
        for bounds in [SECONDS, BYTES] {
            assert!(bounds.len() <= MOST_BOUNDS && bounds.is_sorted());
        }
    }

    #[test]
    fn a_level_or_directives_are_taken() {
        for (given, most) in [
            ("info", LevelFilter::INFO),
            ("debug", LevelFilter::DEBUG),
            ("info,controller::watch=trace", LevelFilter::TRACE),
            ("pingora_proxy=debug", LevelFilter::DEBUG),
        ] {
            assert_eq!(
                filter(given).unwrap().max_level_hint(),
                Some(most),
                "{given}"
            );
        }
        let error = filter("loud=very=much").unwrap_err().to_string();
        assert!(
            error.starts_with("the log level `loud=very=much` cannot be read: "),
            "{error}"
        );
    }
}
