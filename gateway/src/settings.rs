//! What a gateway is started with.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use model::ClientBounds;

use crate::access_log::LogOutput;

/// How access-log lines are written.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum LogFormat {
    /// One JSON object per line.
    #[default]
    Json,
    /// Text for people.
    Text,
}

/// What moves the bytes of requests. Every one of them applies the same rules to every request.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Engine {
    /// The direct engine for what goes to backends without TLS, Pingora for everything else.
    #[default]
    Auto,
    /// Pingora for everything.
    Pingora,
}

/// Everything that stays the same for the life of a gateway. What may change is in the table.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where plain HTTP is accepted.
    pub http: Vec<SocketAddr>,
    /// Where TLS is accepted.
    pub https: Vec<SocketAddr>,
    /// On which addresses the ports are opened that a table asks for.
    pub port_addresses: Vec<IpAddr>,
    /// Are sockets kept so that another process can take them over?
    pub keep_sockets: bool,
    /// What streams get to end after their route has gone.
    pub stream_farewell: Duration,
    /// Worker threads, each with a runtime, sockets and upstream connections of its own. At least one is started.
    pub workers: usize,
    /// What moves the bytes of requests.
    pub engine: Engine,
    /// Bounds on what clients may use.
    pub limits: Limits,
    /// How the access log is written; `None` writes none.
    pub access_log: Option<LogFormat>,
    /// Where the access log is written.
    pub access_log_output: LogOutput,
    /// How many label combinations there may be in all metrics of requests and backends together; what comes after
    /// that is counted for the host `_overflow`.
    pub max_series: usize,
    /// Keeps the metrics of requests under the names of ingress-nginx as well, with these labels.
    pub nginx_metrics: Option<NginxLabels>,
}

/// What ingress-nginx says about itself on each of its metrics.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct NginxLabels {
    /// `controller_class`: the controller of the IngressClass.
    pub class: String,
    /// `controller_namespace`: that of the pod.
    pub namespace: String,
    /// `controller_pod`: its name.
    pub pod: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            http: Vec::new(),
            https: Vec::new(),
            port_addresses: Vec::new(),
            keep_sockets: false,
            stream_farewell: Duration::from_mins(4),
            workers: std::thread::available_parallelism().map_or(1, usize::from),
            engine: Engine::default(),
            limits: Limits::default(),
            access_log: Some(LogFormat::Json),
            access_log_output: LogOutput::stdout(),
            max_series: 10_000,
            nginx_metrics: None,
        }
    }
}

/// Bounds on what clients may use, with defaults for a gateway that faces the internet.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Limits {
    /// Connections held at once, over all listeners and workers. One more is closed as soon as it is accepted.
    /// Default: 65,536.
    pub max_connections: usize,
    /// Connections of one client at once, over all listeners and workers: of one address, of IPv6 of one /64 network,
    /// after the PROXY protocol. One more is closed as soon as it is known whose it is. 0 is any number, and the default:
    /// behind a load balancer that speaks no PROXY protocol, a few addresses are everybody.
    pub max_connections_per_client: u32,
    /// TLS handshakes at once, over all listeners and workers, from a complete `ClientHello` to the end of the handshake.
    /// For one more, the one that has waited for its client for longest ends. Default: 4,096.
    pub max_handshakes: usize,
    /// Clients of UDP remembered at once, over all ports and workers. For one more, one of the longest silent is
    /// forgotten. Default: 8,192.
    pub max_udp_sessions: usize,
    /// Time for the PROXY protocol header, from accept. Default: 5 seconds.
    pub proxy_header_timeout: Duration,
    /// Time for the whole `ClientHello`, however many segments and records it comes in. Default: 10 seconds.
    pub client_hello_timeout: Duration,
    /// Time for the rest of the TLS handshake. Default: 10 seconds.
    pub handshake_timeout: Duration,
    /// Time for the whole header section of a request, from its first byte; for the first request of a connection
    /// from the moment that the connection stands. It also bounds the HTTP/2 preface. Default: 30 seconds.
    pub header_timeout: Duration,
    /// How long a connection may be kept without a request. Default: 75 seconds.
    pub idle_timeout: Duration,
    /// Time between two reads of a request body. Default: 60 seconds.
    pub body_timeout: Duration,
    /// Time for one write to a client to make progress. Default: 60 seconds.
    pub write_timeout: Duration,
    /// Bytes per second that a client has to send of a body whose length is known, and to take of a response, while it
    /// alone is waited for; what it needs beyond the first `body_timeout` or `write_timeout` has to keep this rate. 0 is
    /// any. Pingora looks at it only where a body is collected before an endpoint is chosen. Default: 256.
    pub min_client_rate: u32,
    /// Size of the header section of a request; more is answered with 431. Default: 64 KiB.
    pub max_header_bytes: usize,
    /// Fields in the header section of a request; more is answered with 431. Default: 128.
    pub max_headers: usize,
    /// Requests at once on one HTTP/2 connection. Default: 128.
    pub h2_max_streams: u32,
    /// Body bytes that an HTTP/2 client may send on one stream before they are read. Default: 256 KiB.
    pub h2_stream_window: u32,
    /// Body bytes that an HTTP/2 client may send on one connection before they are read. Default: 1 MiB.
    pub h2_connection_window: u32,
    /// Streams that a client may take back in ten seconds on one connection of HTTP/2; one more ends the connection.
    /// Default: 500.
    pub h2_max_resets: u32,
    /// Frames of HTTP/2 that carry nothing (SETTINGS, PING, PRIORITY, `WINDOW_UPDATE`, CONTINUATION, `RST_STREAM`, empty DATA
    /// and unknown ones) that a client may send in ten seconds on one connection, beyond eight for each piece of a
    /// response that it gets; more end the connection. Default: 2,000.
    pub h2_max_control_frames: u32,
    /// Requests on one HTTP/1 connection, after which it is closed: clients that stay for ever would never be spread
    /// over replicas that came later. On one of HTTP/2, as many for each stream that there may be at the same time.
    /// Default: 10,000.
    pub max_requests_per_connection: u32,
    /// Idle connections kept to the endpoints of all backends, per worker. Default: 4,096.
    pub upstream_idle_connections: usize,
    /// How long a drain leaves idle connections open, so that requests already on their way are still answered.
    /// Default: 500 milliseconds.
    pub drain_grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 65_536,
            max_connections_per_client: 0,
            max_handshakes: 4096,
            max_udp_sessions: 8192,
            proxy_header_timeout: Duration::from_secs(5),
            client_hello_timeout: Duration::from_secs(10),
            handshake_timeout: Duration::from_secs(10),
            header_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(75),
            body_timeout: Duration::from_mins(1),
            write_timeout: Duration::from_mins(1),
            min_client_rate: 256,
            max_header_bytes: 64 * 1024,
            max_headers: 128,
            h2_max_streams: 128,
            h2_stream_window: 256 * 1024,
            h2_connection_window: 1024 * 1024,
            h2_max_resets: 500,
            h2_max_control_frames: 2000,
            max_requests_per_connection: 10_000,
            upstream_idle_connections: 4096,
            drain_grace: Duration::from_millis(500),
        }
    }
}

impl Limits {
    /// The limits for connections that begin under a table that says this about clients.
    pub(crate) fn within(&self, bounds: &ClientBounds) -> Self {
        let ClientBounds {
            header_timeout,
            body_timeout,
            idle_timeout,
            requests,
            streams,
            header_bytes,
        } = *bounds;
        let seconds = |said: Option<u32>, otherwise| {
            said.map_or(otherwise, |said| Duration::from_secs(u64::from(said)))
        };
        Self {
            header_timeout: seconds(header_timeout, self.header_timeout),
            body_timeout: seconds(body_timeout, self.body_timeout),
            idle_timeout: seconds(idle_timeout, self.idle_timeout),
            max_requests_per_connection: requests.unwrap_or(self.max_requests_per_connection),
            h2_max_streams: streams.unwrap_or(self.h2_max_streams),
            max_header_bytes: header_bytes
                .and_then(|bytes| usize::try_from(bytes).ok())
                .unwrap_or(self.max_header_bytes),
            ..self.clone()
        }
    }
}
