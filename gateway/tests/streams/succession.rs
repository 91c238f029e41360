//! Sockets that go from one gateway to the next one.

use std::net::SocketAddr;

use tokio::net::{TcpStream, UdpSocket};

use crate::front::get;
use crate::shared::soon;
use crate::support::*;

/// A gateway with the addresses and the sockets of another one.
async fn after(before: &Site, workers: usize) -> Site {
    let handed = before.running.sockets().unwrap();
    Site::after(handed, before.model.clone(), |settings| {
        settings.http = vec![before.http];
        settings.https = vec![before.https];
        settings.workers = workers;
        settings.keep_sockets = true;
    })
    .await
}

#[tokio::test]
async fn every_queue_is_served_whatever_the_number_of_workers() {
    let (model, port) = with_port(&[parrot("hi").await]);
    let mut site = Site::with(model, |settings| settings.keep_sockets = true).await;
    let mut older = Vec::new();
    // There were two workers.
    for workers in [3, 1, 2] {
        let mut stays = connect(port).await;
        exchange(&mut stays, "", "hi").await;
        // Some wait in queues, some come later.
        let mut waiting = Vec::new();
        for _ in 0..20 {
            waiting.push(connect(port).await);
        }
        let newer = after(&site, workers).await;
        site.running.hand_over();
        for _ in 0..40 {
            waiting.push(connect(port).await);
            let mut http = TcpStream::connect(newer.http).await.unwrap();
            assert_eq!(get(&mut http, "a.test", "/").await.unwrap().status, 404);
        }
        for stream in &mut waiting {
            exchange(stream, "", "hi").await;
        }
        assert!(newer.running.connections() > 0);
        // What has begun stays where it is.
        exchange(&mut stays, "more", "more").await;
        drop((stays, waiting));
        soon(site.running.drained()).await;
        older.push(site);
        site = newer;
    }
}

#[tokio::test]
async fn a_port_that_nobody_wants_any_more_is_closed() {
    let (model, port) = with_port(&[parrot("hi").await]);
    let site = Site::with(model, |settings| settings.keep_sockets = true).await;
    let handed = site.running.sockets().unwrap();
    let model = crate::front::empty();
    let _newer = Site::after(handed, model, |settings| settings.http = vec![site.http]).await;
    exchange(&mut connect(port).await, "", "hi").await;
    site.running.hand_over();
    soon(site.running.drained()).await;
    assert!(TcpStream::connect(("127.0.0.1", port)).await.is_err());
    assert!(TcpStream::connect(site.https).await.is_err());
    assert!(TcpStream::connect(site.http).await.is_ok());
}

#[tokio::test]
async fn a_port_that_was_closed_is_not_handed_over() {
    let (model, port) = with_port(&[parrot("hi").await]);
    let mut site = Site::with(model, |settings| settings.keep_sockets = true).await;
    let has = |site: &Site| {
        let sockets = site.running.sockets().unwrap();
        sockets.iter().any(|socket| socket.address.port() == port)
    };
    assert!(has(&site));
    site.change(|model| model.streams.tcp.clear()).await;
    assert!(!has(&site));
    assert!(TcpStream::connect(("127.0.0.1", port)).await.is_err());
    site.running.drain();
    assert!(site.running.sockets().unwrap().is_empty());
}

/// A server that sends back what it gets.
async fn udp_echo() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 2048];
        while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            if socket.send_to(&buffer[..length], from).await.is_err() {
                return;
            }
        }
    });
    address
}

#[tokio::test]
async fn datagrams_have_one_reader() {
    let mut model = crate::front::empty();
    endpoints(&mut model, "dns", &[udp_echo().await]);
    let port = free_port();
    model.streams.udp.insert(port, route("dns"));
    let site = Site::with(model, |settings| settings.keep_sockets = true).await;
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    client.connect(("127.0.0.1", port)).await.unwrap();
    let mut buffer = [0; 16];
    client.send(b"before").await.unwrap();
    assert_eq!(soon(client.recv(&mut buffer)).await.unwrap(), 6);
    let _newer = after(&site, 2).await;
    site.running.hand_over();
    soon(site.running.drained()).await;
    for _ in 0..20 {
        client.send(b"after").await.unwrap();
        assert_eq!(soon(client.recv(&mut buffer)).await.unwrap(), 5);
    }
}
