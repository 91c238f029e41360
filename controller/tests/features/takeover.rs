//! One process takes the place of another one, under load.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::client::{self, PATIENCE};
use crate::origin::Origin;
use crate::process::{Process, command, run, shop};

/// What has been asked, and what became of it.
#[derive(Default)]
struct Load {
    stop: AtomicBool,
    answered: AtomicUsize,
    failures: std::sync::Mutex<Vec<String>>,
}

impl Load {
    /// Asks until it is told to stop: half of the clients on a new connection each time, the others on one that they keep
    /// until an answer says that it was the last one.
    fn start(self: &Arc<Self>, address: SocketAddr, clients: usize) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        for number in 0..clients {
            let load = Arc::clone(self);
            let keep = number % 2 == 0;
            tasks.spawn(async move {
                let mut kept = None;
                while !load.stop.load(Ordering::Relaxed) {
                    match ask(address, kept.take()).await {
                        Ok(stream) => {
                            load.answered.fetch_add(1, Ordering::Relaxed);
                            kept = stream.filter(|_| keep);
                        }
                        Err(error) => {
                            let how = if keep { "kept" } else { "new" };
                            load.failures
                                .lock()
                                .unwrap()
                                .push(format!("{how}: {error}"));
                        }
                    }
                }
            });
        }
        tasks
    }

    /// Waits until so many more have been answered.
    async fn goes_on(&self, more: usize) {
        let wanted = self.answered.load(Ordering::Relaxed) + more;
        let reached = async {
            while self.answered.load(Ordering::Relaxed) < wanted {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE * 3, reached).await.expect("it goes on");
    }
}

/// One request. Returns the connection if it may be used on.
async fn ask(address: SocketAddr, kept: Option<TcpStream>) -> anyhow::Result<Option<TcpStream>> {
    let asked = async {
        let mut stream = match kept {
            Some(stream) => stream,
            None => TcpStream::connect(address).await?,
        };
        let request = b"GET / HTTP/1.1\r\nhost: shop.test\r\n\r\n";
        stream.write_all(request).await?;
        let mut answer = Vec::new();
        while !answer.ends_with(b"web /") {
            if stream.read_buf(&mut answer).await? == 0 {
                anyhow::bail!("closed after {:?}", String::from_utf8_lossy(&answer));
            }
        }
        let head = String::from_utf8(answer)?.to_lowercase();
        anyhow::ensure!(head.starts_with("http/1.1 200 "), "{head}");
        Ok((!head.contains("connection: close")).then_some(stream))
    };
    timeout(PATIENCE, asked).await?
}

/// What processes serve, and where they meet.
struct Scene {
    origin: Origin,
    folder: TempDir,
    meet: TempDir,
}

impl Scene {
    async fn new() -> Self {
        let origin = Origin::start("web").await;
        Self {
            folder: shop(&origin),
            meet: TempDir::new().unwrap(),
            origin,
        }
    }

    fn socket(&self) -> String {
        let path = self.meet.path().join("takeover");
        path.to_str().unwrap().to_owned()
    }

    /// The first process.
    async fn first(&self) -> Process {
        Process::start(self.folder.path(), &["--takeover-socket", &self.socket()]).await
    }

    /// One at the same addresses.
    async fn next(&self, before: &Process, more: &[&str]) -> Process {
        let addresses = [before.http, before.https, before.admin];
        let socket = self.socket();
        let flags = [&["--takeover-socket", &socket], more].concat();
        Process::start_at(self.folder.path(), addresses, &flags).await
    }
}

#[tokio::test]
async fn one_process_takes_the_place_of_another_and_no_request_fails() {
    let scene = Scene::new().await;
    let mut process = scene.first().await;
    let load = Arc::new(Load::default());
    let mut clients = load.start(process.http, 8);
    load.goes_on(500).await;
    // With more workers and with fewer ones than before.
    for workers in ["3", "1"] {
        let newer = scene.next(&process, &["--workers", workers]).await;
        assert_eq!(newer.http, process.http);
        let (status, _) = process.ended().await;
        assert_eq!(status.code(), Some(0), "the older one ends in peace");
        process = newer;
        load.goes_on(500).await;
        let ready = client::get(process.admin, "admin", "/readyz")
            .await
            .unwrap();
        assert_eq!(ready.status, 200);
    }
    load.goes_on(500).await;
    load.stop.store(true, Ordering::Relaxed);
    while let Some(ended) = clients.join_next().await {
        ended.unwrap();
    }
    let answered = load.answered.load(Ordering::Relaxed);
    let failures = load.failures.lock().unwrap();
    assert!(failures.is_empty(), "of {answered}: {failures:?}");
    assert!(answered >= 2000, "{answered}");
}

#[tokio::test]
async fn a_request_that_has_begun_is_finished_by_the_older_process() {
    let scene = Scene::new().await;
    let mut older = scene.first().await;
    let slow = tokio::spawn(client::get(older.http, "shop.test", "/held"));
    timeout(PATIENCE, scene.origin.held.acquire())
        .await
        .unwrap()
        .unwrap()
        .forget();
    let newer = scene.next(&older, &[]).await;
    older.logged("Draining").await;
    // Both are there; operators meet the one that serves.
    for _ in 0..20 {
        let ready = client::get(newer.admin, "admin", "/readyz").await.unwrap();
        assert_eq!(ready.status, 200);
        let page = client::get(newer.http, "shop.test", "/").await.unwrap();
        assert_eq!(page.body, "web /");
    }
    scene.origin.release.add_permits(1);
    assert_eq!(slow.await.unwrap().unwrap().body, "web /held");
    assert_eq!(older.ended().await.0.code(), Some(0));
}

#[tokio::test]
async fn a_process_that_fails_to_start_takes_nothing() {
    let scene = Scene::new().await;
    let mut process = scene.first().await;
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let http = process.http.to_string();
    let mut failing = command(scene.folder.path());
    failing
        .args(["--takeover-socket", &scene.socket(), "--http-listen", &http])
        .args(["--https-listen", &taken, "--admin-listen", "127.0.0.1:0"]);
    let output = run(&mut failing).await;
    assert_eq!(output.status.code(), Some(1));
    process.logged("this one goes on").await;
    for _ in 0..20 {
        let page = client::get(process.http, "shop.test", "/").await.unwrap();
        assert_eq!(page.body, "web /");
    }
    // The next one gets them.
    let newer = scene.next(&process, &[]).await;
    assert_eq!(process.ended().await.0.code(), Some(0));
    drop(newer);
}

#[tokio::test]
async fn what_a_crash_leaves_behind_is_in_nobodys_way() {
    let scene = Scene::new().await;
    let crashed = scene.first().await;
    crashed.signal("KILL");
    drop(crashed);
    let process = scene.first().await;
    let page = client::get(process.http, "shop.test", "/").await.unwrap();
    assert_eq!(page.body, "web /");
}

/// How sockets go from the older listener to the newer one.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// Both bind the port; the older one accepts what is queued and closes its own.
    SharedPort,
    /// Both have the same socket.
    SharedSocket,
}

/// What is lost in `rounds` changes of listeners, while eight threads connect as fast as they can. Returns how many
/// connections there were and how many of them were refused or reset.
fn lost(way: Way, rounds: usize) -> (usize, usize) {
    let first = bound("127.0.0.1:0".parse().unwrap());
    let address = first.local_addr().unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                use std::io::{Read, Write};
                let (mut all, mut lost) = (0, 0);
                while !stop.load(Ordering::Relaxed) {
                    all += 1;
                    let answer = std::net::TcpStream::connect(address).and_then(|mut stream| {
                        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
                        stream.write_all(b"?")?;
                        stream.read_exact(&mut [0])
                    });
                    lost += usize::from(answer.is_err());
                }
                (all, lost)
            })
        })
        .collect();
    let mut older = first;
    for _ in 0..rounds {
        let newer = match way {
            Way::SharedPort => bound(address),
            Way::SharedSocket => older.try_clone().unwrap(),
        };
        let end = std::time::Instant::now() + Duration::from_millis(20);
        while std::time::Instant::now() < end {
            answer_one(&older);
            answer_one(&newer);
        }
        if matches!(way, Way::SharedPort) {
            // As an orderly process does: what is queued is served.
            while answer_one(&older) {}
        }
        older = newer;
    }
    stop.store(true, Ordering::Relaxed);
    while clients.iter().any(|client| !client.is_finished()) {
        answer_one(&older);
    }
    let each = clients.into_iter().map(|client| client.join().unwrap());
    each.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
}

fn bound(address: SocketAddr) -> std::net::TcpListener {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_reuse_port(true).unwrap();
    socket.set_nonblocking(true).unwrap();
    socket.bind(&address.into()).unwrap();
    socket.listen(1024).unwrap();
    socket.into()
}

/// Serves one connection if one waits.
fn answer_one(listener: &std::net::TcpListener) -> bool {
    use std::io::{Read, Write};
    let Ok((mut stream, _)) = listener.accept() else {
        return false;
    };
    let _ = stream.set_nonblocking(false);
    let _ = stream.read_exact(&mut [0]);
    let _ = stream.write_all(b"!");
    true
}

#[test]
#[ignore = "a measurement, not a test: `cargo test -p controller --test features what_is_lost -- --ignored --nocapture`"]
#[expect(clippy::print_stdout, reason = "the figures are what it is for")]
fn what_is_lost_when_listeners_change() {
    for way in [Way::SharedPort, Way::SharedSocket] {
        let (all, lost) = lost(way, 100);
        println!("{way:?}: {lost} of {all} connections lost in 100 changes");
    }
}
