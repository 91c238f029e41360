//! What is known about one client connection, shared by everything that serves it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use http::HeaderValue;
use model::ListenerName;
use table::PolicyId;
use tokio::sync::watch;
use tokio::time::sleep_until;

use crate::clients::Presented;
use crate::drain::Slot;
use crate::front::guard::count_end;
use crate::front::idle::{self, Gone};
use crate::phases::headers;
use crate::settings::Limits;

/// One client connection.
///
/// Lives until the last request on it is done, also when its socket went first: it holds the place in the
/// connection count.
#[derive(Debug)]
pub(crate) struct Connection {
    /// Who is at the other end of the socket.
    pub(crate) peer: SocketAddr,
    /// The client: what a PROXY protocol header said, else the peer.
    pub(crate) client: SocketAddr,
    /// Which of our addresses was connected to: what a PROXY protocol header said, else the socket's.
    pub(crate) local: SocketAddr,
    /// Did a PROXY protocol header name the client?
    pub(crate) proxied: bool,
    /// Where it was accepted.
    pub(crate) listener: ListenerName,
    /// What was negotiated; `None` without TLS.
    pub(crate) tls: Option<TlsFacts>,
    /// Does it speak HTTP/2, by ALPN or by prior knowledge?
    pub(crate) http2: bool,
    /// Until when the client must have sent something.
    pub(crate) deadline: Arc<Deadline>,
    /// The last request was answered before it had come in full.
    pub(crate) linger: AtomicBool,
    /// What the client may take its time for, and how much it may ask for: as it was when the connection began.
    pub(crate) limits: Arc<Limits>,
    /// How long connections may be idle now.
    pub(crate) longest_idle: watch::Receiver<Duration>,
    /// Responses, and pieces of them, that the client has been given. Only HTTP/2 counts them.
    pub(crate) given: Arc<AtomicU32>,
    /// The client sends more than it may.
    pub(crate) flooded: AtomicBool,
    /// The client's address as text, once somebody has asked for it.
    pub(crate) client_text: OnceLock<HeaderValue>,
    pub(crate) slot: Slot,
    /// What the access log says about it, where it does.
    pub(crate) logged: Logged,
}

/// What only the access log counts.
#[derive(Debug, Default)]
pub(crate) struct Logged {
    number: OnceLock<u64>,
    requests: AtomicU64,
}

impl Logged {
    /// The number of the connection among those that have been asked for theirs.
    pub(crate) fn number(&self) -> u64 {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        *self
            .number
            .get_or_init(|| NEXT.fetch_add(1, Ordering::Relaxed))
    }

    /// Counts one more request.
    pub(crate) fn count_request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// How many there have been.
    pub(crate) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }
}

/// What a TLS handshake settled.
#[derive(Clone, Debug)]
pub(crate) struct TlsFacts {
    /// The server name that the client asked for, in normal form.
    pub(crate) server_name: Option<Box<str>>,
    /// As in logs: `TLSv1.3`.
    pub(crate) version: &'static str,
    /// IANA name of the cipher suite.
    pub(crate) cipher: &'static str,
    /// Which policy of the table was applied.
    pub(crate) policy: PolicyId,
    /// The same for all policies that differ only in what is made of certificates of clients.
    pub(crate) transport: PolicyId,
    /// What the client has shown, where it was asked for a certificate.
    pub(crate) presented: Option<Arc<Presented>>,
    /// Was HTTP/2 negotiated?
    pub(crate) alpn_h2: bool,
}

impl Connection {
    /// A part of a header section has come: for the rest there is the time for one, from its first byte.
    pub(crate) fn header_begun(&self) {
        if self.deadline.awaited() == Some(Awaited::NextRequest) {
            self.deadline.arm_header(Instant::now());
        }
    }

    /// The header section of a request has been read: its deadline is over.
    pub(crate) fn request_started(&self) {
        self.deadline.requests.fetch_add(1, Ordering::Relaxed);
        self.deadline.clear();
        // What was left of the request before has been read after all.
        self.linger.store(false, Ordering::Relaxed);
    }

    /// A request is done. On HTTP/1 the client now has the idle time to send the next one; an HTTP/2 connection is
    /// watched by its own idle timer, since other streams may be alive.
    pub(crate) fn request_finished(&self, now: Instant) {
        self.deadline.requests.fetch_sub(1, Ordering::Relaxed);
        self.deadline.rest(now);
        if self.http2 {
            // An answer without content is one as well.
            self.gave(0);
        } else {
            self.deadline.arm_idle(now);
        }
    }

    /// The client has been given so much of a response.
    pub(crate) fn gave(&self, bytes: usize) {
        give(&self.given, bytes);
    }

    /// The client's address as text.
    pub(crate) fn client_text(&self) -> HeaderValue {
        let text = || headers::value(headers::Ip(self.client.ip()));
        self.client_text.get_or_init(text).clone()
    }

    /// A request is done and the client may still be sending it: the socket is not to be closed at once.
    pub(crate) fn linger(&self) {
        self.linger.store(!self.http2, Ordering::Relaxed);
    }

    /// The client has been told that this is the end, whatever it speaks, and may still be sending.
    pub(crate) fn linger_always(&self) {
        self.linger.store(true, Ordering::Relaxed);
    }

    /// Is the socket to stay for what the client still sends?
    pub(crate) fn lingers(&self) -> bool {
        self.linger.load(Ordering::Relaxed)
    }

    /// How long nothing has been asked for; nothing while something is being answered.
    pub(crate) fn idle_for(&self, now: Instant) -> Option<Duration> {
        let busy = self.deadline.requests.load(Ordering::Relaxed) > 0;
        (!busy).then(|| self.deadline.rests_for(now))
    }

    /// Ready when this connection has to go although its own idle time is not over. It may have asked for something
    /// meanwhile, of which whoever reads knows.
    pub(crate) async fn unwanted(self: Arc<Self>) {
        let longest = self.longest_idle.clone();
        if idle::over(longest, || self.idle_for(Instant::now())).await == Gone::Shed {
            count_end(&self, "overload");
        }
    }

    /// Is this connection to end with the response that is being made?
    pub(crate) fn ending(&self) -> bool {
        self.slot.ending()
    }

    /// Has the end of the gateway begun?
    pub(crate) fn draining(&self) -> bool {
        self.slot.draining()
    }

    /// Called when there is nothing to read: an HTTP/2 client that was asked to go and has nothing left to wait for
    /// gets a little time to do so.
    pub(crate) fn nothing_to_read(&self) {
        let idle = self.http2 && self.deadline.requests.load(Ordering::Relaxed) == 0;
        if idle && self.slot.draining() {
            self.deadline.arm_farewell(Instant::now());
        }
    }
}

/// Until when the client must have sent something.
///
/// An absolute point in time: bytes that trickle in do not move it. One task sets it and the stream's reader looks at
/// it, both on the thread of the connection; it is atomic only because Pingora wants its streams `Sync`.
#[derive(Debug)]
pub(crate) struct Deadline {
    start: Instant,
    /// Nanoseconds since `start`, shifted by two; the lowest bits say what is awaited.
    at: AtomicU64,
    requests: AtomicU32,
    /// Nanoseconds from `start` to the end of the last request.
    rested: AtomicU64,
    header: Duration,
    idle: Duration,
}

/// Counts what a client has been given: a piece, and one more for each kibibyte of it.
pub(crate) fn give(given: &AtomicU32, bytes: usize) {
    let pieces = u32::try_from(bytes / 1024).unwrap_or(u32::MAX);
    let before = given.load(Ordering::Relaxed);
    // Nobody else writes it: all of it happens in the thread of the connection.
    given.store(
        before.wrapping_add(pieces).wrapping_add(1),
        Ordering::Relaxed,
    );
}

/// How long an HTTP/2 client may be silent that was asked to go and has nothing left to wait for.
pub(crate) const FAREWELL: Duration = Duration::from_secs(5);

/// No deadline.
const NEVER: u64 = u64::MAX;

/// What a deadline waits for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Awaited {
    /// The header section of a request, or the preface of HTTP/2.
    Header,
    /// The first byte of the next request.
    NextRequest,
    /// The end of a connection that was asked to end.
    Farewell,
    /// An answer for the client, which can do nothing about it.
    Answer,
}

impl Deadline {
    /// A deadline that is running: `header` from `start` for the first request, `idle` between requests.
    pub(crate) fn new(start: Instant, header: Duration, idle: Duration) -> Self {
        let deadline = Self {
            start,
            at: AtomicU64::new(NEVER),
            requests: AtomicU32::new(0),
            rested: AtomicU64::new(0),
            header,
            idle,
        };
        deadline.arm_after(header, Awaited::Header);
        deadline
    }

    /// One that is not running.
    pub(crate) fn at_rest() -> Self {
        let deadline = Self::new(Instant::now(), Duration::ZERO, Duration::ZERO);
        deadline.clear();
        deadline
    }

    /// A request is done.
    fn rest(&self, now: Instant) {
        let nanos = now.saturating_duration_since(self.start).as_nanos();
        let nanos = u64::try_from(nanos).unwrap_or(u64::MAX);
        self.rested.store(nanos, Ordering::Relaxed);
    }

    /// How long it has been since then.
    fn rests_for(&self, now: Instant) -> Duration {
        let since = Duration::from_nanos(self.rested.load(Ordering::Relaxed));
        now.saturating_duration_since(self.start)
            .saturating_sub(since)
    }

    /// Gives the client the header time from now.
    pub(crate) fn arm_header(&self, now: Instant) {
        self.arm(now, self.header, Awaited::Header);
    }

    /// Gives the client the idle time from now.
    pub(crate) fn arm_idle(&self, now: Instant) {
        self.arm(now, self.idle, Awaited::NextRequest);
    }

    /// Gives the client the time for a farewell from now.
    pub(crate) fn arm_farewell(&self, now: Instant) {
        self.arm(now, self.header.min(FAREWELL), Awaited::Farewell);
    }

    /// Gives what is asked for until then to be there.
    pub(crate) fn arm_answer(&self, at: Instant) {
        let since = at.saturating_duration_since(self.start);
        self.arm_after(since, Awaited::Answer);
    }

    /// Waits until it has passed: for ever where there is none at first.
    pub(crate) async fn passed(&self) {
        while let Some(at) = self.at() {
            if Instant::now() >= at {
                return;
            }
            sleep_until(at.into()).await;
        }
        std::future::pending::<()>().await;
    }

    /// Takes the deadline away.
    pub(crate) fn clear(&self) {
        self.at.store(NEVER, Ordering::Relaxed);
    }

    /// What is waited for, if there is a deadline.
    pub(crate) fn awaited(&self) -> Option<Awaited> {
        let at = self.at.load(Ordering::Relaxed);
        if at == NEVER {
            return None;
        }
        Some(match at & 3 {
            0 => Awaited::Header,
            1 => Awaited::NextRequest,
            2 => Awaited::Farewell,
            _ => Awaited::Answer,
        })
    }

    /// The deadline, if there is one.
    pub(crate) fn at(&self) -> Option<Instant> {
        let at = self.at.load(Ordering::Relaxed);
        if at == NEVER {
            return None;
        }
        self.start.checked_add(Duration::from_nanos(at >> 2))
    }

    /// Has it passed?
    pub(crate) fn is_over(&self, now: Instant) -> bool {
        self.at().is_some_and(|at| now >= at)
    }

    fn arm(&self, now: Instant, time: Duration, awaited: Awaited) {
        let since = now.saturating_duration_since(self.start);
        self.arm_after(since.saturating_add(time), awaited);
    }

    /// `time` counts from `start`.
    fn arm_after(&self, time: Duration, awaited: Awaited) {
        let nanos = time.as_nanos();
        // 2^61 nanoseconds are 73 years: what does not fit is no deadline.
        let at = u64::try_from(nanos)
            .ok()
            .filter(|nanos| *nanos < 1 << 61)
            .map_or(NEVER, |nanos| {
                nanos << 2
                    | match awaited {
                        Awaited::Header => 0,
                        Awaited::NextRequest => 1,
                        Awaited::Farewell => 2,
                        Awaited::Answer => 3,
                    }
            });
        self.at.store(at, Ordering::Relaxed);
    }
}
