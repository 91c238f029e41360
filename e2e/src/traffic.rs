//! Requests from outside while something happens inside: the generator `load` of `bench`, one process for each kind of
//! client, which counts every failure and never tries a failed request again.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use serde::Deserialize;
use tempfile::NamedTempFile;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::task::JoinHandle;

use crate::cluster::note;
use crate::wait::eventually;

/// Fewer requests show nothing.
pub const ENOUGH: u64 = 100_000;

/// Where the release build of `load` is. Set by the harness.
const PROGRAM: &str = "E2E_LOAD";
/// Nothing goes on for longer, whatever becomes of the test.
const LIMIT: &str = "15m";
/// How long requests may take to come together at the pace that they have.
const PATIENCE: Duration = Duration::from_mins(5);
/// Lets requests that have begun end after the last one was started: longer than the timeout of one.
const END: Duration = Duration::from_secs(30);

/// One kind of client.
#[derive(Clone, Copy, Debug)]
pub struct Clients {
    /// For the summary.
    pub name: &'static str,
    /// By https.
    pub tls: bool,
    /// HTTP/2 instead of HTTP/1.1.
    pub http2: bool,
    /// A fresh connection after so many requests.
    pub renew_after: Option<u32>,
    /// Connections at the same time.
    pub connections: u32,
    /// Streams at the same time on a connection of HTTP/2.
    pub streams: u32,
    /// Requests a second of all of them together.
    pub rate: u32,
}

impl Clients {
    const fn http1(name: &'static str, connections: u32, rate: u32) -> Self {
        Self {
            name,
            tls: false,
            http2: false,
            renew_after: None,
            connections,
            streams: 1,
            rate,
        }
    }

    const fn http2(name: &'static str, connections: u32, streams: u32, rate: u32) -> Self {
        Self {
            http2: true,
            streams,
            ..Self::http1(name, connections, rate)
        }
    }

    const fn fresh_after(self, requests: u32) -> Self {
        Self {
            renew_after: Some(requests),
            ..self
        }
    }

    const fn secure(self) -> Self {
        Self { tls: true, ..self }
    }
}

/// Both versions of HTTP, with and without TLS, on kept connections and on fresh ones: some 3,000 requests a second, which
/// two cores carry beside a whole cluster.
pub const MIX: [Clients; 6] = [
    Clients::http1("HTTP/1.1, kept", 10, 800),
    Clients::http1("HTTP/1.1, fresh", 8, 240).fresh_after(1),
    Clients::http1("HTTP/1.1 over TLS, kept", 10, 600).secure(),
    Clients::http1("HTTP/1.1 over TLS, fresh", 8, 80)
        .secure()
        .fresh_after(1),
    Clients::http2("HTTP/2 over TLS, kept", 4, 8, 1_120).secure(),
    Clients::http2("HTTP/2 over TLS, fresh", 2, 4, 160)
        .secure()
        .fresh_after(20),
];

/// Whom clients ask.
#[derive(Clone, Debug)]
pub struct Traffic {
    http: SocketAddr,
    https: SocketAddr,
    host: String,
    path: String,
    authority: Option<Arc<NamedTempFile>>,
    statuses: String,
    timeout: Duration,
}

impl Traffic {
    /// Asks for the root of `host` at the load balancer and expects 200.
    pub fn new(gateway: IpAddr, host: &str) -> Self {
        Self {
            http: SocketAddr::new(gateway, 80),
            https: SocketAddr::new(gateway, 443),
            host: host.to_owned(),
            path: "/".to_owned(),
            authority: None,
            statuses: "200".to_owned(),
            timeout: Duration::from_secs(10),
        }
    }

    /// The same from a pod of Lockgate, past every load balancer.
    #[must_use]
    pub fn of_pod(mut self, address: IpAddr) -> Self {
        self.http = SocketAddr::new(address, 8080);
        self.https = SocketAddr::new(address, 8443);
        self
    }

    /// The same for another path, with its query.
    #[must_use]
    pub fn path(mut self, path: &str) -> Self {
        path.clone_into(&mut self.path);
        self
    }

    /// Trusts these certificates in PEM.
    pub fn trusting(mut self, certificates: &str) -> Result<Self> {
        let mut file = NamedTempFile::new()?;
        file.write_all(certificates.as_bytes())?;
        self.authority = Some(Arc::new(file));
        Ok(self)
    }

    /// Expects other statuses, such as `200,503`.
    #[must_use]
    pub fn expecting(mut self, statuses: &str) -> Self {
        statuses.clone_into(&mut self.statuses);
        self
    }

    /// Gives a request up after that time.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Starts asking.
    pub fn start(&self, clients: &[Clients]) -> Result<Flow> {
        let program: PathBuf = std::env::var_os(PROGRAM)
            .with_context(|| format!("{PROGRAM} names the program `load`: run `make e2e`"))?
            .into();
        let parts = clients
            .iter()
            .map(|clients| self.part(&program, clients))
            .collect::<Result<_>>()?;
        Ok(Flow { parts })
    }

    fn part(&self, program: &PathBuf, clients: &Clients) -> Result<Part> {
        let (scheme, address) = if clients.tls {
            ("https", self.https)
        } else {
            ("http", self.http)
        };
        let mut command = Command::new(program);
        command
            .arg(format!("{scheme}://{}{}", self.host, self.path))
            .args(["--follow", "--json", "--duration", LIMIT])
            .arg(format!("--connect={address}"))
            .arg(format!("--connections={}", clients.connections))
            .arg(format!("--streams={}", clients.streams))
            .arg(format!("--rate={}", clients.rate))
            .arg(format!("--expect-status={}", self.statuses))
            .arg(format!("--timeout={}ms", self.timeout.as_millis()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        if clients.http2 {
            command.arg("--http2");
        }
        if let Some(requests) = clients.renew_after {
            command.arg(format!("--renew-after={requests}"));
        }
        if clients.tls {
            let authority = self.authority.as_ref();
            let authority = authority.context("clients that use TLS have to trust somebody")?;
            command.arg("--ca").arg(authority.path());
        }
        let mut child = command
            .spawn()
            .with_context(|| program.display().to_string())?;
        let state = Arc::<Mutex<State>>::default();
        let stdout = child.stdout.take().context("no standard output")?;
        Ok(Part {
            name: clients.name,
            stdin: child.stdin.take().context("no standard input")?,
            reader: tokio::spawn(follow(stdout, state.clone())),
            child,
            state,
            _authority: self.authority.clone(),
        })
    }
}

/// Clients that go on until they are stopped.
pub struct Flow {
    parts: Vec<Part>,
}

struct Part {
    name: &'static str,
    child: Child,
    stdin: ChildStdin,
    reader: JoinHandle<Result<()>>,
    state: Arc<Mutex<State>>,
    _authority: Option<Arc<NamedTempFile>>,
}

#[derive(Default)]
struct State {
    answers: u64,
    failed: u64,
    /// When the number of failures has grown, and by how much.
    failures: Vec<(Instant, u64)>,
    figures: Option<Figures>,
}

impl Part {
    fn state<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Flow {
    /// Answers so far.
    pub fn answers(&self) -> u64 {
        self.sum(|state| state.answers)
    }

    /// Failures so far.
    pub fn failed(&self) -> u64 {
        self.sum(|state| state.failed)
    }

    fn sum(&self, what: impl Fn(&State) -> u64) -> u64 {
        self.parts
            .iter()
            .map(|part| part.state(|state| what(state)))
            .sum()
    }

    /// Waits until there are so many answers more.
    pub async fn proceed(&self, answers: u64) -> Result<()> {
        self.reach(self.answers() + answers).await
    }

    /// Waits until there are so many answers in all.
    pub async fn reach(&self, answers: u64) -> Result<()> {
        eventually(&format!("{answers} answers"), PATIENCE, async || {
            let found = self.answers();
            ensure!(found >= answers, "{found}, and {} failed", self.failed());
            Ok(())
        })
        .await
    }

    /// Lets every client finish what it has begun and counts.
    pub async fn stop(self) -> Result<Tally> {
        let mut tally = Tally::default();
        let mut parts = self.parts;
        let mut running = Vec::new();
        for part in parts.drain(..) {
            let Part {
                name,
                child,
                stdin,
                reader,
                state,
                _authority,
            } = part;
            drop(stdin);
            running.push((name, child, reader, state));
        }
        for (name, mut child, reader, state) in running {
            tokio::time::timeout(END, async {
                reader.await??;
                child.wait().await?;
                anyhow::Ok(())
            })
            .await
            .with_context(|| format!("load does not end ({name})"))?
            .with_context(|| format!("load ({name})"))?;
            let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
            let figures = state.figures.take();
            let figures = figures.ok_or_else(|| anyhow!("load ({name}) has said nothing"))?;
            tally.failures.append(&mut state.failures);
            tally.parts.push((name, figures));
        }
        tally.failures.sort_unstable_by_key(|&(when, _)| when);
        Ok(tally)
    }
}

/// One line of progress.
#[derive(Deserialize)]
struct Progress {
    answers: u64,
    failed: u64,
}

/// What one kind of client saw.
#[derive(Clone, Debug, Deserialize)]
pub struct Figures {
    /// Answers read to their end.
    pub answers: u64,
    /// Failures of any kind, wrong answers included.
    pub failed: u64,
    /// The same by kind.
    pub failures: BTreeMap<String, u64>,
    /// The first failures in words.
    pub samples: Vec<String>,
    /// Connections opened.
    pub connections: u64,
    /// Half of the answers came sooner.
    pub p50_ms: f64,
    /// 99 of 100 answers came sooner.
    pub p99_ms: f64,
}

async fn follow(stdout: ChildStdout, state: Arc<Mutex<State>>) -> Result<()> {
    let mut lines = BufReader::new(stdout).lines();
    while let Some(line) = lines.next_line().await? {
        let figures = serde_json::from_str::<Figures>(&line).ok();
        let Progress { answers, failed } = serde_json::from_str(&line)?;
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        if failed > state.failed {
            let more = failed - state.failed;
            state.failures.push((Instant::now(), more));
        }
        state.answers = answers;
        state.failed = failed;
        state.figures = figures;
    }
    Ok(())
}

/// What all clients saw.
#[derive(Debug, Default)]
pub struct Tally {
    /// By kind of client.
    pub parts: Vec<(&'static str, Figures)>,
    /// When failures were seen, to a tenth of a second, and how many.
    pub failures: Vec<(Instant, u64)>,
}

impl Tally {
    /// Answers of all.
    pub fn answers(&self) -> u64 {
        self.parts.iter().map(|(_, figures)| figures.answers).sum()
    }

    /// Requests of all: those that were answered and those that were not.
    pub fn requests(&self) -> u64 {
        let requests = |figures: &Figures| {
            let wrong = figures.failures.get("answer").copied().unwrap_or_default();
            figures.answers + figures.failed.saturating_sub(wrong)
        };
        self.parts
            .iter()
            .map(|(_, figures)| requests(figures))
            .sum()
    }

    /// Failures of all.
    pub fn failed(&self) -> u64 {
        self.parts.iter().map(|(_, figures)| figures.failed).sum()
    }

    /// How long after `event` the last failure was seen; nothing when there was none.
    pub fn last_failure_after(&self, event: Instant) -> Option<Duration> {
        let &(last, _) = self.failures.last()?;
        Some(last.saturating_duration_since(event))
    }

    /// From the first failure to the last one.
    pub fn failing_for(&self) -> Duration {
        match (self.failures.first(), self.failures.last()) {
            (Some((first, _)), Some((last, _))) => last.saturating_duration_since(*first),
            _ => Duration::ZERO,
        }
    }

    /// Whether every failure is an answer with another status: none was lost.
    pub fn only_wrong_answers(&self) -> bool {
        let kinds = self.parts.iter().flat_map(|(_, f)| f.failures.keys());
        kinds.into_iter().all(|kind| kind == "answer")
    }

    /// Notes the counts for the summary.
    pub fn note(&self, what: &str) -> Result<()> {
        note(&format!(
            "{what}: {} requests, {} failed, {} connections",
            self.requests(),
            self.failed(),
            self.parts.iter().map(|(_, f)| f.connections).sum::<u64>(),
        ))
    }

    /// Notes the counts and fails unless every request was answered as it should be.
    pub fn none_failed(&self, what: &str) -> Result<()> {
        self.note(what)?;
        if self.failed() > 0 {
            bail!("{what}:\n{}", self.told());
        }
        Ok(())
    }

    /// The same, and fails unless there were enough requests.
    pub fn check(&self, what: &str) -> Result<()> {
        self.none_failed(what)?;
        let answers = self.answers();
        ensure!(answers >= ENOUGH, "{what}: only {answers} requests");
        Ok(())
    }

    /// Everything, one kind of client a paragraph.
    pub fn told(&self) -> String {
        let told = |(name, figures): &(&str, Figures)| {
            let Figures {
                answers,
                failed,
                samples,
                p50_ms,
                p99_ms,
                ..
            } = figures;
            let samples = samples.join("\n  ");
            format!(
                "{name}: {answers} answers, {failed} failed, p50 {p50_ms:.1} ms, p99 {p99_ms:.1} ms\n  {samples}"
            )
        };
        self.parts.iter().map(told).collect::<Vec<_>>().join("\n")
    }
}
