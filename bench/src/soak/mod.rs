//! The soak: the real binary under load while everything about it changes.
//!
//! Manifests of several hosts are rewritten one after the other (routes, endpoints, certificates) while requests come in.
//! Because every change is waited for, it is known for each request which answers are right: those of the states
//! between the one that was served when it began and the one that was written when it ended. Anything else is a failure.
//!
//! There are two processes. One stays, and is watched for what it holds; the other is replaced again and again. An
//! endpoint is slow, hangs, resets connections and is gone, by turns.

mod changes;
mod gateways;
mod report;
mod side;
mod traffic;
mod trouble;
mod world;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::task::JoinSet;

use crate::certs;
use crate::load::{self, Budget, Collector, Connector, Figures, Shape, Version};
use changes::Changer;
pub use gateways::Held;
use gateways::{Doors, Gateways, Recipe};
pub use report::{GROWTH, Report};
use side::{SIDES, SideTraffic};
use traffic::{Site, SoakTraffic};
use trouble::Mood;
use world::World;

/// What a soak has to reach.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The binary.
    pub lockgate: PathBuf,
    /// Further arguments for it.
    pub arguments: Vec<OsString>,
    /// Requests over TLS to the hosts that change; the others come on top.
    pub requests: u64,
    /// Tables that replace each other.
    pub swaps: u64,
    /// Processes that replace each other.
    pub rolls: u64,
    /// Hosts, each with its own certificate.
    pub hosts: usize,
    /// How long the process that stays gets afterwards to close idle connections to backends; nothing: they are not
    /// looked at.
    pub settle: Duration,
    /// It has failed when it takes longer.
    pub limit: Duration,
}

/// The connections that carry the load.
const KEPT: Shape = Shape {
    version: Version::Http1,
    connections: 12,
    streams: 1,
    renew_after: Some(400),
    rate: None,
    timeout: Duration::from_secs(20),
};
const FRESH: Shape = Shape {
    connections: 2,
    renew_after: Some(1),
    ..KEPT
};
const RESUMED: Shape = Shape {
    connections: 2,
    renew_after: Some(4),
    ..KEPT
};
const HTTP2: Shape = Shape {
    version: Version::Http2,
    connections: 4,
    streams: 8,
    renew_after: Some(2000),
    ..KEPT
};
const REDIRECTS: Shape = Shape {
    connections: 2,
    renew_after: Some(100),
    rate: Some(200.0),
    ..KEPT
};

/// What the clients are called that ask the hosts that change.
const NAMES: [&str; 5] = [
    "HTTP/1.1, kept",
    "HTTP/1.1, fresh",
    "HTTP/1.1, resumed",
    "HTTP/2",
    "redirect to https",
];

/// How long the endpoint in trouble keeps its mood.
const MOOD: Duration = Duration::from_millis(1500);
/// Until clients that have gone are counted out.
const GONE: Duration = Duration::from_secs(10);
/// Failures after which nothing more is learnt.
const TOO_MANY: u64 = 100;

/// Runs the soak. Requests that failed are in the report; an error is anything that kept it from being one.
pub async fn run(plan: &Plan) -> Result<Report> {
    let home = tempfile::tempdir().context("no directory for manifests")?;
    let manifests = home.path().join("manifests");
    let world = Arc::new(World::create(&manifests, plan.hosts).await?);
    let mut arguments: Vec<OsString> = [
        "--access-log",
        "off",
        // Who has just chosen a process that is about to end still gets in, on a busy machine as well.
        "--shutdown-delay",
        "2s",
        "--drain-timeout",
        "20s",
    ]
    .map(OsString::from)
    .to_vec();
    arguments.extend_from_slice(&plan.arguments);
    let recipe = Recipe {
        binary: plan.lockgate.clone(),
        manifests,
        home: home.path().to_owned(),
        arguments,
    };
    let doors = Arc::<Doors>::default();
    let mut gateways = Gateways::start(recipe, &doors).await?;
    let soaked = tokio::time::timeout(plan.limit, soak(plan, &world, &doors, &mut gateways)).await;
    soaked
        .unwrap_or_else(|_| {
            Err(anyhow::anyhow!(
                "it has not come to its end in {:?}",
                plan.limit
            ))
        })
        .with_context(|| format!("the log of lockgate ends with:\n{}", gateways.last_words()))
}

async fn soak(
    plan: &Plan,
    world: &Arc<World>,
    doors: &Arc<Doors>,
    gateways: &mut Gateways,
) -> Result<Report> {
    let begun = Instant::now();
    let first = gateways.stays.generation().await?;
    let held_before = Held::by(&gateways.stays).await?;
    let mut load = Load::start(world, doors)?;
    let changer = Changer::new(Arc::clone(world), doors, &load.roots)?;
    let watched = watch(plan, &load, &changer, gateways, doors, first).await;
    load.end().await;
    let watched = watched?;
    gateways.leave_one(doors).await?;
    let held_after = settle(plan, &gateways.stays, held_before).await?;
    let drained = drain(world, doors, gateways, &load.roots).await?;
    let milliseconds = |per_mille| changer.visible().quantile(per_mille).as_secs_f64() * 1000.0;
    Ok(Report {
        planned: load.planned(),
        drained,
        excepted: load.excepted.load(Ordering::Relaxed),
        swaps: watched.generation - first,
        rotations: changer.rotations(),
        changes: changer.changes(),
        moods: load.moods.load(Ordering::Relaxed),
        rolls: gateways.rolled(),
        visible_p50_ms: milliseconds(500),
        visible_p99_ms: milliseconds(990),
        resident_mib: report::quarters(&watched.resident, plan.requests),
        held_before,
        held_after,
        settled: !plan.settle.is_zero(),
        seconds: begun.elapsed().as_secs_f64(),
        clients: load
            .collectors
            .into_iter()
            .map(|(name, collector)| (name, collector.figures()))
            .collect(),
    })
}

struct Load {
    budget: Arc<Budget>,
    /// What is not sent to the hosts that change, or not over TLS, does not count as a part of the plan.
    beside: Arc<Budget>,
    collectors: Vec<(&'static str, Arc<Collector>)>,
    /// Those of the clients that count as a part of the plan.
    planned: Vec<Arc<Collector>>,
    excepted: Arc<AtomicU64>,
    moods: Arc<AtomicU64>,
    running: JoinSet<()>,
    /// Changes the mood of the endpoint that is in trouble.
    moody: JoinSet<()>,
    roots: Arc<rustls::RootCertStore>,
}

impl Load {
    fn start(world: &Arc<World>, doors: &Arc<Doors>) -> Result<Self> {
        let roots = certs::roots(world.authority().pem())?;
        let mut load = Self {
            budget: Arc::new(Budget::new(None, None)),
            beside: Arc::new(Budget::new(None, None)),
            collectors: Vec::new(),
            planned: Vec::new(),
            excepted: Arc::default(),
            moods: Arc::default(),
            running: JoinSet::new(),
            moody: JoinSet::new(),
            roots,
        };
        let parts = [
            (KEPT, Site::Secure { resumed: false }),
            (FRESH, Site::Secure { resumed: false }),
            (RESUMED, Site::Secure { resumed: true }),
            (HTTP2, Site::Secure { resumed: false }),
            (REDIRECTS, Site::Plain),
        ];
        for ((shape, site), name) in parts.into_iter().zip(NAMES) {
            let resumption = matches!(site, Site::Secure { resumed: true });
            let collector = Arc::<Collector>::default();
            load.collectors.push((name, Arc::clone(&collector)));
            let budget = match site {
                Site::Secure { .. } => {
                    load.planned.push(Arc::clone(&collector));
                    &load.budget
                }
                Site::Plain => &load.beside,
            };
            load.running.spawn(load::run(
                Arc::new(SoakTraffic::new(Arc::clone(world), Arc::clone(doors), site)),
                Connector::new(&load.roots, resumption)?,
                shape,
                Arc::clone(budget),
                collector,
            ));
        }
        for side in &SIDES {
            let collector = Arc::<Collector>::default();
            load.collectors.push((side.name, Arc::clone(&collector)));
            load.running.spawn(load::run(
                Arc::new(SideTraffic::new(side, doors, &load.excepted)),
                Connector::new(&load.roots, false)?,
                side.shape,
                Arc::clone(&load.beside),
                collector,
            ));
        }
        let (world, moods) = (Arc::clone(world), Arc::clone(&load.moods));
        load.moody.spawn(async move {
            for mood in Mood::ROUND.into_iter().cycle() {
                world.trouble.feel(mood);
                moods.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(MOOD).await;
            }
        });
        Ok(load)
    }

    /// Answers to the clients that count as a part of the plan.
    fn planned(&self) -> u64 {
        self.planned.iter().map(|of| of.answers()).sum()
    }

    fn failures(&self) -> u64 {
        let collectors = self.collectors.iter();
        collectors.map(|(_, collector)| collector.failures()).sum()
    }

    async fn end(&mut self) {
        self.budget.end();
        self.beside.end();
        while self.running.join_next().await.is_some() {}
        self.moody.shutdown().await;
    }
}

struct Watched {
    generation: u64,
    /// Requests sent, and the resident memory at that time.
    resident: Vec<(u64, u64)>,
}

/// Changes one thing after the other, and one process for another at even distances, until the plan is fulfilled. Many
/// failures end it early.
async fn watch(
    plan: &Plan,
    load: &Load,
    changer: &Changer,
    gateways: &mut Gateways,
    doors: &Doors,
    first: u64,
) -> Result<Watched> {
    let mut resident = Vec::new();
    loop {
        changer.change().await?;
        let generation = gateways.stays.generation().await?;
        let sent = load.budget.sent();
        resident.push((sent, gateways.stays.resident()?));
        let reached = load.planned() >= plan.requests
            && generation - first >= plan.swaps
            && gateways.rolled() >= plan.rolls;
        if reached || load.failures() > TOO_MANY {
            return Ok(Watched {
                generation,
                resident,
            });
        }
        let due = (gateways.rolled() + 1).saturating_mul(plan.requests) / (plan.rolls + 1);
        if gateways.rolled() < plan.rolls && sent >= due {
            gateways.roll(doors).await?;
        }
    }
}

/// Waits until the process that stays holds nothing more than before, as long as it may take.
async fn settle(plan: &Plan, lockgate: &crate::process::Lockgate, before: Held) -> Result<Held> {
    let begun = Instant::now();
    loop {
        let held = Held::by(lockgate).await?;
        let waited = begun.elapsed();
        let clients_gone = held.connections <= before.connections;
        let enough = if plan.settle.is_zero() {
            clients_gone || waited > GONE
        } else {
            held.is_back_to(before) || waited > plan.settle
        };
        if enough {
            return Ok(held);
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Tells it to end while slow requests are under way: all of them have to be answered, and it has to end well.
async fn drain(
    world: &Arc<World>,
    doors: &Arc<Doors>,
    gateways: &mut Gateways,
    roots: &Arc<rustls::RootCertStore>,
) -> Result<Figures> {
    let collector = Arc::new(Collector::default());
    let mut running = JoinSet::new();
    for (shape, lanes) in [(KEPT, 8), (HTTP2, 8)] {
        let shape = Shape {
            connections: lanes / shape.streams,
            ..shape
        };
        let site = Site::Secure { resumed: false };
        running.spawn(load::run(
            Arc::new(SoakTraffic::slow(
                Arc::clone(world),
                Arc::clone(doors),
                site,
            )),
            Connector::new(roots, false)?,
            shape,
            Arc::new(Budget::new(Some(lanes as u64), None)),
            Arc::clone(&collector),
        ));
    }
    // The requests take longer than this and the delay of the shutdown together, so they meet the drain.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let lockgate = &mut gateways.stays;
    lockgate.terminate().await?;
    while running.join_next().await.is_some() {}
    let status = lockgate.wait().await?;
    ensure!(
        status.success(),
        "lockgate ended with {status} after SIGTERM"
    );
    Ok(collector.figures())
}

/// Reads a plan's binary early, so that a wrong path is told as one.
pub fn check_binary(path: &Path) -> Result<()> {
    ensure!(
        path.is_file(),
        "{} is not there; build it with `cargo build -p controller`",
        path.display()
    );
    Ok(())
}
