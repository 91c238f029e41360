//! Connections that go on to the WebSocket protocol.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use model::{BackendLimits, Filter, HeaderChange, Health, RoutingModel};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{interval, timeout};

use crate::health::watched;
use crate::support::{
    Site, add_backend, add_route_with, filtered, forward, model, raw_backend, read_head, soon, to,
};

/// What a client asks with.
pub(crate) const ASK: &str = "GET /ws HTTP/1.1\r\nHost: a.test\r\nConnection: keep-alive, Upgrade\r\n\
    Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: a2V5\r\n\r\n";

/// What a backend agrees with.
pub(crate) const AGREE: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Accept: a2V5\r\n\r\n";

/// A backend that agrees, and then does what it likes.
pub(crate) async fn agreeing<F, R>(then: F) -> SocketAddr
where
    F: Fn(TcpStream) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    raw_backend(move |mut stream| {
        let then = then.clone();
        async move {
            let head = read_head(&mut stream).await.unwrap();
            assert!(head.contains("Sec-WebSocket-Key: a2V5\r\n"), "{head}");
            stream.write_all(AGREE.as_bytes()).await.unwrap();
            then(stream).await;
        }
    })
    .await
}

/// A backend that sends back what it gets.
pub(crate) async fn echo() -> SocketAddr {
    agreeing(|mut stream| async move {
        let (mut read, mut write) = stream.split();
        // A client that goes away is none of this test's business.
        let _ = tokio::io::copy(&mut read, &mut write).await;
        let _ = write.shutdown().await;
    })
    .await
}

/// Everything to this backend, whose silence may last for so many seconds.
pub(crate) fn impatient(address: SocketAddr, seconds: u32) -> RoutingModel {
    let mut routes = model();
    add_backend(&mut routes, "web", &[address]);
    add_route_with(&mut routes, "*", "/", forward("web"), |route| {
        route.timeouts.read = seconds;
    });
    routes
}

/// A client whose backend has agreed.
pub(crate) async fn open(site: &Site) -> TcpStream {
    let mut stream = TcpStream::connect(site.http).await.unwrap();
    stream.write_all(ASK.as_bytes()).await.unwrap();
    let head = soon(read_head(&mut stream)).await.unwrap();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    stream
}

async fn exchange(stream: &mut TcpStream, message: &[u8]) {
    stream.write_all(message).await.unwrap();
    let mut back = vec![0; message.len()];
    soon(stream.read_exact(&mut back)).await.unwrap();
    assert_eq!(back, message);
}

#[tokio::test]
async fn a_websocket_carries_bytes_both_ways() {
    let site = Site::start(to(echo().await));
    let mut stream = open(&site).await;
    for message in [&b"hello"[..], b"\x00\xff binary", b"0\r\n\r\n"] {
        exchange(&mut stream, message).await;
    }
    drop(stream);
    let line = site.log.of("/ws").await;
    assert_eq!(line["status"], 101);
    assert_eq!(line["reason"], "upstream");
    assert_eq!(line["bytes_sent"], 5 + 9 + 5);
    let received = line["bytes_received"].as_u64().unwrap();
    assert_eq!(received, u64::try_from(ASK.len() + 5 + 9 + 5).unwrap());
}

/// The lines of a header section that begin like this, in lower case.
fn lines(head: &str, beginnings: &[&str]) -> Vec<String> {
    let lines = head.lines().map(str::to_ascii_lowercase);
    let mut lines: Vec<String> = lines
        .filter(|line| beginnings.iter().any(|begins| line.starts_with(begins)))
        .collect();
    lines.sort_unstable();
    lines
}

#[tokio::test]
async fn the_handshake_is_changed_like_any_request() {
    let (send, mut receive) = mpsc::unbounded_channel();
    let web = raw_backend(move |mut stream| {
        let send = send.clone();
        async move {
            send.send(read_head(&mut stream).await.unwrap()).unwrap();
            let answer = AGREE.replace("Sec-", "X-Secret: 1\r\nDate: today\r\nSec-");
            stream.write_all(answer.as_bytes()).await.unwrap();
            let _ = stream.read_u8().await;
        }
    })
    .await;
    let change = HeaderChange {
        remove: vec!["X-Secret".to_owned()],
        add: vec![("X-New".to_owned(), "3".to_owned())],
        ..HeaderChange::default()
    };
    let site = Site::start(filtered(web, Filter::ResponseHeaders(change)));
    let mut stream = TcpStream::connect(site.http).await.unwrap();
    let ask = ASK.replace("Sec-WebSocket-V", "X-Real-IP: 192.0.2.1\r\nSec-WebSocket-V");
    stream.write_all(ask.as_bytes()).await.unwrap();
    let head = soon(receive.recv()).await.unwrap();
    assert!(head.starts_with("GET /ws HTTP/1.1\r\n"), "{head}");
    let wanted = ["connection:", "upgrade:", "sec-", "x-real-ip:", "keep-"];
    assert_eq!(
        lines(&head, &wanted),
        [
            "connection: upgrade",
            "sec-websocket-key: a2v5",
            "sec-websocket-version: 13",
            "upgrade: websocket",
            "x-real-ip: 127.0.0.1",
        ]
    );
    let head = soon(read_head(&mut stream)).await.unwrap();
    assert!(
        head.starts_with("HTTP/1.1 101 Switching Protocols\r\n"),
        "{head}"
    );
    assert_eq!(
        lines(&head, &[""]),
        [
            "",
            "connection: upgrade",
            "date: today",
            "http/1.1 101 switching protocols",
            "sec-websocket-accept: a2v5",
            "upgrade: websocket",
            "x-new: 3",
        ]
    );
}

#[tokio::test]
async fn what_comes_right_behind_the_heads_is_carried() {
    let web = raw_backend(|mut stream| async move {
        read_head(&mut stream).await.unwrap();
        let all = format!("{AGREE}welcome");
        stream.write_all(all.as_bytes()).await.unwrap();
        let mut early = [0; 5];
        stream.read_exact(&mut early).await.unwrap();
        assert_eq!(&early, b"early");
        stream.write_all(b"thanks").await.unwrap();
        let _ = stream.read_u8().await;
    })
    .await;
    let site = Site::start(to(web));
    let mut stream = TcpStream::connect(site.http).await.unwrap();
    let all = format!("{ASK}early");
    stream.write_all(all.as_bytes()).await.unwrap();
    let head = soon(read_head(&mut stream)).await.unwrap();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    let mut words = [0; 13];
    soon(stream.read_exact(&mut words)).await.unwrap();
    assert_eq!(&words, b"welcomethanks");
    drop(stream);
    assert_eq!(site.log.of("/ws").await["bytes_sent"], 13);
}

/// Larger than all buffers on the way together.
const LARGE: usize = 24 * 1024 * 1024;

/// Sends a large message, whatever comes meanwhile, and wants it back.
pub(crate) async fn exchange_large(stream: TcpStream) {
    let (mut read, mut write) = stream.into_split();
    let sent: Vec<u8> = (0..LARGE)
        .map(|n| u8::try_from(n / 3 % 251).unwrap())
        .collect();
    let message = sent.clone();
    let upload = tokio::spawn(async move {
        write.write_all(&message).await.unwrap();
        write
    });
    let mut back = vec![0; LARGE];
    soon(read.read_exact(&mut back)).await.unwrap();
    assert!(back == sent);
    drop(upload.await.unwrap());
}

#[tokio::test]
async fn large_messages_are_carried() {
    let web = agreeing(|mut stream| async move {
        let mut message = vec![0; LARGE];
        stream.read_exact(&mut message).await.unwrap();
        stream.write_all(&message).await.unwrap();
    })
    .await;
    let mut routes = model();
    add_backend(&mut routes, "web", &[web]);
    add_route_with(&mut routes, "*", "/", forward("web"), |route| {
        // That is for bodies of requests.
        route.body_limit = Some(1024 * 1024);
    });
    let site = Site::start(routes);
    exchange_large(open(&site).await).await;
}

/// Runs until the sockets on the way are full, which is when nothing has moved for half a second. Says how much has.
async fn stalled(moved: &AtomicUsize) -> usize {
    let mut before = usize::MAX;
    let mut ticks = interval(Duration::from_millis(500));
    let stalled = async {
        loop {
            ticks.tick().await;
            let now = moved.load(Ordering::SeqCst);
            if now == before && now > 0 {
                return now;
            }
            before = now;
        }
    };
    soon(stalled).await
}

#[tokio::test]
async fn who_does_not_listen_stops_who_speaks() {
    let written = Arc::new(AtomicUsize::new(0));
    let progress = Arc::clone(&written);
    let endless = agreeing(move |mut stream| {
        let progress = Arc::clone(&progress);
        async move {
            let piece = vec![0; 64 * 1024];
            while stream.write_all(&piece).await.is_ok() {
                progress.fetch_add(piece.len(), Ordering::SeqCst);
            }
        }
    })
    .await;
    let site = Site::start(to(endless));
    let mut stream = open(&site).await;
    let bytes = stalled(&written).await;
    assert!(bytes < 64 * 1024 * 1024, "{bytes} bytes from the backend");
    let sent = AtomicUsize::new(0);
    let speak = async {
        let piece = vec![0; 64 * 1024];
        loop {
            stream.write_all(&piece).await.unwrap();
            sent.fetch_add(piece.len(), Ordering::SeqCst);
        }
    };
    let bytes = tokio::select! {
        bytes = stalled(&sent) => bytes,
        () = speak => 0,
    };
    assert!(bytes < 64 * 1024 * 1024, "{bytes} bytes from the client");
}

#[tokio::test]
async fn a_backend_may_decline() {
    let web = raw_backend(|mut stream| async move {
        while let Some(head) = read_head(&mut stream).await {
            let answer = if head.starts_with("GET /ws ") {
                "HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\nContent-Length: 3\r\n\r\nno\n"
            } else {
                "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nyes\n"
            };
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    })
    .await;
    let site = Site::start(to(web));
    let mut stream = TcpStream::connect(site.http).await.unwrap();
    for (ask, status, body) in [
        (ASK, "HTTP/1.1 426 ", b"no\n".to_vec()),
        (
            "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n",
            "HTTP/1.1 200 ",
            b"yes\n".to_vec(),
        ),
    ] {
        stream.write_all(ask.as_bytes()).await.unwrap();
        let head = soon(read_head(&mut stream)).await.unwrap();
        assert!(head.starts_with(status), "{head}");
        let mut got = vec![0; body.len()];
        soon(stream.read_exact(&mut got)).await.unwrap();
        assert_eq!(got, body);
    }
    assert_eq!(site.log.of("/ws").await["status"], 426);
}

#[tokio::test]
async fn a_websocket_outlives_the_time_for_bodies() {
    let site = Site::with(to(echo().await), |settings| {
        settings.limits.body_timeout = Duration::from_millis(50);
    });
    let mut stream = open(&site).await;
    // Silence for several times that long; nothing may come, the end of the connection least of all.
    let mut byte = [0];
    let quiet = timeout(Duration::from_millis(300), stream.read(&mut byte)).await;
    assert!(quiet.is_err(), "{quiet:?}");
    exchange(&mut stream, b"x").await;
}

#[tokio::test]
async fn a_websocket_on_which_nobody_speaks_is_closed() {
    let site = Site::start(impatient(echo().await, 1));
    let mut stream = open(&site).await;
    let begun = std::time::Instant::now();
    let mut rest = Vec::new();
    // A reset is an end as well.
    let _ = soon(stream.read_to_end(&mut rest)).await;
    assert!(rest.is_empty(), "{rest:?}");
    assert!(begun.elapsed() >= Duration::from_millis(800));
    let line = site.log.of("/ws").await;
    assert_eq!(
        (&line["status"], &line["reason"]),
        (&101.into(), &"read-timeout".into())
    );
}

#[tokio::test]
async fn a_websocket_on_which_one_side_speaks_is_not() {
    let deaf = agreeing(|mut stream| async move { while stream.read_u8().await.is_ok() {} }).await;
    let site = Site::start(impatient(deaf, 2));
    let mut stream = open(&site).await;
    for _ in 0..8 {
        stream.write_all(b"x").await.unwrap();
        let mut byte = [0];
        let quiet = timeout(Duration::from_millis(300), stream.read(&mut byte)).await;
        assert!(quiet.is_err(), "{quiet:?}");
    }
}

#[tokio::test]
async fn a_websocket_has_its_place_until_it_ends() {
    let health = Health {
        limits: BackendLimits {
            requests: 1,
            ..BackendLimits::default()
        },
        ..Health::default()
    };
    let site = Site::start(watched("web", &[echo().await], health));
    let mut first = open(&site).await;
    exchange(&mut first, b"here").await;
    assert_eq!(site.get("a.test", "/refused").await.status, 503);
    let states = site.running.endpoint_state();
    let in_flight: u32 = states.iter().map(|state| state.in_flight).sum();
    assert_eq!(in_flight, 1);
    drop(first);
    site.log.of("/ws").await;
    let mut second = open(&site).await;
    exchange(&mut second, b"there").await;
}
