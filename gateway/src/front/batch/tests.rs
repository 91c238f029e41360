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
            while let Poll::Ready(written) = Pin::new(&mut batch).poll_write(cx, &[b'x'; 1000]) {
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
