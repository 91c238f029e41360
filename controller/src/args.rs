//! The command line.

mod limits;
mod settings;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::BoolishValueParser;
use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use translate::NamespacedName;

use crate::app::{Engine, MemoryMark, MetricsNames};
use crate::telemetry::LogFormat;

pub use limits::LimitArgs;

const HTTP_PORT: &str = "0.0.0.0:8080";
const HTTPS_PORT: &str = "0.0.0.0:8443";
const ADMIN_PORT: u16 = 10254;

/// An ingress controller for Kubernetes.
#[derive(Debug, Parser)]
#[command(
    name = "lockgate",
    version,
    propagate_version = true,
    max_term_width = 110
)]
#[command(arg_required_else_help = true, disable_help_subcommand = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What `lockgate` can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve Ingresses from the Kubernetes API or from a folder of manifests
    ///
    /// Without --manifests and --kubeconfig the API of the cluster is used in which this process runs. Each flag can
    /// also be given by the environment variable that stands behind it; the flag prevails.
    Run(Box<RunArgs>),
    /// Print the routes that a folder of manifests leads to, and all problems, without serving
    ///
    /// The exit code is 0 whatever the problems are; `lockgate check` tells them by its exit code.
    Render(RenderArgs),
    /// Check manifests before they are applied: exit code 1 if there is an error, 0 otherwise
    ///
    /// The files are looked at together, as if they were all there is: what an Ingress refers to has to be among
    /// them. Each message names file and line, object and field, and says what follows.
    Check(CheckArgs),
    /// Say what becomes of the Ingresses of ingress-nginx: what is honoured, different, ignored and refused
    ///
    /// Reads files and folders, or, without any, the cluster that the kubeconfig names. Nothing is written there. The
    /// exit code is 0 if every route would be served, 3 if some would answer 503, 1 if there is no report, and 2 if
    /// the command line is wrong.
    Migrate(MigrateArgs),
    /// Print the version
    Version,
    /// Print a completion script for a shell
    Completion {
        /// The shell.
        shell: Shell,
    },
}

/// Flags of `lockgate run`.
#[derive(Args, Debug)]
pub struct RunArgs {
    /// Where objects come from.
    #[command(flatten)]
    pub source: SourceArgs,
    /// Which objects count.
    #[command(flatten)]
    pub scope: ScopeArgs,
    /// Where connections arrive.
    #[command(flatten)]
    pub listen: ListenArgs,
    /// What clients may have.
    #[command(flatten)]
    pub limits: LimitArgs,
    /// What is written to the cluster.
    #[command(flatten)]
    pub status: StatusArgs,
    /// What is said beforehand.
    #[command(flatten)]
    pub admission: AdmissionArgs,
    /// How the process ends.
    #[command(flatten)]
    pub shutdown: ShutdownArgs,
    /// Log and metrics.
    #[command(flatten)]
    pub observe: ObserveArgs,
}

/// Where objects come from.
#[derive(Args, Debug)]
#[command(next_help_heading = "Source")]
pub struct SourceArgs {
    /// Read objects from the YAML and JSON files of this folder, nested folders included, and follow their changes
    ///
    /// No cluster is needed. Endpoints may be on this machine (127.0.0.1), an IngressClass of the name that
    /// --ingress-class says is there unless a file has one, and the other defaults suit a laptop.
    #[arg(
        long,
        value_name = "DIR",
        env = "LOCKGATE_MANIFESTS",
        conflicts_with = "kubeconfig"
    )]
    pub manifests: Option<PathBuf>,
    /// Reach the Kubernetes API as this file says
    #[arg(long, value_name = "FILE", env = "LOCKGATE_KUBECONFIG")]
    pub kubeconfig: Option<PathBuf>,
}

/// Which objects count; the same for `run`, `render` and `check`.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Which objects count")]
pub struct ScopeArgs {
    /// Serve Ingresses whose IngressClass has this `spec.controller`
    #[arg(long, value_name = "NAME", env = "LOCKGATE_CONTROLLER_NAME", default_value_t = translate::Settings::default().controller_name)]
    pub controller_name: String,
    /// Serve Ingresses whose annotation `kubernetes.io/ingress.class` has this value
    #[arg(long, value_name = "NAME", env = "LOCKGATE_INGRESS_CLASS", default_value_t = translate::Settings::default().ingress_class)]
    pub ingress_class: String,
    /// Serve Ingresses that name no class, too
    #[arg(long, env = "LOCKGATE_WATCH_INGRESS_WITHOUT_CLASS", value_parser = BoolishValueParser::new())]
    pub watch_ingress_without_class: bool,
    /// Read annotations with these prefixes; of a name that stands under several the first one counts
    #[arg(
        long,
        value_name = "PREFIX",
        env = "LOCKGATE_ANNOTATIONS_PREFIX",
        value_delimiter = ',',
        default_values_t = translate::Settings::default().annotation_prefixes
    )]
    pub annotations_prefix: Vec<String>,
    /// Look at this namespace only; may be repeated or separated by commas [default: all]
    #[arg(
        long,
        value_name = "NS",
        env = "LOCKGATE_WATCH_NAMESPACE",
        value_delimiter = ','
    )]
    pub watch_namespace: Vec<String>,
    /// Take global settings from this ConfigMap (the keys of ingress-nginx)
    #[arg(long, value_name = "NS/NAME", env = "LOCKGATE_CONFIGMAP")]
    pub configmap: Option<NamespacedName>,
    /// Read headers from these ConfigMaps, where annotations or settings name them; may be repeated or separated by commas
    #[arg(
        long,
        value_name = "NS/NAME",
        env = "LOCKGATE_HEADER_CONFIGMAPS",
        value_delimiter = ','
    )]
    pub header_configmaps: Vec<NamespacedName>,
    /// Serve this Secret's certificate where a host has none [default: a self-signed one]
    #[arg(long, value_name = "NS/NAME", env = "LOCKGATE_DEFAULT_SSL_CERTIFICATE")]
    pub default_ssl_certificate: Option<NamespacedName>,
    /// Let the annotation `ssl-passthrough` pass the TLS connections of a host on to its pods, unread
    #[arg(long, env = "LOCKGATE_ENABLE_SSL_PASSTHROUGH", value_parser = BoolishValueParser::new())]
    pub enable_ssl_passthrough: bool,
    /// Pass TCP connections on as this ConfigMap says: port to `namespace/service:port[:PROXY][:PROXY]`
    #[arg(long, value_name = "NS/NAME", env = "LOCKGATE_TCP_SERVICES_CONFIGMAP")]
    pub tcp_services_configmap: Option<NamespacedName>,
    /// Pass UDP datagrams on as this ConfigMap says: port to `namespace/service:port`
    #[arg(long, value_name = "NS/NAME", env = "LOCKGATE_UDP_SERVICES_CONFIGMAP")]
    pub udp_services_configmap: Option<NamespacedName>,
    /// Send what no route matches to the first port of this Service [default: a small 404 page]
    #[arg(long, value_name = "NS/NAME", env = "LOCKGATE_DEFAULT_BACKEND_SERVICE")]
    pub default_backend_service: Option<NamespacedName>,
    /// The node on which this process runs: where EndpointSlices say which pods are meant for a node, those come first
    #[arg(long, value_name = "NAME", env = "LOCKGATE_NODE_NAME")]
    pub node_name: Option<String>,
    /// The zone of that node (its label `topology.kubernetes.io/zone`), for pods that are meant for a zone
    #[arg(long, value_name = "NAME", env = "LOCKGATE_ZONE")]
    pub zone: Option<String>,
    /// Follow ingress-nginx or the specification of Ingress where the two disagree [default: ingress-nginx, but for paths that end with a slash and for Server]
    #[arg(long, value_enum, value_name = "PROFILE", env = "LOCKGATE_COMPAT")]
    pub compat: Option<Compat>,
}

/// Whom to follow where ingress-nginx and the specification of Ingress disagree.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Compat {
    /// ingress-nginx.
    Nginx,
    /// The specification.
    Strict,
}

/// Where connections arrive.
#[derive(Args, Debug)]
#[command(next_help_heading = "Listeners")]
pub struct ListenArgs {
    /// Accept HTTP here; may be repeated or separated by commas (`[::]:8080` for IPv6)
    #[arg(long, value_name = "ADDR", env = "LOCKGATE_HTTP_LISTEN", value_delimiter = ',', value_parser = address, default_value = HTTP_PORT)]
    pub http_listen: Vec<SocketAddr>,
    /// Accept HTTPS here; may be repeated or separated by commas
    #[arg(long, value_name = "ADDR", env = "LOCKGATE_HTTPS_LISTEN", value_delimiter = ',', value_parser = address, default_value = HTTPS_PORT)]
    pub https_listen: Vec<SocketAddr>,
    /// Serve /healthz, /readyz, /servingz, /metrics and /debug/routes here [default: 0.0.0.0:10254; with --manifests 127.0.0.1:10254]
    #[arg(long, value_name = "ADDR", env = "LOCKGATE_ADMIN_LISTEN", value_parser = address)]
    pub admin_listen: Option<SocketAddr>,
    /// Threads that serve requests [default: the processors this process may use]
    #[arg(long, value_name = "N", env = "LOCKGATE_WORKERS", value_parser = count)]
    pub workers: Option<usize>,
    /// Client connections at once; one more is closed as soon as it is accepted
    #[arg(long, value_name = "N", env = "LOCKGATE_MAX_CONNECTIONS", value_parser = count, default_value = "65536")]
    pub max_connections: usize,
    /// Take the sockets of the process that listens on this Unix socket, if there is one, and hand them to the next one there
    ///
    /// So one process can take the place of another one on a host without losing a connection: start the new one with the same
    /// path. As soon as it serves, the old one drains and ends. A new one that fails before that changes nothing.
    #[arg(long, value_name = "PATH", env = "LOCKGATE_TAKEOVER_SOCKET")]
    pub takeover_socket: Option<PathBuf>,
    /// Close idle connections at 85 % of this memory, and let few new ones in from 93 % on: a size of this process such as 512Mi, `cgroup` for the limit of its control group, or `off`
    #[arg(long, value_name = "SIZE", env = "LOCKGATE_MAX_MEMORY", value_parser = limits::memory, default_value = "cgroup")]
    pub max_memory: MemoryMark,
    /// What moves the bytes of requests; the same rules apply to all of them
    #[arg(long, value_enum, value_name = "ENGINE", env = "LOCKGATE_ENGINE", default_value_t = Engine::Auto)]
    pub engine: Engine,
}

/// What is written to the cluster.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Status of Ingresses (not with --manifests)")]
pub struct StatusArgs {
    /// Write the addresses of this Service into the status of Ingresses
    #[arg(
        long,
        value_name = "NS/NAME",
        env = "LOCKGATE_PUBLISH_SERVICE",
        conflicts_with = "publish_status_address"
    )]
    pub publish_service: Option<NamespacedName>,
    /// Write these addresses or names into the status of Ingresses; separated by commas
    #[arg(
        long,
        value_name = "ADDR",
        env = "LOCKGATE_PUBLISH_STATUS_ADDRESS",
        value_delimiter = ','
    )]
    pub publish_status_address: Vec<String>,
    /// The Lease by which replicas agree on the one that writes
    #[arg(
        long,
        value_name = "NAME",
        env = "LOCKGATE_ELECTION_ID",
        default_value = "lockgate-leader"
    )]
    pub election_id: String,
}

/// What is said to those who write objects, before they are stored.
#[derive(Args, Debug)]
#[command(next_help_heading = "Admission webhook (docs/admission.md)")]
pub struct AdmissionArgs {
    /// Answer the API server's reviews of Ingresses and policies here, by HTTPS at `/validate` [default: nowhere]
    #[arg(long, value_name = "ADDR", env = "LOCKGATE_ADMISSION_LISTEN", value_parser = address, requires = "admission_secret")]
    pub admission_listen: Option<SocketAddr>,
    /// The Secret with the webhook's certificate and key; another one in it counts at once
    #[arg(
        long,
        value_name = "NS/NAME",
        env = "LOCKGATE_ADMISSION_SECRET",
        requires = "admission_listen"
    )]
    pub admission_secret: Option<NamespacedName>,
}

/// How the process ends after SIGTERM or SIGINT. A second signal ends it at once.
#[derive(Args, Debug)]
#[command(next_help_heading = "Shutdown (times like 500ms, 15s, 2m)")]
pub struct ShutdownArgs {
    /// Keep accepting for this time after SIGTERM, while /readyz says no already and /servingz still says yes [default: 10s; with --manifests 0s]
    #[arg(long, value_name = "TIME", env = "LOCKGATE_SHUTDOWN_DELAY", value_parser = humantime::parse_duration)]
    pub shutdown_delay: Option<Duration>,
    /// After that, give requests in flight this time to finish
    #[arg(long, value_name = "TIME", env = "LOCKGATE_DRAIN_TIMEOUT", value_parser = humantime::parse_duration, default_value = "240s")]
    pub drain_timeout: Duration,
}

/// Log and metrics.
#[derive(Args, Debug)]
#[command(next_help_heading = "Log and metrics")]
pub struct ObserveArgs {
    /// How log lines and the access log are written [default: json; with --manifests text]
    #[arg(long, value_enum, value_name = "FORMAT", env = "LOCKGATE_LOG_FORMAT")]
    pub log_format: Option<LogFormat>,
    /// error, warn, info or debug; also by module, as in `info,controller::watch=debug`
    ///
    /// The variable `RUST_LOG` prevails over it.
    #[arg(
        long,
        value_name = "LEVEL",
        env = "LOCKGATE_LOG_LEVEL",
        default_value = "info"
    )]
    pub log_level: String,
    /// Write a line to standard output for each request
    #[arg(long, value_enum, value_name = "SWITCH", env = "LOCKGATE_ACCESS_LOG", default_value_t = Switch::On)]
    pub access_log: Switch,
    /// How the lines of the access log are written [default: as --log-format says, and nginx for text]
    #[arg(
        long,
        value_enum,
        value_name = "FORMAT",
        env = "LOCKGATE_ACCESS_LOG_FORMAT"
    )]
    pub access_log_format: Option<AccessLogFormat>,
    /// Under which names metrics are kept; those of ingress-nginx come beside our own
    #[arg(long, value_enum, value_name = "NAMES", env = "LOCKGATE_METRICS_NAMES", default_value_t = MetricsNames::Lockgate)]
    pub metrics_names: MetricsNames,
    /// Combinations of label values that one metric may have; what goes beyond is counted as `other`
    #[arg(long, value_name = "N", env = "LOCKGATE_MAX_METRIC_SERIES", value_parser = count, default_value = "10000")]
    pub max_metric_series: usize,
}

/// How the lines of the access log are written.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum AccessLogFormat {
    /// One JSON object per line.
    Json,
    /// The default format of ingress-nginx.
    Nginx,
}

/// `on` or `off`.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Switch {
    /// Yes.
    On,
    /// No.
    Off,
}

/// Flags of `lockgate render`.
#[derive(Args, Debug)]
pub struct RenderArgs {
    /// The folder of manifests
    #[arg(long, value_name = "DIR", env = "LOCKGATE_MANIFESTS")]
    pub manifests: PathBuf,
    /// How the result is printed
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t = RenderFormat::Table)]
    pub output: RenderFormat,
    /// Which objects count.
    #[command(flatten)]
    pub scope: ScopeArgs,
}

/// How `lockgate render` prints.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum RenderFormat {
    /// For reading.
    Table,
    /// One document with everything.
    Yaml,
    /// The same in JSON.
    Json,
}

/// Flags of `lockgate check`.
#[derive(Args, Debug)]
pub struct CheckArgs {
    /// Files or folders; `-` is the standard input
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,
    /// Which objects count.
    #[command(flatten)]
    pub scope: ScopeArgs,
}

/// Flags of `lockgate migrate`.
#[derive(Args, Debug)]
pub struct MigrateArgs {
    /// Files or folders of manifests; `-` is the standard input [default: the cluster]
    #[arg(value_name = "FILE", conflicts_with_all = ["kubeconfig", "context"])]
    pub files: Vec<PathBuf>,
    /// Reach the cluster as this file says [default: as kubectl does]
    #[arg(long, value_name = "FILE", help_heading = "Cluster")]
    pub kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig [default: its current one]
    #[arg(long, value_name = "NAME", help_heading = "Cluster")]
    pub context: Option<String>,
    /// Look at this namespace only; may be repeated or separated by commas [default: all]
    #[arg(
        short,
        long,
        value_name = "NS",
        value_delimiter = ',',
        help_heading = "What is looked at"
    )]
    pub namespace: Vec<String>,
    /// The class of the Ingresses, where they name it by annotation
    #[arg(
        long,
        value_name = "NAME",
        default_value = "nginx",
        help_heading = "What is looked at"
    )]
    pub ingress_class: String,
    /// The `spec.controller` of their IngressClass
    #[arg(
        long,
        value_name = "NAME",
        default_value = "k8s.io/ingress-nginx",
        help_heading = "What is looked at"
    )]
    pub controller_name: String,
    /// The ConfigMap of the controller [default: the only one among the files]
    #[arg(long, value_name = "NS/NAME", help_heading = "What is looked at")]
    pub configmap: Option<NamespacedName>,
    /// The arguments of the controller, as they stand in its Deployment
    #[arg(
        long,
        value_name = "ARGS",
        allow_hyphen_values = true,
        help_heading = "What is looked at"
    )]
    pub controller_args: Option<String>,
    /// Write typed replacements for snippets and misspelt names into this folder, for review; nothing is applied
    #[arg(long, value_name = "DIR")]
    pub fix: Option<PathBuf>,
    /// How the report is printed
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t = MigrateFormat::Text)]
    pub output: MigrateFormat,
}

/// How `lockgate migrate` prints.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum MigrateFormat {
    /// For a terminal.
    Text,
    /// A page.
    Markdown,
    /// For programs.
    Json,
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        "an IP address and a port are needed, for example 0.0.0.0:8080 or [::]:8080".to_owned()
    })
}

fn count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("a whole number above 0 is needed".to_owned()),
        Ok(number) => Ok(number),
    }
}

#[cfg(test)]
mod tests;
