//! How HTTP/2 connections end while a gateway does.

use std::time::{Duration, Instant};

use gateway::Limits;
use model::{KeyAlgorithm, RoutingModel, TlsPolicy};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::frames::{
    ACK, END_HEADERS, END_STREAM, Frame, GET, GOAWAY, HEADERS, PING, WINDOW_UPDATE, begin, frame,
    read,
};
use crate::support::*;

const SHORT: Duration = Duration::from_millis(300);
const LONG: Duration = Duration::from_mins(10);

fn model(origin: &TestOrigin) -> RoutingModel {
    let mut model = empty();
    let own = certificate("default", KeyAlgorithm::Ecdsa);
    serve_tls(&mut model, "default", &[&own], TlsPolicy::default());
    forward(&mut model, origin.address);
    model
}

/// The time for a farewell is no longer than that for a header section.
fn limits(header_timeout: Duration) -> Limits {
    Limits {
        header_timeout,
        idle_timeout: LONG,
        client_hello_timeout: LONG,
        drain_grace: Duration::from_millis(100),
        ..Limits::default()
    }
}

/// A connection on which one request has been answered.
async fn used(site: &Site) -> TcpStream {
    let mut stream = site.plain().await;
    begin(&mut stream, &[]).await;
    let request = frame(HEADERS, END_HEADERS | END_STREAM, 1, GET);
    stream.write_all(&request).await.unwrap();
    answered(&mut stream, 1).await;
    stream
}

/// Reads up to the end of this stream.
async fn answered(stream: &mut TcpStream, number: u32) {
    loop {
        let frame = soon(read(stream)).await.unwrap();
        if frame.stream == number && frame.flags & END_STREAM != 0 {
            return;
        }
    }
}

async fn next(stream: &mut TcpStream, kind: u8) -> Frame {
    loop {
        let frame = soon(read(stream)).await.expect("a frame, not the end");
        if frame.kind == kind {
            return frame;
        }
    }
}

#[tokio::test]
async fn a_client_that_says_nothing_learns_what_was_looked_at() {
    let origin = TestOrigin::start().await;
    let site = Site::limited(model(&origin), limits(SHORT));
    let mut stream = used(&site).await;
    let labels = ["reason=\"drain\""];
    let before = counted("lockgate_connections_cut_total", &labels);
    site.running.drain();
    let first = next(&mut stream, GOAWAY).await;
    assert_eq!(first.farewell(), Some((u32::MAX >> 1, 0)), "whatever comes");
    // The PING that comes with it is not answered.
    let last = next(&mut stream, GOAWAY).await;
    assert_eq!(last.farewell(), Some((1, 0)), "one request and no more");
    // No reset: everything that was sent arrives, although this comes too late.
    stream.write_all(&frame(PING, 0, 0, &[0; 8])).await.unwrap();
    let mut rest = Vec::new();
    soon(stream.read_to_end(&mut rest)).await.unwrap();
    assert!(counted("lockgate_connections_cut_total", &labels) > before);
    drop(stream);
    soon(site.running.drained()).await;
}

#[tokio::test]
async fn a_client_that_still_speaks_is_listened_to() {
    let origin = TestOrigin::start().await;
    let site = Site::limited(model(&origin), limits(SHORT));
    let mut stream = used(&site).await;
    site.running.drain();
    next(&mut stream, GOAWAY).await;
    // Much longer than somebody who is silent is waited for.
    let begun = Instant::now();
    let mut ticks = tokio::time::interval(SHORT / 10);
    while begun.elapsed() < SHORT * 4 {
        ticks.tick().await;
        let update = frame(WINDOW_UPDATE, 0, 0, &1_u32.to_be_bytes());
        stream.write_all(&update).await.unwrap();
    }
    // It had not heard of the end when it sent this.
    let request = frame(HEADERS, END_HEADERS | END_STREAM, 3, GET);
    stream.write_all(&request).await.unwrap();
    answered(&mut stream, 3).await;
    let last = next(&mut stream, GOAWAY).await;
    assert_eq!(last.farewell(), Some((3, 0)));
    drop(stream);
    soon(site.running.drained()).await;
}

#[tokio::test]
async fn a_client_that_goes_at_once_is_not_waited_for() {
    let origin = TestOrigin::start().await;
    let site = Site::limited(model(&origin), limits(LONG));
    let mut stream = used(&site).await;
    let begun = Instant::now();
    site.running.drain();
    let ping = next(&mut stream, PING).await;
    let answer = frame(PING, ACK, 0, &ping.payload);
    stream.write_all(&answer).await.unwrap();
    let last = next(&mut stream, GOAWAY).await;
    assert_eq!(last.farewell(), Some((1, 0)));
    drop(stream);
    soon(site.running.drained()).await;
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "nothing was waited for"
    );
}

#[tokio::test]
async fn a_client_that_has_never_said_anything_is_not_waited_for() {
    let origin = TestOrigin::start().await;
    let site = Site::limited(model(&origin), limits(LONG));
    let client = Client {
        alpn: &["h2"],
        ..Client::default()
    };
    let config = client.config();
    let mut silent = site.tls("a.test", &config).await.unwrap();
    // Half a preface is nothing either.
    let mut halting = site.tls("a.test", &config).await.unwrap();
    halting.write_all(b"PRI * HTTP/2.0\r\n").await.unwrap();
    halting.flush().await.unwrap();
    eventually("both are accepted", || site.running.connections() == 2).await;
    site.running.drain();
    until_closed(&mut silent).await;
    until_closed(&mut halting).await;
    soon(site.running.drained()).await;
}
