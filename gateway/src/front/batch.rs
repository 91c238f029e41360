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
    /// When the connection's task says so, with [`Batch::poll_out`]: it knows when all its streams have had their turn.
    WhenTold,
}

impl Flush {
    /// How much is held back.
    const fn capacity(self) -> usize {
        match self {
            // A header section and a small body. What a slow body leaves unflushed in here, the client sees late.
            Self::Now => 4 * 1024,
            // Two full TLS records.
            Self::NextTurn | Self::WhenTold => 32 * 1024,
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
    /// How much the inner writer has taken so far.
    passed: u64,
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
            passed: 0,
        }
    }

    /// Lets everything leave that is held.
    pub(crate) fn poll_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.held.is_empty() && !self.unflushed {
            return Poll::Ready(Ok(()));
        }
        self.poll_drain_and_flush(cx)
    }

    /// How many bytes have left so far.
    pub(crate) fn passed(&self) -> u64 {
        self.passed
    }

    fn pass(&mut self, length: usize) {
        self.unflushed = true;
        self.passed = self
            .passed
            .wrapping_add(u64::try_from(length).unwrap_or(u64::MAX));
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
            self.pass(length);
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
            self.pass(length);
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
        if self.flush == Flush::WhenTold {
            return Poll::Ready(Ok(()));
        }
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
mod tests {
    use std::future::poll_fn;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use bytes::Bytes;
    use futures::future::join_all;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::time::timeout;

    use super::*;

    /// Counts what reaches the socket.
    #[derive(Debug)]
    struct Counted {
        inner: DuplexStream,
        writes: Vec<usize>,
        total: Arc<AtomicUsize>,
    }

    impl AsyncRead for Counted {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Pin::new(&mut self.inner).poll_read(cx, buf)
        }
    }

    impl AsyncWrite for Counted {
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
            let bytes = bufs.iter().map(|buf| &buf[..]).collect::<Vec<_>>().concat();
            let length = ready!(Pin::new(&mut self.inner).poll_write(cx, &bytes))?;
            self.writes.push(length);
            self.total.fetch_add(1, Ordering::Relaxed);
            Poll::Ready(Ok(length))
        }

        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.inner).poll_flush(cx)
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.inner).poll_shutdown(cx)
        }
    }

    fn batch(flush: Flush, pipe: usize) -> (Batch<Counted>, DuplexStream) {
        let (ours, theirs) = duplex(pipe);
        let counted = Counted {
            inner: ours,
            writes: Vec::new(),
            total: Arc::default(),
        };
        (Batch::new(counted, flush), theirs)
    }

    /// What a connection's task does when it has nothing to do: it waits for the client.
    async fn wait_for_client(batch: &mut Batch<Counted>) -> usize {
        let mut buf = [0; 16];
        timeout(Duration::from_secs(5), batch.read(&mut buf))
            .await
            .unwrap()
            .unwrap()
    }

    #[tokio::test]
    async fn a_response_leaves_in_one_write() {
        let (mut batch, mut client) = batch(Flush::Now, 1 << 16);
        batch.write_all(b"header,").await.unwrap();
        batch.write_all(b"body").await.unwrap();
        assert!(
            batch.inner.writes.is_empty(),
            "nothing leaves before the flush"
        );
        batch.flush().await.unwrap();
        assert_eq!(batch.inner.writes, [11]);
        let mut got = [0; 11];
        client.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"header,body");
    }

    #[tokio::test]
    async fn a_large_body_takes_the_header_along() {
        let (mut batch, mut client) = batch(Flush::Now, 1 << 17);
        batch.write_all(b"header").await.unwrap();
        batch.write_all(&vec![b'x'; 60_000]).await.unwrap();
        assert_eq!(batch.inner.writes, [60_006], "without a flush");
        assert_eq!(batch.held.capacity(), 0, "no memory is kept");
        let mut got = vec![0; 60_006];
        client.read_exact(&mut got).await.unwrap();
        assert!(got.starts_with(b"headerxxx"));
    }

    #[tokio::test]
    async fn the_task_says_when_everything_leaves() {
        let (mut batch, mut client) = batch(Flush::WhenTold, 1 << 16);
        for piece in [&b"one, "[..], b"two"] {
            batch.write_all(piece).await.unwrap();
            batch.flush().await.unwrap();
            let read = batch.read_u8();
            assert!(futures::poll!(std::pin::pin!(read)).is_pending());
        }
        assert!(batch.inner.writes.is_empty());
        poll_fn(|cx| batch.poll_out(cx)).await.unwrap();
        assert_eq!(
            (batch.inner.writes.as_slice(), batch.passed()),
            (&[8][..], 8)
        );
        let mut got = [0; 8];
        client.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"one, two");
    }

    #[tokio::test]
    async fn what_nobody_flushes_leaves_when_the_task_waits() {
        for flush in [Flush::Now, Flush::NextTurn] {
            let (mut batch, mut client) = batch(flush, 1 << 16);
            let server = tokio::spawn(async move {
                batch.write_all(b"slow").await.unwrap();
                let read = wait_for_client(&mut batch).await;
                (batch, read)
            });
            let mut got = [0; 4];
            timeout(Duration::from_secs(5), client.read_exact(&mut got))
                .await
                .unwrap()
                .unwrap();
            client.write_all(b"ok").await.unwrap();
            let (batch, read) = server.await.unwrap();
            assert_eq!((read, batch.inner.writes), (2, vec![4]), "{flush:?}");
        }
    }

    #[tokio::test]
    async fn flushes_of_one_turn_are_one_write() {
        let (mut batch, mut client) = batch(Flush::NextTurn, 1 << 16);
        let server = tokio::spawn(async move {
            // As the connection of HTTP/2 does it: two turns that write, then nothing more.
            for turn in 0..4 {
                poll_fn(|cx| {
                    let mut buf = [0; 16];
                    let mut buf = ReadBuf::new(&mut buf);
                    let read = Pin::new(&mut batch).poll_read(cx, &mut buf);
                    assert!(read.is_pending());
                    Poll::Ready(())
                })
                .await;
                for frame in [b"headers,", b"content,"] {
                    if turn < 2 {
                        batch.write_all(frame).await.unwrap();
                        batch.flush().await.unwrap();
                    }
                }
            }
            batch
        });
        let mut got = [0; 32];
        client.read_exact(&mut got).await.unwrap();
        assert_eq!(server.await.unwrap().inner.writes, [32]);
    }

    #[tokio::test]
    async fn a_client_that_does_not_read_stops_the_writer() {
        for flush in [Flush::Now, Flush::NextTurn] {
            let (mut batch, mut client) = batch(flush, 1024);
            let taken = poll_fn(|cx| {
                let mut taken = 0;
                while let Poll::Ready(written) = Pin::new(&mut batch).poll_write(cx, &[b'x'; 1000])
                {
                    taken += written.unwrap();
                    assert!(taken < 1 << 20, "{flush:?} takes whatever it is given");
                }
                Poll::Ready(taken)
            })
            .await;
            assert!(taken <= flush.capacity() + 1024, "{flush:?} held {taken}");
            // The client reads again: everything arrives, the end included.
            let writer = tokio::spawn(async move {
                batch.write_all(b"end").await.unwrap();
                batch.shutdown().await.unwrap();
            });
            let mut got = Vec::new();
            timeout(Duration::from_secs(5), client.read_to_end(&mut got))
                .await
                .unwrap()
                .unwrap();
            writer.await.unwrap();
            assert_eq!(got.len(), taken + 3, "{flush:?}");
            assert!(got.ends_with(b"xend"), "{flush:?}");
        }
    }

    const STREAMS: usize = 20;
    const BODY: usize = 100_000;

    /// An HTTP/2 server on a batch: answers every request with `length` bytes, asks the client to go after the last one.
    async fn serve_h2(batch: Batch<Counted>, length: usize) {
        let mut connection = h2::server::handshake(batch).await.unwrap();
        let mut served = 0;
        while let Some(request) = connection.accept().await {
            let Ok((request, mut respond)) = request else {
                // The client went as it was asked to, before our last word.
                assert_eq!(served, STREAMS);
                return;
            };
            assert!(request.uri().path().starts_with('/'));
            tokio::spawn(async move {
                let mut body = respond
                    .send_response(http::Response::new(()), false)
                    .unwrap();
                let mut left = length;
                while left > 0 {
                    body.reserve_capacity(left.min(10_000));
                    let room = poll_fn(|cx| body.poll_capacity(cx)).await.unwrap().unwrap();
                    let chunk = Bytes::from(vec![b'x'; room.min(left)]);
                    left -= chunk.len();
                    body.send_data(chunk, left == 0).unwrap();
                }
            });
            served += 1;
            if served == STREAMS {
                connection.graceful_shutdown();
            }
        }
    }

    #[tokio::test]
    async fn http2_loses_nothing_and_ends_by_itself() {
        // A pipe that is smaller than a frame, one that is about a frame, and one that is never full.
        for pipe in [1000, 20_000, 1 << 22] {
            let (batch, client) = batch(Flush::NextTurn, pipe);
            let server = tokio::spawn(serve_h2(batch, BODY));
            assert_eq!(ask_h2(client).await, [BODY; STREAMS], "pipe of {pipe}");
            timeout(Duration::from_secs(5), server)
                .await
                .unwrap()
                .unwrap();
        }
    }

    /// Sends `STREAMS` requests at once, then waits for the server to end the connection. Returns the lengths of the
    /// answers.
    async fn ask_h2(client: DuplexStream) -> Vec<usize> {
        let (requests, connection) = h2::client::handshake(client).await.unwrap();
        let connection = tokio::spawn(connection);
        let exchanges = (0..STREAMS).map(|number| {
            let mut requests = requests.clone();
            async move {
                let request = http::Request::get(format!("http://a.test/{number}"));
                let (response, _) = requests
                    .send_request(request.body(()).unwrap(), true)
                    .unwrap();
                let mut body = response.await.unwrap().into_body();
                let mut length = 0;
                while let Some(chunk) = body.data().await {
                    let chunk = chunk.unwrap();
                    length += chunk.len();
                    body.flow_control().release_capacity(chunk.len()).unwrap();
                }
                length
            }
        });
        let lengths = timeout(Duration::from_secs(20), join_all(exchanges));
        let lengths = lengths.await.unwrap();
        // `requests` still lives: only a GOAWAY makes the client go.
        let ended = timeout(Duration::from_secs(5), connection);
        ended.await.unwrap().unwrap().unwrap();
        lengths
    }

    #[tokio::test]
    async fn responses_of_many_streams_share_their_writes() {
        let (batch, client) = batch(Flush::NextTurn, 1 << 20);
        let writes = Arc::clone(&batch.inner.total);
        let server = tokio::spawn(serve_h2(batch, 100));
        assert_eq!(ask_h2(client).await, [100; STREAMS]);
        server.await.unwrap();
        let writes = writes.load(Ordering::Relaxed);
        assert!(
            writes < STREAMS / 2,
            "{writes} writes for {STREAMS} responses"
        );
    }
}
