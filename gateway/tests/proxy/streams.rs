//! Bodies on their way: nothing is collected, nothing is held back.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures::{StreamExt, stream};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc};

use crate::support::{Site, backend, echo, full, raw_backend, read_head, soon, to};

/// A backend that answers each request when it is told to.
pub(crate) struct Held {
    pub(crate) address: SocketAddr,
    arrived: Arc<Semaphore>,
    permits: Arc<Semaphore>,
}

impl Held {
    pub(crate) async fn start() -> Self {
        let (arrived, permits) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        let (arrive, permit) = (Arc::clone(&arrived), Arc::clone(&permits));
        let address = backend(move |_| {
            let (arrive, permit) = (Arc::clone(&arrive), Arc::clone(&permit));
            async move {
                arrive.add_permits(1);
                permit.acquire().await.unwrap().forget();
                Response::new(full("held"))
            }
        })
        .await;
        Self {
            address,
            arrived,
            permits,
        }
    }

    /// Waits until this many more requests have arrived.
    pub(crate) async fn arrivals(&self, count: u32) {
        soon(self.arrived.acquire_many(count))
            .await
            .unwrap()
            .forget();
    }

    /// Answers this many requests.
    pub(crate) fn release(&self, count: usize) {
        self.permits.add_permits(count);
    }
}

#[tokio::test]
async fn events_arrive_one_by_one() {
    let (send, receive) = mpsc::channel::<Bytes>(1);
    let receive = Arc::new(tokio::sync::Mutex::new(Some(receive)));
    let events = backend(move |_| {
        let receive = Arc::clone(&receive);
        async move {
            let receive = receive.lock().await.take().unwrap();
            let frames = stream::unfold(receive, |mut receive| async move {
                let event = receive.recv().await?;
                Some((Ok(Frame::data(event)), receive))
            });
            Response::builder()
                .header("content-type", "text/event-stream")
                .body(BodyExt::boxed(StreamBody::new(Box::pin(
                    frames.map(|frame: Result<_, std::convert::Infallible>| frame),
                )
                    as std::pin::Pin<
                        Box<dyn futures::Stream<Item = _> + Send + Sync>,
                    >)))
                .unwrap()
        }
    })
    .await;
    let site = Site::start(to(events));
    let connection = TcpStream::connect(site.http).await.unwrap();
    let (mut sender, driver) = hyper::client::conn::http1::handshake(TokioIo::new(connection))
        .await
        .unwrap();
    tokio::spawn(driver);
    let request = Request::get("/").header("host", "a.test");
    let request = request.body(Full::new(Bytes::new())).unwrap();
    let mut response = soon(sender.send_request(request)).await.unwrap();
    for n in 0..5 {
        let event = format!("data: {n}\n\n");
        send.send(Bytes::from(event.clone())).await.unwrap();
        // The next one is only sent when this one has arrived.
        let frame = soon(response.body_mut().frame()).await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), event.as_bytes());
    }
    drop(send);
    assert!(soon(response.body_mut().frame()).await.is_none());
}

#[tokio::test]
async fn uploads_arrive_piece_by_piece() {
    let (send, mut receive) = mpsc::channel::<Bytes>(1);
    let sink = backend(move |request| {
        let send = send.clone();
        async move {
            let mut body = request.into_body();
            while let Some(frame) = body.frame().await {
                if let Ok(data) = frame.unwrap().into_data() {
                    send.send(data).await.unwrap();
                }
            }
            Response::new(full("done"))
        }
    })
    .await;
    let site = Site::start(to(sink));
    let mut stream = TcpStream::connect(site.http).await.unwrap();
    stream
        .write_all(
            b"POST / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\
              Transfer-Encoding: chunked\r\n\r\n",
        )
        .await
        .unwrap();
    for piece in ["one", "two", "six"] {
        let chunk = format!("3\r\n{piece}\r\n");
        stream.write_all(chunk.as_bytes()).await.unwrap();
        assert_eq!(soon(receive.recv()).await.unwrap(), piece.as_bytes());
    }
    stream.write_all(b"0\r\n\r\n").await.unwrap();
    let mut all = String::new();
    soon(stream.read_to_string(&mut all)).await.unwrap();
    assert!(
        all.starts_with("HTTP/1.1 200 ") && all.contains("done"),
        "{all}"
    );
}

const LARGE: usize = 24 * 1024 * 1024;

#[tokio::test]
async fn large_bodies_pass_in_both_directions() {
    let web = backend(|request| async move {
        let received = request.into_body().collect().await.unwrap().to_bytes();
        assert!(received.iter().all(|byte| *byte == b'u'));
        Response::builder()
            .header("x-received", received.len())
            .body(full(vec![b'd'; LARGE]))
            .unwrap()
    })
    .await;
    let site = Site::start(to(web));
    let body = Bytes::from(vec![b'u'; LARGE]);
    let request = Request::put("/").header("host", "a.test");
    let answer = site.send(request.body(body.clone()).unwrap()).await;
    assert_eq!(
        answer.header("x-received"),
        Some(LARGE.to_string().as_str())
    );
    assert_eq!(answer.body.len(), LARGE);
    let mut sender = site.http2().await;
    let request = Request::put("http://a.test/")
        .body(Full::new(body))
        .unwrap();
    let response = soon(sender.send_request(request)).await.unwrap();
    let answer = crate::support::Answer::read(response).await;
    assert_eq!(
        answer.header("x-received"),
        Some(LARGE.to_string().as_str())
    );
    assert_eq!(answer.body.len(), LARGE);
}

#[tokio::test]
async fn a_client_that_does_not_read_stops_its_backend() {
    let written = Arc::new(AtomicUsize::new(0));
    let progress = Arc::clone(&written);
    let endless = raw_backend(move |mut stream| {
        let progress = Arc::clone(&progress);
        async move {
            read_head(&mut stream).await;
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
                1usize << 40
            );
            stream.write_all(head.as_bytes()).await.unwrap();
            let piece = vec![0; 64 * 1024];
            while stream.write_all(&piece).await.is_ok() {
                progress.fetch_add(piece.len(), Ordering::SeqCst);
            }
        }
    })
    .await;
    let site = Site::start(to(endless));
    let mut stream = TcpStream::connect(site.http).await.unwrap();
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
        .await
        .unwrap();
    // Runs until the sockets on the way are full, which is when it does not move for half a second.
    let mut before = usize::MAX;
    let mut ticks = tokio::time::interval(std::time::Duration::from_millis(500));
    let stalled = async {
        loop {
            ticks.tick().await;
            let now = written.load(Ordering::SeqCst);
            if now == before && now > 0 {
                return now;
            }
            before = now;
        }
    };
    let bytes = soon(stalled).await;
    assert!(bytes < 64 * 1024 * 1024, "{bytes} bytes went somewhere");
    drop(stream);
}

#[tokio::test]
async fn the_log_knows_sizes() {
    let site = Site::start(to(echo("web").await));
    let request = Request::post("/sized").header("host", "a.test");
    let answer = site
        .send(request.body(Bytes::from(vec![b'x'; 1000])).unwrap())
        .await;
    let line = site.log.of("/sized").await;
    assert_eq!(line["bytes_sent"], answer.body.len());
    let received = line["bytes_received"].as_u64().unwrap();
    assert!((1030..1200).contains(&received), "{received}");
}
