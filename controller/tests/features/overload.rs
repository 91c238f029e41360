//! Clients that want all of the memory.

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Instant;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::client::{self, PATIENCE};
use crate::manifest::{ingress, service};
use crate::origin::Origin;
use crate::process::{BINARY, Process, shop};
use crate::world::World;

/// How much the process may grow.
const ROOM: u64 = 48 << 20;
/// What each client makes it hold: a header section that never ends, just below its largest size.
const HEADER: usize = 15 * 1024;
/// More than would fill the room.
const CLIENTS: usize = 4500;

/// What is resident of a process, in bytes.
fn resident(id: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes: u64 = line
        .unwrap()
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .unwrap();
    kilobytes * 1024
}

/// The value of a metric.
async fn metric(admin: SocketAddr, name: &str) -> f64 {
    let page = client::get(admin, "admin", "/metrics").await.unwrap();
    let line = page.body.lines().find_map(|line| line.strip_prefix(name));
    line.map_or(0.0, |value| value.trim().parse().unwrap())
}

#[tokio::test]
async fn memory_stays_within_its_limit_and_operators_are_answered() {
    let origin = Origin::start("web").await;
    let folder = shop(&origin);
    // How much it needs by itself is not the same everywhere.
    let probe = Process::start(folder.path(), &["--max-memory", "off"]).await;
    let page = client::get(probe.http, "shop.test", "/").await.unwrap();
    assert_eq!(page.body, "web /");
    let limit = resident(probe.id()) + ROOM;
    drop(probe);
    let flag = limit.to_string();
    let process = Process::start(folder.path(), &["--max-memory", &flag]).await;
    let pressed = "lockgate_overload{resource=\"memory\"}";
    assert!(metric(process.admin, pressed).await < 0.5);

    let mut head = b"GET / HTTP/1.1\r\nhost: shop.test\r\nx-large: ".to_vec();
    head.resize(HEADER, b'a');
    let mut clients = Vec::new();
    let mut most = 0;
    for number in 0..CLIENTS {
        let connected = timeout(PATIENCE, TcpStream::connect(process.http));
        let mut stream = connected.await.unwrap().unwrap();
        stream.write_all(&head).await.unwrap();
        clients.push(stream);
        if number % 100 == 0 {
            most = most.max(resident(process.id()));
            let begun = Instant::now();
            for path in ["/healthz", "/readyz"] {
                let answer = client::get(process.admin, "admin", path).await.unwrap();
                assert_eq!(answer.status, 200, "{path} after {number} clients");
            }
            assert!(begun.elapsed() < PATIENCE / 2);
        }
        // What waits in the queue of the kernel is no memory of the process; the queue has an end, too.
        if number % 500 == 499 && metric(process.admin, pressed).await > 1.5 {
            break;
        }
    }
    // On a busy machine it is behind with what the kernel has taken for it.
    let begun = Instant::now();
    while metric(process.admin, pressed).await < 1.5 {
        assert!(begun.elapsed() < PATIENCE, "few are let in");
        tokio::task::yield_now().await;
    }
    assert!(metric(process.admin, "lockgate_memory_limit_bytes").await > 1.0);
    most = most.max(resident(process.id()));
    assert!(most < limit, "{most} bytes of {limit}");
    // As soon as they go, everybody else is served again.
    drop(clients);
    let page = client::get(process.http, "shop.test", "/").await.unwrap();
    assert_eq!(page.body, "web /");
}

#[tokio::test]
async fn what_the_configmap_says_about_clients_counts_for_new_connections() {
    let origin = Origin::start("web").await;
    let files = [
        ("shop.yaml", ingress("shop", "shop.test", &[("/", "web")])),
        ("web.yaml", service("web", &[origin.port])),
    ];
    let files = files.each_ref().map(|(name, text)| (*name, text.as_str()));
    let mut world = World::start(&files).await;
    let path = format!("/{}", "a".repeat(3000));
    assert_eq!(world.get("shop.test", &path).await.status, 200);
    world
        .write(
            "settings.yaml",
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings, namespace: test}\n\
             data: {large-client-header-buffers: 1 2k, keep-alive: \"0\"}\n",
        )
        .await;
    assert_eq!(world.get("shop.test", &path).await.status, 431);
    let page = world.get("shop.test", "/").await;
    assert_eq!(
        (page.status.as_u16(), page.header("connection")),
        (200, "close")
    );
    assert_eq!(world.problems().await, [""; 0]);
}

#[tokio::test]
async fn clients_cannot_use_up_the_descriptors() {
    let origin = Origin::start("web").await;
    let folder = shop(&origin);
    // Enough for ninety-six connections and what they lead to.
    let mut limited = Command::new("sh");
    limited
        .args(["-c", "ulimit -n 256 && exec \"$@\"", "sh", BINARY, "run"])
        .arg("--manifests")
        .arg(folder.path())
        .env("LOCKGATE_WORKERS", "1")
        .env_remove("RUST_LOG")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let free: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let process = Process::spawn(limited, [free; 3], &[]).await;
    let mut clients = Vec::new();
    for _ in 0..400 {
        let connected = timeout(PATIENCE, TcpStream::connect(process.http));
        let mut stream = connected.await.unwrap().unwrap();
        // Some are closed already.
        let _ = stream.write_all(b"GET / HTTP/1.1\r\n").await;
        clients.push(stream);
    }
    let refused = "lockgate_connections_refused_total{listener=\"http\",reason=\"limit\"}";
    let counted = async { while metric(process.admin, refused).await < 100.0 {} };
    timeout(PATIENCE, counted).await.unwrap();
    let errors = "lockgate_accept_errors_total{listener=\"http\"}";
    assert!(metric(process.admin, errors).await < 0.5);
    let answer = client::get(process.admin, "admin", "/healthz")
        .await
        .unwrap();
    assert_eq!(answer.status, 200);
    drop(clients);
    // The last of them may still be on its way out.
    let served = async {
        while client::get(process.http, "shop.test", "/").await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, served).await.unwrap();
}
