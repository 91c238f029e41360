//! What the process is started with.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use translate::NamespacedName;

use crate::memory::MemoryMark;
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
    /// Where one process hands its sockets to the next one.
    pub takeover: Option<PathBuf>,
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
    /// What clients may take their time for, and how much they may have.
    pub limits: ClientLimits,
    /// Which memory is watched.
    pub memory: MemoryMark,
    /// What moves the bytes of requests.
    pub engine: Engine,
    /// Combinations of label values of one metric.
    pub max_series: usize,
    /// How the access log is written; `None` writes none.
    pub access_log: Option<LogFormat>,
    /// Under which names metrics are kept.
    pub metrics_names: MetricsNames,
}

/// What clients may take their time for and how much they may have, as far as the ConfigMap has no key for it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ClientLimits {
    /// Connections of one client at once; 0 is any number.
    pub connections_per_client: u32,
    /// TLS handshakes at once.
    pub handshakes: usize,
    /// Time for the PROXY protocol header.
    pub proxy_header: Duration,
    /// Time for the whole `ClientHello`.
    pub client_hello: Duration,
    /// Time for the rest of a TLS handshake.
    pub handshake: Duration,
    /// Time for a client to take more of a response.
    pub write: Duration,
    /// Bytes per second that a client has to send or to take; 0 is any rate.
    pub rate: u32,
    /// Fields in the header section of a request.
    pub header_fields: usize,
    /// Streams of HTTP/2 that a client may take back in ten seconds.
    pub http2_resets: u32,
    /// Frames of HTTP/2 that carry nothing, in ten seconds.
    pub http2_control_frames: u32,
}

impl Default for ClientLimits {
    fn default() -> Self {
        super::gateway_settings::client_limits(&gateway::Limits::default())
    }
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
