//! What is said about clients while the gateway runs.

use std::time::{Duration, Instant};

use model::{ClientBounds, KeyAlgorithm, RoutingModel, TlsPolicy};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::frames::{SETTINGS, begin, read};
use crate::support::*;

fn bounded(bounds: ClientBounds) -> RoutingModel {
    let mut model = empty();
    let own = certificate("default", KeyAlgorithm::Ecdsa);
    serve_tls(&mut model, "default", &[&own], TlsPolicy::default());
    model.client_bounds = bounds;
    model
}

/// The end of a connection, which is not to come before a second is over.
async fn ends_after_a_second(stream: &mut TcpStream) -> Vec<u8> {
    let begun = Instant::now();
    let rest = until_closed(stream).await;
    let after = begun.elapsed();
    assert!(after > Duration::from_millis(800), "{after:?}");
    rest
}

#[tokio::test]
async fn idle_and_header_times_are_those_of_the_table() {
    let mut site = Site::start(bounded(ClientBounds::default()));
    let mut before = site.plain().await;
    assert_eq!(get(&mut before, "a.test", "/").await.unwrap().status, 404);
    site.change(|model| {
        model.client_bounds = ClientBounds {
            header_timeout: Some(1),
            idle_timeout: Some(1),
            ..ClientBounds::default()
        };
    });
    let mut idle = site.plain().await;
    assert_eq!(get(&mut idle, "a.test", "/").await.unwrap().status, 404);
    let mut slow = site.plain().await;
    slow.write_all(b"GET / HTTP/1.1\r\nhost: a").await.unwrap();
    let mut silent = site.plain().await;
    let ends = soon(async {
        tokio::join!(
            ends_after_a_second(&mut idle),
            ends_after_a_second(&mut slow),
            ends_after_a_second(&mut silent)
        )
    });
    let (idle, _, silent) = ends.await;
    assert!(idle.is_empty() && silent.is_empty());
    // One that was there before keeps what it began with.
    let mut byte = [0; 1];
    assert!(
        timeout(Duration::from_millis(10), before.peek(&mut byte))
            .await
            .is_err()
    );
    assert_eq!(get(&mut before, "a.test", "/").await.unwrap().status, 404);
}

#[tokio::test]
async fn a_connection_carries_as_many_requests_as_the_table_says() {
    let origin = TestOrigin::start().await;
    let mut model = bounded(ClientBounds {
        requests: Some(1),
        ..ClientBounds::default()
    });
    forward(&mut model, origin.address);
    let site = Site::start(model);
    let mut stream = site.plain().await;
    let mut answered = 0;
    while let Some(response) = get(&mut stream, "a.test", "/").await {
        answered += 1;
        assert_eq!(response.status, 200);
        assert!(answered < 10);
    }
    // Pingora counts those that follow the first one.
    assert!((1..=2).contains(&answered), "{answered}");
}

#[tokio::test]
async fn header_sections_are_as_large_as_the_table_says() {
    let site = Site::start(bounded(ClientBounds {
        header_bytes: Some(2048),
        ..ClientBounds::default()
    }));
    for (length, want) in [(1000, 404), (3000, 431)] {
        let mut stream = site.plain().await;
        let head = format!(
            "GET / HTTP/1.1\r\nhost: a.test\r\nx-large: {}\r\n\r\n",
            "a".repeat(length)
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let response = soon(answer(&mut stream)).await.unwrap();
        assert_eq!(response.status, want, "{length}");
    }
}

#[tokio::test]
async fn each_header_section_is_measured_by_itself() {
    let site = Site::start(bounded(ClientBounds {
        header_bytes: Some(2048),
        ..ClientBounds::default()
    }));
    let mut stream = site.plain().await;
    let head = format!(
        "GET / HTTP/1.1\r\nhost: a.test\r\nx-large: {}\r\n\r\n",
        "a".repeat(1500)
    );
    // All of them are far more than is collected of one.
    for number in 0..20 {
        stream.write_all(head.as_bytes()).await.unwrap();
        let response = soon(answer(&mut stream)).await;
        let status = response.map(|response| response.status);
        assert_eq!(status, Some(404), "request {number}");
    }
}

#[tokio::test]
async fn a_client_of_http2_hears_how_many_streams_there_may_be() {
    for (said, want) in [(None, 128_u32), (Some(7), 7)] {
        let site = Site::start(bounded(ClientBounds {
            streams: said,
            ..ClientBounds::default()
        }));
        let mut stream = site.plain().await;
        begin(&mut stream, &[]).await;
        let settings = loop {
            let frame = soon(read(&mut stream)).await.unwrap();
            if frame.kind == SETTINGS && frame.flags == 0 {
                break frame.payload;
            }
        };
        // SETTINGS_MAX_CONCURRENT_STREAMS (RFC 9113, 6.5.2)
        let announced = settings
            .chunks(6)
            .find(|setting| setting[..2] == [0, 3])
            .map(|setting| u32::from_be_bytes(setting[2..].try_into().unwrap()));
        assert_eq!(announced, Some(want));
    }
}

#[tokio::test]
async fn a_header_section_that_goes_on_and_on_is_not_collected() {
    let site = Site::start(bounded(ClientBounds {
        header_bytes: Some(64 * 1024),
        ..ClientBounds::default()
    }));
    let labels = ["reason=\"header-size\""];
    let before = counted("lockgate_connections_cut_total", &labels);
    let mut stream = site.plain().await;
    stream
        .write_all(b"GET / HTTP/1.1\r\nhost: a.test\r\nx-large: ")
        .await
        .unwrap();
    let (mut reader, mut writer) = stream.into_split();
    let sending = tokio::spawn(async move {
        let mut sent = 0;
        while sent < 1 << 30 && writer.write_all(&[b'a'; 1000]).await.is_ok() {
            sent += 1000;
        }
        sent
    });
    until_closed(&mut reader).await;
    let sent = soon(sending).await.unwrap();
    // What the kernel holds is not ours.
    assert!(sent < 32 << 20, "{sent} bytes were taken");
    eventually("it is counted", || {
        counted("lockgate_connections_cut_total", &labels) > before
    })
    .await;
    eventually("nothing is left", || site.running.connections() == 0).await;
}
