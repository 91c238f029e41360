//! Connections to endpoints that speak HTTP/2 without TLS: each carries many requests at once.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use ahash::AHashMap;
use http2::{Code, Connection, Ended, Settings, Stream, Writer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::client::READS;
use super::h2::Io;
use crate::error::Fault;
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
/// How long after something came on it a connection is trusted, although its endpoint fails elsewhere.
const TRUSTED: Duration = Duration::from_secs(1);
/// How often an endpoint is asked whether it is still there, and how long it may take to say so.
const PING: Duration = Duration::from_secs(20);

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
    http2: Connection,
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
        let most = self.http2.peer_streams().min(MOST_STREAMS);
        self.is_open() && self.status.streams.load(Ordering::Relaxed) < most
    }

    fn is_open(&self) -> bool {
        self.status.open.load(Ordering::Relaxed) && !self.http2.is_closing()
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

impl Drop for Link {
    /// There are no requests on it, and nobody is left who could send one.
    fn drop(&mut self) {
        self.http2.end(Code::NO_ERROR);
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

    /// Begins the request, which `fields` writes; `ends` if it has no content.
    pub(super) fn open(
        &self,
        ends: bool,
        fields: impl FnOnce(&mut Writer<'_>),
    ) -> Result<Stream, Ended> {
        self.link.http2.open(ends, fields)
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

    /// A connection that takes one more request, made within `patience` if there is none. To a `suspect` endpoint only those are used on which it has just answered.
    pub(super) async fn open(
        self: &Arc<Self>,
        address: SocketAddr,
        patience: Duration,
        suspect: bool,
    ) -> Result<Lease, Fault> {
        // Nearly always, and without a timer.
        if let Some(lease) = self.take(address, suspect) {
            return Ok(lease);
        }
        let opened = timeout(patience, self.connect(address, suspect)).await;
        opened.unwrap_or(Err(Fault::ConnectTimeout))
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
        group.links.retain(|link| link.is_open());
        None
    }

    async fn connect(self: &Arc<Self>, address: SocketAddr, suspect: bool) -> Result<Lease, Fault> {
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
            return Ok(lease);
        }
        let stream = TcpStream::connect(address).await;
        let stream = stream.map_err(|_| Fault::Connect)?;
        stream.set_nodelay(true).map_err(|_| Fault::Connect)?;
        let http2 = Connection::client(&SETTINGS);
        let status = Arc::new(Status {
            open: AtomicBool::new(true),
            streams: AtomicUsize::new(0),
            used_at: Mutex::new(Instant::now()),
        });
        tokio::spawn(drive(stream, http2.clone(), Arc::clone(&status)));
        let link = Arc::new(Link { http2, status });
        let lease = Lease::on(&link, false);
        let mut state = lock(&self.0);
        state.groups.entry(address).or_default().links.push(link);
        Ok(lease)
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
                    .retain(|link| link.is_open() && !link.is_idle(now));
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

const SETTINGS: Settings = Settings {
    max_streams: STREAMS,
    stream_window: STREAM_WINDOW,
    connection_window: CONNECTION_WINDOW,
    max_header_list: MOST_HEADER_BYTES,
};

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Moves the bytes of a connection until it ends.
async fn drive<S>(socket: S, http2: Connection, status: Arc<Status>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut io = Io::new(socket);
    let mut pulse = Pulse::new();
    poll_fn(|cx| {
        for _ in 0..READS {
            let came = io.poll_in(cx, &http2);
            let left = io.poll_out(cx, &http2);
            let over = http2.is_closing() && !http2.has_streams();
            match (&came, &left) {
                (Poll::Ready(Err(_) | Ok(false)), _) | (_, Poll::Ready(Err(_))) => {
                    return Poll::Ready(());
                }
                _ if over => return Poll::Ready(()),
                (Poll::Ready(Ok(true)), _) => {}
                // Some of it may have had to leave before more is taken.
                (Poll::Pending, Poll::Ready(Ok(()))) if !http2.wants_input() => {}
                (Poll::Pending, _) => {
                    // While the socket takes nothing, more to be sent is no reason to try.
                    if left.is_ready() {
                        http2.wake_for_output(cx);
                    }
                    let busy = status.streams.load(Ordering::Relaxed) > 0;
                    return pulse.poll_lost(cx, &http2, busy);
                }
            }
        }
        // It is the turn of others.
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
    status.open.store(false, Ordering::Relaxed);
    http2.lost();
}

/// Asks the endpoint, while requests wait for it, whether it is there: a node that is gone closes no connections.
struct Pulse {
    timer: Timer,
    next: Instant,
    asked: bool,
}

impl Pulse {
    fn new() -> Self {
        Self {
            timer: Timer::default(),
            next: Instant::now() + PING,
            asked: false,
        }
    }

    /// Ready when the endpoint has not answered.
    fn poll_lost(&mut self, cx: &mut Context<'_>, http2: &Connection, busy: bool) -> Poll<()> {
        while self.timer.poll(cx, self.next).is_ready() {
            if self.asked && !http2.is_answered() {
                return Poll::Ready(());
            }
            self.next = Instant::now() + PING;
            self.asked = busy;
            if busy {
                // Wakes this task, which has it to send.
                http2.ping();
            }
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::pin::{Pin, pin};
    use std::task::{Wake, Waker};

    use tokio::io::ReadBuf;
    use tokio::net::TcpListener;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    /// The socket to a peer that reads nothing.
    struct Full;

    impl AsyncRead for Full {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    impl AsyncWrite for Full {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &[u8],
        ) -> Poll<io::Result<usize>> {
            Poll::Pending
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[tokio::test]
    async fn an_endpoint_that_reads_nothing_keeps_nobody_busy() {
        let http2 = Connection::client(&SETTINGS);
        let status = Arc::new(Status {
            open: AtomicBool::new(true),
            streams: AtomicUsize::new(1),
            used_at: Mutex::new(Instant::now()),
        });
        let mut driven = pin!(drive(Full, http2.clone(), status));
        let woken = Arc::new(Wakes::default());
        let waker = Waker::from(Arc::clone(&woken));
        let mut cx = Context::from_waker(&waker);
        assert!(driven.as_mut().poll(&mut cx).is_pending());
        // The preface has not left, and here is more.
        let _stream = http2
            .open(true, |fields| fields.add(b":method", b"GET", false))
            .unwrap();
        assert!(driven.as_mut().poll(&mut cx).is_pending());
        assert_eq!(woken.0.load(Ordering::Relaxed), 0);
    }

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
        let lease = links.open(address, PATIENCE, false).await.unwrap();
        assert!(!lease.is_reused());
        let first = Arc::clone(&lease.link);
        let is_first = |lease: &Lease| Arc::ptr_eq(&lease.link, &first);
        let open = |suspect| links.open(address, PATIENCE, suspect);
        assert!(is_first(&open(true).await.unwrap()), "it is new");

        let long_ago = Instant::now().checked_sub(2 * TRUSTED).unwrap();
        *lock(&first.status.used_at) = long_ago;
        assert!(
            is_first(&open(false).await.unwrap()),
            "the endpoint is well"
        );
        let second = open(true).await.unwrap();
        assert!(
            !is_first(&second) && !second.is_reused(),
            "it may lead nowhere"
        );
        assert!(!is_first(&open(true).await.unwrap()));

        lease.answered();
        assert!(is_first(&open(true).await.unwrap()), "it leads there");
    }
}
