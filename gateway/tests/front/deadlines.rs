//! Slow clients are cut.

use std::time::{Duration, Instant};

use gateway::Limits;
use model::{KeyAlgorithm, RoutingModel, TlsPolicy};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::{interval, timeout};

use crate::support::*;

const SHORT: Duration = Duration::from_millis(300);
const LONG: Duration = Duration::from_mins(10);

fn unhurried() -> Limits {
    Limits {
        proxy_header_timeout: LONG,
        client_hello_timeout: LONG,
        handshake_timeout: LONG,
        header_timeout: LONG,
        idle_timeout: LONG,
        ..Limits::default()
    }
}

fn with_tls() -> RoutingModel {
    let mut model = empty();
    let own = certificate("default", KeyAlgorithm::Ecdsa);
    serve_tls(&mut model, "default", &[&own], TlsPolicy::default());
    model
}

/// Writes a byte every few milliseconds until the other side is gone.
async fn trickle<S: AsyncWrite + Unpin>(stream: &mut S, bytes: &[u8]) {
    let mut tick = interval(Duration::from_millis(10));
    for byte in bytes.iter().chain(std::iter::repeat(&b'a')) {
        tick.tick().await;
        if stream.write_all(&[*byte]).await.is_err() || stream.flush().await.is_err() {
            return;
        }
    }
}

/// Sends slowly until the gateway closes.
async fn cut_while_sending<S>(stream: S, bytes: &[u8]) -> Vec<u8>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut reader, mut writer) = tokio::io::split(stream);
    let begun = Instant::now();
    let (got, ()) =
        soon(async { tokio::join!(until_closed(&mut reader), trickle(&mut writer, bytes)) }).await;
    assert!(begun.elapsed() >= SHORT / 2, "it was given time");
    got
}

#[tokio::test]
async fn a_header_that_trickles_in_is_cut() {
    let limits = Limits {
        header_timeout: SHORT,
        ..unhurried()
    };
    let site = Site::limited(with_tls(), limits);
    let labels = ["reason=\"header-timeout\""];
    let before = counted("lockgate_connections_cut_total", &labels);
    let request = b"GET / HTTP/1.1\r\nhost: a.test\r\nx-slow: ";
    let got = cut_while_sending(site.plain().await, request).await;
    assert!(!got.starts_with(b"HTTP/1.1 2"), "{got:?}");
    let stream = site
        .tls("a.test", &Client::default().config())
        .await
        .unwrap();
    cut_while_sending(stream, request).await;
    eventually("both are counted", || {
        counted("lockgate_connections_cut_total", &labels) >= before + 2.0
    })
    .await;
}

#[tokio::test]
async fn silence_is_cut() {
    let limits = Limits {
        header_timeout: SHORT,
        client_hello_timeout: SHORT,
        ..unhurried()
    };
    let site = Site::limited(with_tls(), limits);
    let h2 = || {
        let client = Client {
            alpn: &["h2"],
            ..Client::default()
        };
        client.config()
    };
    until_closed(&mut site.plain().await).await;
    until_closed(&mut site.plain_tls().await).await;
    until_closed(
        &mut site
            .tls("a.test", &Client::default().config())
            .await
            .unwrap(),
    )
    .await;
    // HTTP/2 is negotiated and its preface never comes.
    until_closed(&mut site.tls("a.test", &h2()).await.unwrap()).await;
    // The preface stops half-way, also without TLS.
    for preface in [
        &b"PRI * HTTP/2.0\r\n"[..],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        let mut stream = site.plain().await;
        stream.write_all(preface).await.unwrap();
        until_closed(&mut stream).await;
        let mut stream = site.tls("a.test", &h2()).await.unwrap();
        stream.write_all(preface).await.unwrap();
        until_closed(&mut stream).await;
    }
    eventually("nothing is left open", || site.running.connections() == 0).await;
}

#[tokio::test]
async fn a_client_hello_that_trickles_in_is_cut() {
    let limits = Limits {
        client_hello_timeout: SHORT,
        ..unhurried()
    };
    let site = Site::limited(with_tls(), limits);
    let labels = ["reason=\"client-hello-timeout\""];
    let before = counted("lockgate_tls_handshake_failures_total", &labels);
    // A handshake record of 16 KiB with a ClientHello that never ends.
    let got = cut_while_sending(
        site.plain_tls().await,
        b"\x16\x03\x01\x40\x00\x01\x00\x3f\xfc",
    )
    .await;
    assert!(got.is_empty(), "{got:?}");
    eventually("it is counted", || {
        counted("lockgate_tls_handshake_failures_total", &labels) > before
    })
    .await;
}

#[tokio::test]
async fn a_handshake_that_stops_is_cut() {
    let limits = Limits {
        handshake_timeout: SHORT,
        ..unhurried()
    };
    let site = Site::limited(with_tls(), limits);
    let labels = ["reason=\"handshake-timeout\""];
    let before = counted("lockgate_tls_handshake_failures_total", &labels);
    let name = rustls_pki_types::ServerName::try_from("a.test").unwrap();
    let mut client = rustls::ClientConnection::new(Client::default().config(), name).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    let mut stream = site.plain_tls().await;
    stream.write_all(&hello).await.unwrap();
    let got = until_closed(&mut stream).await;
    assert_eq!(
        got.first(),
        Some(&22),
        "the server had answered the ClientHello"
    );
    eventually("it is counted", || {
        counted("lockgate_tls_handshake_failures_total", &labels) > before
    })
    .await;
}

#[tokio::test]
async fn an_idle_connection_is_closed_and_a_busy_one_is_not() {
    let origin = TestOrigin::start().await;
    let mut model = with_tls();
    forward(&mut model, origin.address);
    let limits = Limits {
        header_timeout: SHORT,
        idle_timeout: SHORT,
        ..unhurried()
    };
    let site = Site::limited(model, limits);
    let mut stream = site.plain().await;
    assert_eq!(get(&mut stream, "a.test", "/").await.unwrap().status, 200);
    // Longer than every deadline, and yet it is answered: the backend may take its time.
    ask(&mut stream, "a.test", "/held").await.unwrap();
    let mut buffer = [0; 1];
    let quiet = timeout(SHORT * 3, stream.peek(&mut buffer)).await;
    assert!(quiet.is_err(), "still waiting for the backend");
    origin.permits.add_permits(1);
    assert_eq!(soon(answer(&mut stream)).await.unwrap().status, 200);
    // Another one keeps it alive, silence ends it.
    assert_eq!(get(&mut stream, "a.test", "/").await.unwrap().status, 200);
    assert!(until_closed(&mut stream).await.is_empty());
}
