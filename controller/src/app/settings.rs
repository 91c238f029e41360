//! What the process is started with.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use translate::NamespacedName;

use crate::telemetry::LogFormat;

/// Everything that the process is started with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where objects come from.
    pub source: Source,
    /// Which objects count.
    pub translation: translate::Settings,
    /// Where connections arrive.
    pub listen: Listen,
    /// How they are served.
    pub serve: Serve,
    /// From the signal to the end of accepting.
    pub shutdown_delay: Duration,
    /// For requests in flight after that.
    pub drain_timeout: Duration,
}

/// Addresses that are listened on.
#[derive(Clone, Debug)]
pub struct Listen {
    /// Plain HTTP.
    pub http: Vec<SocketAddr>,
    /// TLS.
    pub https: Vec<SocketAddr>,
    /// For operators.
    pub admin: SocketAddr,
    /// For reviews of objects, if anywhere.
    pub admission: Option<SocketAddr>,
}

/// How connections are served.
#[derive(Clone, Debug)]
pub struct Serve {
    /// Threads; `None` is one per processor.
    pub workers: Option<usize>,
    /// Client connections at once.
    pub max_connections: usize,
    /// What moves the bytes of requests.
    pub engine: Engine,
    /// Combinations of label values of one metric.
    pub max_series: usize,
    /// How the access log is written; `None` writes none.
    pub access_log: Option<LogFormat>,
    /// Under which names metrics are kept.
    pub metrics_names: MetricsNames,
}

/// Under which names metrics are kept.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, clap::ValueEnum)]
pub enum MetricsNames {
    /// Our own.
    #[default]
    Lockgate,
    /// Our own, and those of ingress-nginx beside them for dashboards and alerts that know these.
    Nginx,
}

/// What moves the bytes of requests.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub enum Engine {
    /// Our own for what goes to backends without TLS, Pingora for the rest.
    Auto,
    /// Pingora for all requests.
    Pingora,
}

/// Where objects come from.
#[derive(Clone, Debug)]
pub enum Source {
    /// A folder of manifests.
    Manifests(PathBuf),
    /// The Kubernetes API.
    Cluster(ClusterSettings),
}

/// How the Kubernetes API is reached and what is written to it.
#[derive(Clone, Debug)]
pub struct ClusterSettings {
    /// The file that says how to reach the API; `None` is the cluster in which this process runs.
    pub kubeconfig: Option<PathBuf>,
    /// The Service whose addresses go into the status of Ingresses.
    pub publish_service: Option<NamespacedName>,
    /// Addresses and names that go there instead.
    pub publish_status_address: Vec<String>,
    /// The Lease of the replica that writes.
    pub election_id: String,
}
