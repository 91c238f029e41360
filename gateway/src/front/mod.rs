//! From an accepted socket to an HTTP session: limits, PROXY protocol, TLS, deadlines.
//!
//! Everything that a client can do before its first request is decided and bounded here, for both engines. What
//! fails is counted by reason and logged at `debug`: strangers scan ports all day.

pub(crate) mod batch;
mod client_hello;
pub(crate) mod conn;
pub(crate) mod crowd;
pub(crate) mod frames;
pub(crate) mod guard;
pub(crate) mod idle;
pub(crate) mod proxy_protocol;
pub(crate) mod server_name;

use std::io;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use metrics::{counter, gauge};
use model::{ClientBounds, ListenerName};
use table::Table;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::{debug, error};

use crate::Shared;
use crate::connection::{Connection, Deadline, Logged, TlsFacts};
use crate::drain::{Slot, Tracker};
use crate::engine::Engine;
use crate::front::conn::{Socket, Transport};
use crate::front::idle::Gone;
use crate::settings::Limits;
use crate::stream::{Downstream, Entrance, PassedOn, StreamWorker};
use crate::telemetry;

/// The front of one worker.
pub(crate) struct Front {
    shared: Arc<Shared>,
    tracker: Arc<Tracker>,
    streams: Arc<StreamWorker>,
    engine: Engine,
    /// True: responses end their connection. In the form that Pingora takes.
    shutdown: watch::Receiver<bool>,
    /// How long connections may be idle.
    longest_idle: watch::Receiver<Duration>,
    /// The limits for connections that begin now, and what they were made from. Nobody else takes this lock.
    limits: Mutex<(Arc<ClientBounds>, Arc<Limits>)>,
}

/// Ends the connections of one worker step by step.
pub(crate) struct Lifecycle {
    shutdown: watch::Sender<bool>,
    longest_idle: watch::Sender<Duration>,
}

impl Lifecycle {
    /// From now on responses end their connection.
    pub(crate) fn shut_down(&self) {
        self.shutdown.send_replace(true);
    }

    /// Closes connections that have not sent anything.
    pub(crate) fn close_idle(&self) {
        self.longest_idle.send_replace(Duration::ZERO);
    }

    /// Closes connections that have not sent anything for as long as this.
    pub(crate) fn bound_idle(&self, longest: Duration) {
        self.longest_idle.send_replace(longest);
    }
}

/// A connection as it was accepted.
struct Arrival {
    peer: SocketAddr,
    listener: ListenerName,
    tls: bool,
    slot: Slot,
}

/// A connection about which everything before HTTP is settled.
enum Prepared {
    /// It carries requests.
    Http(Transport, Arc<Connection>),
    /// It is passed on unread.
    PassedOn(Box<PassedOn>),
}

/// Why a connection ended before it could carry a request.
#[derive(Debug)]
pub(crate) struct Refusal {
    /// The counter that it goes into.
    metric: &'static str,
    /// Its label there: one of a few constants.
    pub(crate) reason: &'static str,
    /// For the log.
    pub(crate) error: io::Error,
}

impl Refusal {
    fn connection(reason: &'static str, error: io::Error) -> Self {
        Self {
            metric: telemetry::CONNECTIONS_REFUSED,
            reason,
            error,
        }
    }

    fn handshake(reason: &'static str, error: io::Error) -> Self {
        Self {
            metric: telemetry::TLS_FAILURES,
            reason,
            error,
        }
    }
}

impl Front {
    /// A front, and the handle that ends it.
    pub(crate) fn new(
        shared: Arc<Shared>,
        tracker: Arc<Tracker>,
        streams: Arc<StreamWorker>,
    ) -> (Arc<Self>, Lifecycle) {
        let (shutdown_sender, shutdown) = watch::channel(false);
        let (longest_idle_sender, longest_idle) = watch::channel(idle::ANY);
        let limits = (Arc::default(), Arc::new(shared.settings.limits.clone()));
        let front = Self {
            limits: Mutex::new(limits),
            engine: Engine::new(Arc::clone(&shared)),
            shared,
            tracker,
            streams,
            shutdown,
            longest_idle,
        };
        let lifecycle = Lifecycle {
            shutdown: shutdown_sender,
            longest_idle: longest_idle_sender,
        };
        (Arc::new(front), lifecycle)
    }

    /// Accepts a connection, later while memory is short.
    pub(crate) async fn accept(
        &self,
        listener: &TcpListener,
    ) -> io::Result<(TcpStream, SocketAddr)> {
        self.tracker.accept(listener).await
    }

    /// Does another process accept from the same sockets?
    pub(crate) fn is_handed_over(&self) -> bool {
        self.tracker.is_handed_over()
    }

    /// A place for one more connection, unless there are as many as may be.
    pub(crate) fn admit(&self) -> Option<Slot> {
        self.tracker.open()
    }

    /// The limits for a connection that begins under this table.
    fn limits(&self, table: &Table) -> Arc<Limits> {
        let bounds = table.client_bounds();
        let mut known = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        if !Arc::ptr_eq(&known.0, bounds) {
            let limits = self.shared.settings.limits.within(bounds);
            *known = (Arc::clone(bounds), Arc::new(limits));
        }
        Arc::clone(&known.1)
    }

    /// Wakes connections that wait for their next request, so that they see the end.
    pub(crate) async fn close_idle(&self) {
        self.engine.cleanup().await;
    }

    /// Serves one connection from its first byte to its last. A panic ends this connection only.
    pub(crate) async fn serve(
        self: Arc<Self>,
        stream: TcpStream,
        peer: SocketAddr,
        listener: ListenerName,
        tls: bool,
        slot: Slot,
    ) {
        let open = gauge!(telemetry::CONNECTIONS_OPEN, "listener" => listener.to_string());
        counter!(telemetry::CONNECTIONS, "listener" => listener.to_string()).increment(1);
        open.increment(1);
        let arrival = Arrival {
            peer,
            listener,
            tls,
            slot,
        };
        let served = AssertUnwindSafe(self.run(stream, arrival)).catch_unwind();
        if served.await.is_err() {
            error!(%peer, "A connection ended in a panic");
        }
        open.decrement(1);
    }

    async fn run(&self, stream: TcpStream, arrival: Arrival) {
        let peer = arrival.peer;
        let listener = arrival.listener.clone();
        match self.prepare(stream, arrival).await {
            Ok(Prepared::PassedOn(passed)) => {
                Box::pin(Arc::clone(&self.streams).serve(*passed)).await;
            }
            Ok(Prepared::Http(transport, connection)) => {
                self.engine
                    .serve(transport, connection, &self.shutdown)
                    .await;
            }
            Err(Refusal {
                metric,
                reason,
                error,
            }) => {
                counter!(metric, "listener" => listener.to_string(), "reason" => reason)
                    .increment(1);
                debug!(%peer, %listener, reason, %error, "Refused a connection");
            }
        }
    }

    /// Everything before HTTP.
    async fn prepare(&self, stream: TcpStream, mut arrival: Arrival) -> Result<Prepared, Refusal> {
        let broken = |error| Refusal::connection("socket-error", error);
        let peer = canonical(arrival.peer);
        let mut local = canonical(stream.local_addr().map_err(broken)?);
        let mut client = peer;
        let mut proxied = false;
        let mut socket = Socket::new(stream);
        let accepted = Instant::now();

        let table = self.shared.tables.pin();
        let expects_proxy = proxy_protocol::expected(table.trust(), peer.ip());
        let looks_at_names = arrival.tls && table.streams().has_hosts();
        let limits = self.limits(&table);
        drop(table);
        // Whoever speaks for others is not counted as one of them.
        if !expects_proxy && !arrival.slot.claim(peer.ip()) {
            return Err(too_many());
        }
        let (limit, reason) = first_deadline(expects_proxy, arrival.tls, &limits);
        self.first_bytes(&mut socket, limit, reason).await?;

        // From when the deadline of the first request counts.
        let mut standing = accepted;
        if expects_proxy {
            let header = timeout_at(accepted + limit, proxy_protocol::read(&mut socket))
                .await
                .map_err(|_| Refusal::connection(reason, timed_out()))?
                .map_err(|error| Refusal::connection(error.reason(), error.into()))?;
            if let Some(addresses) = header {
                client = canonical(addresses.client);
                local = canonical(addresses.local);
                proxied = true;
                if !arrival.slot.claim(client.ip()) {
                    return Err(too_many());
                }
            }
            standing = Instant::now();
        }

        if looks_at_names {
            let at = standing + limits.client_hello_timeout;
            let name = timeout_at(at, server_name::peek(&mut socket))
                .await
                .map_err(|_| Refusal::handshake("client-hello-timeout", timed_out()))?
                .map_err(|error| Refusal::handshake("client-aborted", error))?;
            let table = self.shared.tables.pin();
            let stream = name
                .as_ref()
                .and_then(|name| table.passed_on(name.as_str()));
            if let Some(stream) = stream.cloned() {
                let (stream_socket, first) = socket.into_parts();
                return Ok(Prepared::PassedOn(Box::new(PassedOn {
                    entrance: Entrance::of_host(&stream),
                    stream,
                    table,
                    client: Downstream {
                        socket: stream_socket,
                        first,
                        peer,
                        client,
                        local,
                        proxied,
                        server_name: name,
                        slot: arrival.slot,
                    },
                })));
            }
        }

        let (transport, tls, http2) = if arrival.tls {
            let secured = self.secure(socket, standing, &limits).await?;
            standing = Instant::now();
            secured
        } else {
            cleartext(socket, standing, &limits).await?
        };
        let connection = Arc::new(Connection {
            peer,
            client,
            local,
            proxied,
            listener: arrival.listener,
            tls,
            http2,
            deadline: Arc::new(Deadline::new(
                standing.into_std(),
                limits.header_timeout,
                limits.idle_timeout,
            )),
            linger: AtomicBool::new(false),
            limits,
            longest_idle: self.longest_idle.clone(),
            given: Arc::new(AtomicU32::new(0)),
            flooded: AtomicBool::new(false),
            client_text: OnceLock::new(),
            slot: arrival.slot,
            logged: Logged::default(),
        });
        Ok(Prepared::Http(transport, connection))
    }

    /// What follows is TLS: takes the client through the handshake.
    async fn secure(
        &self,
        mut socket: Socket,
        standing: Instant,
        limits: &Limits,
    ) -> Result<(Transport, Option<TlsFacts>, bool), Refusal> {
        socket.read_ahead();
        let (stream, facts) = client_hello::accept(socket, standing, &self.shared, limits).await?;
        let http2 = facts.alpn_h2;
        Ok((Transport::Tls(Box::new(stream)), Some(facts), http2))
    }

    /// Waits until the client has sent something. A drain closes connections that never did.
    async fn first_bytes(
        &self,
        socket: &mut Socket,
        limit: Duration,
        reason: &'static str,
    ) -> Result<(), Refusal> {
        let begun = Instant::now();
        let gone = idle::over(self.longest_idle.clone(), || Some(begun.elapsed()));
        tokio::select! {
            biased;
            read = timeout(limit, socket.first_bytes()) => match read {
                Ok(read) => read.map_err(|error| Refusal::connection("closed-early", error)),
                Err(_) => Err(Refusal::connection(reason, timed_out())),
            },
            gone = gone => {
                let reason = match gone {
                    Gone::Drain => "drain",
                    Gone::Shed => "overload",
                };
                Err(Refusal::connection(reason, io::ErrorKind::Interrupted.into()))
            }
        }
    }
}

/// How long a client may be silent at first, and what it is called if it is.
fn first_deadline(expects_proxy: bool, tls: bool, limits: &Limits) -> (Duration, &'static str) {
    if expects_proxy {
        (limits.proxy_header_timeout, "proxy-protocol-timeout")
    } else if tls {
        (limits.client_hello_timeout, "client-hello-timeout")
    } else {
        (limits.header_timeout, "header-timeout")
    }
}

/// What follows is HTTP: finds out which one.
async fn cleartext(
    mut socket: Socket,
    standing: Instant,
    limits: &Limits,
) -> Result<(Transport, Option<TlsFacts>, bool), Refusal> {
    let limit = standing + limits.header_timeout;
    let http2 = timeout_at(limit, socket.starts_with_h2_preface())
        .await
        .map_err(|_| Refusal::connection("header-timeout", timed_out()))?
        .map_err(|error| Refusal::connection("closed-early", error))?;
    Ok((Transport::Plain(socket), None, http2))
}

/// A client has as many connections as it may have.
pub(crate) fn too_many() -> Refusal {
    let error = io::Error::other("the client has too many connections");
    Refusal::connection("client-limit", error)
}

pub(crate) fn timed_out() -> io::Error {
    io::ErrorKind::TimedOut.into()
}

/// An IPv4 client of a dual-stack socket is an IPv4 client.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
