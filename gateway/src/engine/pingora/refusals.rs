//! What goes to Pingora, and the one answer that it gives without asking.
//!
//! Pingora corrects requests that two servers could read differently, reads ahead of the request that it serves, and
//! answers what is not HTTP with an empty page that names it and that nobody hears of. It has callbacks for none of
//! this, so that it happens on the connection: bytes pass through [`Framing`], one request at a time, and whatever is
//! written before a request has begun can only be that answer, and is exchanged on its way out.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::task::{Context, Poll, ready};

use async_trait::async_trait;
use bytes::BytesMut;
use futures::task::AtomicWaker;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::tls::SslDigest;
use pingora::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl,
    Stream, TimingDigest, UniqueID, UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::connection::Connection;
use crate::engine::direct::framing::{Framing, Next};
use crate::engine::refusal::PAGE;

/// How much is read at once of a header section, and of what is not looked at yet.
const PIECE: usize = 4 * 1024;

/// How far a connection is with its current request.
#[derive(Debug, Default)]
pub(super) struct Progress {
    state: AtomicU8,
    /// How many requests have been waited for.
    turn: AtomicU32,
    /// Another protocol has taken over.
    tunnel: AtomicBool,
    /// Who waits for that.
    reader: AtomicWaker,
}

/// Nothing valid has come yet.
const WAITING: u8 = 0;
/// A request is being served.
const BEGUN: u8 = 1;
/// What came was refused.
const REFUSED: u8 = 2;

impl Progress {
    /// The next request is waited for.
    pub(super) fn wait(&self) {
        self.state.store(WAITING, Ordering::Relaxed);
        self.turn.fetch_add(1, Ordering::Relaxed);
    }

    /// A request has come.
    pub(super) fn begin(&self) {
        self.state.store(BEGUN, Ordering::Relaxed);
    }

    /// The backend has agreed to speak another protocol with the client.
    pub(super) fn switch(&self) {
        self.tunnel.store(true, Ordering::Relaxed);
        self.reader.wake();
    }

    /// Was refused what came?
    pub(super) fn is_refused(&self) -> bool {
        self.state.load(Ordering::Relaxed) == REFUSED
    }

    fn has_begun(&self) -> bool {
        self.state.load(Ordering::Relaxed) == BEGUN
    }

    fn refuse(&self) {
        self.state.store(REFUSED, Ordering::Relaxed);
    }
}

/// An HTTP/1 connection on which Pingora sees one valid request after the other.
pub(super) struct Refusals {
    inner: Stream,
    connection: Arc<Connection>,
    progress: Arc<Progress>,
    framing: Framing,
    /// What has been read and not been handed on.
    held: BytesMut,
    /// How much of it may be handed on.
    good: usize,
    /// Which request that belongs to.
    turn: u32,
    written: usize,
}

impl Refusals {
    /// Watches `inner`.
    pub(super) fn new(inner: Stream, connection: Arc<Connection>, progress: Arc<Progress>) -> Self {
        Self {
            inner,
            connection,
            progress,
            framing: Framing::new(),
            held: BytesMut::new(),
            good: 0,
            turn: 0,
            written: 0,
        }
    }

    /// Writes the page. Whoever is asking believes to have written `whole` bytes.
    fn poll_refuse(&mut self, cx: &mut Context<'_>, whole: usize) -> Poll<io::Result<usize>> {
        self.progress.refuse();
        self.connection.linger();
        while let Some(rest) = PAGE.get(self.written..).filter(|rest| !rest.is_empty()) {
            let written = ready!(Pin::new(&mut self.inner).poll_write(cx, rest))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += written;
        }
        Poll::Ready(Ok(whole))
    }

    /// Reads more than is handed on. Says how much.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut piece = [0; PIECE];
        let mut piece = ReadBuf::new(&mut piece);
        ready!(Pin::new(&mut self.inner).poll_read(cx, &mut piece))?;
        self.held.extend_from_slice(piece.filled());
        Poll::Ready(Ok(piece.filled().len()))
    }

    /// Reads content, as much as belongs to the request.
    fn poll_content(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
        let come = buf.filled().get(before..).unwrap_or_default();
        let content = self.framing.content(come);
        if content < come.len() {
            self.held
                .extend_from_slice(come.get(content..).unwrap_or_default());
            buf.set_filled(before + content);
            if content == 0 {
                return Poll::Ready(Err(invalid()));
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// What the client has sent is not the rest of its request.
fn invalid() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "not a valid body")
}

impl AsyncRead for Refusals {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        loop {
            let turn = this.progress.turn.load(Ordering::Relaxed);
            if this.turn != turn {
                this.turn = turn;
                this.framing.again();
                // What has not been asked for belongs to the request before.
                let _ = this.held.split_to(this.good);
                this.good = 0;
            }
            if this.good > 0 {
                let length = this.good.min(buf.remaining());
                buf.put_slice(&this.held.split_to(length));
                this.good -= length;
                return Poll::Ready(Ok(()));
            }
            match this.framing.next() {
                Next::Section => match this.framing.section(&this.held) {
                    Ok(Some(length)) => this.good = length,
                    // At the end of the connection, half a header section is nothing.
                    Ok(None) => {
                        if ready!(this.poll_more(cx))? == 0 {
                            return Poll::Ready(Ok(()));
                        }
                    }
                    Err(_) => {}
                },
                Next::Content if this.held.is_empty() => return this.poll_content(cx, buf),
                Next::Content => this.good = this.framing.content(&this.held),
                Next::Nothing => {
                    this.progress.reader.register(cx.waker());
                    if this.progress.tunnel.load(Ordering::Relaxed) {
                        this.framing.give_up();
                        continue;
                    }
                    // Whether the client is still there is of interest. What it sends is not, yet.
                    if !this.held.is_empty() {
                        return Poll::Pending;
                    }
                    if ready!(this.poll_more(cx))? == 0 {
                        return Poll::Ready(Ok(()));
                    }
                }
                Next::Anything if this.held.is_empty() => {
                    return Pin::new(&mut this.inner).poll_read(cx, buf);
                }
                Next::Anything => this.good = this.held.len(),
                Next::End if this.progress.has_begun() => {
                    return Poll::Ready(Err(invalid()));
                }
                Next::End => {
                    ready!(this.poll_refuse(cx, 0))?;
                    ready!(Pin::new(&mut this.inner).poll_flush(cx))?;
                    return Poll::Ready(Ok(()));
                }
            }
        }
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
