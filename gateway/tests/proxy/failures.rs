//! What clients and the log see when a backend fails.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use hyper::Request;
use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{
    Site, add_backend, add_route_with, counted, eventually, forward, model, raw_backend, read_head,
    soon, to,
};

#[tokio::test]
async fn a_silent_backend_is_a_timeout() {
    let silent = raw_backend(|mut stream| async move {
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
    })
    .await;
    let mut model = model();
    add_backend(&mut model, "web", &[silent]);
    add_route_with(&mut model, "*", "/", forward("web"), |route| {
        route.timeouts.read = 1;
    });
    let site = Site::start(model);
    let answer = site.get("a.test", "/").await;
    assert_eq!(
        (answer.status, answer.body.as_str()),
        (504, "504 Gateway Timeout\n")
    );
    let line = site.log.of("/").await;
    assert_eq!(line["reason"], "read-timeout");
    assert_eq!(line["upstream_addr"], silent.to_string());
    assert_eq!(
        line["tries"], 1,
        "a request that was sent is not sent again"
    );
}

#[tokio::test]
async fn a_backend_that_does_not_accept_is_a_timeout() {
    // With a backlog of zero the kernel completes one connection and ignores the others.
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    socket.bind(&any.into()).unwrap();
    socket.listen(0).unwrap();
    let full: SocketAddr = socket.local_addr().unwrap().as_socket().unwrap();
    let _first = TcpStream::connect(full).await.unwrap();
    let mut model = model();
    add_backend(&mut model, "web", &[full]);
    add_route_with(&mut model, "*", "/", forward("web"), |route| {
        route.timeouts.connect = 1;
    });
    let site = Site::start(model);
    let answer = site.get("a.test", "/").await;
    assert_eq!(answer.status, 504);
    assert_eq!(site.log.of("/").await["reason"], "connect-timeout");
}

#[tokio::test]
async fn a_backend_that_hangs_up_is_a_bad_gateway() {
    let rude = raw_backend(|mut stream| async move {
        read_head(&mut stream).await;
    })
    .await;
    let site = Site::start(to(rude));
    let answer = site.get("a.test", "/gone").await;
    assert_eq!(answer.status, 502);
    assert!(!answer.body.contains("127.0.0.1"), "{}", answer.body);
    assert_eq!(site.log.of("/gone").await["reason"], "upstream-reset");
    eventually("it is counted by reason", || {
        counted(
            "lockgate_generated_responses_total",
            &[
                "reason=\"upstream-reset\"",
                "status=\"502\"",
                "source=\"upstream\"",
            ],
        ) >= 1.0
    })
    .await;
}

#[tokio::test]
async fn a_backend_that_speaks_something_else_is_a_bad_gateway() {
    for (text, reason) in [
        ("SSH-2.0-OpenSSH_9.2\r\n\r\n", "upstream-invalid"),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
            "upstream-invalid",
        ),
    ] {
        let other = raw_backend(move |mut stream| async move {
            read_head(&mut stream).await;
            let _ = stream.write_all(text.as_bytes()).await;
            let _ = stream.flush().await;
            read_head(&mut stream).await;
        })
        .await;
        let site = Site::start(to(other));
        assert_eq!(site.get("a.test", "/").await.status, 502, "{text}");
        assert_eq!(site.log.of("/").await["reason"], reason, "{text}");
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_not_completed() {
    for (head, what) in [
        ("Content-Length: 100", "by length"),
        ("Transfer-Encoding: chunked", "chunked"),
    ] {
        let broken = raw_backend(move |mut stream| async move {
            read_head(&mut stream).await;
            let text = format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n5\r\nhello\r\n");
            stream.write_all(text.as_bytes()).await.unwrap();
        })
        .await;
        let site = Site::start(to(broken));
        let all = site.raw("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
        assert!(all.starts_with("HTTP/1.1 200 "), "{what}: {all}");
        assert!(all.contains("hello"), "{what}: {all}");
        assert!(
            !all.ends_with("0\r\n\r\n"),
            "{what}: the end would be a lie: {all}"
        );
        let line = site.log.of("/").await;
        assert_eq!(line["status"], 200, "{what}");
        assert_eq!(line["reason"], "upstream-reset", "{what}");
    }
}

/// Answers the first request of its first connection; the second one there meets a closed connection.
async fn forgetful() -> (SocketAddr, Arc<AtomicUsize>) {
    let connections = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&connections);
    let address = raw_backend(move |mut stream| {
        let number = counter.fetch_add(1, Ordering::SeqCst);
        async move {
            let mut requests = 0;
            while read_head(&mut stream).await.is_some() {
                requests += 1;
                if number == 0 && requests == 2 {
                    return;
                }
                let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        }
    })
    .await;
    (address, connections)
}

#[tokio::test]
async fn a_kept_connection_that_closes_is_replaced() {
    let (address, connections) = forgetful().await;
    let site = Site::start(to(address));
    assert_eq!(site.get("a.test", "/one").await.status, 200);
    assert_eq!(site.get("a.test", "/two").await.status, 200);
    assert_eq!(site.log.of("/two").await["tries"], 2);
    assert_eq!(connections.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn what_may_not_be_repeated_is_not() {
    let (address, connections) = forgetful().await;
    let site = Site::start(to(address));
    assert_eq!(site.get("a.test", "/one").await.status, 200);
    let post = Request::post("/two").header("host", "a.test");
    let answer = site.send(post.body(Bytes::from("order")).unwrap()).await;
    assert_eq!(answer.status, 502);
    assert_eq!(site.log.of("/two").await["reason"], "upstream-reset");
    assert_eq!(connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_client_that_leaves_is_499_and_its_backend_is_let_go() {
    let held = crate::streams::Held::start().await;
    let site = Site::start(to(held.address));
    let mut stream = TcpStream::connect(site.http).await.unwrap();
    stream
        .write_all(b"GET /left HTTP/1.1\r\nHost: a.test\r\n\r\n")
        .await
        .unwrap();
    soon(held.arrivals(1)).await;
    drop(stream);
    let line = site.log.of("/left").await;
    assert_eq!(
        (&line["status"], &line["reason"]),
        (&499.into(), &"client-closed".into())
    );
    eventually("nothing is in flight", || {
        site.running
            .endpoint_state()
            .iter()
            .all(|state| state.in_flight == 0)
    })
    .await;
}

#[tokio::test]
async fn a_slow_body_is_the_clients_fault() {
    let site = Site::with(to(crate::support::echo("web").await), |settings| {
        settings.limits.body_timeout = std::time::Duration::from_millis(200);
    });
    let all = site
        .raw("POST /slow HTTP/1.1\r\nHost: a.test\r\nContent-Length: 10\r\n\r\nabc")
        .await;
    assert!(all.starts_with("HTTP/1.1 408 "), "{all}");
    assert_eq!(site.log.of("/slow").await["reason"], "client-timeout");
}
