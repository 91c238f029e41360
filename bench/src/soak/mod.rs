//! The soak: the real binary under load while everything about it changes.
//!
//! Manifests of several hosts are rewritten one after the other (routes, endpoints, certificates) while requests
//! come in over HTTP/1.1 and HTTP/2. Because every change is waited for, it is known for each request which answers
//! are right: those of the states between the one that was served when it began and the one that was written when it
//! ended. Anything else is a failure.

mod changes;
mod traffic;
mod world;

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use tokio::task::JoinSet;

use crate::certs;
use crate::load::{self, Budget, Collector, Connector, Figures, Shape, Version};
use crate::process::Lockgate;
use changes::Changer;
use traffic::{Site, SoakTraffic};
use world::World;

/// What a soak has to reach.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The binary.
    pub lockgate: PathBuf,
    /// Further arguments for it.
    pub arguments: Vec<OsString>,
    /// Requests over TLS.
    pub requests: u64,
    /// Tables that replace each other.
    pub swaps: u64,
    /// Hosts, each with its own certificate.
    pub hosts: usize,
    /// It has failed when it takes longer.
    pub limit: Duration,
}

/// What came out.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Over HTTP/1.1 with TLS on connections that are kept.
    pub http1: Figures,
    /// Over HTTP/1.1 with TLS, a connection for each request.
    pub fresh: Figures,
    /// Over HTTP/1.1 with TLS sessions that are resumed.
    pub resumed: Figures,
    /// Over HTTP/2 with TLS.
    pub http2: Figures,
    /// Over plain HTTP, redirected to https.
    pub redirects: Figures,
    /// In flight while it was told to end.
    pub drained: Figures,
    /// Tables that replaced each other.
    pub swaps: u64,
    /// Certificates that replaced each other.
    pub rotations: u64,
    /// Changes that were written and seen to be served.
    pub changes: u64,
    /// From the written file to the first answer by it, half of all.
    pub visible_p50_ms: f64,
    /// From the written file to the first answer by it, 99 of 100.
    pub visible_p99_ms: f64,
    /// Resident memory after the first seconds, in MiB.
    pub resident_begin_mib: u64,
    /// Resident memory at the end, in MiB.
    pub resident_end_mib: u64,
    /// How long it took.
    pub seconds: f64,
}

impl Report {
    fn tls(&self) -> [&Figures; 4] {
        [&self.http1, &self.fresh, &self.resumed, &self.http2]
    }

    /// Answers over TLS.
    pub fn answers(&self) -> u64 {
        self.tls().iter().map(|figures| figures.answers).sum()
    }

    /// Failures of any kind.
    pub fn failed(&self) -> u64 {
        let others = [&self.redirects, &self.drained];
        let all = self.tls().into_iter().chain(others);
        all.map(|figures| figures.failed).sum()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "soak: {} requests over TLS, {} failed, while the table was swapped {} times and {} certificates rotated",
            self.answers(),
            self.failed(),
            self.swaps,
            self.rotations
        )?;
        writeln!(f, "  HTTP/1.1, kept       {}", self.http1)?;
        writeln!(f, "  HTTP/1.1, fresh      {}", self.fresh)?;
        writeln!(f, "  HTTP/1.1, resumed    {}", self.resumed)?;
        writeln!(f, "  HTTP/2               {}", self.http2)?;
        writeln!(f, "  redirect to https    {}", self.redirects)?;
        writeln!(f, "  in flight at SIGTERM {}", self.drained)?;
        writeln!(
            f,
            "  {} changes, from the written file to the first answer by it: p50 {:.0} ms, p99 {:.0} ms",
            self.changes, self.visible_p50_ms, self.visible_p99_ms
        )?;
        write!(
            f,
            "  {:.1} s, resident memory {} MiB at the beginning, {} MiB at the end",
            self.seconds, self.resident_begin_mib, self.resident_end_mib
        )
    }
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

/// Runs the soak. Requests that failed are in the report; an error is anything that kept it from being one.
pub async fn run(plan: &Plan) -> Result<Report> {
    let home = tempfile::tempdir().context("no directory for manifests")?;
    let manifests = home.path().join("manifests");
    let world = Arc::new(World::create(&manifests, plan.hosts).await?);
    let mut further: Vec<OsString> = [
        "--access-log",
        "off",
        "--shutdown-delay",
        "500ms",
        "--drain-timeout",
        "20s",
    ]
    .map(OsString::from)
    .to_vec();
    further.extend_from_slice(&plan.arguments);
    let log = home.path().join("lockgate.log");
    let mut lockgate = Lockgate::start(&plan.lockgate, &manifests, &log, &further).await?;
    let soaked = soak(plan, &world, &mut lockgate).await;
    soaked.with_context(|| format!("the log of lockgate ends with:\n{}", lockgate.log_tail()))
}

async fn soak(plan: &Plan, world: &Arc<World>, lockgate: &mut Lockgate) -> Result<Report> {
    let begun = Instant::now();
    let first = lockgate.generation().await?;
    let mut load = Load::start(world, lockgate)?;
    let changer = Changer::new(Arc::clone(world), lockgate, &load.roots)?;
    let watched = watch(plan, &load, &changer, lockgate, begun, first).await;
    load.end().await;
    let watched = watched?;
    let drained = drain(world, lockgate, &load.roots).await?;
    let [http1, fresh, resumed, http2, redirects] =
        load.collectors.map(|collector| collector.figures());
    let milliseconds = |per_mille| changer.visible().quantile(per_mille).as_secs_f64() * 1000.0;
    Ok(Report {
        http1,
        fresh,
        resumed,
        http2,
        redirects,
        drained,
        swaps: watched.generation - first,
        rotations: changer.rotations(),
        changes: changer.changes(),
        visible_p50_ms: milliseconds(500),
        visible_p99_ms: milliseconds(990),
        resident_begin_mib: watched.resident_begin >> 20,
        resident_end_mib: watched.resident_end >> 20,
        seconds: begun.elapsed().as_secs_f64(),
    })
}

struct Load {
    budget: Arc<Budget>,
    /// Redirects do not count as requests over TLS.
    plain: Arc<Budget>,
    collectors: [Arc<Collector>; 5],
    running: JoinSet<()>,
    roots: Arc<rustls::RootCertStore>,
}

impl Load {
    fn start(world: &Arc<World>, lockgate: &Lockgate) -> Result<Self> {
        let roots = certs::roots(world.authority().pem())?;
        let mut load = Self {
            budget: Arc::new(Budget::new(None, None)),
            plain: Arc::new(Budget::new(None, None)),
            collectors: Default::default(),
            running: JoinSet::new(),
            roots,
        };
        let secure = |resumed| Site::Secure {
            address: lockgate.https,
            resumed,
        };
        let plain = Site::Plain {
            address: lockgate.http,
        };
        let parts = [
            (KEPT, secure(false)),
            (FRESH, secure(false)),
            (RESUMED, secure(true)),
            (HTTP2, secure(false)),
            (REDIRECTS, plain),
        ];
        for ((shape, site), collector) in parts.into_iter().zip(&load.collectors) {
            let resumption = matches!(site, Site::Secure { resumed: true, .. });
            let budget = match site {
                Site::Secure { .. } => &load.budget,
                Site::Plain { .. } => &load.plain,
            };
            load.running.spawn(load::run(
                Arc::new(SoakTraffic::new(Arc::clone(world), site)),
                Connector::new(&load.roots, resumption)?,
                shape,
                Arc::clone(budget),
                Arc::clone(collector),
            ));
        }
        Ok(load)
    }

    fn failures(&self) -> u64 {
        self.collectors
            .iter()
            .map(|collector| collector.failures())
            .sum()
    }

    async fn end(&mut self) {
        self.budget.end();
        self.plain.end();
        while self.running.join_next().await.is_some() {}
    }
}

struct Watched {
    generation: u64,
    resident_begin: u64,
    resident_end: u64,
}

/// Changes one thing after the other until the plan is fulfilled. Many failures end it early.
async fn watch(
    plan: &Plan,
    load: &Load,
    changer: &Changer,
    lockgate: &Lockgate,
    begun: Instant,
    first: u64,
) -> Result<Watched> {
    const TOO_MANY: u64 = 100;
    let mut resident_begin = None;
    loop {
        changer.change().await?;
        let generation = lockgate.generation().await?;
        let resident_end = lockgate.resident()?;
        if resident_begin.is_none() && load.budget.sent() >= plan.requests.min(100_000) / 5 {
            resident_begin = Some(resident_end);
        }
        let reached = load.budget.sent() >= plan.requests && generation - first >= plan.swaps;
        if reached || load.failures() > TOO_MANY {
            return Ok(Watched {
                generation,
                resident_begin: resident_begin.unwrap_or(resident_end),
                resident_end,
            });
        }
        ensure!(
            begun.elapsed() < plan.limit,
            "after {:?}: {} requests and {} swaps, which is too slow",
            plan.limit,
            load.budget.sent(),
            generation - first
        );
    }
}

/// Tells it to end while slow requests are under way: all of them have to be answered, and it has to end well.
async fn drain(
    world: &Arc<World>,
    lockgate: &mut Lockgate,
    roots: &Arc<rustls::RootCertStore>,
) -> Result<Figures> {
    let collector = Arc::new(Collector::default());
    let mut running = JoinSet::new();
    for (shape, lanes) in [(KEPT, 8), (HTTP2, 8)] {
        let shape = Shape {
            connections: lanes / shape.streams,
            ..shape
        };
        let site = Site::Secure {
            address: lockgate.https,
            resumed: false,
        };
        running.spawn(load::run(
            Arc::new(SoakTraffic::slow(Arc::clone(world), site)),
            Connector::new(roots, false)?,
            shape,
            Arc::new(Budget::new(Some(lanes as u64), None)),
            Arc::clone(&collector),
        ));
    }
    // The requests take longer than this and the delay of the shutdown together, so they meet the drain.
    tokio::time::sleep(Duration::from_millis(300)).await;
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
