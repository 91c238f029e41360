//! Writes of an HTTP/2 connection that leave together.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::buffers;

/// How much is held back, about: two full TLS records.
const MOST: usize = 32 * 1024;

/// A connection that the `h2` crate writes to frame by frame. What it has written leaves when the connection's task has
/// seen to everything else and says so: one TLS record and one system call for all of it.
///
/// The lock is never waited for: all of it happens in one task.
pub(crate) struct Held<S>(Arc<Mutex<State<S>>>);

struct State<S> {
    inner: S,
    bytes: Vec<u8>,
    sent: usize,
}

impl<S> Clone for Held<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S> Held<S> {
    pub(crate) fn new(inner: S) -> Self {
        Self(Arc::new(Mutex::new(State {
            inner,
            bytes: Vec::new(),
            sent: 0,
        })))
    }

    fn lock(&self) -> MutexGuard<'_, State<S>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: AsyncWrite + Unpin> Held<S> {
    /// Lets everything leave.
    pub(crate) fn poll_out(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.lock().poll_out(cx)
    }
}

impl<S: AsyncWrite + Unpin> State<S> {
    fn poll_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.bytes.capacity() == 0 {
            return Poll::Ready(Ok(()));
        }
        while let Some(rest @ [_, ..]) = self.bytes.get(self.sent..) {
            match ready!(Pin::new(&mut self.inner).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                length => self.sent += length,
            }
        }
        // TLS may have records for which the socket had no room.
        ready!(Pin::new(&mut self.inner).poll_flush(cx))?;
        self.sent = 0;
        buffers::put(std::mem::take(&mut self.bytes));
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Held<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.lock().inner).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Held<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.lock();
        if state.bytes.len() >= MOST {
            ready!(state.poll_out(cx))?;
        }
        if state.bytes.capacity() == 0 {
            state.bytes = buffers::take();
        }
        for buf in bufs {
            state.bytes.extend_from_slice(buf);
        }
        Poll::Ready(Ok(bufs.iter().map(|buf| buf.len()).sum()))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.lock();
        ready!(state.poll_out(cx))?;
        Pin::new(&mut state.inner).poll_shutdown(cx)
    }
}
