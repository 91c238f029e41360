//! Ports that come and go.

use std::time::Duration;

use gateway::Limits;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::time::timeout;

use crate::front::{empty, get};
use crate::shared::{eventually, soon};
use crate::support::*;

#[tokio::test]
async fn ports_open_and_close_and_touch_no_other_one() {
    let pod = parrot("hi").await;
    let mut model = empty();
    endpoints(&mut model, "pg", &[pod]);
    let (first, second) = (free_port(), free_port());
    let farewell = Duration::from_millis(700);
    let mut site = Site::with(model, |settings| settings.stream_farewell = farewell).await;
    let mut http = TcpStream::connect(site.http).await.unwrap();
    assert_eq!(get(&mut http, "a.test", "/").await.unwrap().status, 404);
    assert!(TcpStream::connect(("127.0.0.1", first)).await.is_err());

    site.change(|model| drop(model.streams.tcp.insert(first, route("pg"))))
        .await;
    let mut stays = connect(first).await;
    exchange(&mut stays, "", "hi").await;
    site.change(|model| drop(model.streams.tcp.insert(second, route("pg"))))
        .await;
    let mut goes = connect(second).await;
    exchange(&mut goes, "", "hi").await;

    site.change(|model| drop(model.streams.tcp.remove(&second)))
        .await;
    assert!(
        TcpStream::connect(("127.0.0.1", second)).await.is_err(),
        "nobody is let in any more"
    );
    exchange(&mut goes, "what has begun", "what has begun").await;
    // It has some time to end, and no more.
    let _ = rest(&mut goes).await;
    let line = site.log.ended("route-gone").await;
    assert_eq!(line["entrance"], format!("tcp/{second}"));
    exchange(&mut stays, "untouched", "untouched").await;
    assert_eq!(
        get(&mut http, "a.test", "/").await.unwrap().status,
        404,
        "on the connection of before"
    );

    // The same port again, for as often as one likes.
    for _ in 0..5 {
        let opened = site
            .change(|model| drop(model.streams.tcp.insert(second, route("pg"))))
            .await;
        assert_eq!(opened, []);
        exchange(&mut connect(second).await, "", "hi").await;
        site.change(|model| drop(model.streams.tcp.remove(&second)))
            .await;
    }
}

#[tokio::test]
async fn a_stream_goes_on_when_its_port_comes_back() {
    let (model, port) = with_port(&[parrot("hi").await]);
    let kept = model.streams.clone();
    let farewell = Duration::from_millis(500);
    let mut site = Site::with(model, |settings| settings.stream_farewell = farewell).await;
    let mut stream = connect(port).await;
    exchange(&mut stream, "", "hi").await;
    site.change(|model| model.streams.tcp.clear()).await;
    site.change(|model| model.streams = kept).await;
    let mut ticks = tokio::time::interval(farewell);
    for _ in 0..3 {
        ticks.tick().await;
        exchange(&mut stream, "x", "x").await;
    }
}

#[tokio::test]
async fn a_port_that_is_taken_is_named_and_opened_once_it_is_free() {
    let pod = parrot("hi").await;
    let other = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let taken = other.local_addr().unwrap().port();
    let good = free_port();
    let mut model = empty();
    endpoints(&mut model, "pg", &[pod]);
    let mut site = Site::start(model).await;
    let own = site.http.port();
    let refused = site
        .change(|model| {
            for port in [taken, good, own] {
                model.streams.tcp.insert(port, route("pg"));
            }
        })
        .await;
    assert_eq!(refused.len(), 2, "{refused:?}");
    for reject in &refused {
        assert_eq!(
            reject.origin.to_string(),
            "ConfigMap lockgate/tcp data[9000]"
        );
    }
    let texts: Vec<_> = refused
        .iter()
        .map(|reject| reject.reason.as_str())
        .collect();
    let want = format!("cannot listen on 127.0.0.1:{taken}: another socket listens there already");
    assert!(
        texts.iter().any(|text| text.starts_with(&want)),
        "{texts:?}"
    );
    exchange(&mut connect(good).await, "", "hi").await;

    drop(other);
    let refused = site.running.update_ports().await;
    assert_eq!(refused.len(), 1, "only our own is left: {refused:?}");
    exchange(&mut connect(taken).await, "", "hi").await;
}

#[tokio::test]
async fn a_udp_port_that_is_taken_is_named_too() {
    let other = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let taken = other.local_addr().unwrap().port();
    let mut site = Site::start(empty()).await;
    let refused = site
        .change(|model| drop(model.streams.udp.insert(taken, route("dns"))))
        .await;
    assert_eq!(refused.len(), 1, "{refused:?}");
    drop(other);
    assert_eq!(site.running.update_ports().await, []);
}

#[tokio::test]
async fn a_drain_leaves_streams_their_time() {
    let (model, port) = with_port(&[parrot("hi").await]);
    let site = Site::start(model).await;
    let mut stream = connect(port).await;
    exchange(&mut stream, "", "hi").await;
    site.running.drain();
    eventually("nobody is let in any more", || {
        std::net::TcpStream::connect(("127.0.0.1", port)).is_err()
    })
    .await;
    exchange(&mut stream, "still there", "still there").await;
    let early = timeout(Duration::from_millis(100), site.running.drained()).await;
    assert!(early.is_err(), "a stream is under way");
    stream.shutdown().await.unwrap();
    assert_eq!(rest(&mut stream).await.unwrap(), b"");
    soon(site.running.drained()).await;
    assert_eq!(site.running.update_ports().await, [], "nothing is opened");
}

#[tokio::test]
async fn an_abort_cuts_streams_and_their_lines_are_written() {
    let (model, port) = with_port(&[parrot("hi").await]);
    let site = Site::start(model).await;
    let mut stream = connect(port).await;
    exchange(&mut stream, "", "hi").await;
    let Site { running, log, .. } = site;
    tokio::task::spawn_blocking(|| running.join())
        .await
        .unwrap()
        .unwrap();
    let _ = rest(&mut stream).await;
    log.ended("aborted").await;
}

#[tokio::test]
async fn streams_count_as_connections() {
    let (model, port) = with_port(&[parrot("hi").await]);
    let site = Site::with(model, |settings| {
        settings.limits = Limits {
            max_connections: 2,
            ..Limits::default()
        };
    })
    .await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut stream = connect(port).await;
        exchange(&mut stream, "", "hi").await;
        held.push(stream);
    }
    assert_eq!(site.running.connections(), 2);
    let mut excess = connect(port).await;
    assert_eq!(rest(&mut excess).await.unwrap_or_default(), b"");
    held.pop();
    eventually("there is room", || site.running.connections() == 1).await;
    exchange(&mut connect(port).await, "", "hi").await;
}
