//! The stream as Pingora sees it, with a deadline on what the client has to send.

use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
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
use tokio::time::{Sleep, sleep_until, timeout};

use crate::connection::{Awaited, Connection};
use crate::telemetry;

/// How long the farewell of a connection may take: TLS wants to send an alert, and the client may not read.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);

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
pub(crate) struct GuardIo<S> {
    inner: S,
    connection: Arc<Connection>,
    digests: Digests,
    established: SystemTime,
    /// Kept over requests: moving a timer forward is left to the moment when it fires.
    timer: Option<Pin<Box<Sleep>>>,
}

impl<S> GuardIo<S> {
    /// Guards `inner` by the deadline of `connection`.
    pub(crate) fn new(inner: S, connection: Arc<Connection>, digests: Digests) -> Self {
        Self {
            inner,
            connection,
            digests,
            established: SystemTime::now(),
            timer: None,
        }
    }

    /// Ready when `at` has come.
    fn poll_timer(&mut self, cx: &mut Context<'_>, at: Instant) -> Poll<()> {
        let at = tokio::time::Instant::from_std(at);
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if timer.deadline() > at {
            timer.as_mut().reset(at);
        }
        loop {
            ready!(timer.as_mut().poll(cx));
            if timer.deadline() >= at {
                return Poll::Ready(());
            }
            timer.as_mut().reset(at);
        }
    }

    fn cut(&self, awaited: Awaited) -> io::Error {
        let reason = match awaited {
            Awaited::Header => "header-timeout",
            Awaited::NextRequest => "idle-timeout",
        };
        counter!(
            telemetry::CONNECTIONS_CUT,
            "listener" => self.connection.listener.to_string(),
            "reason" => reason,
        )
        .increment(1);
        io::Error::new(io::ErrorKind::TimedOut, reason)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for GuardIo<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(cx, buf);
        let Some((at, awaited)) = self.connection.deadline.get() else {
            return read;
        };
        match read {
            Poll::Ready(Ok(())) if buf.filled().len() > before => {
                if Instant::now() >= at {
                    buf.set_filled(before);
                    return Poll::Ready(Err(self.cut(awaited)));
                }
                if awaited == Awaited::NextRequest {
                    self.connection.deadline.arm_header();
                }
                read
            }
            Poll::Ready(_) => read,
            Poll::Pending => {
                ready!(self.poll_timer(cx, at));
                Poll::Ready(Err(self.cut(awaited)))
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for GuardIo<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[async_trait]
impl<S: AsyncWrite + Send + Unpin> Shutdown for GuardIo<S> {
    async fn shutdown(&mut self) {
        // The connection ends in any case; a failure has nobody to hear of it.
        let _ = timeout(SHUTDOWN_TIMEOUT, AsyncWriteExt::shutdown(&mut self.inner)).await;
    }
}

impl<S> UniqueID for GuardIo<S> {
    fn id(&self) -> UniqueIDType {
        self.digests.id
    }
}

impl<S> Ssl for GuardIo<S> {
    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        self.digests.tls.clone()
    }

    /// Also answers for HTTP/2 without TLS, which the front has recognised by its preface.
    fn selected_alpn_proto(&self) -> Option<ALPN> {
        self.connection.http2.then_some(ALPN::H2)
    }
}

impl<S> GetTimingDigest for GuardIo<S> {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        vec![Some(TimingDigest {
            established_ts: self.established,
            ..TimingDigest::default()
        })]
    }
}

impl<S> GetProxyDigest for GuardIo<S> {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        None
    }
}

impl<S> GetSocketDigest for GuardIo<S> {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        Some(Arc::clone(&self.digests.socket))
    }
}

/// Not offered: the front has looked at the first bytes already.
#[async_trait]
impl<S: Send> Peek for GuardIo<S> {}

impl<S> fmt::Debug for GuardIo<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuardIo")
            .field("client", &self.connection.client)
            .finish_non_exhaustive()
    }
}
