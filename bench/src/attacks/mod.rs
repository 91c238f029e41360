//! Hostile clients against Lockgate and against the proxies that a user would pick instead, with the same limits.
//!
//! For each attack each proxy is started anew, with one worker on a core of its own. A well-behaved client asks all the
//! while; what it sees, and what the proxy spends, is the result. Attackers, that client and the backends share the
//! other core, the attackers with less weight, so that the client is slowed down by the proxy and not by them.

mod frames;
mod hostile;
mod list;
mod report;
mod requests;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use rustls::ClientConfig;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

use crate::certs::Authority;
use crate::load::Figures;
use crate::peers::{self, HOST, Keys, Origins, Peer, Places, Program, Proxy};
use hostile::{Counts, Site};
pub use list::{ATTACKS, Attack, What};
pub use report::Report;

/// Between two looks at the memory.
const LOOK: Duration = Duration::from_millis(250);
/// After an attack, before the memory is looked at again.
const SETTLE: Duration = Duration::from_secs(3);
/// How long the well-behaved client asks before and after an attack.
const ALONE: Duration = Duration::from_secs(1);
/// How much less the attackers weigh than the well-behaved client.
const NICENESS: i32 = 10;

/// What is to be done.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Lockgate's binary.
    pub lockgate: PathBuf,
    /// The binary of the backend.
    pub origin: PathBuf,
    /// The directory of Python packages with the peers.
    pub packages: PathBuf,
    /// The proxies.
    pub peers: Vec<Peer>,
    /// The attacks.
    pub attacks: Vec<Attack>,
}

/// One attack on one proxy.
#[derive(Clone, Debug)]
pub struct Row {
    /// The attack.
    pub attack: Attack,
    /// The proxy.
    pub peer: Peer,
    /// Resident memory in bytes: before, at its worst, afterwards.
    pub memory: [u64; 3],
    /// User and system time of the proxy, in seconds.
    pub cpu: f64,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// Cores that nobody of this measurement was using.
    pub foreign: f64,
    /// What the well-behaved client saw during the attack.
    pub during: Figures,
    /// And afterwards.
    pub after: Figures,
    /// What became of the attackers.
    pub fate: Fate,
}

/// What became of the attackers.
#[derive(Clone, Debug, Default)]
pub struct Fate {
    /// Connections that they have opened.
    pub opened: u64,
    /// Those that the proxy has ended.
    pub closed: u64,
    /// Those that were not accepted.
    pub refused: u64,
    /// Frames, requests or parts of them that they have sent.
    pub sent: u64,
    /// Answers by status.
    pub statuses: Vec<(String, u64)>,
    /// How often they were taken for somebody else.
    pub believed: u64,
}

/// What came out.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Each attack on each proxy.
    pub rows: Vec<Row>,
    /// The programs.
    pub programs: Vec<Program>,
    /// What could not be done, and why.
    pub notes: Vec<String>,
}

impl Outcome {
    /// What Lockgate may not do under any attack, as far as it has done so.
    pub fn complaints(&self) -> Vec<String> {
        let ours = self.rows.iter().filter(|row| row.peer == Peer::Lockgate);
        ours.flat_map(|row| {
            let name = row.attack.name;
            let unserved = row.during.failed + row.after.failed;
            let complaint = (unserved > 0).then(|| {
                format!(
                    "{name}: {unserved} requests of the well-behaved client failed: {}",
                    row.during
                )
            });
            let believed = row.fate.believed;
            let spoofed = (believed > 0)
                .then(|| format!("{name}: {believed} clients were taken for somebody else"));
            [complaint, spoofed].into_iter().flatten()
        })
        .collect()
    }

    fn note(&mut self, text: impl std::fmt::Display) {
        let text = text.to_string();
        let line = text.lines().take(2).map(str::trim).collect::<Vec<_>>();
        let line = line.join("; ");
        peers::progress(&line);
        self.notes.push(line);
    }
}

/// Carries out everything. A proxy that cannot be started or that an attack has ended is noted.
pub async fn run(plan: &Plan) -> Result<Outcome> {
    let home = tempfile::tempdir().context("no directory for configurations")?;
    let mut outcome = Outcome::default();
    let places = Places {
        lockgate: &plan.lockgate,
        floor: None,
        packages: &plan.packages,
    };
    outcome.programs = Program::find_all(&plan.peers, places, |why| outcome.note(why)).await;
    let origins = Origins::start(&plan.origin, home.path()).await?;
    let authority = Authority::new("attacks authority")?;
    let keys = Keys::issue(&authority)?;
    let client = peers::quick_client()?;
    for attack in &plan.attacks {
        let folder = home.path().join(attack.name);
        std::fs::create_dir(&folder)?;
        for program in outcome.programs.clone() {
            peers::progress(&format!("{}: {}", attack.name, program.peer.name()));
            let scene = Scene {
                attack,
                program: &program,
                origins: &origins,
                keys: &keys,
                client: &client,
            };
            match scene.play(&folder).await {
                Ok(row) => outcome.rows.push(row),
                Err(error) => outcome.note(format_args!(
                    "{} under `{}`: {error:#}",
                    program.peer.name(),
                    attack.name
                )),
            }
        }
    }
    Ok(outcome)
}

struct Scene<'a> {
    attack: &'a Attack,
    program: &'a Program,
    origins: &'a Origins,
    keys: &'a Keys,
    client: &'a ClientConfig,
}

impl Scene<'_> {
    async fn play(&self, folder: &Path) -> Result<Row> {
        let backends = self.origins.backends();
        let world = self.attack.world();
        let proxy = Proxy::start(self.program, world, backends, self.keys, folder).await?;
        let played = self.attack_on(&proxy).await;
        let played = played.with_context(|| format!("it says: {}", proxy.last_words()));
        proxy.end().await;
        played
    }

    async fn attack_on(&self, proxy: &Proxy) -> Result<Row> {
        let process = proxy.process()?;
        requests::polite(proxy.https, self.client, ALONE).await?;
        let before = peers::memory(process)?;
        let (cpu, foreign) = (peers::cpu_seconds(process)?, self.foreign(process)?);

        let begun = Instant::now();
        let time = Duration::from_secs(self.attack.seconds);
        let counts = Arc::<Counts>::default();
        let attackers = self.attackers(proxy, begun + time, &counts)?;
        let polite = {
            let (https, client) = (proxy.https, self.client.clone());
            on_a_thread(
                0,
                async move { requests::polite(https, &client, time).await },
            )?
        };
        let mut worst = before;
        while begun.elapsed() < time {
            worst = worst.max(peers::memory(process)?);
            tokio::time::sleep(LOOK).await;
        }
        let seconds = begun.elapsed().as_secs_f64();
        let cpu = peers::cpu_seconds(process)? - cpu;
        let foreign = (self.foreign(process)? - foreign) / seconds;
        let during = polite.await.context("the well-behaved client is gone")??;
        let greedy = attackers.await.context("the attackers are gone")??;
        tokio::time::sleep(SETTLE).await;
        let settled = peers::memory(process)?;
        let after = requests::polite(proxy.https, self.client, ALONE).await?;
        proxy.process()?;
        Ok(Row {
            attack: *self.attack,
            peer: proxy.peer,
            memory: [before, worst, settled],
            cpu,
            seconds,
            foreign: foreign.max(0.0),
            during,
            after,
            fate: fate(&counts, greedy.as_ref()),
        })
    }

    /// Lets the attackers go. Those that only ask for much bring back what they have seen.
    fn attackers(
        &self,
        proxy: &Proxy,
        until: Instant,
        counts: &Arc<Counts>,
    ) -> Result<oneshot::Receiver<Result<Option<Figures>>>> {
        let Attack { what, .. } = *self.attack;
        let connections = self.attack.connections();
        let speaking = |protocol: &[u8]| {
            let mut config = self.client.clone();
            config.alpn_protocols = vec![protocol.to_vec()];
            config.resumption = rustls::client::Resumption::disabled();
            TlsConnector::from(Arc::new(config))
        };
        let site = Site {
            http: proxy.http,
            https: proxy.https,
            host: HOST,
            tls: speaking(b"http/1.1"),
            tls_http2: speaking(b"h2"),
        };
        let (client, counts) = (self.client.clone(), Arc::clone(counts));
        on_a_thread(NICENESS, async move {
            match what {
                What::Nothing => Ok(None),
                What::Expressions | What::Hosts => {
                    let time = until.saturating_duration_since(Instant::now());
                    let seen = requests::greedy(site.http, what, connections, &client, time).await;
                    Ok(Some(seen))
                }
                What::SlowHeader
                | What::SlowBody
                | What::SlowRead
                | What::Silence
                | What::Idle
                | What::Garbage
                | What::RapidReset
                | What::Continuation
                | What::Settings
                | What::Pings
                | What::LargeHeader
                | What::ManyHeaders
                | What::Spoof => {
                    hostile::attack(site, what, connections, until, counts).await;
                    Ok(None)
                }
            }
        })
    }

    /// Time on all cores that neither this measurement nor the proxy has spent so far.
    fn foreign(&self, process: u32) -> Result<f64> {
        let ours = peers::own_cpu_seconds()? + self.origins.cpu_seconds()?;
        Ok(peers::busy_seconds()? - ours - peers::cpu_seconds(process)?)
    }
}

fn fate(counts: &Counts, greedy: Option<&Figures>) -> Fate {
    let read = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    let mut fate = Fate {
        opened: read(&counts.opened),
        closed: read(&counts.closed),
        refused: read(&counts.refused),
        sent: read(&counts.sent),
        statuses: counts.statuses().into_iter().collect(),
        believed: read(&counts.believed),
    };
    if let Some(figures) = greedy {
        fate.opened = figures.connections;
        fate.sent = figures.answers + figures.failed;
        fate.statuses = vec![("answered".to_owned(), figures.answers)];
    }
    fate
}

/// Runs something on a thread and a runtime of its own, with this much less weight.
fn on_a_thread<T: Send + 'static>(
    niceness: i32,
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<oneshot::Receiver<Result<T>>> {
    let (sender, receiver) = oneshot::channel();
    thread::Builder::new()
        .name("clients".to_owned())
        .spawn(move || {
            // Of this thread alone: that is how Linux understands it.
            let _ = rustix::process::setpriority_process(None, niceness);
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            let done = match runtime {
                Ok(runtime) => runtime.block_on(work),
                Err(error) => Err(anyhow!("no runtime: {error}")),
            };
            // Nobody waits for it any more when something else has failed.
            let _ = sender.send(done);
        })?;
    Ok(receiver)
}
