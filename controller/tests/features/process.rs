//! The binary: how it starts, logs and ends.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};

use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::timeout;

use crate::client::{self, PATIENCE};
use crate::manifest::{ingress, service};
use crate::origin::Origin;
use crate::world::put;

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_lockgate");

/// A child that does not outlive its test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // An error means that it has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    fn signal(&self, name: &str) {
        let id = self.0.id();
        let status = Command::new("sh")
            .args(["-c", &format!("kill -{name} {id}")])
            .status()
            .unwrap();
        assert!(status.success());
    }

    async fn ended(mut self) -> ExitStatus {
        let ended = spawn_blocking(move || self.0.wait());
        timeout(PATIENCE, ended).await.unwrap().unwrap().unwrap()
    }
}

/// `lockgate run` on free ports of this machine. It is killed when this is dropped.
pub(crate) struct Process {
    child: Option<Running>,
    /// Lines of its log.
    log: mpsc::UnboundedReceiver<String>,
    /// What it writes to standard output, once it has ended.
    output: JoinHandle<String>,
    pub(crate) http: SocketAddr,
    pub(crate) https: SocketAddr,
    pub(crate) admin: SocketAddr,
}

impl Process {
    pub(crate) async fn start(folder: &Path, further: &[&str]) -> Self {
        let free: SocketAddr = "127.0.0.1:0".parse().unwrap();
        Self::start_at(folder, [free; 3], further).await
    }

    /// The same in another environment.
    pub(crate) async fn start_in(folder: &Path, environment: &[(&str, &Path)]) -> Self {
        let free: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let mut command = command(folder);
        command.envs(environment.iter().copied());
        Self::spawn(command, [free; 3], &[]).await
    }

    /// With these addresses for HTTP, HTTPS and operators.
    pub(crate) async fn start_at(
        folder: &Path,
        addresses: [SocketAddr; 3],
        further: &[&str],
    ) -> Self {
        Self::spawn(command(folder), addresses, further).await
    }

    /// Runs this command with these addresses.
    pub(crate) async fn spawn(
        mut command: Command,
        addresses: [SocketAddr; 3],
        further: &[&str],
    ) -> Self {
        let [http, https, admin] = addresses.map(|address| address.to_string());
        let mut child = command
            .args(["--http-listen", &http, "--https-listen", &https])
            .args(["--admin-listen", &admin, "--log-format", "json"])
            .args(further)
            .spawn()
            .unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (lines, log) = mpsc::unbounded_channel();
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                // The test may have seen enough.
                let _ = lines.send(line);
            }
        });
        let mut stdout = child.stdout.take().unwrap();
        let output = spawn_blocking(move || {
            let mut text = String::new();
            stdout.read_to_string(&mut text).unwrap();
            text
        });
        let none: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let mut process = Self {
            child: Some(Running(child)),
            log,
            output,
            http: none,
            https: none,
            admin: none,
        };
        let sockets = process.logged("has its sockets").await;
        let sockets: serde_json::Value = serde_json::from_str(&sockets).unwrap();
        let address = |key: &str| {
            sockets[key]
                .as_str()
                .unwrap()
                .trim_matches(['[', ']'])
                .parse()
        };
        process.http = address("http").unwrap();
        process.https = address("https").unwrap();
        process.admin = address("admin").unwrap();
        process.logged("Accepting connections").await;
        process
    }

    /// Its number, while it runs.
    pub(crate) fn id(&self) -> u32 {
        self.child.as_ref().unwrap().0.id()
    }

    pub(crate) fn signal(&self, name: &str) {
        self.child.as_ref().unwrap().signal(name);
    }

    /// Waits for a line of the log.
    pub(crate) async fn logged(&mut self, what: &str) -> String {
        loop {
            let line = timeout(PATIENCE, self.log.recv()).await.unwrap();
            let line = line.unwrap_or_else(|| panic!("it ended without logging `{what}`"));
            if line.contains(what) {
                return line;
            }
        }
    }

    /// Waits for the end and returns what was written to standard output.
    pub(crate) async fn ended(&mut self) -> (ExitStatus, String) {
        let text = timeout(PATIENCE, &mut self.output).await.unwrap().unwrap();
        // Standard output is closed by the end of the process.
        (self.child.take().unwrap().ended().await, text)
    }
}

/// Runs to the end, which is not far.
pub(crate) async fn run(command: &mut Command) -> Output {
    let child = command.spawn().unwrap();
    let output = spawn_blocking(move || child.wait_with_output());
    timeout(PATIENCE, output).await.unwrap().unwrap().unwrap()
}

pub(crate) fn command(folder: &Path) -> Command {
    let mut command = Command::new(BINARY);
    command
        .args(["run", "--manifests"])
        .arg(folder)
        .env("LOCKGATE_WORKERS", "1")
        .env_remove("RUST_LOG")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

pub(crate) fn shop(origin: &Origin) -> TempDir {
    let folder = TempDir::new().unwrap();
    put(
        folder.path(),
        "shop.yaml",
        &ingress("shop", "shop.test", &[("/", "web")]),
    );
    put(folder.path(), "web.yaml", &service("web", &[origin.port]));
    folder
}

#[tokio::test]
async fn sigterm_lets_requests_in_flight_finish() {
    let origin = Origin::start("web").await;
    let folder = shop(&origin);
    let mut process = Process::start(folder.path(), &[]).await;
    let slow = tokio::spawn(client::get(process.http, "shop.test", "/held"));
    timeout(PATIENCE, origin.held.acquire())
        .await
        .unwrap()
        .unwrap()
        .forget();
    process.signal("TERM");
    process.logged("Draining").await;
    for path in ["/readyz", "/servingz"] {
        let answer = client::get(process.admin, "admin", path).await.unwrap();
        assert_eq!(answer.status, 503, "{path}");
    }
    origin.release.add_permits(1);
    let answer = slow.await.unwrap().unwrap();
    assert_eq!(
        (answer.status.as_u16(), answer.body.as_str()),
        (200, "web /held")
    );
    assert_eq!(answer.header("connection"), "close");
    let (status, log) = process.ended().await;
    assert_eq!(status.code(), Some(0));
    let line: serde_json::Value = serde_json::from_str(log.lines().next().unwrap()).unwrap();
    assert_eq!(
        line["path"], "/held",
        "the access log has the last request, too"
    );
}

#[tokio::test]
async fn it_accepts_for_the_shutdown_delay_and_the_drain_has_an_end() {
    let origin = Origin::start("web").await;
    let folder = shop(&origin);
    let flags = ["--shutdown-delay", "1s", "--drain-timeout", "200ms"];
    let mut process = Process::start(folder.path(), &flags).await;
    let slow = tokio::spawn(client::get(process.http, "shop.test", "/held"));
    timeout(PATIENCE, origin.held.acquire())
        .await
        .unwrap()
        .unwrap()
        .forget();
    process.signal("INT");
    process.logged("still accepting").await;
    assert_eq!(
        client::get(process.admin, "admin", "/readyz")
            .await
            .unwrap()
            .status,
        503
    );
    assert_eq!(
        client::get(process.http, "shop.test", "/")
            .await
            .unwrap()
            .body,
        "web /"
    );
    process.logged("cut off").await;
    assert!(slow.await.unwrap().is_err(), "the drain timeout was over");
    assert_eq!(process.ended().await.0.code(), Some(0));
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let origin = Origin::start("web").await;
    let folder = shop(&origin);
    let mut process = Process::start(folder.path(), &["--shutdown-delay", "10m"]).await;
    process.signal("TERM");
    process.logged("still accepting").await;
    process.signal("TERM");
    assert_eq!(process.ended().await.0.code(), Some(1));
}

#[tokio::test]
async fn each_request_is_a_line_of_json() {
    let origin = Origin::start("web").await;
    let folder = shop(&origin);
    let mut process = Process::start(folder.path(), &[]).await;
    for (host, path) in [("shop.test", "/a?b=c"), ("other.test", "/")] {
        client::get(process.http, host, path).await.unwrap();
    }
    process.signal("TERM");
    let (status, log) = process.ended().await;
    assert_eq!(status.code(), Some(0));
    let lines: Vec<serde_json::Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 2, "{log}");
    let [served, unknown] = [&lines[0], &lines[1]];
    assert_eq!(served["method"], "GET");
    assert_eq!(served["host"], "shop.test");
    assert_eq!(served["path"], "/a");
    assert_eq!(served["query"], "b=c");
    assert_eq!(served["status"], 200);
    assert_eq!(served["ingress"], "shop");
    assert_eq!(unknown["status"], 404);
    assert_eq!(unknown["reason"], "no-route");
}

#[tokio::test]
async fn the_access_log_can_be_switched_off() {
    let origin = Origin::start("web").await;
    let folder = shop(&origin);
    let mut process = Process::start(folder.path(), &["--access-log", "off"]).await;
    client::get(process.http, "shop.test", "/").await.unwrap();
    process.signal("TERM");
    let (status, log) = process.ended().await;
    assert_eq!((status.code(), log.as_str()), (Some(0), ""));
}

/// A disk that is full fails every write to the files behind standard output and standard error.
#[tokio::test]
async fn a_full_disk_costs_the_logs_and_no_request() {
    let origin = Origin::start("web").await;
    let folder = shop(&origin);
    let full = || std::fs::OpenOptions::new().write(true).open("/dev/full");
    let mut ports = Vec::new();
    for _ in 0..3 {
        ports.push(TcpListener::bind(("127.0.0.1", 0)).await.unwrap());
    }
    let [http, https, admin] = [0, 1, 2].map(|index: usize| ports[index].local_addr().unwrap());
    drop(ports);
    let child = command(folder.path())
        .args(["--log-level", "debug", "--shutdown-delay", "0s"])
        .args(["--http-listen", &http.to_string()])
        .args(["--https-listen", &https.to_string()])
        .args(["--admin-listen", &admin.to_string()])
        .stdout(full().unwrap())
        .stderr(full().unwrap())
        .spawn()
        .unwrap();
    let mut child = Running(child);
    let served = async {
        // It says nothing that could be waited for.
        loop {
            let answer = client::get(admin, "admin", "/readyz").await;
            if answer.is_ok_and(|answer| answer.status == 200) {
                break;
            }
            assert_eq!(child.0.try_wait().unwrap(), None, "it has ended");
            tokio::task::yield_now().await;
        }
        for number in 0..200 {
            let path = format!("/{number}");
            let answer = client::get(http, "shop.test", &path).await.unwrap();
            assert_eq!(answer.status, 200, "{path}");
            // A change is logged, too.
            if number == 100 {
                put(
                    folder.path(),
                    "shop.yaml",
                    &ingress("shop", "shop.test", &[("/", "web"), ("/more", "web")]),
                );
            }
        }
    };
    timeout(PATIENCE, served).await.unwrap();
    child.signal("TERM");
    assert_eq!(child.ended().await.code(), Some(0), "it ends in good order");
}

#[tokio::test]
async fn what_it_cannot_start_with_is_said_clearly() {
    let folder = TempDir::new().unwrap();
    let taken = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let missing = folder.path().join("missing");
    let file = folder.path().join("file.yaml");
    put(folder.path(), "file.yaml", "");
    let free = "127.0.0.1:0";
    for (source, http, https, admin, want) in [
        (
            folder.path(),
            taken.as_str(),
            free,
            free,
            format!("cannot listen on {taken}: another socket listens there already"),
        ),
        (
            folder.path(),
            free,
            taken.as_str(),
            free,
            format!("cannot listen on {taken}: another socket listens there already"),
        ),
        (
            folder.path(),
            free,
            free,
            taken.as_str(),
            format!("cannot listen on {taken} (--admin-listen)"),
        ),
        (
            &missing,
            free,
            free,
            free,
            format!(
                "cannot read the manifests folder `{}`: No such file",
                missing.display()
            ),
        ),
        (
            &file,
            free,
            free,
            free,
            format!(
                "cannot read the manifests folder `{}`: Not a directory",
                file.display()
            ),
        ),
    ] {
        let listen = [
            "--http-listen",
            http,
            "--https-listen",
            https,
            "--admin-listen",
            admin,
        ];
        let output = run(command(source).args(listen)).await;
        assert_eq!(output.status.code(), Some(1));
        let error = String::from_utf8(output.stderr).unwrap();
        let last = error.lines().last().unwrap();
        assert!(
            last.starts_with(&format!("lockgate: {want}")),
            "{want}\n{error}"
        );
    }
}
