//! The socket of an HTTP/2 connection.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use ::http2::Connection;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::buffers;

/// Moves octets between a socket and the state of its connection. What has been written leaves when the connection's task
/// has seen to everything else: one TLS record and one system call for all of it.
pub(crate) struct Io<S> {
    socket: S,
    /// What is on its way, and how much of it has gone.
    sending: Vec<u8>,
    sent: usize,
    unflushed: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Io<S> {
    pub(crate) fn new(socket: S) -> Self {
        Self {
            socket,
            sending: Vec::new(),
            sent: 0,
            unflushed: false,
        }
    }

    /// Takes what has come, unless the peer leaves too much lying. The end is an error.
    pub(crate) fn poll_in(
        &mut self,
        cx: &mut Context<'_>,
        http2: &Connection,
    ) -> Poll<io::Result<()>> {
        if !http2.wants_input() {
            return Poll::Pending;
        }
        buffers::poll_read(&mut self.socket, cx, |_, octets| http2.receive(octets))
    }

    /// Lets everything leave that has been written.
    pub(crate) fn poll_out(
        &mut self,
        cx: &mut Context<'_>,
        http2: &Connection,
    ) -> Poll<io::Result<()>> {
        loop {
            while let Some(rest @ [_, ..]) = self.sending.get(self.sent..) {
                match ready!(Pin::new(&mut self.socket).poll_write(cx, rest))? {
                    0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    length => self.sent += length,
                }
                self.unflushed = true;
            }
            self.sent = 0;
            self.sending.clear();
            if !http2.take_output(&mut self.sending) {
                break;
            }
        }
        if self.unflushed {
            // TLS may have records for which the socket had no room.
            ready!(Pin::new(&mut self.socket).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }
}
