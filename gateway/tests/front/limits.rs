//! How many connections, and where.

use std::net::{SocketAddr, TcpListener};

use gateway::{Gateway, Limits, Settings};
use model::{KeyAlgorithm, TlsPolicy};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use crate::support::*;

#[tokio::test]
async fn one_connection_too_many_is_closed_at_once() {
    let limits = Limits {
        max_connections: 3,
        ..Limits::default()
    };
    let site = Site::limited(empty(), limits);
    let labels = ["reason=\"limit\""];
    let before = counted("lockgate_connections_refused_total", &labels);
    let mut open = Vec::new();
    for _ in 0..3 {
        let mut stream = site.plain().await;
        assert_eq!(get(&mut stream, "a.test", "/").await.unwrap().status, 404);
        open.push(stream);
    }
    assert_eq!(site.running.connections(), 3);
    let mut excess = site.plain().await;
    assert!(until_closed(&mut excess).await.is_empty());
    eventually("it is counted", || {
        counted("lockgate_connections_refused_total", &labels) > before
    })
    .await;
    // Those that are open go on, and one that leaves makes room.
    for stream in &mut open {
        assert_eq!(get(stream, "a.test", "/").await.unwrap().status, 404);
    }
    open.pop();
    eventually("there is room", || site.running.connections() == 2).await;
    let mut next = site.plain().await;
    assert_eq!(get(&mut next, "a.test", "/").await.unwrap().status, 404);
}

fn bind(addresses: &[SocketAddr], workers: usize) -> Result<Gateway, gateway::BindError> {
    let (_, reader) = table::channel(table::compile(&empty()).table);
    let settings = Settings {
        http: addresses.to_vec(),
        workers,
        ..Settings::default()
    };
    Gateway::bind(settings, reader)
}

#[test]
fn an_address_in_use_is_named() {
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = other.local_addr().unwrap();
    let error = bind(&[taken], 2).unwrap_err();
    assert_eq!(error.address, taken);
    assert_eq!(
        error.to_string(),
        format!("cannot listen on {taken}: another socket listens there already")
    );

    // Sharing the port with another gateway is refused too, although the kernel would allow it.
    let first = bind(&["127.0.0.1:0".parse().unwrap()], 2).unwrap();
    let shared = first.http_addresses().to_vec();
    let first = first.start().unwrap();
    let error = bind(&shared, 2).unwrap_err();
    assert_eq!(error.address, shared[0]);
    first.join().unwrap();
    assert!(bind(&shared, 2).is_ok(), "a gateway leaves nothing behind");

    // An address of nobody (RFC 5737).
    let nowhere: SocketAddr = "192.0.2.1:0".parse().unwrap();
    let error = bind(&[nowhere], 1).unwrap_err().to_string();
    assert!(
        error.contains("no interface of this machine has that address"),
        "{error}"
    );
}

#[tokio::test]
async fn a_gateway_that_does_not_serve_yet_refuses_connections() {
    let gateway = bind(&["127.0.0.1:0".parse().unwrap()], 2).unwrap();
    let address = gateway.http_addresses()[0];
    let refused = tokio::net::TcpStream::connect(address).await.unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);

    let running = gateway.start().unwrap();
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    assert_eq!(get(&mut stream, "a.test", "/").await.unwrap().status, 404);
    tokio::task::spawn_blocking(|| running.join())
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn both_families_are_served() {
    let Ok(probe) = TcpListener::bind("[::]:0") else {
        return; // A machine without IPv6 has nothing to show here.
    };
    let port = probe.local_addr().unwrap().port();
    drop(probe);
    let six: SocketAddr = format!("[::]:{port}").parse().unwrap();
    let four: SocketAddr = format!("0.0.0.0:{port}").parse().unwrap();
    for addresses in [&[six][..], &[six, four], &[four, six]] {
        let running = bind(addresses, 2).unwrap().start().unwrap();
        for target in [format!("127.0.0.1:{port}"), format!("[::1]:{port}")] {
            let mut stream = tokio::net::TcpStream::connect(&target).await.unwrap();
            let response = get(&mut stream, "a.test", "/").await.unwrap();
            assert_eq!(response.status, 404, "{target} of {addresses:?}");
        }
        tokio::task::spawn_blocking(|| running.join())
            .await
            .unwrap()
            .unwrap();
    }
}

/// Sends a large body to a route that does not exist, and reads only then.
async fn upload<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) -> Option<Response> {
    let head = "POST / HTTP/1.1\r\nhost: a.test\r\ncontent-length: 3000000\r\n\r\n";
    stream.write_all(head.as_bytes()).await.ok()?;
    for _ in 0..30 {
        stream.write_all(&vec![b'x'; 100_000]).await.ok()?;
        tokio::task::yield_now().await;
    }
    stream.flush().await.ok()?;
    soon(answer(&mut stream)).await
}

#[tokio::test]
async fn an_answer_survives_what_the_client_still_sends() {
    let mut model = empty();
    let own = certificate("default", KeyAlgorithm::Ecdsa);
    serve_tls(&mut model, "default", &[&own], TlsPolicy::default());
    let site = Site::start(model);
    // The answer is written when the header has been read. Closing the socket with bytes unread would reset the
    // connection, and the answer would be lost on its way.
    for _ in 0..5 {
        let response = upload(site.plain().await).await.expect("over TCP");
        assert_eq!(response.status, 404);
        let stream = site.tls("a.test", &Client::default().config()).await;
        let response = upload(stream.unwrap()).await.expect("over TLS");
        assert_eq!(response.status, 404);
    }
}
