//! The bytes of a connection: the socket, TLS over it, and the stream that an engine gets.

use std::io::{self, IoSlice};
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use pingora::protocols::tls::SslDigest;
use pingora::protocols::{SocketDigest, Stream};
use rustix::net::{SendFlags, send};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;

use crate::connection::Connection;
use crate::front::batch::{Batch, Flush};
use crate::front::guard::{Digests, GuardIo, Linger, SHUTDOWN_TIMEOUT};
use crate::listen;

/// How an HTTP/2 connection begins; RFC 9113, section 3.4.
const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How long a client may go on sending a request that has been answered already.
const LINGER: Duration = Duration::from_secs(5);

/// Room for what clients send first: a `ClientHello` or a request.
const FIRST_READ: usize = 4096;

/// How much is read at once from a client that sends a lot over TLS.
const READ_AHEAD: usize = 32 * 1024;

/// How much is read at once of what nobody wants: at the end of a gateway, that are many connections at once.
const DISCARD: usize = 4 * 1024;

/// A TCP connection whose first bytes can be looked at and put back.
#[derive(Debug)]
pub(crate) struct Socket {
    stream: TcpStream,
    unread: Bytes,
    ahead: Option<Ahead>,
    /// Whatever is written is among the last that is said.
    closing: bool,
}

/// Reads more than is asked for. rustls asks for 4 KiB at a time, which makes an upload many system calls.
///
/// The buffer exists only while the client sends faster than it is read.
#[derive(Debug, Default)]
struct Ahead {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// The last read got all that was asked for: there may be more.
    more: bool,
}

impl Ahead {
    fn poll_read(
        &mut self,
        stream: &mut TcpStream,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.start == self.end {
            if !self.more || buf.remaining() >= READ_AHEAD {
                let room = buf.remaining();
                ready!(Pin::new(stream).poll_read(cx, buf))?;
                self.more = room > 0 && buf.remaining() == 0;
                return Poll::Ready(Ok(()));
            }
            self.buffer.resize(READ_AHEAD, 0);
            let mut ahead = ReadBuf::new(&mut self.buffer);
            let read = Pin::new(stream).poll_read(cx, &mut ahead);
            (self.start, self.end) = (0, ahead.filled().len());
            if self.end == 0 {
                *self = Self::default();
                return read;
            }
        }
        let held = self.buffer.get(self.start..self.end).unwrap_or_default();
        let (now, _) = held.split_at(held.len().min(buf.remaining()));
        buf.put_slice(now);
        self.start += now.len();
        Poll::Ready(Ok(()))
    }
}

impl Socket {
    /// Nothing is put back yet.
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            unread: Bytes::new(),
            ahead: None,
            closing: false,
        }
    }

    /// Writes what leaves with the end of the connection: the kernel keeps what does not fill a segment until then.
    fn poll_write_last(&self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let flags = SendFlags::MORE | SendFlags::NOSIGNAL;
        loop {
            ready!(self.stream.poll_write_ready(cx))?;
            let written = self.stream.try_io(Interest::WRITABLE, || {
                send(&self.stream, buf, flags).map_err(io::Error::from)
            });
            match written {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
        }
    }

    /// From now on reads take more from the kernel than they return, where there is more.
    pub(crate) fn read_ahead(&mut self) {
        self.ahead = Some(Ahead::default());
    }

    /// Waits for the first bytes and keeps them for the next read. The end of the connection is an error.
    pub(crate) async fn first_bytes(&mut self) -> io::Result<()> {
        let mut bytes = BytesMut::with_capacity(FIRST_READ);
        if self.stream.read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.unread(bytes);
        Ok(())
    }

    /// Appends what comes next to `bytes`: what was put back, else what the client sends. Nothing at its end.
    pub(crate) async fn read_more(&mut self, bytes: &mut BytesMut) -> io::Result<usize> {
        let unread = std::mem::take(&mut self.unread);
        if !unread.is_empty() {
            bytes.extend_from_slice(&unread);
            return Ok(unread.len());
        }
        bytes.reserve(FIRST_READ);
        self.stream.read_buf(bytes).await
    }

    /// The connection, and what was put back. Not after [`Socket::read_ahead`].
    pub(crate) fn into_parts(self) -> (TcpStream, Bytes) {
        (self.stream, self.unread)
    }

    /// Puts bytes back: the next read returns them.
    pub(crate) fn unread(&mut self, mut bytes: BytesMut) {
        bytes.extend_from_slice(&self.unread);
        self.unread = bytes.freeze();
    }

    /// Does the client begin with the preface of HTTP/2? Reads no further than needed to tell, so that a request that
    /// is shorter than the preface is not waited for in vain.
    pub(crate) async fn starts_with_h2_preface(&mut self) -> io::Result<bool> {
        while self.unread.len() < H2_PREFACE.len() && H2_PREFACE.starts_with(&self.unread) {
            let mut bytes = BytesMut::from(&self.unread[..]);
            if self.stream.read_buf(&mut bytes).await? == 0 {
                // Half a preface, or nothing: whoever reads next will find out.
                break;
            }
            self.unread = bytes.freeze();
        }
        Ok(self.unread.starts_with(H2_PREFACE))
    }
}

/// Hands out what was read before, as much as there is room for.
fn hand_over(before: &mut Bytes, buf: &mut ReadBuf<'_>) {
    let length = before.len().min(buf.remaining());
    buf.put_slice(&before.split_to(length));
    if before.is_empty() {
        // Lets go of the memory behind it.
        *before = Bytes::new();
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.unread.is_empty() {
            return match &mut this.ahead {
                Some(ahead) => ahead.poll_read(&mut this.stream, cx, buf),
                None => Pin::new(&mut this.stream).poll_read(cx, buf),
            };
        }
        hand_over(&mut this.unread, buf);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.closing {
            return self.poll_write_last(cx, buf);
        }
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
    fn into_socket(self) -> Socket {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => stream.into_inner().0,
        }
    }

    fn socket(&self) -> &Socket {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => stream.get_ref().0,
        }
    }

    /// What is written from now on is all that there is left to say: it may leave together with the end of the connection,
    /// which follows at once.
    pub(crate) fn closing(&mut self) {
        let socket = match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => stream.get_mut().0,
        };
        socket.closing = true;
    }

    /// Acknowledges what has come, although there is no answer to it yet.
    pub(crate) fn acknowledge(&self) {
        listen::acknowledge(&self.socket().stream);
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

impl Linger for Transport {
    async fn linger(mut self) {
        let _ = timeout(SHUTDOWN_TIMEOUT, self.shutdown()).await;
        // Nobody decrypts what nobody wants.
        let mut socket = self.into_socket().stream;
        let mut buffer = vec![0; DISCARD];
        let discard = async { while socket.read(&mut buffer).await.is_ok_and(|read| read > 0) {} };
        let _ = timeout(LINGER, discard).await;
    }
}

/// A connection some bytes of which have been read already: they come first.
#[derive(Debug)]
struct Replay {
    first: Bytes,
    inner: Transport,
}

impl AsyncRead for Replay {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.first.is_empty() {
            return Pin::new(&mut this.inner).poll_read(cx, buf);
        }
        hand_over(&mut this.first, buf);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Replay {
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
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

impl Linger for Batch<Replay> {
    async fn linger(mut self) {
        // What is held back has to go out first.
        let _ = timeout(SHUTDOWN_TIMEOUT, self.shutdown()).await;
        self.into_inner().inner.linger().await;
    }
}

/// The stream that Pingora serves: deadlines on what is read, few and large writes. `first` has been read already.
pub(crate) fn session(transport: Transport, first: Bytes, connection: Arc<Connection>) -> Stream {
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
        Batch::new(
            Replay {
                first,
                inner: transport,
            },
            flush,
        ),
        connection,
        digests,
    ))
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (Socket, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap());
        let (client, accepted) = tokio::join!(client, listener.accept());
        (Socket::new(accepted.unwrap().0), client.unwrap())
    }

    #[tokio::test]
    async fn bytes_that_were_put_back_come_first() {
        let (mut socket, mut client) = pair().await;
        client.write_all(b", again").await.unwrap();
        socket.unread(BytesMut::from(&b"world"[..]));
        socket.unread(BytesMut::from(&b"hello "[..]));
        let mut got = [0; 18];
        socket.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"hello world, again");
    }

    #[tokio::test]
    async fn what_is_said_last_arrives_with_the_end() {
        // One that fits into a segment, and one that has to wait for its reader.
        for length in [1, 4 << 20] {
            let (socket, mut client) = pair().await;
            let said = vec![b'x'; length];
            let mut transport = Transport::Plain(socket);
            transport.closing();
            let say = async {
                transport.write_all(&said).await.unwrap();
                transport.shutdown().await.unwrap();
            };
            let mut heard = Vec::new();
            let (heard_all, ()) = tokio::join!(client.read_to_end(&mut heard), say);
            heard_all.unwrap();
            assert!(heard == said, "{} of {length}", heard.len());
        }
    }

    #[tokio::test]
    async fn the_preface_is_told_from_short_requests() {
        for (bytes, want) in [
            (&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0"[..], true),
            (b"GET / HTTP/1.0\r\n\r\n", false),
            (b"P", false),
            (b"PRI * HTTP/2.0\r\n\r\nXX", false),
            (b"PRIVATE /", false),
        ] {
            let (mut socket, mut client) = pair().await;
            let writer = tokio::spawn(async move {
                for byte in bytes {
                    client.write_all(&[*byte]).await.unwrap();
                }
            });
            assert_eq!(socket.starts_with_h2_preface().await.unwrap(), want);
            writer.await.unwrap();
            let mut all = Vec::new();
            socket.read_to_end(&mut all).await.unwrap();
            assert_eq!(all, bytes, "nothing is lost");
        }
    }

    #[tokio::test]
    async fn reading_ahead_keeps_the_order_and_no_memory() {
        let (mut socket, mut client) = pair().await;
        socket.read_ahead();
        let sent: Vec<u8> = (0..1_000_003_u32)
            .map(|n| n.to_le_bytes()[n as usize % 3])
            .collect();
        let expected = sent.clone();
        let writer = tokio::spawn(async move {
            client.write_all(&sent).await.unwrap();
            client
        });
        let mut got = Vec::new();
        let mut chunk = [0; 4096];
        let mut buffered = false;
        while got.len() < expected.len() {
            let read = socket.read(&mut chunk).await.unwrap();
            assert_ne!(read, 0);
            got.extend_from_slice(&chunk[..read]);
            let ahead = socket.ahead.as_ref().unwrap();
            buffered |= ahead.end - ahead.start >= 4096;
        }
        assert!(got == expected, "the bytes differ");
        assert!(buffered, "it has read ahead");
        let client = writer.await.unwrap();
        // Nothing to read: the buffer goes.
        assert!(futures::poll!(std::pin::pin!(socket.read(&mut chunk))).is_pending());
        assert_eq!(socket.ahead.as_ref().unwrap().buffer.capacity(), 0);
        drop(client);
        assert_eq!(socket.read(&mut chunk).await.unwrap(), 0);
    }
}
