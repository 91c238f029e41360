//! Places and memory are short.

use std::time::{Duration, Instant};

use gateway::{Limits, Pressure};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::frames::{END_HEADERS, END_STREAM, GET, HEADERS, begin, frame, read};
use crate::support::*;

/// A connection on which a request has been answered.
async fn used(site: &Site) -> TcpStream {
    let mut stream = site.plain().await;
    assert_eq!(get(&mut stream, "a.test", "/").await.unwrap().status, 200);
    stream
}

/// A connection of HTTP/2 on which a request has been answered.
async fn used_http2(site: &Site) -> TcpStream {
    let mut stream = site.plain().await;
    begin(&mut stream, &[]).await;
    let request = frame(HEADERS, END_HEADERS | END_STREAM, 1, GET);
    stream.write_all(&request).await.unwrap();
    while soon(read(&mut stream)).await.unwrap().flags & END_STREAM == 0 {}
    stream
}

async fn started(limits: Limits) -> (Site, TestOrigin) {
    let origin = TestOrigin::start().await;
    let mut model = empty();
    forward(&mut model, origin.address);
    (Site::limited(model, limits), origin)
}

#[tokio::test]
async fn idle_connections_make_room_before_there_is_none_left() {
    let limits = Limits {
        max_connections: 32,
        ..Limits::default()
    };
    let (site, origin) = started(limits).await;
    let mut busy = site.plain().await;
    ask(&mut busy, "a.test", "/held").await.unwrap();
    origin.arrival().await;
    let mut idle = Vec::new();
    for _ in 0..28 {
        idle.push(used(&site).await);
    }
    // Twenty-nine are no reason, thirty are.
    let labels = ["resource=\"connections\""];
    let cut = ["reason=\"overload\""];
    assert_eq!(site.running.connections(), 29);
    idle.push(used(&site).await);
    eventually("some make room", || site.running.connections() < 30).await;
    assert!(counted("lockgate_overloads_total", &labels) >= 1.0);
    assert!(counted("lockgate_connections_cut_total", &cut) >= 1.0);
    // What was being done is finished, and others come in.
    origin.permits.add_permits(1);
    assert_eq!(soon(answer(&mut busy)).await.unwrap().status, 200);
    let mut next = used(&site).await;
    assert_eq!(get(&mut next, "a.test", "/").await.unwrap().status, 200);
    eventually("it is over", || {
        let level = counted("lockgate_overload", &labels);
        site.running.connections() >= 30 || level < 0.5
    })
    .await;
}

#[tokio::test]
async fn while_memory_is_short_nothing_is_kept() {
    let (site, origin) = started(Limits::default()).await;
    let mut idle = used(&site).await;
    let mut silent = site.plain().await;
    let mut http2 = used_http2(&site).await;
    let mut busy = site.plain().await;
    ask(&mut busy, "a.test", "/held").await.unwrap();
    for _ in 0..3 {
        origin.arrival().await;
    }
    site.running.press(Pressure::Shed);
    assert!(until_closed(&mut idle).await.is_empty());
    assert!(until_closed(&mut silent).await.is_empty());
    if crate::ENGINE != gateway::Engine::Pingora {
        let told = async {
            while let Some(frame) = read(&mut http2).await {
                if let Some((_, code)) = frame.farewell() {
                    return code;
                }
            }
            panic!("it was not told");
        };
        assert_eq!(soon(told).await, 0, "nothing was wrong with it");
    }
    // Three requests have been answered: this is the fourth.
    origin.permits.add_permits(1);
    let response = soon(answer(&mut busy)).await.unwrap();
    assert_eq!(response.status, 200);
    assert!(
        response.head.contains("connection: close"),
        "{}",
        response.head
    );
    site.running.press(Pressure::None);
    let mut next = used(&site).await;
    let response = get(&mut next, "a.test", "/").await.unwrap();
    assert!(
        !response.head.contains("connection: close"),
        "{}",
        response.head
    );
}

#[tokio::test]
async fn while_there_is_hardly_any_memory_few_are_let_in() {
    let (site, _origin) = started(Limits::default()).await;
    drop(used(&site).await);
    site.running.press(Pressure::Hold);
    let begun = Instant::now();
    // Two sockets, each of which takes one every hundred milliseconds, and one each that was being waited for.
    for _ in 0..10 {
        drop(used(&site).await);
    }
    let held = begun.elapsed();
    assert!(held > Duration::from_millis(300), "{held:?}");
    // All that has come meanwhile is still there.
    let mut waiting = Vec::new();
    for _ in 0..50 {
        let mut stream = site.plain().await;
        ask(&mut stream, "a.test", "/").await.unwrap();
        waiting.push(stream);
    }
    site.running.press(Pressure::None);
    for stream in &mut waiting {
        assert_eq!(soon(answer(stream)).await.unwrap().status, 200);
    }
}
