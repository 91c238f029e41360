//! Connections to endpoints that speak HTTP/2 without TLS: each carries many requests at once.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use ahash::AHashMap;
use bytes::Bytes;
use futures::FutureExt;
use h2::client::{Builder, Connection, SendRequest};
use h2::{Ping, PingPong, Reason};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::error::Fault;
use crate::front::batch::{Batch, Flush};
use crate::timer::Timer;

/// How long an unused connection is kept.
const IDLE: Duration = Duration::from_mins(1);
/// How often connections are looked at that nobody uses.
const SWEEP: Duration = Duration::from_secs(5);
/// Requests at once on one connection.
const STREAMS: u32 = 100;
const MOST_STREAMS: usize = STREAMS as usize;
/// What an endpoint may send on one stream before its client has taken it.
const STREAM_WINDOW: u32 = 64 * 1024;
/// The same on one connection. Many clients share it: those that take nothing must not keep the others waiting, however
/// many there are.
const CONNECTION_WINDOW: u32 = STREAMS * STREAM_WINDOW;
/// How large a header section of a response may be.
const MOST_HEADER_BYTES: u32 = 256 * 1024;
/// How much of a request is held of one stream, apart from what its window allows.
const SEND_BUFFER: usize = 128 * 1024;
/// How long after something came on it a connection is trusted, although its endpoint fails elsewhere.
const TRUSTED: Duration = Duration::from_secs(1);
/// How often an endpoint is asked whether it is still there, and how long it may take to say so.
const PING: Duration = Duration::from_secs(20);
/// How many kept connections may turn out to be closing, for one request.
const MOST_CLOSING: usize = 8;

/// What a failed stream says about the request on it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Ending {
    /// The endpoint has not looked at it (RFC 9113, section 8.7).
    Refused,
    /// The stream or its connection has ended.
    Closed,
    /// What came is not valid.
    Invalid,
}

impl Ending {
    /// What an error says.
    pub(super) fn of(error: &h2::Error) -> Self {
        let refused = error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM);
        // Streams that the endpoint has looked at go on after a GOAWAY.
        if error.is_remote() && (refused || error.is_go_away()) {
            Self::Refused
        } else if error.is_library() {
            Self::Invalid
        } else {
            Self::Closed
        }
    }
}

/// The connections of one worker.
#[derive(Debug)]
pub(super) struct Links(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    groups: AHashMap<SocketAddr, Group>,
    sweeping: bool,
}

/// Those to one endpoint.
#[derive(Debug, Default)]
struct Group {
    links: Vec<Arc<Link>>,
    /// Whoever wants one more connection waits here for those who make one.
    gate: Arc<tokio::sync::Mutex<()>>,
}

/// One connection.
#[derive(Debug)]
struct Link {
    sender: SendRequest<Bytes>,
    status: Arc<Status>,
}

/// What is known about a connection.
#[derive(Debug)]
struct Status {
    open: AtomicBool,
    streams: AtomicUsize,
    /// When it was last used.
    used_at: Mutex<Instant>,
}

impl Link {
    fn has_room(&self) -> bool {
        let most = self.sender.current_max_send_streams();
        self.status.open.load(Ordering::Relaxed)
            && self.status.streams.load(Ordering::Relaxed) < most.min(MOST_STREAMS)
    }

    /// Was it made, or has the endpoint answered on it, just now?
    fn is_proven(&self, now: Instant) -> bool {
        now.saturating_duration_since(*lock(&self.status.used_at)) < TRUSTED
    }

    fn is_idle(&self, now: Instant) -> bool {
        let used_at = *lock(&self.status.used_at);
        self.status.streams.load(Ordering::Relaxed) == 0
            && now.saturating_duration_since(used_at) >= IDLE
    }
}

/// A place among the requests of a connection; dropping it gives the place back.
#[derive(Debug)]
pub(super) struct Lease {
    link: Arc<Link>,
    reused: bool,
}

impl Lease {
    fn on(link: &Arc<Link>, reused: bool) -> Self {
        link.status.streams.fetch_add(1, Ordering::Relaxed);
        Self {
            link: Arc::clone(link),
            reused,
        }
    }

    /// Was the connection there before?
    pub(super) fn is_reused(&self) -> bool {
        self.reused
    }

    /// The endpoint is alive.
    pub(super) fn answered(&self) {
        *lock(&self.link.status.used_at) = Instant::now();
    }

    /// Nothing comes on the connection any more: no other request is to find that out.
    pub(super) fn distrust(&self) {
        self.link.status.open.store(false, Ordering::Relaxed);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.link.status.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Links {
    /// None yet.
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::default()))
    }

    /// A connection that takes one more request, made within `patience` if there is none. Says whether it was there
    /// before. To a `suspect` endpoint only those are used on which it has just answered.
    pub(super) async fn open(
        self: &Arc<Self>,
        address: SocketAddr,
        patience: Duration,
        suspect: bool,
    ) -> Result<(Lease, SendRequest<Bytes>, bool), Fault> {
        if let Some(lease) = self.take(address, suspect) {
            // Nearly always, and without a timer.
            let ready = lease.link.sender.clone().ready().now_or_never();
            if let Some(Ok(sender)) = ready {
                return Ok((lease, sender, true));
            }
        }
        let opened = timeout(patience, async {
            for _ in 0..MOST_CLOSING {
                let (lease, reused) = match self.take(address, suspect) {
                    Some(lease) => (lease, true),
                    None => self.connect(address, suspect).await?,
                };
                let sender = lease.link.sender.clone();
                match sender.ready().await {
                    Ok(sender) => return Ok((lease, sender, reused)),
                    Err(_) => lease.distrust(),
                }
            }
            Err(Fault::Connect)
        });
        opened.await.unwrap_or(Err(Fault::ConnectTimeout))
    }

    fn take(&self, address: SocketAddr, suspect: bool) -> Option<Lease> {
        let now = suspect.then(Instant::now);
        let mut state = lock(&self.0);
        let group = state.groups.get_mut(&address)?;
        let usable =
            |link: &&Arc<Link>| link.has_room() && now.is_none_or(|now| link.is_proven(now));
        if let Some(link) = group.links.iter().find(usable) {
            return Some(Lease::on(link, true));
        }
        // Whoever is closing is looked at only once more.
        let is_open = |link: &Arc<Link>| link.status.open.load(Ordering::Relaxed);
        group.links.retain(is_open);
        None
    }

    async fn connect(
        self: &Arc<Self>,
        address: SocketAddr,
        suspect: bool,
    ) -> Result<(Lease, bool), Fault> {
        let gate = {
            let mut state = lock(&self.0);
            if !state.sweeping {
                state.sweeping = true;
                tokio::spawn(Arc::clone(self).sweep());
            }
            Arc::clone(&state.groups.entry(address).or_default().gate)
        };
        let _turn = gate.lock().await;
        // Somebody may have made one meanwhile.
        if let Some(lease) = self.take(address, suspect) {
            return Ok((lease, true));
        }
        let stream = TcpStream::connect(address).await;
        let stream = stream.map_err(|_| Fault::Connect)?;
        stream.set_nodelay(true).map_err(|_| Fault::Connect)?;
        let io = Batch::new(stream, Flush::NextTurn);
        let handshake = builder().handshake::<_, Bytes>(io).await;
        let (sender, connection) = handshake.map_err(|_| Fault::Connect)?;
        let status = Arc::new(Status {
            open: AtomicBool::new(true),
            streams: AtomicUsize::new(0),
            used_at: Mutex::new(Instant::now()),
        });
        tokio::spawn(drive(connection, Arc::clone(&status)));
        let link = Arc::new(Link { sender, status });
        let lease = Lease::on(&link, false);
        let mut state = lock(&self.0);
        state.groups.entry(address).or_default().links.push(link);
        Ok((lease, false))
    }

    /// Lets go of connections that nobody uses, until there are none.
    async fn sweep(self: Arc<Self>) {
        loop {
            sleep(SWEEP).await;
            let now = Instant::now();
            let mut state = lock(&self.0);
            state.groups.retain(|_, group| {
                group
                    .links
                    .retain(|link| link.status.open.load(Ordering::Relaxed) && !link.is_idle(now));
                // Whoever holds the gate is about to add one.
                !group.links.is_empty() || Arc::strong_count(&group.gate) > 1
            });
            if state.groups.is_empty() {
                state.sweeping = false;
                return;
            }
        }
    }
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder
        .enable_push(false)
        .initial_max_send_streams(MOST_STREAMS)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(MOST_HEADER_BYTES)
        .max_send_buffer_size(SEND_BUFFER);
    builder
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Moves the bytes of a connection until it ends. Without requests and without anybody who could send one, it ends by
/// itself.
async fn drive(mut connection: Connection<Batch<TcpStream>, Bytes>, status: Arc<Status>) {
    let mut pulse = Pulse::new(connection.ping_pong());
    poll_fn(|cx| {
        if Pin::new(&mut connection).poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let busy = status.streams.load(Ordering::Relaxed) > 0;
        pulse.poll_lost(cx, busy)
    })
    .await;
    status.open.store(false, Ordering::Relaxed);
}

/// Asks the endpoint, while requests wait for it, whether it is there: a node that is gone closes no connections.
struct Pulse {
    pings: Option<PingPong>,
    timer: Timer,
    next: Instant,
    asked: bool,
}

impl Pulse {
    fn new(pings: Option<PingPong>) -> Self {
        Self {
            pings,
            timer: Timer::default(),
            next: Instant::now() + PING,
            asked: false,
        }
    }

    /// Ready when the endpoint has not answered.
    fn poll_lost(&mut self, cx: &mut Context<'_>, busy: bool) -> Poll<()> {
        let Some(pings) = &mut self.pings else {
            return Poll::Pending;
        };
        while self.asked && pings.poll_pong(cx).is_ready() {
            self.asked = false;
        }
        while self.timer.poll(cx, self.next).is_ready() {
            if self.asked {
                return Poll::Ready(());
            }
            self.next = Instant::now() + PING;
            if busy {
                self.asked = pings.send_ping(Ping::opaque()).is_ok();
                // Its answer wakes this task, and the connection has it to send.
                let _ = pings.poll_pong(cx);
                cx.waker().wake_by_ref();
            }
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    /// An endpoint that answers nothing.
    async fn endpoint() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut connection = h2::server::handshake(stream).await.unwrap();
                    while let Some(Ok(_)) = connection.accept().await {}
                });
            }
        });
        address
    }

    #[tokio::test]
    async fn to_a_suspect_endpoint_only_proven_connections_are_used() {
        let address = endpoint().await;
        let links = Links::new();
        let (lease, _, reused) = links.open(address, PATIENCE, false).await.unwrap();
        assert!(!reused);
        let first = Arc::clone(&lease.link);
        let is_first = |lease: &Lease| Arc::ptr_eq(&lease.link, &first);
        let open = |suspect| links.open(address, PATIENCE, suspect);
        assert!(is_first(&open(true).await.unwrap().0), "it is new");

        let long_ago = Instant::now().checked_sub(2 * TRUSTED).unwrap();
        *lock(&first.status.used_at) = long_ago;
        assert!(
            is_first(&open(false).await.unwrap().0),
            "the endpoint is well"
        );
        let (second, _, reused) = open(true).await.unwrap();
        assert!(!is_first(&second) && !reused, "it may lead nowhere");
        assert!(!is_first(&open(true).await.unwrap().0));

        lease.answered();
        assert!(is_first(&open(true).await.unwrap().0), "it leads there");
    }
}
