//! Sockets: bound before anything runs, one of each per worker, closed by a drain.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use metrics::{counter, gauge};
use model::ListenerName;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use table::TableReader;
use thiserror::Error;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use crate::Shared;
use crate::drain::{Acceptor, Running, Stage, Tracker};
use crate::front::Front;
use crate::heritage::{HandedSocket, Heritage};
use crate::relief;
use crate::settings::Settings;
use crate::stream::{Host, Ports, StreamWorker};
use crate::telemetry;
use crate::upstream::Checks;

/// Connections that the kernel may hold for us while we are busy; it cuts this down to `net.core.somaxconn`.
const BACKLOG: i32 = 16_384;

/// As many as can be queued when a drain begins.
pub(crate) const QUEUED: usize = BACKLOG.unsigned_abs() as usize;

/// How long an accept loop rests when the process or the machine is out of something.
pub(crate) const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// Between two counts of a worker's tasks.
const COUNTED: Duration = Duration::from_secs(1);

/// A peer that has vanished without a word is noticed after about two minutes.
const KEEPALIVE: TcpKeepalive = TcpKeepalive::new()
    .with_time(Duration::from_mins(1))
    .with_interval(Duration::from_secs(15))
    .with_retries(4);

/// Why an address could not be bound.
#[derive(Debug, Error)]
#[error("cannot listen on {address}: {}", reason(.source))]
pub struct BindError {
    /// The address asked for.
    pub address: SocketAddr,
    /// What the system said.
    #[source]
    pub source: io::Error,
}

/// What the system said, in words for whoever asked for the address.
pub(crate) fn reason(error: &io::Error) -> String {
    let kind = error.kind();
    if kind == io::ErrorKind::AddrInUse {
        "another socket listens there already".into()
    } else if kind == io::ErrorKind::PermissionDenied {
        "not permitted; ports below 1024 need the capability NET_BIND_SERVICE".into()
    } else if kind == io::ErrorKind::AddrNotAvailable {
        "no interface of this machine has that address".into()
    } else {
        error.to_string()
    }
}

/// A gateway that has its sockets and does not serve yet: connections are refused, so that whoever asks tries another
/// gateway at once.
#[derive(Debug)]
pub struct Gateway {
    shared: Arc<Shared>,
    http: Vec<SocketAddr>,
    https: Vec<SocketAddr>,
    /// The sockets of each worker.
    workers: Vec<Vec<Bound>>,
    /// Sockets of another process that nobody has asked for yet.
    heritage: Heritage,
}

/// A bound socket and what it is for.
#[derive(Debug)]
struct Bound {
    socket: Socket,
    listener: ListenerName,
    tls: bool,
}

impl Gateway {
    /// Binds all sockets. An error leaves nothing bound.
    pub fn bind(settings: Settings, tables: TableReader) -> Result<Self, BindError> {
        Self::succeed(settings, tables, Vec::new())
    }

    /// The same with the sockets of another process, where they are at addresses that are asked for. That process may go
    /// on accepting from them as long as it likes.
    pub fn succeed(
        settings: Settings,
        tables: TableReader,
        handed: Vec<HandedSocket>,
    ) -> Result<Self, BindError> {
        let heritage = Heritage::new(handed);
        let mut workers: Vec<Vec<Bound>> = Vec::new();
        workers.resize_with(settings.workers.max(1), Vec::new);
        let wanted: Vec<SocketAddr> = settings
            .http
            .iter()
            .chain(&settings.https)
            .copied()
            .collect();
        let mut bind_all = |addresses: &[SocketAddr], listener: &ListenerName, tls: bool| {
            addresses
                .iter()
                .map(|&address| {
                    let inherited = heritage.take(Transport::Tcp, address);
                    let sockets =
                        bind_each(address, &wanted, workers.len(), inherited, Transport::Tcp)
                            .map_err(|source| BindError { address, source })?;
                    let bound = sockets.local;
                    // There may be more sockets than workers: a socket that nobody listens to loses its connections.
                    let count = workers.len();
                    for (number, socket) in sockets.each.into_iter().enumerate() {
                        let Some(worker) = workers.get_mut(number % count) else {
                            continue; // there is one: the number is less than their count
                        };
                        worker.push(Bound {
                            socket,
                            listener: listener.clone(),
                            tls,
                        });
                    }
                    Ok(bound)
                })
                .collect::<Result<Vec<_>, _>>()
        };
        let http = bind_all(&settings.http, &ListenerName::http(), false)?;
        let https = bind_all(&settings.https, &ListenerName::https(), true)?;
        Ok(Self {
            shared: Arc::new(Shared::new(settings, tables)),
            http,
            https,
            workers,
            heritage,
        })
    }

    /// Where plain HTTP is accepted; port 0 has become a real one.
    pub fn http_addresses(&self) -> &[SocketAddr] {
        &self.http
    }

    /// Where TLS is accepted; port 0 has become a real one.
    pub fn https_addresses(&self) -> &[SocketAddr] {
        &self.https
    }

    /// Starts one thread per worker and serves.
    pub fn start(self) -> Result<Running, io::Error> {
        for bound in self.workers.iter().flatten() {
            listen(&bound.socket)?;
            acknowledge_late(&bound.socket)?;
        }
        let settings = &self.shared.settings;
        let tracker = Tracker::new(&settings.limits, settings.keep_sockets);
        for bound in self.workers.iter().flatten() {
            tracker.estate.keep(Transport::Tcp, &bound.socket)?;
        }
        let mut running = Running {
            tracker: Arc::clone(&tracker),
            shared: Arc::clone(&self.shared),
            ports: Ports::new(self.heritage),
            checks: Checks::default(),
            workers: Vec::new(),
        };
        for (number, sockets) in self.workers.into_iter().enumerate() {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            let shared = Arc::clone(&self.shared);
            let tracker = Arc::clone(&tracker);
            let streams = Arc::new(StreamWorker::new(Arc::clone(&shared), Arc::clone(&tracker)));
            running.ports.add(Host {
                runtime: runtime.handle().clone(),
                worker: Arc::clone(&streams),
            });
            // Counted here and not in the thread: otherwise a drain that comes at once could miss it.
            let sockets: Vec<(Bound, Acceptor)> = sockets
                .into_iter()
                .map(|socket| (socket, tracker.acceptor()))
                .collect();
            // An error from here on drops `running`, which ends the workers that have been started.
            running.workers.push(
                std::thread::Builder::new()
                    .name(format!("worker-{number}"))
                    .spawn(move || {
                        runtime.block_on(work(number, shared, tracker, streams, sockets));
                    })?,
            );
        }
        running.update_checks();
        Ok(running)
    }
}

/// The life of a worker.
async fn work(
    number: usize,
    shared: Arc<Shared>,
    tracker: Arc<Tracker>,
    streams: Arc<StreamWorker>,
    sockets: Vec<(Bound, Acceptor)>,
) {
    let grace = shared.settings.limits.drain_grace;
    let mut stage = tracker.stage();
    let idle = shared.settings.limits.idle_timeout;
    let (front, lifecycle) = Front::new(shared, Arc::clone(&tracker), streams);
    for (bound, acceptor) in sockets {
        let socket: std::net::TcpListener = bound.socket.into();
        match TcpListener::from_std(socket) {
            Ok(listener) => {
                let listen = Listen {
                    front: Arc::clone(&front),
                    listener: bound.listener,
                    tls: bound.tls,
                };
                tokio::spawn(listen.run(listener, stage.clone(), acceptor));
            }
            Err(error) => warn!(%error, "Cannot register a listening socket"),
        }
    }
    // The waits fail when the tracker is gone, and the front holds it.
    tokio::select! {
        _ = stage.wait_for(|stage| *stage >= Stage::Draining) => {}
        () = count_tasks(number) => {}
        () = relief::relieve(&tracker, &lifecycle, idle) => {}
    }
    lifecycle.shut_down();
    let aborted = timeout(grace, stage.wait_for(|stage| *stage >= Stage::Aborted));
    if aborted.await.is_err() {
        lifecycle.close_idle();
        front.close_idle().await;
        let _ = stage.wait_for(|stage| *stage >= Stage::Aborted).await;
    }
}

/// Keeps the number of a worker's tasks, for as long as it is asked to.
async fn count_tasks(number: usize) {
    let runtime = tokio::runtime::Handle::current().metrics();
    let tasks = gauge!(telemetry::TASKS, "worker" => number.to_string());
    loop {
        let alive = u32::try_from(runtime.num_alive_tasks());
        tasks.set(f64::from(alive.unwrap_or(u32::MAX)));
        sleep(COUNTED).await;
    }
}

/// One socket's accept loop.
struct Listen {
    front: Arc<Front>,
    listener: ListenerName,
    tls: bool,
}

impl Listen {
    async fn run(
        self,
        listener: TcpListener,
        mut stage: watch::Receiver<Stage>,
        _counted: Acceptor,
    ) {
        let mut exhausted = false;
        loop {
            let accepted = tokio::select! {
                biased;
                _ = stage.wait_for(|stage| *stage >= Stage::Draining) => break,
                accepted = self.front.accept(&listener) => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    exhausted = false;
                    self.begin(stream, peer);
                }
                Err(error) if is_about_one_connection(&error) => {
                    debug!(%error, "Lost a connection before it was accepted");
                }
                Err(error) => {
                    counter!(telemetry::ACCEPT_ERRORS, "listener" => self.listener.to_string())
                        .increment(1);
                    // Once per episode: this comes ten times a second while it lasts.
                    if !exhausted {
                        warn!(%error, listener = %self.listener, "Cannot accept connections");
                    }
                    exhausted = true;
                    sleep(EXHAUSTED_PAUSE).await;
                }
            }
        }
        if !self.front.is_handed_over() {
            self.accept_rest(listener);
        }
    }

    /// Takes what the kernel has queued already: closing the socket would reset it.
    fn accept_rest(&self, listener: TcpListener) {
        let Ok(listener) = listener.into_std() else {
            return;
        };
        for (stream, peer) in queued(&listener, QUEUED) {
            let stream = stream
                .set_nonblocking(true)
                .and_then(|()| TcpStream::from_std(stream));
            if let Ok(stream) = stream {
                self.begin(stream, peer);
            }
        }
    }

    fn begin(&self, stream: TcpStream, peer: SocketAddr) {
        let Some(slot) = self.front.admit() else {
            counter!(telemetry::CONNECTIONS_REFUSED, "listener" => self.listener.to_string(), "reason" => "limit")
                .increment(1);
            return;
        };
        let front = Arc::clone(&self.front);
        tokio::spawn(front.serve(stream, peer, self.listener.clone(), self.tls, slot));
    }
}

/// Connections that wait, at most so many: clients that go on connecting must not keep a worker from what it serves.
pub(crate) fn queued(
    listener: &std::net::TcpListener,
    most: usize,
) -> impl Iterator<Item = (std::net::TcpStream, SocketAddr)> {
    std::iter::from_fn(|| {
        loop {
            match listener.accept() {
                Ok(accepted) => return Some(accepted),
                Err(error) if is_about_one_connection(&error) => {}
                Err(_) => return None,
            }
        }
    })
    .take(most)
}

/// Errors of `accept` that concern a connection which went away while it was queued; see accept(2).
pub(crate) fn is_about_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::NetworkDown
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::Interrupted
    )
}

/// The sockets of one address.
pub(crate) struct Sockets {
    /// Where they are; port 0 has become a real one.
    local: SocketAddr,
    /// At least one for each worker.
    pub(crate) each: Vec<Socket>,
}

/// What a socket is for.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Transport {
    /// Connections.
    Tcp,
    /// Datagrams.
    Udp,
}

impl Transport {
    /// By what is sent.
    pub(crate) fn of(datagrams: bool) -> Self {
        if datagrams { Self::Udp } else { Self::Tcp }
    }
}

/// Binds `address` once per worker, or takes those sockets that are there already and binds those that are missing.
pub(crate) fn bind_each(
    address: SocketAddr,
    wanted: &[SocketAddr],
    workers: usize,
    inherited: Vec<Socket>,
    transport: Transport,
) -> io::Result<Sockets> {
    let only_v6 = wants_both_families(address, wanted);
    if !inherited.is_empty() {
        let mut each = inherited;
        while each.len() < workers {
            each.push(bind_one(address, only_v6, true, transport)?);
        }
        return Ok(Sockets {
            local: address,
            each,
        });
    }
    if address.port() != 0 {
        // SO_REUSEPORT would let a second process of the same user in without a word and take half of the
        // connections. A socket without it cannot be bound next to one that listens, so this one finds out.
        bind_one(address, only_v6, false, transport)?;
    }
    let first = bind_one(address, only_v6, true, transport)?;
    let local = first
        .local_addr()?
        .as_socket()
        .ok_or_else(|| io::Error::other("the socket has no internet address"))?;
    let mut each = vec![first];
    while each.len() < workers {
        each.push(bind_one(local, only_v6, true, transport)?);
    }
    Ok(Sockets { local, each })
}

/// `[::]` takes IPv4 too, unless that is asked for by an address of its own on the same port.
fn wants_both_families(address: SocketAddr, wanted: &[SocketAddr]) -> bool {
    address.ip() == Ipv6Addr::UNSPECIFIED
        && wanted
            .iter()
            .any(|other| other.ip() == Ipv4Addr::UNSPECIFIED && other.port() == address.port())
}

fn bind_one(
    address: SocketAddr,
    only_v6: bool,
    shared: bool,
    transport: Transport,
) -> io::Result<Socket> {
    let (kind, protocol) = match transport {
        Transport::Tcp => (Type::STREAM, Protocol::TCP),
        Transport::Udp => (Type::DGRAM, Protocol::UDP),
    };
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    socket.set_nonblocking(true)?;
    if transport == Transport::Tcp {
        // A restart must not wait for connections of the last run to leave TIME_WAIT. For UDP this would let others in.
        socket.set_reuse_address(true)?;
    }
    if address.is_ipv6() {
        socket.set_only_v6(only_v6)?;
    }
    socket.set_reuse_port(shared)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Lets a socket take connections. They have from it what [`tune`] sets, which spares five system calls for each.
pub(crate) fn listen(socket: &Socket) -> io::Result<()> {
    tune(socket)?;
    socket.listen(BACKLOG)
}

/// Lets whatever a client sends first be acknowledged with the answer to it, and not by a segment of its own. Who waits for
/// more than has come says so ([`acknowledge`]): the client may hold it back until then. It has to listen already.
pub(crate) fn acknowledge_late(listener: &Socket) -> io::Result<()> {
    listener.set_tcp_quickack(false)
}

/// Acknowledges what has come.
pub(crate) fn acknowledge<'s>(connection: impl Into<SockRef<'s>>) {
    // Without it, it is done a little later.
    let _ = connection.into().set_tcp_quickack(true);
}

/// Sets what every connection has.
pub(crate) fn tune<'s>(socket: impl Into<SockRef<'s>>) -> io::Result<()> {
    let socket = socket.into();
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&KEEPALIVE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_have_what_their_listener_has() {
        let any = "127.0.0.1:0".parse().unwrap();
        let socket = bind_one(any, false, false, Transport::Tcp).unwrap();
        listen(&socket).unwrap();
        acknowledge_late(&socket).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        let _client = std::net::TcpStream::connect(address).unwrap();
        let (accepted, _) = socket.accept().unwrap();
        assert!(accepted.tcp_nodelay().unwrap() && accepted.keepalive().unwrap());
        assert!(!accepted.tcp_quickack().unwrap());
        acknowledge(&accepted);
        assert!(accepted.tcp_quickack().unwrap());
        assert_eq!(
            accepted.tcp_keepalive_time().unwrap(),
            Duration::from_mins(1)
        );
        let interval = accepted.tcp_keepalive_interval().unwrap();
        assert_eq!(interval, Duration::from_secs(15));
        assert_eq!(accepted.tcp_keepalive_retries().unwrap(), 4);
    }

    #[test]
    fn what_is_queued_is_taken_and_no_more() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let clients: Vec<_> = (0..3)
            .map(|_| std::net::TcpStream::connect(address).unwrap())
            .collect();
        let taken = |most| queued(&listener, most).count();
        assert_eq!((taken(2), taken(2), taken(2)), (2, 1, 0));
        drop(clients);
    }
}
