//! How slow everybody may be, and that nothing is collected for those who are.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::interval;

use crate::support::{
    Site, add_backend, add_route_with, echo, eventually, forward, model, raw_backend, read_head,
    soon, to,
};

const SHORT: Duration = Duration::from_millis(300);

/// Sends a byte now and then, far more often than `SHORT`, until there is an answer.
async fn trickle(site: &Site, head: &str, most: usize) -> Option<String> {
    let mut stream = TcpStream::connect(site.http).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut ticks = interval(Duration::from_millis(10));
    let mut answer = [0; 12];
    for _ in 0..most {
        tokio::select! {
            biased;
            read = stream.read_exact(&mut answer) => {
                read.unwrap();
                return Some(String::from_utf8_lossy(&answer).into_owned());
            }
            _ = ticks.tick() => stream.write_all(b"x").await.unwrap(),
        }
    }
    None
}

#[tokio::test]
async fn a_body_that_trickles_in_is_ended() {
    let head = "POST /trickle HTTP/1.1\r\nHost: a.test\r\nContent-Length: 1000000\r\n\r\n";
    for (rate, ends) in [(10_000, true), (0, false)] {
        let site = Site::with(to(echo("web").await), |settings| {
            settings.limits.body_timeout = SHORT;
            settings.limits.min_client_rate = rate;
        });
        // Without a rate it lasts as long as the client likes: here, ten times as long as may be between two bytes.
        let most = if ends { 2000 } else { 300 };
        let answer = soon(trickle(&site, head, most)).await;
        let want = ends.then(|| "HTTP/1.1 408".to_owned());
        assert_eq!(answer, want, "{rate}");
        if ends {
            let line = site.log.of("/trickle").await;
            assert_eq!(line["reason"], "client-timeout");
        }
    }
}

#[tokio::test]
async fn a_stream_may_be_slow() {
    let site = Site::with(to(echo("web").await), |settings| {
        settings.limits.body_timeout = SHORT;
        settings.limits.min_client_rate = 10_000;
    });
    let mut stream = TcpStream::connect(site.http).await.unwrap();
    let head = "POST /s HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut ticks = interval(Duration::from_millis(10));
    for _ in 0..100 {
        ticks.tick().await;
        stream.write_all(b"1\r\nx\r\n").await.unwrap();
    }
    stream.write_all(b"0\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    soon(stream.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_let_go() {
    let closed = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&closed);
    let endless = raw_backend(move |mut stream| {
        let count = Arc::clone(&count);
        async move {
            read_head(&mut stream).await;
            let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
            stream.write_all(head.as_bytes()).await.unwrap();
            let chunk = format!("10000\r\n{}\r\n", "x".repeat(65_536));
            while stream.write_all(chunk.as_bytes()).await.is_ok() {}
            count.fetch_add(1, Ordering::SeqCst);
        }
    })
    .await;
    let site = Site::with(to(endless), |settings| {
        settings.limits.write_timeout = SHORT;
    });
    let mut stream = TcpStream::connect(site.http).await.unwrap();
    let request = "GET /full HTTP/1.1\r\nHost: a.test\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let line = site.log.of("/full").await;
    assert_eq!(
        (&line["status"], &line["reason"]),
        (&200.into(), &"client-closed".into())
    );
    eventually("the backend is let go", || {
        closed.load(Ordering::SeqCst) == 1
    })
    .await;
}

#[tokio::test]
async fn a_backend_that_does_not_read_stops_its_client() {
    let deaf = raw_backend(|mut stream| async move {
        read_head(&mut stream).await;
        std::future::pending::<()>().await;
    })
    .await;
    let mut routes = model();
    add_backend(&mut routes, "web", &[deaf]);
    add_route_with(&mut routes, "*", "/", forward("web"), |route| {
        route.timeouts.send = 2;
    });
    let site = Site::start(routes);
    let stream = TcpStream::connect(site.http).await.unwrap();
    let (mut reader, mut writer) = stream.into_split();
    let sent = Arc::new(AtomicUsize::new(0));
    let progress = Arc::clone(&sent);
    let upload = tokio::spawn(async move {
        let head = format!(
            "PUT /deaf HTTP/1.1\r\nHost: a.test\r\nContent-Length: {}\r\n\r\n",
            1_usize << 40
        );
        writer.write_all(head.as_bytes()).await.unwrap();
        let piece = vec![0; 64 * 1024];
        while writer.write_all(&piece).await.is_ok() {
            progress.fetch_add(piece.len(), Ordering::SeqCst);
        }
    });
    let mut answer = [0; 12];
    soon(reader.read_exact(&mut answer)).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 504");
    let bytes = sent.load(Ordering::SeqCst);
    assert!(bytes < 64 * 1024 * 1024, "{bytes} bytes went somewhere");
    assert_eq!(site.log.of("/deaf").await["status"], 504);
    drop(reader);
    upload.abort();
}
