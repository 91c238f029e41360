//! Lockgate beside the proxies that a user would pick instead.
//!
//! Each proxy has one worker and a core for itself while it is measured; load generator and backends share the other one.
//! Rounds of all proxies alternate, so that what disturbs the machine disturbs all of them, and time that anybody else
//! takes is measured along: a slice that was disturbed is repeated.

mod case;
mod command;
mod config;
mod generate;
mod idle;
mod machine;
mod pace;
mod proxy;
mod report;
mod trust;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};

pub(crate) use case::ECDSA as HOST;
pub use case::{CASES, Case, What, World};
pub use command::{Programs, beside, or_all, run_beside};
pub(crate) use config::{EXPRESSION, Keys};
pub use generate::Slice;
pub(crate) use generate::quick_client;
pub use machine::describe;
pub(crate) use machine::{busy_seconds, cpu_seconds, idle_connections, memory, own_cpu_seconds};
pub use proxy::{Peer, Places, Program, Proxy};
pub use report::{Report, Row, median};

use crate::certs::Authority;
use config::Backends;
use pace::Pace;

/// Part of a core that others may take without a slice being repeated.
pub const TOLERATED: f64 = 0.05;

/// What is to be measured.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Lockgate's binary.
    pub lockgate: PathBuf,
    /// The binary of the yardstick.
    pub floor: PathBuf,
    /// The binary of the backend.
    pub origin: PathBuf,
    /// The directory of Python packages with the peers.
    pub packages: PathBuf,
    /// The proxies.
    pub peers: Vec<Peer>,
    /// The cases.
    pub cases: Vec<Case>,
    /// How often each proxy has its turn.
    pub rounds: usize,
    /// How long a turn is, in seconds.
    pub seconds: u64,
    /// How often a turn is tried that others disturb.
    pub tries: usize,
}

/// In which half of a run a slice was measured.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Phase {
    /// As much as it answers.
    Saturated,
    /// At the same rate for all.
    AtRate,
}

/// One turn of one proxy.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// The case by its name.
    pub case: &'static str,
    /// The proxy.
    pub peer: Peer,
    /// The half.
    pub phase: Phase,
    /// The round.
    pub round: usize,
    /// What the client saw.
    pub slice: Slice,
    /// User and system time of the proxy, in seconds.
    pub cpu: f64,
    /// Cores that others took.
    pub foreign: f64,
    /// Resident memory of the proxy in bytes.
    pub memory: u64,
}

/// What came out.
#[derive(Debug, Default)]
pub struct Outcome {
    /// All turns.
    pub samples: Vec<Sample>,
    /// Requests per second at which all proxies were asked, by case.
    pub rates: Vec<(&'static str, f64)>,
    /// Bytes per idle connection, by case and proxy.
    pub idle: Vec<(&'static str, Peer, f64)>,
    /// The programs.
    pub programs: Vec<Program>,
    /// What could not be measured, and why.
    pub notes: Vec<String>,
}

/// Measures everything. A proxy that cannot be started or does not answer as it should is noted and left out.
pub async fn run(plan: &Plan) -> Result<Outcome> {
    let home = tempfile::tempdir().context("no directory for configurations")?;
    let mut outcome = Outcome::default();
    let places = Places {
        lockgate: &plan.lockgate,
        floor: Some(&plan.floor),
        packages: &plan.packages,
    };
    outcome.programs = Program::find_all(&plan.peers, places, |why| outcome.note(why)).await;
    let origins = Origins::start(&plan.origin, home.path()).await?;
    let authority = Authority::new("bench-peers authority")?;
    let keys = Keys::issue(&authority)?;
    let worlds: BTreeSet<World> = plan.cases.iter().map(|case| case.world).collect();
    for world in worlds {
        let mut stage = Stage {
            plan,
            home: home.path(),
            origins: &origins,
            proxies: Vec::new(),
            outcome: &mut outcome,
        };
        stage.start(world, &keys).await?;
        for case in plan.cases.iter().filter(|case| case.world == world) {
            stage.measure(case, authority.pem()).await?;
        }
        for proxy in stage.proxies {
            proxy.end().await;
        }
    }
    Ok(outcome)
}

impl Outcome {
    fn note(&mut self, text: impl std::fmt::Display) {
        // One line each, whatever a program has said.
        let text = text
            .to_string()
            .lines()
            .take(3)
            .map(str::trim)
            .collect::<Vec<_>>()
            .join("; ");
        progress(&text);
        self.notes.push(text);
    }
}

/// Says on standard error what happens; standard output has the table.
#[expect(clippy::print_stderr, reason = "a run takes an hour")]
pub(crate) fn progress(text: &str) {
    eprintln!("{text}");
}

/// The backends as processes.
#[derive(Debug)]
pub(crate) struct Origins {
    children: Vec<tokio::process::Child>,
    backends: Backends,
}

impl Origins {
    pub(crate) async fn start(binary: &Path, home: &Path) -> Result<Self> {
        let mut children = Vec::new();
        let mut addresses = Vec::new();
        let free = crate::process::free_addresses::<3>()?;
        for (size, address) in [1 << 10, 100 << 10, 10 << 20].into_iter().zip(free) {
            let child = tokio::process::Command::new(binary)
                .arg(format!("--listen=bench={address}"))
                .arg(format!("--body-size={size}"))
                .stdin(std::process::Stdio::null())
                .stdout(std::fs::File::create(home.join(format!("origin-{size}")))?)
                .kill_on_drop(true)
                .spawn()
                .with_context(|| format!("cannot run {}", binary.display()))?;
            children.push(child);
            let begun = Instant::now();
            while tokio::net::TcpStream::connect(address).await.is_err() {
                ensure!(begun.elapsed().as_secs() < 10, "a backend did not start");
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
            addresses.push(address);
        }
        let [small, medium, large] = addresses[..] else {
            anyhow::bail!("three backends were to be started");
        };
        let backends = Backends {
            small,
            medium,
            large,
        };
        Ok(Self { children, backends })
    }

    /// Where they are.
    pub(crate) fn backends(&self) -> Backends {
        self.backends
    }

    pub(crate) fn cpu_seconds(&self) -> Result<f64> {
        let ids = self.children.iter().filter_map(tokio::process::Child::id);
        ids.map(cpu_seconds).sum()
    }
}

/// The proxies of one world, all up at once.
struct Stage<'a> {
    plan: &'a Plan,
    home: &'a Path,
    origins: &'a Origins,
    proxies: Vec<Proxy>,
    outcome: &'a mut Outcome,
}

impl Stage<'_> {
    async fn start(&mut self, world: World, keys: &Keys) -> Result<()> {
        let cases = &self.plan.cases;
        for program in self.outcome.programs.clone() {
            if !cases
                .iter()
                .any(|case| case.world == world && program.peer.takes_part(case))
            {
                continue;
            }
            let backends = self.origins.backends;
            let begun = Instant::now();
            match Proxy::start(&program, world, backends, keys, self.home).await {
                Ok(proxy) => self.proxies.push(proxy),
                Err(error) => self.outcome.note(format_args!(
                    "{} does not start with the configuration `{world:?}`: {error:#}",
                    program.peer.name()
                )),
            }
            let seconds = begun.elapsed().as_secs_f64();
            if seconds > 5.0 {
                self.outcome.note(format_args!(
                    "{} took {seconds:.0} s to start with the configuration `{world:?}`",
                    program.peer.name()
                ));
            }
        }
        ensure!(!self.proxies.is_empty(), "no proxy runs");
        Ok(())
    }

    async fn measure(&mut self, case: &Case, authority: &str) -> Result<()> {
        progress(&format!("{} ({})", case.title, case.name));
        let mut able = Vec::new();
        for (index, proxy) in self.proxies.iter().enumerate() {
            if !proxy.peer.takes_part(case) {
                continue;
            }
            match generate::check(case, proxy, authority).await {
                Ok(()) => able.push(index),
                Err(error) => {
                    let name = proxy.peer.name();
                    self.outcome.note(format_args!(
                        "{name} is left out of `{}`: {error:#}",
                        case.name
                    ));
                }
            }
        }
        if case.what == What::Idle {
            return self.idle(case, &able).await;
        }
        self.rounds(case, Phase::Saturated, &mut able, None).await?;
        let reached: Vec<(usize, Peer, f64)> = able
            .iter()
            .filter_map(|&index| {
                let peer = self.proxies.get(index)?.peer;
                Some((index, peer, self.reached(case, peer)?))
            })
            .collect();
        let mut pace = Pace::of(&reached);
        for index in pace.slow {
            let name = self
                .proxies
                .get(index)
                .map_or("", |proxy| proxy.peer.name());
            self.outcome.note(format_args!(
                "{name} is too slow in `{}` to be asked at the rate of the others",
                case.name
            ));
        }
        if let Some(rate) = pace.rate {
            self.outcome.rates.push((case.name, rate));
            self.rounds(case, Phase::AtRate, &mut pace.quick, Some(rate))
                .await?;
        }
        Ok(())
    }

    fn reached(&self, case: &Case, peer: Peer) -> Option<f64> {
        let rates = self.outcome.samples.iter().filter_map(|sample| {
            let same =
                sample.case == case.name && sample.peer == peer && sample.phase == Phase::Saturated;
            same.then(|| as_float(sample.slice.requests) / sample.slice.seconds)
        });
        median(rates.collect())
    }

    /// All rounds of one half; a proxy that fails is noted and has no further turns.
    async fn rounds(
        &mut self,
        case: &Case,
        phase: Phase,
        able: &mut Vec<usize>,
        rate: Option<f64>,
    ) -> Result<()> {
        // The first round only warms up.
        for round in 0..=self.plan.rounds {
            let mut order = able.clone();
            let turn = round % order.len().max(1);
            order.rotate_left(turn);
            for index in order {
                let seconds = if round == 0 { 1 } else { self.plan.seconds };
                let measured = self.turn(case, phase, round, index, seconds, rate).await;
                match measured {
                    Ok(sample) if round > 0 => self.outcome.samples.push(sample),
                    Ok(_) => {}
                    Err(error) => {
                        able.retain(|other| *other != index);
                        let name = self
                            .proxies
                            .get(index)
                            .map_or("", |proxy| proxy.peer.name());
                        self.outcome.note(format_args!(
                            "{name} has failed in `{}`: {error:#}",
                            case.name
                        ));
                    }
                }
            }
        }
        Ok(())
    }

    async fn turn(
        &self,
        case: &Case,
        phase: Phase,
        round: usize,
        index: usize,
        seconds: u64,
        rate: Option<f64>,
    ) -> Result<Sample> {
        let proxy = self.proxies.get(index).context("no such proxy")?;
        let process = proxy.process()?;
        let mut best: Option<Sample> = None;
        for _ in 0..self.plan.tries.max(1) {
            let (begun, before, cpu) = (Instant::now(), self.foreign()?, cpu_seconds(process)?);
            let slice = match phase {
                Phase::Saturated => generate::saturate(case, proxy, seconds, self.home).await?,
                Phase::AtRate => generate::own(case, proxy, seconds, rate).await?,
            };
            let cpu = cpu_seconds(process)? - cpu;
            let foreign = (self.foreign()? - before) / begun.elapsed().as_secs_f64();
            let sample = Sample {
                case: case.name,
                peer: proxy.peer,
                phase,
                round,
                slice,
                cpu,
                foreign,
                memory: memory(process)?,
            };
            if best.is_none_or(|best| foreign < best.foreign) {
                best = Some(sample);
            }
            if foreign <= TOLERATED || round == 0 {
                break;
            }
        }
        let sample = best.context("nothing was measured")?;
        ensure!(sample.slice.requests > 0, "no answer");
        ensure!(round == 0 || sample.cpu > 0.0, "it used no time");
        Ok(sample)
    }

    /// Time on all cores that neither we nor the proxies have spent so far.
    fn foreign(&self) -> Result<f64> {
        let mut ours = own_cpu_seconds()? + self.origins.cpu_seconds()?;
        for proxy in &self.proxies {
            ours += cpu_seconds(proxy.process()?)?;
        }
        Ok(busy_seconds()? - ours)
    }

    async fn idle(&mut self, case: &Case, able: &[usize]) -> Result<()> {
        for &index in able {
            let proxy = self.proxies.get(index).context("no such proxy")?;
            let peer = proxy.peer;
            match idle::per_connection(case, proxy).await {
                Ok(bytes) => self.outcome.idle.push((case.name, peer, bytes)),
                Err(error) => self.outcome.note(format_args!(
                    "{} has failed in `{}`: {error:#}",
                    peer.name(),
                    case.name
                )),
            }
        }
        Ok(())
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of a few minutes")]
fn as_float(number: u64) -> f64 {
    number as f64
}
