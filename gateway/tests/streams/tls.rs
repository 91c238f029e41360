//! TLS that is passed on unread, by server name.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use gateway::Limits;
use model::{HostPattern, KeyAlgorithm, RoutingModel, StreamRoute, TlsPolicy};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls_pki_types::{PrivateKeyDer, ServerName};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::front::{
    Client, TestCertificate, TestOrigin, certificate, empty, forward, get, serve_tls, until_closed,
};
use crate::shared::{counted, eventually, soon};
use crate::support::*;

/// A pod that terminates TLS itself and says `pod` to whoever gets through, then what it hears.
struct Pod {
    address: SocketAddr,
    certificate: Vec<u8>,
}

async fn pod() -> Pod {
    let key = rcgen::KeyPair::generate().unwrap();
    let made = rcgen::CertificateParams::new(["pod.test".to_owned()])
        .unwrap()
        .self_signed(&key)
        .unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let address = server(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(stream) = acceptor.accept(stream).await else {
                return;
            };
            let (mut reader, mut writer) = tokio::io::split(stream);
            writer.write_all(b"pod").await.unwrap();
            let _ = tokio::io::copy(&mut reader, &mut writer).await;
        }
    })
    .await;
    Pod {
        address,
        certificate: made.der().to_vec(),
    }
}

fn pattern(text: &str) -> HostPattern {
    HostPattern::parse(text).unwrap()
}

fn pass(model: &mut RoutingModel, host: &str, change: impl FnOnce(&mut StreamRoute)) {
    let route = route_with("pg", change);
    model.streams.hosts.insert(pattern(host), route);
}

/// `pass.test` goes to the pod, everything else to an HTTP server with a certificate of ours.
async fn model(pod: &Pod) -> (RoutingModel, TestOrigin, TestCertificate) {
    let origin = TestOrigin::start().await;
    let mut model = empty();
    let own = certificate("own.test", KeyAlgorithm::Ecdsa);
    serve_tls(&mut model, "default", &[&own], TlsPolicy::default());
    forward(&mut model, origin.address);
    endpoints(&mut model, "pg", &[pod.address]);
    pass(&mut model, "pass.test", |_| {});
    (model, origin, own)
}

async fn tls<S>(name: &str, stream: S) -> io::Result<TlsStream<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let connector = TlsConnector::from(Client::default().config());
    let name = ServerName::try_from(name.to_owned()).unwrap();
    soon(connector.connect(name, stream)).await
}

fn shown<S>(stream: &TlsStream<S>) -> Vec<u8> {
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

async fn to(site: &Site) -> TcpStream {
    let stream = TcpStream::connect(site.https).await.unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

#[tokio::test]
async fn the_client_sees_the_certificate_of_the_pod() {
    let pod = pod().await;
    let (model, _origin, own) = model(&pod).await;
    let site = Site::start(model).await;
    let mut stream = tls("Pass.Test", to(&site).await).await.unwrap();
    assert_eq!(shown(&stream), pod.certificate);
    let mut got = [0; 9];
    stream.write_all(b" hello").await.unwrap();
    soon(stream.read_exact(&mut got)).await.unwrap();
    assert_eq!(&got, b"pod hello");
    drop(stream);
    let line = site.log.line(|line| line["sni"] == "pass.test").await;
    assert_eq!(line["entrance"], "tls/pass.test");
    assert_eq!(line["protocol"], "TCP");
    assert!(line["bytes_received"].as_u64().unwrap() > 200, "{line}");

    // Others end here, as before.
    for name in ["other.test", "sub.pass.test", "192.0.2.1"] {
        let mut stream = tls(name, to(&site).await).await.unwrap();
        assert_eq!(shown(&stream), own.der.to_vec(), "{name}");
        let response = get(&mut stream, "other.test", "/").await.unwrap();
        assert_eq!(response.status, 200, "{name}");
    }
}

/// Writes byte by byte.
struct Trickle(TcpStream);

impl AsyncRead for Trickle {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Trickle {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let first = &buf[..buf.len().min(1)];
        Pin::new(&mut self.0).poll_write(cx, first)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[tokio::test]
async fn a_hello_in_many_segments_is_read_as_one() {
    let pod = pod().await;
    let (model, _origin, own) = model(&pod).await;
    let site = Site::start(model).await;
    for (name, certificate) in [
        ("pass.test", pod.certificate.clone()),
        ("other.test", own.der.to_vec()),
    ] {
        let stream = tls(name, Trickle(to(&site).await)).await.unwrap();
        assert_eq!(shown(&stream), certificate, "{name}");
    }
}

#[tokio::test]
async fn what_is_no_hello_is_refused_as_before() {
    let pod = pod().await;
    let (model, ..) = model(&pod).await;
    let limits = Limits {
        client_hello_timeout: Duration::from_millis(300),
        ..Limits::default()
    };
    let site = Site::with(model, |settings| settings.limits = limits).await;
    // Larger than a hello may be, no hello at all, and one that never ends.
    let large = [22, 3, 1, 0, 4, 1, 1, 0, 0];
    for (bytes, reason) in [
        (&large[..], "bad-client-hello"),
        (b"GET / HTTP/1.1\r\n\r\n", "bad-client-hello"),
        (&[22, 3, 1, 0, 200, 1], "client-hello-timeout"),
    ] {
        let labels = [format!("reason=\"{reason}\"")];
        let labels = labels.each_ref().map(String::as_str);
        let before = counted("lockgate_tls_handshake_failures_total", &labels);
        let mut stream = to(&site).await;
        stream.write_all(bytes).await.unwrap();
        until_closed(&mut stream).await;
        eventually(reason, || {
            counted("lockgate_tls_handshake_failures_total", &labels) > before
        })
        .await;
    }
}

#[tokio::test]
async fn a_request_does_not_reach_a_passed_host_by_another_name() {
    let pod = pod().await;
    let (model, ..) = model(&pod).await;
    let site = Site::start(model).await;
    let mut stream = tls("other.test", to(&site).await).await.unwrap();
    let response = get(&mut stream, "pass.test", "/").await.unwrap();
    assert_eq!(response.status, 421);
    // What comes without TLS was never the pod's.
    let mut plain = TcpStream::connect(site.http).await.unwrap();
    let response = get(&mut plain, "pass.test", "/").await.unwrap();
    assert_eq!(response.status, 200);
}

#[tokio::test]
async fn the_more_specific_host_decides() {
    let pod = pod().await;
    let (mut model, _origin, own) = model(&pod).await;
    model.streams.hosts.clear();
    pass(&mut model, "*.test", |_| {});
    pass(&mut model, "passed.a.test", |_| {});
    serve_tls(&mut model, "ended.test", &[&own], TlsPolicy::default());
    serve_tls(&mut model, "*.a.test", &[&own], TlsPolicy::default());
    let routes = model.hosts[&HostPattern::Any].clone();
    model.hosts.insert(pattern("routed.test"), routes);
    let site = Site::start(model).await;
    for (name, passed) in [
        ("any.test", true),
        ("ended.test", false),
        ("routed.test", false),
        ("b.a.test", false),
        ("passed.a.test", true),
        ("c.b.test", false),
    ] {
        let stream = tls(name, to(&site).await).await.unwrap();
        assert_eq!(shown(&stream) == pod.certificate, passed, "{name}");
    }
}

#[tokio::test]
async fn the_balancer_in_front_names_the_client() {
    let pod = pod().await;
    let (mut model, ..) = model(&pod).await;
    model.trust.proxy_protocol = true;
    model.trust.proxy_protocol_from = vec!["127.0.0.0/8".parse().unwrap()];
    let site = Site::start(model).await;
    let mut stream = to(&site).await;
    stream
        .write_all(b"PROXY TCP4 203.0.113.9 198.51.100.1 4242 443\r\n")
        .await
        .unwrap();
    // The pod would not understand the header.
    let stream = tls("pass.test", stream).await.unwrap();
    assert_eq!(shown(&stream), pod.certificate);
    drop(stream);
    let line = site.log.line(|line| line["sni"] == "pass.test").await;
    assert_eq!(line["remote_addr"], "203.0.113.9");
}

#[tokio::test]
async fn a_host_that_is_not_passed_on_any_more_ends_here_and_its_streams_soon() {
    let pod = pod().await;
    let (model, _origin, own) = model(&pod).await;
    let farewell = Duration::from_millis(500);
    let mut site = Site::with(model, |settings| settings.stream_farewell = farewell).await;
    let mut before = tls("pass.test", to(&site).await).await.unwrap();
    site.change(|model| model.streams.hosts.clear()).await;
    let after = tls("pass.test", to(&site).await).await.unwrap();
    assert_eq!(shown(&after), own.der.to_vec());
    let mut got = [0; 3];
    soon(before.read_exact(&mut got)).await.unwrap();
    assert_eq!(&got, b"pod");
    // Without a farewell of TLS.
    assert!(soon(before.read(&mut got)).await.is_err());
    site.log.ended("route-gone").await;
}
