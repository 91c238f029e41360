//! What one client may have, so that others get something.

use std::net::SocketAddr;

use gateway::Limits;
use model::{KeyAlgorithm, RoutingModel, TlsPolicy};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};

use crate::support::*;

fn with_tls() -> RoutingModel {
    let mut model = empty();
    let own = certificate("default", KeyAlgorithm::Ecdsa);
    serve_tls(&mut model, "default", &[&own], TlsPolicy::default());
    model
}

/// Connects from another address of this machine.
async fn connect_from(address: &str, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket
        .bind(SocketAddr::new(address.parse().unwrap(), 0))
        .unwrap();
    socket.connect(to).await.unwrap()
}

/// Is it served?
async fn is_served(stream: &mut TcpStream) -> bool {
    get(stream, "a.test", "/")
        .await
        .is_some_and(|response| response.status == 404)
}

#[tokio::test]
async fn a_client_has_so_many_connections_and_others_are_served() {
    let limits = Limits {
        max_connections_per_client: 3,
        ..Limits::default()
    };
    let site = Site::limited(with_tls(), limits);
    let labels = ["reason=\"client-limit\""];
    let before = counted("lockgate_connections_refused_total", &labels);
    let mut first = site.plain().await;
    assert!(is_served(&mut first).await);
    let mut second = site.plain().await;
    assert!(is_served(&mut second).await);
    // One that has said nothing counts as well, on whichever port.
    let silent = site.plain_tls().await;
    eventually("it has been seen", || site.running.connections() == 3).await;
    for address in [site.http, site.https] {
        let mut excess = TcpStream::connect(address).await.unwrap();
        assert!(until_closed(&mut excess).await.is_empty());
    }
    eventually("both are counted", || {
        counted("lockgate_connections_refused_total", &labels) >= before + 2.0
    })
    .await;
    let mut other = connect_from("127.0.0.2", site.http).await;
    assert!(is_served(&mut other).await, "somebody else");
    // Those that are there go on, and one that leaves makes room.
    assert!(is_served(&mut first).await && is_served(&mut second).await);
    drop(silent);
    eventually("there is room", || site.running.connections() == 3).await;
    let mut next = site.plain().await;
    assert!(is_served(&mut next).await);
}

#[tokio::test]
async fn behind_a_load_balancer_its_clients_are_counted() {
    let limits = Limits {
        max_connections_per_client: 1,
        ..Limits::default()
    };
    let mut model = with_tls();
    model.trust.proxy_protocol = true;
    model.trust.proxy_protocol_from = vec!["127.0.0.0/8".parse().unwrap()];
    let site = Site::limited(model, limits);
    let client = async |address: &str| {
        let mut stream = site.plain().await;
        let header = format!("PROXY TCP4 {address} 198.51.100.1 4242 80\r\n");
        stream.write_all(header.as_bytes()).await.unwrap();
        stream
    };
    let mut first = client("192.0.2.1").await;
    assert!(is_served(&mut first).await);
    let mut second = client("192.0.2.2").await;
    assert!(is_served(&mut second).await, "the peer is the same");
    let mut again = client("192.0.2.1").await;
    assert!(until_closed(&mut again).await.is_empty());
    // Health checks of the load balancer itself are nobody's connections.
    for _ in 0..3 {
        let mut check = site.plain().await;
        check.write_all(b"PROXY UNKNOWN\r\n").await.unwrap();
        assert!(is_served(&mut check).await);
    }
    drop(first);
    eventually("there is room", || site.running.connections() == 1).await;
    let mut again = client("192.0.2.1").await;
    assert!(is_served(&mut again).await);
}

#[tokio::test]
async fn there_are_so_many_handshakes_at_once() {
    let limits = Limits {
        max_handshakes: 2,
        ..Limits::default()
    };
    let site = Site::limited(with_tls(), limits);
    let labels = ["reason=\"busy\""];
    let before = counted("lockgate_tls_handshake_failures_total", &labels);
    let name = rustls_pki_types::ServerName::try_from("a.test").unwrap();
    let mut held = Vec::new();
    for _ in 0..2 {
        let config = Client::default().config();
        let mut client = rustls::ClientConnection::new(config, name.clone()).unwrap();
        let mut hello = Vec::new();
        client.write_tls(&mut hello).unwrap();
        let mut stream = site.plain_tls().await;
        stream.write_all(&hello).await.unwrap();
        // It has been answered, and says nothing to that.
        soon(stream.readable()).await.unwrap();
        held.push(stream);
    }
    // A third one ends the one that has waited for longest, and nobody else.
    let config = Client::default().config();
    let mut done = Vec::new();
    let mut stream = site.tls("a.test", &config).await.unwrap();
    assert_eq!(get(&mut stream, "a.test", "/").await.unwrap().status, 404);
    done.push(stream);
    until_closed(&mut held[0]).await;
    eventually("it is counted", || {
        counted("lockgate_tls_handshake_failures_total", &labels) > before
    })
    .await;
    // Whoever has not sent a ClientHello holds nothing, and neither do those that have finished.
    let _silent = site.plain_tls().await;
    for _ in 0..3 {
        let mut stream = site.tls("a.test", &config).await.unwrap();
        // To the client it is over before it is to us; an answer shows that it is to both.
        assert_eq!(get(&mut stream, "a.test", "/").await.unwrap().status, 404);
        done.push(stream);
    }
    eventually("all others are there", || site.running.connections() == 6).await;
    let after = counted("lockgate_tls_handshake_failures_total", &labels);
    assert!(after < before + 1.5, "{before} {after}");
}
