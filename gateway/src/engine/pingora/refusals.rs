//! The one answer that Pingora gives without asking: to what is not a valid request.
//!
//! It is empty, names Pingora, and nobody hears of it. Pingora has no callback there, but whatever it writes to an
//! HTTP/1 connection before a request has begun can only be that answer, so it is exchanged on its way out.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, ready};

use async_trait::async_trait;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::tls::SslDigest;
use pingora::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl,
    Stream, TimingDigest, UniqueID, UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::engine::refusal::PAGE;

/// How far a connection is with its current request.
#[derive(Debug, Default)]
pub(super) struct Progress(AtomicU8);

/// Nothing valid has come yet.
const WAITING: u8 = 0;
/// A request is being served.
const BEGUN: u8 = 1;
/// What came was refused.
const REFUSED: u8 = 2;

impl Progress {
    /// The next request is waited for.
    pub(super) fn wait(&self) {
        self.0.store(WAITING, Ordering::Relaxed);
    }

    /// A request has come.
    pub(super) fn begin(&self) {
        self.0.store(BEGUN, Ordering::Relaxed);
    }

    /// Was refused what came?
    pub(super) fn is_refused(&self) -> bool {
        self.0.load(Ordering::Relaxed) == REFUSED
    }

    fn has_begun(&self) -> bool {
        self.0.load(Ordering::Relaxed) == BEGUN
    }

    fn refuse(&self) {
        self.0.store(REFUSED, Ordering::Relaxed);
    }
}

/// An HTTP/1 connection on which refusals are exchanged.
pub(super) struct Refusals {
    inner: Stream,
    progress: Arc<Progress>,
    written: usize,
}

impl Refusals {
    /// Watches `inner`.
    pub(super) fn new(inner: Stream, progress: Arc<Progress>) -> Self {
        Self {
            inner,
            progress,
            written: 0,
        }
    }

    /// Writes the page. Whoever is asking believes to have written `whole` bytes.
    fn poll_refuse(&mut self, cx: &mut Context<'_>, whole: usize) -> Poll<io::Result<usize>> {
        self.progress.refuse();
        while let Some(rest) = PAGE.get(self.written..).filter(|rest| !rest.is_empty()) {
            let written = ready!(Pin::new(&mut self.inner).poll_write(cx, rest))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += written;
        }
        Poll::Ready(Ok(whole))
    }
}

impl AsyncRead for Refusals {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl AsyncWrite for Refusals {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.progress.has_begun() {
            return Pin::new(&mut self.inner).poll_write(cx, buf);
        }
        self.poll_refuse(cx, buf.len())
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.progress.has_begun() {
            return Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        }
        let whole = bufs.iter().map(|buf| buf.len()).sum();
        self.poll_refuse(cx, whole)
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
impl Shutdown for Refusals {
    async fn shutdown(&mut self) {
        self.inner.shutdown().await;
    }
}

impl UniqueID for Refusals {
    fn id(&self) -> UniqueIDType {
        self.inner.id()
    }
}

impl Ssl for Refusals {
    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        self.inner.get_ssl_digest()
    }

    fn selected_alpn_proto(&self) -> Option<ALPN> {
        self.inner.selected_alpn_proto()
    }
}

impl GetTimingDigest for Refusals {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        self.inner.get_timing_digest()
    }
}

impl GetProxyDigest for Refusals {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.inner.get_proxy_digest()
    }
}

impl GetSocketDigest for Refusals {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.inner.get_socket_digest()
    }
}

#[async_trait]
impl Peek for Refusals {
    async fn try_peek(&mut self, buf: &mut [u8]) -> io::Result<bool> {
        self.inner.try_peek(buf).await
    }
}

impl fmt::Debug for Refusals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refusals")
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}
