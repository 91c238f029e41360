//! What is passed on unread: ports of TCP and UDP by ConfigMap, TLS by annotation.

#[path = "../../../gateway/tests/shared/free_port.rs"]
mod free_port;

use std::net::SocketAddr;
use std::sync::Arc;

use controller::app::Settings;
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::time::{interval, timeout};
use tokio_rustls::TlsAcceptor;

use self::free_port::free_port;
use crate::client::{self, PATIENCE};
use crate::manifest::{Authority, Pair, ingress, ingress_tls, secret, service};
use crate::origin::Origin;
use crate::world::{World, put};

/// A server that says `name` and then what it hears.
async fn parrot(name: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let _ = stream.write_all(name.as_bytes()).await;
                let (mut reader, mut writer) = stream.split();
                let _ = tokio::io::copy(&mut reader, &mut writer).await;
            });
        }
    });
    port
}

fn configmap(name: &str, entries: &[(&str, &str)]) -> String {
    let entries: Vec<String> = entries
        .iter()
        .map(|(key, value)| format!("\"{key}\": \"{value}\""))
        .collect();
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, namespace: test}}\ndata: {{{}}}\n",
        entries.join(", ")
    )
}

fn with_ports(settings: &mut Settings) {
    settings.translation.tcp_services = Some("test/tcp".parse().unwrap());
    settings.translation.udp_services = Some("test/udp".parse().unwrap());
}

/// Connects, reads as much as `greeting`, and tries again until that is it: ports open after the table.
async fn greeted(port: u16, greeting: &str) -> TcpStream {
    let mut ticks = interval(std::time::Duration::from_millis(5));
    let trying = async {
        loop {
            ticks.tick().await;
            let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)).await else {
                continue;
            };
            let mut got = vec![0; greeting.len()];
            if stream.read_exact(&mut got).await.is_ok() && got == greeting.as_bytes() {
                return stream;
            }
        }
    };
    timeout(PATIENCE, trying).await.unwrap()
}

async fn refused(port: u16) {
    let mut ticks = interval(std::time::Duration::from_millis(5));
    let trying = async {
        while TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
            ticks.tick().await;
        }
    };
    timeout(PATIENCE, trying).await.unwrap();
}

/// Waits for a problem that has all these texts.
async fn reported(world: &World, texts: &[&str]) {
    let mut ticks = interval(std::time::Duration::from_millis(10));
    let mut last = Vec::new();
    let looking = async {
        loop {
            ticks.tick().await;
            last = world.problems().await;
            let found = |problem: &String| texts.iter().all(|text| problem.contains(text));
            if last.iter().any(found) {
                return;
            }
        }
    };
    let found = timeout(PATIENCE, looking).await;
    assert!(found.is_ok(), "{texts:?} is not in {last:#?}");
}

#[tokio::test]
async fn ports_follow_their_configmap_while_requests_are_served() {
    let web = Origin::start("web").await;
    let (one, two) = (free_port(), free_port());
    let entry = |port: u16| (port.to_string(), "test/pg:80");
    let (first, second) = (entry(one), entry(two));
    let files = [
        ("shop.yaml", ingress("shop", "shop.test", &[("/", "web")])),
        ("web.yaml", service("web", &[web.port])),
        ("pg.yaml", service("pg", &[parrot("pg").await])),
        ("tcp.yaml", configmap("tcp", &[(&first.0, first.1)])),
    ];
    let files = files.each_ref().map(|(name, text)| (*name, text.as_str()));
    let mut world = World::start_with(Authority::new(), &files, with_ports).await;
    let mut stream = greeted(one, "pg").await;
    assert!(world.problems().await.is_empty());

    let both = configmap("tcp", &[(&first.0, first.1), (&second.0, second.1)]);
    world.write("tcp.yaml", &both).await;
    greeted(two, "pg").await;
    // Other pods for new connections; the old ones go on.
    let other = service("pg", &[parrot("new").await]);
    world.write("pg.yaml", &other).await;
    greeted(one, "new").await;
    stream.write_all(b"still").await.unwrap();
    let mut got = [0; 5];
    stream.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"still");

    let rest = configmap("tcp", &[(&second.0, second.1)]);
    world.write("tcp.yaml", &rest).await;
    refused(one).await;
    greeted(two, "new").await;
    world
        .changed(|folder| std::fs::remove_file(folder.join("tcp.yaml")).unwrap())
        .await;
    refused(two).await;
    assert_eq!(world.get("shop.test", "/").await.body, "web /");
    let page = world.admin("/debug/routes?format=table").await.body;
    assert!(!page.contains("PASSED ON"), "{page}");
}

#[tokio::test]
async fn datagrams_come_and_go_by_configmap() {
    let pod = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = pod.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 1024];
        while let Ok((length, client)) = pod.recv_from(&mut buffer).await {
            pod.send_to(&buffer[..length], client).await.unwrap();
        }
    });
    let dns = service("dns", &[address.port()])
        .replace("port: 80}", "port: 53, protocol: UDP}")
        .replace(
            &format!("port: {}}}", address.port()),
            &format!("port: {}, protocol: UDP}}", address.port()),
        );
    let port = free_port();
    let udp = configmap("udp", &[(&port.to_string(), "test/dns:53")]);
    let files = [("dns.yaml", dns.as_str()), ("udp.yaml", udp.as_str())];
    let world = World::start_with(Authority::new(), &files, with_ports).await;
    assert_eq!(world.problems().await, Vec::<String>::new());
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let there: SocketAddr = ([127, 0, 0, 1], port).into();
    let mut ticks = interval(std::time::Duration::from_millis(20));
    let asking = async {
        let mut buffer = [0; 16];
        loop {
            tokio::select! {
                _ = ticks.tick() => { client.send_to(b"who", there).await.unwrap(); }
                got = client.recv_from(&mut buffer) => {
                    // Before the port is open the system says so.
                    if let Ok((length, from)) = got {
                        assert_eq!((&buffer[..length], from), (&b"who"[..], there));
                        return;
                    }
                }
            }
        }
    };
    timeout(PATIENCE, asking).await.unwrap();
    let page = world.admin("/debug/routes?format=table").await.body;
    assert!(page.contains(&format!("UDP port {port}")), "{page}");
}

#[tokio::test]
async fn ports_that_cannot_be_had_are_told_and_harm_no_other_one() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = taken.local_addr().unwrap().port();
    let good = free_port();
    let (port_text, good_text) = (port.to_string(), good.to_string());
    let tcp = configmap(
        "tcp",
        &[
            (&port_text, "test/pg:80"),
            (&good_text, "test/pg:80"),
            ("9", "test/pg"),
            ("8", "test/gone:80"),
            ("7", "test/pg:80"),
        ],
    );
    let pg = service("pg", &[parrot("pg").await]);
    let files = [("pg.yaml", pg.as_str()), ("tcp.yaml", tcp.as_str())];
    let world = World::start_with(Authority::new(), &files, |settings| {
        with_ports(settings);
        settings.translation.own_ports = [7].into();
    })
    .await;
    greeted(good, "pg").await;
    let in_use = format!("cannot listen on 127.0.0.1:{port}: another socket listens there already");
    for texts in [
        &["ConfigMap test/tcp", in_use.as_str()][..],
        &[
            "ConfigMap test/tcp",
            "data[9]",
            "is not of the form namespace/service:port",
        ],
        &[
            "ConfigMap test/tcp",
            "data[8]",
            "Service test/gone does not exist; connections to this port are closed",
        ],
        &[
            "ConfigMap test/tcp",
            "data[7]",
            "port 7 is one of Lockgate's own",
        ],
    ] {
        reported(&world, texts).await;
    }
    drop(taken);
    greeted(port, "pg").await;
    let mut ticks = interval(std::time::Duration::from_millis(20));
    let solved = async {
        while world
            .problems()
            .await
            .iter()
            .any(|text| text.contains(&in_use))
        {
            ticks.tick().await;
        }
    };
    timeout(PATIENCE, solved).await.unwrap();
}

/// A pod that terminates TLS itself and says `name`.
async fn secure(name: &'static str, pair: &Pair) -> u16 {
    let chain = vec![CertificateDer::from(pair.der.clone())];
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else {
                    return;
                };
                if client::head(&mut stream).await.is_none() {
                    return;
                }
                let answer = format!(
                    "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{name}",
                    name.len()
                );
                let _ = stream.write_all(answer.as_bytes()).await;
                let _ = stream.shutdown().await;
            });
        }
    });
    port
}

fn annotated(manifest: &str, annotations: &str) -> String {
    manifest.replace(
        "namespace: test}",
        &format!("namespace: test, annotations: {{{annotations}}}}}"),
    )
}

const PASSTHROUGH: &str = "nginx.ingress.kubernetes.io/ssl-passthrough: 'true'";

#[tokio::test]
async fn tls_reaches_the_pod_unread() {
    let authority = Authority::new();
    let pair = authority.sign("vault.test");
    let other = authority.sign("shop.test");
    let web = Origin::start("web").await;
    let vault = ingress("vault", "vault.test", &[("/", "vault"), ("/ui", "web")]);
    let files = [
        ("vault.yaml", annotated(&vault, PASSTHROUGH)),
        (
            "pods.yaml",
            service("vault", &[secure("vault", &pair).await]),
        ),
        (
            "shop.yaml",
            ingress_tls("shop", "shop.test", "web", "shop-tls"),
        ),
        ("shop-tls.yaml", secret("shop-tls", &other)),
        ("web.yaml", service("web", &[web.port])),
    ];
    let files = files.each_ref().map(|(name, text)| (*name, text.as_str()));
    let mut world = World::start_with(authority, &files, |settings| {
        settings.translation.ssl_passthrough = true;
    })
    .await;
    for path in ["/", "/ui"] {
        let answer = world.get_tls("vault.test", path).await.unwrap();
        assert_eq!(answer.body, "vault");
        assert_eq!(answer.certificate, pair.der, "{path}");
    }
    let answer = world.get_tls("shop.test", "/").await.unwrap();
    assert_eq!(
        (answer.body.as_str(), &answer.certificate),
        ("web /", &other.der)
    );
    // Plain HTTP has somewhere better to go.
    let redirect = world.get("vault.test", "/x").await;
    assert_eq!(redirect.status, 308);
    assert_eq!(redirect.header("location"), "https://vault.test/x");
    reported(
        &world,
        &[
            "Ingress test/vault",
            "paths[1]",
            "this path is reached by plain HTTP only",
        ],
    )
    .await;
    let page = world.admin("/debug/routes?format=table").await.body;
    assert!(page.contains("TLS for vault.test"), "{page}");

    // Without the annotation the connection ends here.
    world.write("vault.yaml", &vault).await;
    assert!(world.get_tls("vault.test", "/").await.is_err());
}

#[tokio::test]
async fn without_the_flag_nothing_is_decrypted_instead() {
    let authority = Authority::new();
    let pair = authority.sign("vault.test");
    let vault = ingress_tls("vault", "vault.test", "vault", "vault-tls");
    let files = [
        ("vault.yaml", annotated(&vault, PASSTHROUGH)),
        ("tls.yaml", secret("vault-tls", &pair)),
        (
            "pods.yaml",
            service("vault", &[secure("vault", &pair).await]),
        ),
    ];
    let files = files.each_ref().map(|(name, text)| (*name, text.as_str()));
    let world = World::start_with(authority, &files, |_| {}).await;
    assert_eq!(world.get_tls("vault.test", "/").await.unwrap().status, 503);
    reported(
        &world,
        &[
            "Ingress test/vault",
            "no effect without the flag `--enable-ssl-passthrough`",
        ],
    )
    .await;
}

#[tokio::test]
async fn the_first_claim_of_a_host_decides_about_its_tls() {
    let authority = Authority::new();
    let pair = authority.sign("shop.test");
    let evil = authority.sign("shop.test");
    let web = Origin::start("web").await;
    // Whoever comes first by age: the one with a password.
    let guarded = annotated(
        &ingress_tls("shop", "shop.test", "web", "shop-tls"),
        "nginx.ingress.kubernetes.io/auth-type: basic, nginx.ingress.kubernetes.io/auth-secret: users",
    )
    .replace("namespace: test,", "namespace: test, creationTimestamp: '2026-01-01T00:00:00Z',");
    let users = "apiVersion: v1\nkind: Secret\nmetadata: {name: users, namespace: test}\ntype: Opaque\nstringData: {auth: 'u:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g='}\n";
    let taking = annotated(
        &ingress("taking", "shop.test", &[("/", "evil")]),
        PASSTHROUGH,
    )
    .replace(
        "namespace: test,",
        "namespace: other, creationTimestamp: '2026-01-02T00:00:00Z',",
    );
    let evil_pods = service("evil", &[secure("evil", &evil).await])
        .replace("namespace: test", "namespace: other");
    let files = [
        ("shop.yaml", guarded.clone()),
        ("users.yaml", users.to_owned()),
        ("tls.yaml", secret("shop-tls", &pair)),
        ("web.yaml", service("web", &[web.port])),
        ("taking.yaml", taking.clone()),
        ("evil.yaml", evil_pods),
    ];
    let files = files.each_ref().map(|(name, text)| (*name, text.as_str()));
    let mut world = World::start_with(authority, &files, |settings| {
        settings.translation.ssl_passthrough = true;
    })
    .await;
    let answer = world.get_tls("shop.test", "/").await.unwrap();
    assert_eq!(answer.status, 401, "the password is still asked for");
    assert_eq!(answer.certificate, pair.der);
    reported(
        &world,
        &[
            "Ingress other/taking",
            "Ingress test/shop, which is older",
            "`ssl-passthrough` is not applied there",
        ],
    )
    .await;
    // A path of its own does not open either: nobody but the pod was to read it.
    let own_path = taking.replace("path: /,", "path: /own,");
    world
        .looked_at(|folder| put(folder, "taking.yaml", &own_path))
        .await;
    assert_eq!(
        world.get_tls("shop.test", "/own").await.unwrap().status,
        503
    );

    // Once the older one has gone, the host is free.
    world.write("taking.yaml", &taking).await;
    world
        .changed(|folder| std::fs::remove_file(folder.join("shop.yaml")).unwrap())
        .await;
    let answer = world.get_tls("shop.test", "/").await.unwrap();
    assert_eq!(answer.certificate, evil.der);
    // And taken when the younger one comes back.
    let younger = guarded.replace("2026-01-01", "2026-01-03");
    world.write("shop.yaml", &younger).await;
    let answer = world.get_tls("shop.test", "/").await.unwrap();
    assert_eq!(answer.certificate, evil.der);
    reported(
        &world,
        &["Ingress test/shop", "reached there by plain HTTP only"],
    )
    .await;
}
