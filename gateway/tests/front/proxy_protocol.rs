//! Who the client is behind a load balancer.

use gateway::Limits;
use model::{KeyAlgorithm, RoutingModel, TlsPolicy};
use rustls_pki_types::ServerName;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::support::*;

const V1: &[u8] = b"PROXY TCP4 203.0.113.9 198.51.100.1 4242 443\r\n";
const V1_NOBODY: &[u8] = b"PROXY UNKNOWN\r\n";
const V2: &[u8] =
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xcb\0\x71\x09\xc6\x33\x64\x01\x10\x92\x01\xbb";
const V2_LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

fn behind(trusted: &str) -> RoutingModel {
    let mut model = empty();
    let own = certificate("default", KeyAlgorithm::Ecdsa);
    serve_tls(&mut model, "default", &[&own], TlsPolicy::default());
    model.trust.proxy_protocol = true;
    model.trust.proxy_protocol_from = vec![trusted.parse().unwrap()];
    model
}

#[tokio::test]
async fn the_header_names_the_client_on_both_ports() {
    let origin = TestOrigin::start().await;
    let mut model = behind("127.0.0.0/8");
    forward(&mut model, origin.address);
    let site = Site::start(model);
    for (header, want) in [
        (V1, "203.0.113.9"),
        (V2, "203.0.113.9"),
        (V1_NOBODY, "127.0.0.1"),
        (V2_LOCAL, "127.0.0.1"),
    ] {
        let want = format!("x-forwarded-for: {want}\r\n");
        let mut plain = site.plain().await;
        plain.write_all(header).await.unwrap();
        let response = get(&mut plain, "a.test", "/").await.unwrap();
        assert!(response.body.contains(&want), "{want} in {}", response.body);

        // In pieces, and with the ClientHello right behind it.
        let mut stream = TcpStream::connect(site.https).await.unwrap();
        for byte in header {
            stream.write_all(&[*byte]).await.unwrap();
        }
        let connector = TlsConnector::from(Client::default().config());
        let name = ServerName::try_from("a.test").unwrap();
        let mut stream = soon(connector.connect(name, stream)).await.unwrap();
        let response = get(&mut stream, "a.test", "/").await.unwrap();
        assert!(response.body.contains(&want), "{want} in {}", response.body);
    }
    // The request came in the same segment as the header.
    let mut stream = site.plain().await;
    let both = [V2, b"GET / HTTP/1.1\r\nhost: a.test\r\n\r\n"].concat();
    stream.write_all(&both).await.unwrap();
    let response = soon(answer(&mut stream)).await.unwrap();
    assert!(response.body.contains("x-forwarded-for: 203.0.113.9\r\n"));
}

#[tokio::test]
async fn from_anybody_else_it_is_a_bad_request() {
    let site = Site::start(behind("10.0.0.0/8"));
    for header in [V1, V2] {
        let mut stream = site.plain().await;
        stream.write_all(header).await.unwrap();
        ask(&mut stream, "a.test", "/").await;
        let got = until_closed(&mut stream).await;
        assert!(
            got.is_empty() || got.starts_with(b"HTTP/1.1 400"),
            "{}",
            String::from_utf8_lossy(&got)
        );
        let mut stream = site.plain_tls().await;
        stream.write_all(header).await.unwrap();
        assert_eq!(
            until_closed(&mut stream).await.first(),
            Some(&21),
            "an alert"
        );
    }
    // Without a header they are served.
    let mut stream = site.plain().await;
    assert_eq!(get(&mut stream, "a.test", "/").await.unwrap().status, 404);
}

#[tokio::test]
async fn a_trusted_peer_must_send_one() {
    let limits = Limits {
        proxy_header_timeout: Duration::from_millis(200),
        ..Limits::default()
    };
    let site = Site::limited(behind("127.0.0.0/8"), limits);
    for (bytes, reason) in [
        (
            &b"GET / HTTP/1.1\r\nhost: a.test\r\n\r\n"[..],
            "proxy-protocol-missing",
        ),
        (b"PROXY TCP4 nonsense", "proxy-protocol-timeout"),
        (b"PROXY TCP9 1 2 3 4\r\n", "proxy-protocol-invalid"),
        (b"", "proxy-protocol-timeout"),
    ] {
        let labels = [format!("reason=\"{reason}\"")];
        let labels = labels.each_ref().map(String::as_str);
        let before = counted("lockgate_connections_refused_total", &labels);
        let mut stream = site.plain().await;
        stream.write_all(bytes).await.unwrap();
        let got = until_closed(&mut stream).await;
        assert!(got.is_empty(), "{}", String::from_utf8_lossy(&got));
        eventually(reason, || {
            counted("lockgate_connections_refused_total", &labels) > before
        })
        .await;
    }
}
