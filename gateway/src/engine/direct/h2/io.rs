//! The bytes of an HTTP/2 connection.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::connection::Connection;
use crate::front::batch::{Batch, Flush};
use crate::front::conn::Transport;
use crate::front::guard::Guarded;

type Inner = Guarded<Batch<Transport>>;

/// A connection that `h2` writes to as often as it likes. What it has written leaves when the connection's task has
/// seen to all of its streams, which share one TLS record and one system call like this.
///
/// The lock is never waited for: all of it happens in one task.
#[derive(Clone)]
pub(super) struct Io(Arc<Mutex<State>>);

struct State {
    /// Gone when the socket is closed.
    inner: Option<Inner>,
    /// Bytes have come since somebody last asked.
    heard: bool,
}

impl Io {
    /// Reads fail when the deadline of the connection is over.
    pub(super) fn new(transport: Transport, connection: Arc<Connection>) -> Self {
        let batch = Batch::new(transport, Flush::WhenTold);
        Self(Arc::new(Mutex::new(State {
            inner: Some(Guarded::for_reader(batch, connection)),
            heard: false,
        })))
    }

    /// Lets everything leave that has been written.
    pub(super) fn poll_out(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.lock().inner.as_mut().and_then(Guarded::get_mut) {
            Some(batch) => batch.poll_out(cx),
            None => Poll::Ready(Ok(())),
        }
    }

    /// How many bytes have left so far.
    pub(super) fn passed(&self) -> u64 {
        let mut state = self.lock();
        let batch = state.inner.as_mut().and_then(Guarded::get_mut);
        batch.map_or(0, |batch| batch.passed())
    }

    /// Has anything come since this was last asked?
    pub(super) fn has_heard(&self) -> bool {
        std::mem::take(&mut self.lock().heard)
    }

    /// Closes the socket.
    pub(super) fn close(&self) {
        let closed = self.lock().inner.take();
        // Outside of the lock.
        drop(closed);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(
        &self,
        call: impl FnOnce(Pin<&mut Inner>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        match self.lock().inner.as_mut() {
            Some(inner) => call(Pin::new(inner)),
            None => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }
}

impl AsyncRead for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut state = self.lock();
        let Some(inner) = state.inner.as_mut() else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        let before = buf.filled().len();
        let read = Pin::new(inner).poll_read(cx, buf);
        state.heard |= buf.filled().len() > before;
        read
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.with(|inner| inner.poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.with(|inner| inner.poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(|inner| inner.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(|inner| inner.poll_shutdown(cx))
    }
}
