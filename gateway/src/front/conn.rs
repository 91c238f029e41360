//! The bytes of a connection: the socket, TLS over it, and the stream that an engine gets.

use std::io::{self, IoSlice};
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use pingora::protocols::tls::SslDigest;
use pingora::protocols::{SocketDigest, Stream};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use crate::connection::Connection;
use crate::front::batch::{Batch, Flush};
use crate::front::guard::{Digests, GuardIo};

/// How an HTTP/2 connection begins; RFC 9113, section 3.4.
const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A TCP connection whose first bytes can be looked at and put back.
#[derive(Debug)]
pub(crate) struct Socket {
    stream: TcpStream,
    unread: Bytes,
}

impl Socket {
    /// Nothing is put back yet.
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            unread: Bytes::new(),
        }
    }

    /// Waits until there is something to read, be it the end.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        self.stream.readable().await
    }

    /// Puts bytes back: the next read returns them. There must be none from before.
    pub(crate) fn unread(&mut self, bytes: Bytes) {
        debug_assert!(self.unread.is_empty(), "bytes were put back twice");
        self.unread = bytes;
    }

    /// Does the client begin with the preface of HTTP/2? Reads no further than needed to tell, so that a request that
    /// is shorter than the preface is not waited for in vain; what was read is put back.
    pub(crate) async fn starts_with_h2_preface(&mut self) -> io::Result<bool> {
        let mut seen = BytesMut::new();
        loop {
            if self.read_buf(&mut seen).await? == 0 {
                // Half a preface, or nothing: whoever reads next will find out.
                if seen.is_empty() {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                break;
            }
            if seen.len() >= H2_PREFACE.len() || !H2_PREFACE.starts_with(&seen) {
                break;
            }
        }
        let http2 = seen.starts_with(H2_PREFACE);
        self.unread(seen.freeze());
        Ok(http2)
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.unread.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let length = self.unread.len().min(buf.remaining());
        buf.put_slice(&self.unread.split_to(length));
        if self.unread.is_empty() {
            // Lets go of the memory behind it.
            self.unread = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// A connection after its handshake, if it has one.
#[derive(Debug)]
pub(crate) enum Transport {
    /// Cleartext.
    Plain(Socket),
    /// TLS.
    Tls(Box<TlsStream<Socket>>),
}

impl Transport {
    fn socket(&self) -> &Socket {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => stream.get_ref().0,
        }
    }
}

impl AsyncRead for Transport {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_write_vectored(cx, bufs),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// The stream that an engine serves: deadlines on what is read, few and large writes.
pub(crate) fn session(transport: Transport, connection: Arc<Connection>) -> Stream {
    let fd = transport.socket().stream.as_raw_fd();
    let socket = SocketDigest::from_raw_fd(fd);
    // Filled in here, Pingora need not ask the kernel, and hears of the client instead of the load balancer. They are
    // new, so that setting them cannot fail.
    let _ = socket.peer_addr.set(Some(connection.client.into()));
    let _ = socket.local_addr.set(Some(connection.local.into()));
    let digests = Digests {
        id: fd,
        socket: Arc::new(socket),
        tls: connection.tls.as_ref().map(|tls| {
            Arc::new(SslDigest::new(
                tls.cipher,
                tls.version,
                None,
                None,
                Vec::new(),
            ))
        }),
    };
    let flush = if connection.http2 {
        Flush::NextTurn
    } else {
        Flush::Now
    };
    Box::new(GuardIo::new(
        Batch::new(transport, flush),
        connection,
        digests,
    ))
}
