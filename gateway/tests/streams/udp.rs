//! Datagrams from a port to a pod.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use gateway::Limits;
use model::RoutingModel;
use tokio::net::UdpSocket;
use tokio::time::timeout;

use crate::front::empty;
use crate::shared::{counted, soon};
use crate::support::*;

/// A server that answers each datagram with its name and what it heard.
async fn echo(name: &'static str) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = vec![0; 65_535];
        while let Ok((length, client)) = socket.recv_from(&mut buffer).await {
            let answer = [name.as_bytes(), &buffer[..length]].concat();
            socket.send_to(&answer, client).await.unwrap();
        }
    });
    address
}

fn with_port(addresses: &[SocketAddr]) -> (RoutingModel, u16) {
    let mut model = empty();
    endpoints(&mut model, "dns", addresses);
    let port = free_port();
    model.streams.udp.insert(port, route("dns"));
    (model, port)
}

async fn client(port: u16) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(("127.0.0.1", port)).await.unwrap();
    socket
}

async fn hear(socket: &UdpSocket) -> String {
    let mut buffer = vec![0; 65_535];
    let length = soon(socket.recv(&mut buffer)).await.unwrap();
    String::from_utf8(buffer[..length].to_vec()).unwrap()
}

async fn ask(socket: &UdpSocket, text: &str) -> String {
    socket.send(text.as_bytes()).await.unwrap();
    hear(socket).await
}

/// Asks until there is an answer: a datagram may be lost while an endpoint turns out not to be there.
async fn insist(socket: &UdpSocket, text: &str) -> String {
    let asking = async {
        loop {
            socket.send(text.as_bytes()).await.unwrap();
            if let Ok(answer) = timeout(Duration::from_millis(200), hear(socket)).await {
                return answer;
            }
        }
    };
    soon(asking).await
}

#[tokio::test]
async fn each_client_gets_its_own_answers() {
    let (model, port) = with_port(&[echo("a:").await]);
    let mut site = Site::start(model).await;
    let mut clients = Vec::new();
    for number in 0..20 {
        let socket = client(port).await;
        socket
            .send(format!("from {number}").as_bytes())
            .await
            .unwrap();
        clients.push(socket);
    }
    for (number, socket) in clients.iter().enumerate().rev() {
        assert_eq!(hear(socket).await, format!("a:from {number}"));
        assert_eq!(ask(socket, "again").await, "a:again");
    }
    let entrance = format!("entrance=\"udp/{port}\"");
    let labels = [entrance.as_str(), "service=\"dns\""];
    assert!((counted("lockgate_streams_open", &labels) - 20.0).abs() < 0.1);
    // As large as they come, and as small.
    let large = "x".repeat(60_000);
    assert_eq!(ask(&clients[0], &large).await, format!("a:{large}"));
    assert_eq!(ask(&clients[0], "").await, "a:");

    site.change(|model| model.streams.udp.clear()).await;
    let line = site.log.line(|line| line["bytes_received"] == 60_011).await;
    assert_eq!(line["protocol"], "UDP");
    assert_eq!(line["reason"], "route-gone");
    assert_eq!(line["service_port"], "5432");
    assert!(counted("lockgate_streams_open", &labels).abs() < 0.1);
}

#[tokio::test]
async fn a_client_moves_when_its_endpoint_goes_and_stays_when_another_comes() {
    let (one, two) = (echo("one:").await, echo("two:").await);
    let (model, port) = with_port(&[one]);
    let mut site = Site::start(model).await;
    let socket = client(port).await;
    assert_eq!(ask(&socket, "x").await, "one:x");
    site.change(|model| endpoints(model, "dns", &[one, two]))
        .await;
    for _ in 0..5 {
        assert_eq!(ask(&socket, "x").await, "one:x");
    }
    site.change(|model| endpoints(model, "dns", &[two])).await;
    // No datagram is lost on the way.
    assert_eq!(ask(&socket, "x").await, "two:x");
    let line = async {
        site.change(|model| model.streams.udp.clear()).await;
        site.log.ended("route-gone").await
    };
    let line = line.await;
    assert_eq!(line["upstream_addr"], format!("{one}, {two}"));
}

#[tokio::test]
async fn an_endpoint_that_does_not_listen_is_left() {
    let dead = {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.local_addr().unwrap()
    };
    let (model, port) = with_port(&[dead, echo("good:").await]);
    let _site = Site::start(model).await;
    for _ in 0..4 {
        assert_eq!(insist(&client(port).await, "x").await, "good:x");
    }
}

#[tokio::test]
async fn as_many_clients_are_remembered_as_may_be() {
    let (model, port) = with_port(&[echo("").await]);
    let site = Site::with(model, |settings| {
        settings.workers = 1;
        settings.limits = Limits {
            max_udp_sessions: 3,
            max_connections: 1,
            ..Limits::default()
        };
    })
    .await;
    let mut clients = Vec::new();
    for number in 0..10 {
        let socket = client(port).await;
        let text = number.to_string();
        assert_eq!(ask(&socket, &text).await, text);
        clients.push(socket);
    }
    site.log.ended("displaced").await;
    // Who was forgotten is a new client, and none takes the place of a connection.
    for socket in &clients {
        assert_eq!(ask(socket, "back").await, "back");
    }
    assert_eq!(site.running.connections(), 0);
}

#[tokio::test]
async fn a_drain_waits_for_clients_that_are_not_silent() {
    let (model, port) = with_port(&[echo("").await]);
    let site = Site::start(model).await;
    let socket = client(port).await;
    assert_eq!(ask(&socket, "x").await, "x");
    site.running.drain();
    let mut ticks = tokio::time::interval(Duration::from_millis(100));
    for _ in 0..5 {
        ticks.tick().await;
        assert_eq!(ask(&socket, "still there").await, "still there");
    }
    let stranger = client(port).await;
    // The system says that nobody listens, or nothing comes.
    let _ = stranger.send(b"x").await;
    let nothing = timeout(Duration::from_millis(300), stranger.recv(&mut [0; 1])).await;
    assert!(!matches!(nothing, Ok(Ok(_))), "{nothing:?}");
    soon(site.running.drained()).await;
}

#[tokio::test]
async fn a_burst_before_the_endpoint_is_known_is_kept() {
    let (model, port) = with_port(&[echo("").await]);
    let _site = Site::start(model).await;
    let socket = Arc::new(client(port).await);
    for number in 0..30_u8 {
        socket.send(&[number]).await.unwrap();
    }
    let mut heard = Vec::new();
    for _ in 0..30 {
        let mut buffer = [0; 1];
        soon(socket.recv(&mut buffer)).await.unwrap();
        heard.push(buffer[0]);
    }
    heard.sort_unstable();
    assert_eq!(heard, (0..30).collect::<Vec<u8>>());
}
