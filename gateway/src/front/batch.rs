//! Fewer and larger writes.
//!
//! A response is written in pieces: header section, body, end. Each would be a TLS record and a system call of its
//! own. [`Batch`] holds small writes back until it is clear that nothing more comes at once.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use smallvec::SmallVec;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// When bytes that were flushed have to leave.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Flush {
    /// With the flush, as HTTP/1 wants it: the flush is the end of a response, or of a piece that must not wait.
    Now,
    /// When the connection's task has run once more and has written nothing. HTTP/2 flushes after every frame of every
    /// stream; like this, what all streams have ready leaves together. It adds no delay but that of the run queue.
    NextTurn,
}

impl Flush {
    /// How much is held back.
    const fn capacity(self) -> usize {
        match self {
            // A header section and a small body. What a slow body leaves unflushed in here, the client sees late.
            Self::Now => 4 * 1024,
            // Two full TLS records.
            Self::NextTurn => 32 * 1024,
        }
    }
}

/// Holds writes back; see the module.
///
/// The end of a turn is seen in `poll_read`: a connection's task always comes back to reading. Two reads without a
/// write in between, and the bytes leave, flushed or not.
#[derive(Debug)]
pub(crate) struct Batch<S> {
    inner: S,
    flush: Flush,
    held: BytesMut,
    /// Something was written since the last read.
    written: bool,
    /// The task has been woken to come back to what is held.
    returning: bool,
    /// The inner writer has bytes that it was not told to flush yet.
    unflushed: bool,
}

impl<S: AsyncWrite + Unpin> Batch<S> {
    /// Holds nothing yet.
    pub(crate) fn new(inner: S, flush: Flush) -> Self {
        Self {
            inner,
            flush,
            held: BytesMut::new(),
            written: false,
            returning: false,
            unflushed: false,
        }
    }

    /// The writer, without what is held.
    pub(crate) fn into_inner(self) -> S {
        self.inner
    }

    /// Hands everything that is held to the inner writer.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.held.is_empty() {
            let length = ready!(Pin::new(&mut self.inner).poll_write(cx, &self.held))?;
            if length == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.unflushed = true;
            self.held.advance(length);
        }
        // An idle connection keeps no buffer.
        self.held = BytesMut::new();
        self.returning = false;
        Poll::Ready(Ok(()))
    }

    /// Writes what is held and `bufs` behind it in one go. Returns how much of `bufs` went out.
    fn poll_write_through(
        &mut self,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        loop {
            let held = self.held.len();
            let mut slices: SmallVec<[IoSlice<'_>; 8]> = SmallVec::with_capacity(1 + bufs.len());
            slices.push(IoSlice::new(&self.held));
            slices.extend(bufs.iter().copied());
            let length = ready!(Pin::new(&mut self.inner).poll_write_vectored(cx, &slices))?;
            drop(slices);
            if length == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.unflushed = true;
            if length > held {
                self.held = BytesMut::new();
                self.returning = false;
                return Poll::Ready(Ok(length - held));
            }
            self.held.advance(length);
        }
    }

    fn poll_drain_and_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        ready!(Pin::new(&mut self.inner).poll_flush(cx))?;
        self.unflushed = false;
        Poll::Ready(Ok(()))
    }

    /// Called at every read: has the time come for what is held?
    fn poll_due(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.held.is_empty() {
            // TLS may still have records for which the socket had no room.
            if self.unflushed {
                ready!(Pin::new(&mut self.inner).poll_flush(cx))?;
                self.unflushed = false;
            }
            return Poll::Ready(Ok(()));
        }
        if self.written {
            // More may follow in this turn. Look again in the next one.
            self.written = false;
            self.returning = true;
            cx.waker().wake_by_ref();
            return Poll::Ready(Ok(()));
        }
        self.poll_drain_and_flush(cx)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Batch<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // A socket that takes no more does not keep the client from being read: the waker is registered, and the
        // writer finds out by itself.
        if let Poll::Ready(Err(error)) = self.poll_due(cx) {
            return Poll::Ready(Err(error));
        }
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Batch<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length: usize = bufs.iter().map(|buf| buf.len()).sum();
        self.written = true;
        if self.held.len() + length <= self.flush.capacity() {
            for buf in bufs {
                self.held.extend_from_slice(buf);
            }
            return Poll::Ready(Ok(length));
        }
        self.poll_write_through(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.flush == Flush::Now {
            return self.poll_drain_and_flush(cx);
        }
        if self.flush == Flush::NextTurn && !self.held.is_empty() && !self.returning {
            self.returning = true;
            cx.waker().wake_by_ref();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain_and_flush(cx))?;
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
