//! Certificates, versions and protocols by server name.

use std::sync::Arc;

use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper_util::rt::{TokioExecutor, TokioIo};
use model::{KeyAlgorithm, RoutingModel, TlsPolicy, TlsVersion};
use rustls::version::{TLS12, TLS13};
use rustls::{HandshakeKind, SignatureScheme};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::*;

const RSA_ONLY: &[SignatureScheme] = &[
    SignatureScheme::RSA_PSS_SHA256,
    SignatureScheme::RSA_PKCS1_SHA256,
];
const ECDSA_ONLY: &[SignatureScheme] = &[SignatureScheme::ECDSA_NISTP256_SHA256];

fn with_default() -> RoutingModel {
    let mut model = empty();
    let fallback = certificate("default", KeyAlgorithm::Ecdsa);
    serve_tls(&mut model, "default", &[&fallback], TlsPolicy::default());
    model
}

#[tokio::test]
async fn the_server_name_selects_the_certificate() {
    let mut model = empty();
    let [exact, wildcard, fallback] = ["exact", "wildcard", "default"]
        .map(|name| certificate(&format!("{name}.test"), KeyAlgorithm::Ecdsa));
    for (pattern, certificate) in [
        ("shop.test", &exact),
        ("*.shop.test", &wildcard),
        ("default", &fallback),
    ] {
        serve_tls(&mut model, pattern, &[certificate], TlsPolicy::default());
    }
    let site = Site::start(model);
    let config = Client::default().config();
    for (name, want, why) in [
        ("shop.test", &exact, "exact"),
        ("SHOP.Test", &exact, "case does not count"),
        ("a.shop.test", &wildcard, "one label"),
        (
            "b.a.shop.test",
            &fallback,
            "a wildcard stands for one label",
        ),
        ("other.test", &fallback, "an unknown name"),
        ("127.0.0.1", &fallback, "no name at all"),
    ] {
        let mut stream = site.tls(name, &config).await.unwrap();
        assert_eq!(shown(&stream), &want.der, "{name}: {why}");
        let response = get(&mut stream, name, "/").await.unwrap();
        assert_eq!(response.status, 404, "{name}: served without a route");
    }
}

#[tokio::test]
async fn without_a_certificate_the_handshake_is_refused() {
    let mut model = empty();
    let own = certificate("shop.test", KeyAlgorithm::Ecdsa);
    serve_tls(&mut model, "shop.test", &[&own], TlsPolicy::default());
    let site = Site::start(model);
    let labels = ["reason=\"no-certificate\""];
    let before = counted("lockgate_tls_handshake_failures_total", &labels);
    let config = Client::default().config();
    let error = site.tls("other.test", &config).await.unwrap_err();
    assert!(error.to_string().contains("UnrecognisedName"), "{error}");
    eventually("the refusal is counted", || {
        counted("lockgate_tls_handshake_failures_total", &labels) > before
    })
    .await;
    assert!(site.tls("shop.test", &config).await.is_ok());
}

#[tokio::test]
async fn unknown_names_can_be_refused_although_there_is_a_default() {
    let mut model = with_default();
    let own = certificate("shop.test", KeyAlgorithm::Ecdsa);
    serve_tls(&mut model, "shop.test", &[&own], TlsPolicy::default());
    serve_tls(&mut model, "bare.test", &[], TlsPolicy::default());
    model.refuse_unknown_names = true;
    let site = Site::start(model);
    let config = Client::default().config();
    for (name, served, why) in [
        ("shop.test", true, "it has a certificate"),
        (
            "bare.test",
            true,
            "it has an entry, and the certificate of the default",
        ),
        ("other.test", false, "nobody has said anything about it"),
        ("127.0.0.1", false, "no name at all"),
    ] {
        assert_eq!(
            site.tls(name, &config).await.is_ok(),
            served,
            "{name}: {why}"
        );
    }
}

#[tokio::test]
async fn the_client_decides_between_two_kinds_of_keys() {
    let mut model = empty();
    let ecdsa = certificate("shop.test", KeyAlgorithm::Ecdsa);
    let rsa = certificate("shop.test", KeyAlgorithm::Rsa);
    let both = [&ecdsa, &rsa];
    serve_tls(&mut model, "shop.test", &both, TlsPolicy::default());
    let site = Site::start(model);
    for version in [&TLS12, &TLS13] {
        for (schemes, want) in [
            (Some(ECDSA_ONLY), &ecdsa),
            (Some(RSA_ONLY), &rsa),
            (None, &ecdsa),
        ] {
            let client = Client {
                versions: vec![version],
                schemes,
                ..Client::default()
            };
            let stream = site.tls("shop.test", &client.config()).await.unwrap();
            assert_eq!(shown(&stream), &want.der, "{version:?} {schemes:?}");
        }
    }
}

#[tokio::test]
async fn each_host_has_its_own_lowest_version() {
    let mut model = with_default();
    let own = certificate("strict.test", KeyAlgorithm::Ecdsa);
    let policy = TlsPolicy {
        min_version: TlsVersion::V1_3,
        ..TlsPolicy::default()
    };
    serve_tls(&mut model, "strict.test", &[&own], policy);
    let site = Site::start(model);
    let old = Client {
        versions: vec![&TLS12],
        ..Client::default()
    };
    let old = old.config();
    let stream = site.tls("other.test", &old).await.unwrap();
    assert_eq!(stream.get_ref().1.protocol_version(), Some(TLS12.version));

    let labels = ["reason=\"protocol-version\""];
    let before = counted("lockgate_tls_handshake_failures_total", &labels);
    let error = site.tls("strict.test", &old).await.unwrap_err();
    assert!(error.to_string().contains("ProtocolVersion"), "{error}");
    eventually("the failure is counted", || {
        counted("lockgate_tls_handshake_failures_total", &labels) > before
    })
    .await;
    let new = Client::default().config();
    let stream = site.tls("strict.test", &new).await.unwrap();
    assert_eq!(stream.get_ref().1.protocol_version(), Some(TLS13.version));
}

#[tokio::test]
async fn alpn_settles_the_protocol() {
    let mut model = with_default();
    let own = certificate("old.test", KeyAlgorithm::Ecdsa);
    let policy = TlsPolicy {
        http2: false,
        ..TlsPolicy::default()
    };
    serve_tls(&mut model, "old.test", &[&own], policy);
    let site = Site::start(model);
    for (alpn, host, want) in [
        (&["h2", "http/1.1"][..], "a.test", Some("h2")),
        (&["http/1.1", "h2"], "a.test", Some("h2")),
        (&["http/1.1"], "a.test", Some("http/1.1")),
        (&[], "a.test", None),
        (&["h2", "http/1.1"], "old.test", Some("http/1.1")),
    ] {
        let client = Client {
            alpn,
            ..Client::default()
        };
        let mut stream = site.tls(host, &client.config()).await.unwrap();
        let got = stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
        assert_eq!(got.as_deref(), want.map(str::as_bytes), "{host} {alpn:?}");
        if want == Some("h2") {
            assert_eq!(get_h2(stream, host).await, 404);
        } else {
            assert_eq!(get(&mut stream, host, "/").await.unwrap().status, 404);
        }
    }
}

/// One request over HTTP/2.
async fn get_h2<S>(stream: S, host: &str) -> u16
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    let (mut requests, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    let connection = tokio::spawn(connection);
    let request = hyper::Request::get(format!("https://{host}/"))
        .body(Empty::<Bytes>::new())
        .unwrap();
    let response = soon(requests.send_request(request)).await.unwrap();
    let status = response.status().as_u16();
    soon(response.into_body().collect()).await.unwrap();
    drop(requests);
    soon(connection).await.unwrap().unwrap();
    status
}

#[tokio::test]
async fn http2_without_tls_is_known_by_its_preface() {
    let site = Site::start(empty());
    assert_eq!(get_h2(site.plain().await, "a.test").await, 404);
    // Shorter than the preface, and yet a request.
    let mut stream = site.plain().await;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
    let response = soon(answer(&mut stream)).await.unwrap();
    assert!(response.head.starts_with("http/1."), "{}", response.head);
}

#[tokio::test]
async fn the_key_exchange_is_post_quantum_when_the_client_can() {
    let site = Site::start(with_default());
    let group = |stream: &tokio_rustls::client::TlsStream<TcpStream>| {
        let group = stream.get_ref().1.negotiated_key_exchange_group();
        group.unwrap().name()
    };
    let modern = Client::default().config();
    let stream = site.tls("a.test", &modern).await.unwrap();
    assert_eq!(group(&stream), rustls::NamedGroup::X25519MLKEM768);
    let classic = Client {
        groups: Some(vec![rustls::crypto::aws_lc_rs::kx_group::X25519]),
        ..Client::default()
    };
    let stream = site.tls("a.test", &classic.config()).await.unwrap();
    assert_eq!(group(&stream), rustls::NamedGroup::X25519);
}

#[tokio::test]
async fn sessions_are_resumed_also_after_a_swap() {
    for version in [&TLS12, &TLS13] {
        let mut site = Site::start(with_default());
        let client = Client {
            versions: vec![version],
            ..Client::default()
        };
        let config = client.config();
        let connect = async |site: &Site| {
            let mut stream = site.tls("a.test", &config).await.unwrap();
            // Tickets of TLS 1.3 come with the first bytes after the handshake.
            get(&mut stream, "a.test", "/").await.unwrap();
            stream.get_ref().1.handshake_kind().unwrap()
        };
        assert_eq!(connect(&site).await, HandshakeKind::Full);
        assert_eq!(connect(&site).await, HandshakeKind::Resumed);
        // Another host comes: nothing changes for this one.
        site.change(|model| {
            let own = certificate("new.test", KeyAlgorithm::Ecdsa);
            serve_tls(model, "new.test", &[&own], TlsPolicy::default());
        });
        assert_eq!(connect(&site).await, HandshakeKind::Resumed, "{version:?}");
    }
}

#[tokio::test]
async fn a_new_certificate_is_for_new_connections() {
    let mut site = Site::start(with_default());
    let config = Client::default().config();
    let mut before = site.tls("a.test", &config).await.unwrap();
    let renewed = certificate("renewed", KeyAlgorithm::Ecdsa);
    site.change(|model| serve_tls(model, "default", &[&renewed], TlsPolicy::default()));
    assert_eq!(get(&mut before, "a.test", "/").await.unwrap().status, 404);
    assert_ne!(shown(&before), &renewed.der);
    let after = site
        .tls("a.test", &Client::default().config())
        .await
        .unwrap();
    assert_eq!(shown(&after), &renewed.der);
}

/// The first flight of a client.
fn client_hello(config: Arc<rustls::ClientConfig>) -> (rustls::ClientConnection, Vec<u8>) {
    let name = ServerName::try_from("shop.test").unwrap();
    let mut client = rustls::ClientConnection::new(config, name).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    (client, hello)
}

#[tokio::test]
async fn a_client_hello_may_come_in_many_pieces() {
    let mut model = with_default();
    let own = certificate("shop.test", KeyAlgorithm::Ecdsa);
    serve_tls(&mut model, "shop.test", &[&own], TlsPolicy::default());
    let site = Site::start(model);
    let config = Client::default().config();
    // Every handshake message in records of 40 bytes of content, and each byte in a write of its own.
    let mut fragments = (*config).clone();
    fragments.max_fragment_size = Some(45);
    for (config, pieces) in [(Arc::new(fragments), false), (config, true)] {
        let (mut client, hello) = client_hello(config);
        let mut stream = site.plain_tls().await;
        if pieces {
            for byte in hello {
                stream.write_all(&[byte]).await.unwrap();
            }
        } else {
            stream.write_all(&hello).await.unwrap();
        }
        let mut answer = Vec::new();
        while client.is_handshaking() {
            while client.wants_write() {
                let mut out = Vec::new();
                client.write_tls(&mut out).unwrap();
                stream.write_all(&out).await.unwrap();
            }
            if client.is_handshaking() {
                answer.clear();
                assert_ne!(soon(stream.read_buf(&mut answer)).await.unwrap(), 0);
                let mut rest = &answer[..];
                while !rest.is_empty() {
                    client.read_tls(&mut rest).unwrap();
                    client.process_new_packets().unwrap();
                }
            }
        }
        assert_eq!(client.peer_certificates().unwrap()[0], own.der);
    }
}

#[tokio::test]
async fn what_is_not_tls_is_refused() {
    let site = Site::start(with_default());
    let labels = ["reason=\"bad-client-hello\""];
    for (bytes, alert) in [
        (&b"GET / HTTP/1.1\r\nhost: a.test\r\n\r\n"[..], true),
        // A record that claims to be a handshake and is noise.
        (
            b"\x16\x03\x01\x00\x08\xff\xff\xff\xff\xff\xff\xff\xff",
            false,
        ),
        // A message that says it is longer than any ClientHello.
        (b"\x16\x03\x01\x00\x04\x01\xff\xff\xff", false),
    ] {
        let before = counted("lockgate_tls_handshake_failures_total", &labels);
        let mut stream = site.plain_tls().await;
        stream.write_all(bytes).await.unwrap();
        let got = until_closed(&mut stream).await;
        if alert {
            assert_eq!(got.first(), Some(&21), "an alert answers {bytes:?}");
        }
        eventually("it is counted", || {
            counted("lockgate_tls_handshake_failures_total", &labels) > before
        })
        .await;
    }
}
