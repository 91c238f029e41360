//! One stream, for metrics and log.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use model::HostName;
use smallvec::SmallVec;
use table::CompiledStream;

use super::StreamWorker;
use super::routes::{Entrance, Route};
use crate::error::Reason;

/// How a stream ended. The texts are labels of log and metrics.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Ending {
    /// Both sides had no more to say.
    Done,
    /// Nobody said anything for too long.
    Idle,
    /// The client reset the connection.
    ClientReset,
    /// The endpoint reset the connection.
    UpstreamReset,
    /// Its route is gone, and so is the time that it had to end.
    RouteGone,
    /// A newer client took its place.
    Displaced,
    /// The process has ended.
    Aborted,
    /// The backend has no endpoint that could be tried.
    NoEndpoints,
    /// The backend cannot be used; its owner has been told why.
    InvalidBackend,
    /// The name of the backend could not be resolved.
    DnsFailed,
    /// The name of the backend resolved to addresses that are refused.
    DnsRefused,
    /// No connection to any endpoint.
    ConnectFailed,
    /// No connection to any endpoint in time.
    ConnectTimeout,
}

impl Ending {
    /// The label.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Idle => "idle-timeout",
            Self::ClientReset => "client-reset",
            Self::UpstreamReset => "upstream-reset",
            Self::RouteGone => "route-gone",
            Self::Displaced => "displaced",
            Self::Aborted => "aborted",
            Self::NoEndpoints => "no-endpoints",
            Self::InvalidBackend => "invalid-backend",
            Self::DnsFailed => "dns-failed",
            Self::DnsRefused => "dns-refused",
            Self::ConnectFailed => "connect-failed",
            Self::ConnectTimeout => "connect-timeout",
        }
    }

    /// The status that nginx gives to such a stream.
    pub(crate) fn status(self) -> u16 {
        match self {
            Self::Done
            | Self::Idle
            | Self::ClientReset
            | Self::UpstreamReset
            | Self::RouteGone
            | Self::Displaced
            | Self::Aborted => 200,
            Self::NoEndpoints
            | Self::InvalidBackend
            | Self::DnsFailed
            | Self::DnsRefused
            | Self::ConnectFailed
            | Self::ConnectTimeout => 502,
        }
    }

    /// The same in the words of requests.
    pub(super) fn reason(self) -> Reason {
        if self == Self::ConnectTimeout {
            Reason::ConnectTimeout
        } else {
            Reason::ConnectFailed
        }
    }
}

/// What the log says about a stream.
#[derive(Debug)]
pub(crate) struct StreamFacts {
    pub(crate) entrance: Entrance,
    pub(crate) stream: Arc<CompiledStream>,
    /// Who is at the other end of the socket.
    pub(crate) peer: SocketAddr,
    /// The client: what a PROXY protocol header said, else the peer.
    pub(crate) client: SocketAddr,
    /// Did a PROXY protocol header name the client?
    pub(crate) proxied: bool,
    /// What a TLS client asked for.
    pub(crate) server_name: Option<HostName>,
    pub(crate) started: Instant,
    pub(crate) started_at: SystemTime,
    /// Endpoints that were tried, in order.
    pub(crate) tries: SmallVec<[SocketAddr; 1]>,
    /// How long the last of them took to answer.
    pub(crate) connected: Option<Duration>,
}

/// A stream under way. It is counted, and a line is written, when it is dropped.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) facts: StreamFacts,
    pub(super) route: Arc<Route>,
    pub(super) ending: Ending,
    worker: Arc<StreamWorker>,
    received: AtomicU64,
    sent: AtomicU64,
    /// Milliseconds from the beginning to the last byte.
    touched: AtomicU64,
}

impl Record {
    pub(super) fn new(
        worker: &Arc<StreamWorker>,
        entrance: Entrance,
        stream: &Arc<CompiledStream>,
        peer: SocketAddr,
    ) -> Self {
        let shared = &worker.shared;
        let route = shared.streams.of(&entrance, stream, &shared.series);
        route.begin();
        Self {
            facts: StreamFacts {
                entrance,
                stream: Arc::clone(stream),
                peer,
                client: peer,
                proxied: false,
                server_name: None,
                started: Instant::now(),
                started_at: SystemTime::now(),
                tries: SmallVec::new(),
                connected: None,
            },
            route,
            ending: Ending::Aborted,
            worker: Arc::clone(worker),
            received: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            touched: AtomicU64::new(0),
        }
    }

    /// Bytes of the client went to the endpoint.
    pub(super) fn received(&self, bytes: usize) {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.received.fetch_add(bytes, Ordering::Relaxed);
        self.route.received(bytes);
        self.touch();
    }

    /// Bytes of the endpoint went to the client.
    pub(super) fn sent(&self, bytes: usize) {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.sent.fetch_add(bytes, Ordering::Relaxed);
        self.route.sent(bytes);
        self.touch();
    }

    /// The stream is alive.
    pub(super) fn touch(&self) {
        let millis = u64::try_from(self.facts.started.elapsed().as_millis());
        self.touched
            .store(millis.unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// When it was last alive.
    pub(super) fn touched(&self) -> Instant {
        self.facts.started + Duration::from_millis(self.touched.load(Ordering::Relaxed))
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.route.ended(self.ending);
        if let Some(log) = &self.worker.log {
            let (received, sent) = (*self.received.get_mut(), *self.sent.get_mut());
            log.write_stream(&self.facts, self.ending, received, sent);
        }
    }
}
