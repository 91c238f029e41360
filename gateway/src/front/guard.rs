//! A client's stream with a deadline on what the client has to send, and the same as Pingora sees it.

use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;
use metrics::counter;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::tls::SslDigest;
use pingora::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl,
    TimingDigest, UniqueID, UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::runtime::Handle;
use tokio::time::timeout;

use crate::connection::{Awaited, Connection};
use crate::front::frames::FrameCount;
use crate::telemetry;
use crate::timer::Timer;

/// How long the farewell of a connection may take: TLS wants to send an alert, and the client may not read.
pub(crate) const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);

/// What Pingora asks a stream about.
pub(crate) struct Digests {
    /// The file descriptor.
    pub(crate) id: UniqueIDType,
    /// Addresses.
    pub(crate) socket: Arc<SocketDigest>,
    /// What TLS settled.
    pub(crate) tls: Option<Arc<SslDigest>>,
}

/// A stream that fails its reads once the deadline of the connection is over.
///
/// The deadline is absolute, so that a client that sends one byte a second does not move it. It is looked at when
/// bytes arrive and, by a timer, when none do. It must be set before the read that it is meant for: setting it does
/// not wake a reader.
pub(crate) struct Guarded<S: Linger> {
    /// There until the drop.
    inner: Option<S>,
    connection: Arc<Connection>,
    timer: Timer,
    /// Ready when the connection has to go although it is not late.
    unwanted: Option<Unwanted>,
    /// Octets since a header section began, for a reader that does not bound them.
    head: usize,
    /// Of HTTP/2.
    frames: Option<Box<FrameCount>>,
    /// Nobody else sees to what the deadline waits for.
    alone: bool,
}

/// Made with the first wait for a further request. The lock is never taken: it is there because Pingora wants its
/// streams `Sync`.
type Unwanted = Mutex<Pin<Box<dyn Future<Output = ()> + Send>>>;

/// A guarded stream with all that Pingora asks a stream about.
pub(crate) struct GuardIo<S: Linger> {
    guarded: Guarded<S>,
    digests: Digests,
    established: SystemTime,
}

/// A stream that can be closed without a reset.
pub(crate) trait Linger: Unpin + Send + 'static {
    /// Says goodbye, then throws away what the client still sends, for a while.
    fn linger(self) -> impl Future<Output = ()> + Send;
}

impl<S: Linger> Guarded<S> {
    /// Guards `inner` by the deadline of `connection`.
    pub(crate) fn new(inner: S, connection: Arc<Connection>) -> Self {
        let frames = connection.http2.then(|| FrameCount::new(Instant::now()));
        Self {
            inner: Some(inner),
            connection,
            timer: Timer::default(),
            unwanted: None,
            head: 0,
            frames: frames.map(Box::new),
            alone: true,
        }
    }

    /// The same for a reader that knows where requests begin: it gives the time for a header section itself, and ends
    /// connections whose clients were asked to go.
    pub(crate) fn for_reader(inner: S, connection: Arc<Connection>) -> Self {
        let mut guarded = Self::new(inner, connection);
        guarded.alone = false;
        guarded
    }

    /// The connection that is guarded.
    pub(crate) fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    /// The stream.
    pub(crate) fn get_ref(&self) -> Option<&S> {
        self.inner.as_ref()
    }

    /// The stream.
    pub(crate) fn get_mut(&mut self) -> Option<&mut S> {
        self.inner.as_mut()
    }

    /// The stream, unguarded.
    pub(crate) fn into_inner(mut self) -> Option<S> {
        self.inner.take()
    }

    fn inner(&mut self) -> io::Result<Pin<&mut S>> {
        self.inner
            .as_mut()
            .map(Pin::new)
            .ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    fn cut(&self, awaited: Awaited) -> io::Error {
        let reason = count_cut(&self.connection, awaited);
        io::Error::new(io::ErrorKind::TimedOut, reason)
    }
}

impl<S: Linger> Guarded<S> {
    /// Does somebody else need the place of a connection that waits for a request? Readers that know when they wait
    /// ask themselves.
    fn is_unwanted(&mut self, cx: &mut Context<'_>) -> bool {
        if !self.alone {
            return false;
        }
        let connection = &self.connection;
        let unwanted = self
            .unwanted
            .get_or_insert_with(|| Mutex::new(Box::pin(Arc::clone(connection).unwanted())));
        let unwanted = unwanted.get_mut().unwrap_or_else(PoisonError::into_inner);
        let ready = unwanted.as_mut().poll(cx).is_ready();
        if ready {
            self.unwanted = None;
        }
        ready
    }

    /// Bounds what is collected of a header section. One that is somewhat too large is answered by whoever has read it;
    /// of one that goes on and on, no more is taken.
    fn bound_head(&mut self, octets: usize) -> io::Result<()> {
        let connection = &self.connection;
        if !self.alone || connection.http2 {
            return Ok(());
        }
        match connection.deadline.awaited() {
            Some(Awaited::Header) => self.head += octets,
            // The first of a new one: nobody may have read between two requests.
            Some(Awaited::NextRequest) => self.head = octets,
            Some(Awaited::Answer | Awaited::Farewell) | None => self.head = 0,
        }
        if self.head <= 2 * connection.limits.max_header_bytes {
            return Ok(());
        }
        count_end(connection, "header-size");
        Err(io::Error::other("the header section is too large"))
    }

    /// Counts frames of HTTP/2. Too many are told to whoever serves the connection, who can say goodbye; one that
    /// knows nothing of it loses its client.
    fn count_frames(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(frames) = &mut self.frames else {
            return Ok(());
        };
        let connection = &self.connection;
        let given = connection.given.load(Ordering::Relaxed);
        let Some(flood) = frames.look(bytes, given, &connection.limits, self.alone) else {
            return Ok(());
        };
        self.frames = None;
        count_end(connection, flood.reason());
        if self.alone {
            return Err(io::Error::other(flood.reason()));
        }
        connection.flooded.store(true, Ordering::Relaxed);
        Ok(())
    }
}

/// Counts a connection that ends because nothing came. Says why, in a word.
pub(crate) fn count_cut(connection: &Connection, awaited: Awaited) -> &'static str {
    let reason = match awaited {
        Awaited::Header => "header-timeout",
        Awaited::NextRequest => "idle-timeout",
        Awaited::Farewell => "drain",
        // It is the request that ends.
        Awaited::Answer => return "request-timeout",
    };
    count_end(connection, reason);
    reason
}

/// Counts a connection that ends because of one of its limits.
pub(crate) fn count_end(connection: &Connection, reason: &'static str) {
    counter!(
        telemetry::CONNECTIONS_CUT,
        "listener" => connection.listener.to_string(),
        "reason" => reason,
    )
    .increment(1);
}

impl<S: Linger> GuardIo<S> {
    /// Guards `inner` by the deadline of `connection`.
    pub(crate) fn new(inner: S, connection: Arc<Connection>, digests: Digests) -> Self {
        Self {
            guarded: Guarded::new(inner, connection),
            digests,
            established: SystemTime::now(),
        }
    }
}

impl<S: AsyncRead + Linger> AsyncRead for Guarded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = self.inner()?.poll_read(cx, buf);
        self.count_frames(buf.filled().get(before..).unwrap_or_default())?;
        self.bound_head(buf.filled().len() - before)?;
        let deadline = &self.connection.deadline;
        if self.alone && read.is_pending() && deadline.awaited().is_none() {
            self.connection.nothing_to_read();
        }
        let Some(awaited) = deadline.awaited() else {
            return read;
        };
        match read {
            Poll::Ready(Ok(())) if buf.filled().len() > before => {
                match awaited {
                    Awaited::Header if deadline.is_over(Instant::now()) => {
                        buf.set_filled(before);
                        return Poll::Ready(Err(self.cut(awaited)));
                    }
                    // It is there after all: what has come is not thrown away because somebody looked late.
                    Awaited::NextRequest if self.alone => deadline.arm_header(Instant::now()),
                    // It has not heard yet that it is to go.
                    Awaited::Farewell => deadline.arm_farewell(Instant::now()),
                    Awaited::Header | Awaited::NextRequest | Awaited::Answer => {}
                }
                read
            }
            Poll::Ready(_) => read,
            Poll::Pending => {
                let Some(at) = deadline.at() else {
                    return read;
                };
                if awaited == Awaited::NextRequest && self.is_unwanted(cx) {
                    return Poll::Ready(Err(io::ErrorKind::Interrupted.into()));
                }
                ready!(self.timer.poll(cx, at));
                Poll::Ready(Err(self.cut(awaited)))
            }
        }
    }
}

impl<S: AsyncRead + Linger> AsyncRead for GuardIo<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.guarded).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Linger> AsyncWrite for Guarded<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.inner()?.poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.inner()?.poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.as_ref().is_some_and(S::is_write_vectored)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner()?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner()?.poll_shutdown(cx)
    }
}

impl<S: AsyncWrite + Linger> AsyncWrite for GuardIo<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.guarded).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.guarded).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.guarded.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.guarded).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.guarded).poll_shutdown(cx)
    }
}

#[async_trait]
impl<S: AsyncWrite + Linger> Shutdown for GuardIo<S> {
    async fn shutdown(&mut self) {
        // The connection ends in any case; a failure has nobody to hear of it.
        let _ = timeout(SHUTDOWN_TIMEOUT, AsyncWriteExt::shutdown(self)).await;
    }
}

impl<S: Linger> UniqueID for GuardIo<S> {
    fn id(&self) -> UniqueIDType {
        self.digests.id
    }
}

impl<S: Linger> Ssl for GuardIo<S> {
    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        self.digests.tls.clone()
    }

    /// Also answers for HTTP/2 without TLS, which the front has recognised by its preface.
    fn selected_alpn_proto(&self) -> Option<ALPN> {
        self.guarded.connection.http2.then_some(ALPN::H2)
    }
}

impl<S: Linger> GetTimingDigest for GuardIo<S> {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        vec![Some(TimingDigest {
            established_ts: self.established,
            ..TimingDigest::default()
        })]
    }
}

impl<S: Linger> GetProxyDigest for GuardIo<S> {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        None
    }
}

impl<S: Linger> GetSocketDigest for GuardIo<S> {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        Some(Arc::clone(&self.digests.socket))
    }
}

/// A request that was answered before it had come in full leaves bytes behind, read or still on their way. Closing the
/// socket then would reset the connection, and the client could lose the answer (RFC 9112, section 9.6).
impl<S: Linger> Drop for Guarded<S> {
    fn drop(&mut self) {
        if !self.connection.lingers() {
            return;
        }
        if let (Some(inner), Ok(runtime)) = (self.inner.take(), Handle::try_current()) {
            let connection = Arc::clone(&self.connection);
            runtime.spawn(async move {
                inner.linger().await;
                // Counted until here.
                drop(connection);
            });
        }
    }
}

/// Not offered: the front has looked at the first bytes already.
#[async_trait]
impl<S: Linger> Peek for GuardIo<S> {}

impl<S: Linger> fmt::Debug for GuardIo<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuardIo")
            .field("client", &self.guarded.connection.client)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
