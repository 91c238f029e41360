//! The socket of an HTTP/2 connection.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http2::Connection;
use tokio::io::{AsyncRead, AsyncWrite};

use super::super::client::Scratch;

/// Moves octets between a socket and the state of its connection. What has been written leaves when the connection's task
/// has seen to all of its streams, which share one TLS record and one system call like this.
pub(in super::super) struct Io<S> {
    /// Gone when the socket is closed.
    socket: Option<S>,
    /// What is on its way, and how much of it has gone.
    sending: Vec<u8>,
    sent: usize,
    unflushed: bool,
    /// How much has left so far.
    passed: u64,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Io<S> {
    /// Nothing has been moved.
    pub(in super::super) fn new(socket: S) -> Self {
        Self {
            socket: Some(socket),
            sending: Vec::new(),
            sent: 0,
            unflushed: false,
            passed: 0,
        }
    }

    /// Takes what has come, unless the peer leaves too much lying. Says whether that was anything: nothing comes after the
    /// end.
    pub(in super::super) fn poll_in(
        &mut self,
        cx: &mut Context<'_>,
        http2: &Connection,
    ) -> Poll<io::Result<bool>> {
        let Some(socket) = &mut self.socket else {
            return Poll::Ready(Ok(false));
        };
        if !http2.wants_input() {
            // Its task comes back when something has left.
            return Poll::Pending;
        }
        let mut scratch = Scratch::take();
        let octets = ready!(scratch.poll_read(socket, cx))?;
        http2.receive(octets);
        Poll::Ready(Ok(!octets.is_empty()))
    }

    /// Lets everything leave that has been written.
    pub(in super::super) fn poll_out(
        &mut self,
        cx: &mut Context<'_>,
        http2: &Connection,
    ) -> Poll<io::Result<()>> {
        let Some(socket) = &mut self.socket else {
            return Poll::Ready(Ok(()));
        };
        loop {
            while let Some(rest) = self
                .sending
                .get(self.sent..)
                .filter(|rest| !rest.is_empty())
            {
                let length = ready!(Pin::new(&mut *socket).poll_write(cx, rest))?;
                if length == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                self.sent += length;
                self.passed += u64::try_from(length).unwrap_or(u64::MAX);
                self.unflushed = true;
            }
            self.sent = 0;
            self.sending.clear();
            if !http2.take_output(&mut self.sending) {
                break;
            }
        }
        if self.unflushed {
            ready!(Pin::new(socket).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// How much has left so far.
    pub(in super::super) fn passed(&self) -> u64 {
        self.passed
    }

    /// Closes the socket.
    pub(in super::super) fn close(&mut self) {
        self.socket = None;
    }

    /// Is it closed?
    pub(in super::super) fn is_closed(&self) -> bool {
        self.socket.is_none()
    }
}
