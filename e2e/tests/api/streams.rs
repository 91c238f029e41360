//! Streams with `config/overlays/streams` as it is shipped: its flags, its ConfigMaps, its right to read exactly these.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use e2e::cluster::Access;
use e2e::lockgate::{Installation, Lockgate};
use e2e::origin::Origin;
use e2e::pki::Identity;
use e2e::scene::Scene;
use e2e::wait::{SOON, eventually};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

/// Where the servers of this test are, away from those of others.
const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 230));

#[tokio::test]
async fn ports_and_names_are_passed_on_as_the_overlay_says() -> Result<()> {
    let access = Access::shared()?;
    Installation::apply_overlay(&access, "streams").await?;
    let scene = Scene::new("streams").await?;
    let outcome = streams(&scene).await;
    // As it was, for the tests that follow.
    let added = [
        "delete",
        "configmap/lockgate-tcp",
        "configmap/lockgate-udp",
        "role/lockgate-streams",
        "rolebinding/lockgate-streams",
    ];
    scene.installation.kubectl(&added).await?;
    Installation::apply(&scene.access).await?;
    scene.finish([outcome?]).await
}

async fn streams(scene: &Scene) -> Result<Lockgate> {
    let installation = &scene.installation;
    let origin = Origin::start("web").await?;
    scene.service("web", &[&origin]).await?;
    let secure = scene.authority.site(&["pod.example.com"])?;
    let mut servers = JoinSet::new();
    let echo = UdpSocket::bind((ADDRESS, 8053)).await?;
    servers.spawn(repeat(echo));
    let listener = TcpListener::bind((ADDRESS, 8443)).await?;
    servers.spawn(greet(listener, acceptor(&secure)?));
    scene.apply(&pods()).await?;
    let gateway = scene.lockgate("streams-0", &[]).await?;
    let client = scene.client(&gateway)?;

    // A port comes with its entry and goes with it.
    let url = "http://anything.invalid:9000/";
    ensure!(client.get(url).await.is_err(), "nobody listens yet");
    installation
        .configure("lockgate-tcp", r#"{"9000":"streams/web:http"}"#)
        .await?;
    eventually("TCP is passed on", SOON, async || {
        let reply = client.get(url).await?;
        ensure!(reply.origin() == "web /", "{}", reply.origin());
        Ok(())
    })
    .await?;
    installation
        .configure("lockgate-tcp", r#"{"9000":null}"#)
        .await?;
    eventually("the port is closed", SOON, async || {
        ensure!(client.get(url).await.is_err(), "it answers");
        Ok(())
    })
    .await?;

    installation
        .configure("lockgate-udp", r#"{"9053":"streams/names:53"}"#)
        .await?;
    let to = SocketAddr::new(gateway.address, 9053);
    eventually("UDP is passed on", SOON, async || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
        socket.connect(to).await?;
        socket.send(b"who is there").await?;
        let mut answer = [0; 64];
        let answered = timeout(SOON / 10, socket.recv(&mut answer)).await?;
        let answer = answer.get(..answered?).context("no answer")?;
        ensure!(answer == b"who is there", "{answer:?}");
        Ok(())
    })
    .await?;

    // The handshake is that of the pod: Lockgate has no certificate for this name.
    eventually("TLS is passed on", SOON, async || {
        let url = "https://pod.example.com/";
        let mut connection = client.connect(url).await?;
        let shown = connection.certificate();
        ensure!(shown == Some(&secure.der), "another certificate");
        let reply = connection.get(url).await?;
        ensure!(reply.body == "from the pod", "{}", reply.body);
        Ok(())
    })
    .await?;

    // A mistake is told where it was made.
    installation
        .configure("lockgate-tcp", r#"{"9001":"nowhere"}"#)
        .await?;
    let namespace = &installation.namespace;
    eventually("the ConfigMap has an Event", SOON, async || {
        let kubectl = &scene.access.kubectl;
        let events = e2e::observe::events(kubectl, namespace, "ConfigMap", "lockgate-tcp").await?;
        let told = events
            .iter()
            .any(|event| event.message.contains("data[9001]"));
        ensure!(told, "{events:#?}");
        Ok(())
    })
    .await?;
    Ok(gateway)
}

/// Services for what is no plain HTTP, and the Ingress whose TLS is passed on.
fn pods() -> String {
    format!(
        "apiVersion: v1
kind: Service
metadata: {{name: names}}
spec: {{ports: [{{name: dns, port: 53, protocol: UDP}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: names-1, labels: {{kubernetes.io/service-name: names}}}}
addressType: IPv4
ports: [{{name: dns, port: 8053, protocol: UDP}}]
endpoints: [{{addresses: ['{ADDRESS}']}}]
---
apiVersion: v1
kind: Service
metadata: {{name: pod}}
spec: {{ports: [{{name: https, port: 443}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: pod-1, labels: {{kubernetes.io/service-name: pod}}}}
addressType: IPv4
ports: [{{name: https, port: 8443}}]
endpoints: [{{addresses: ['{ADDRESS}']}}]
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: pod
  annotations: {{nginx.ingress.kubernetes.io/ssl-passthrough: 'true'}}
spec:
  ingressClassName: lockgate
  rules:
  - host: pod.example.com
    http: {{paths: [{{path: /, pathType: Prefix, backend: {{service: {{name: pod, port: {{name: https}}}}}}}}]}}
"
    )
}

/// Sends every datagram back.
async fn repeat(socket: UdpSocket) {
    let mut datagram = [0; 2048];
    while let Ok((length, from)) = socket.recv_from(&mut datagram).await {
        if let Some(sent) = datagram.get(..length) {
            // A client that is gone does not matter to the others.
            let _ = socket.send_to(sent, from).await;
        }
    }
}

fn acceptor(identity: &Identity) -> Result<TlsAcceptor> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(
            vec![identity.der.clone()],
            PrivateKeyDer::from_pem_slice(identity.key.as_bytes())?,
        )?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Answers the first request of each connection.
async fn greet(listener: TcpListener, acceptor: TlsAcceptor) {
    const ANSWER: &[u8] =
        b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\nConnection: close\r\n\r\nfrom the pod";
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let acceptor = acceptor.clone();
        connections.spawn(async move {
            let mut stream = acceptor.accept(stream).await.ok()?;
            let mut request = [0; 1024];
            let _length = stream.read(&mut request).await.ok()?;
            stream.write_all(ANSWER).await.ok()?;
            stream.shutdown().await.ok()
        });
    }
}
