//! The composition root: makes the parts of the process and connects them.
//!
//! [`run`] is the whole process with its signals; [`App`] is the same without them, for tests and for whoever wants
//! to run a gateway inside another program.

mod cluster;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context;
use gateway::{Gateway, Running};
use model::RoutingModel;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{interval, sleep, timeout};
use tracing::{error, info, warn};
use translate::{NamespacedName, Translator};

use crate::admin::{self, Admin};
use crate::certificate;
use crate::lifecycle::{Lifecycle, Phase};
use crate::overview::Endpoint;
use crate::publish::Publisher;
use crate::reconcile::{PassObserver, Progress, Reconciler, Shared};
use crate::telemetry::{self, LogFormat};
use crate::watch as source;
use crate::watch::directory::{self, Directory, Folder};

/// Threads of the control plane. The gateway has its own.
const CONTROL_THREADS: usize = 2;

/// How often the recorder of metrics puts its samples in order.
const UPKEEP: Duration = Duration::from_secs(5);

/// What tasks get to put their affairs in order (a Lease to give back) after the last request.
const FAREWELL: Duration = Duration::from_secs(3);

/// Everything that the process is started with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where objects come from.
    pub source: Source,
    /// Which objects count.
    pub translation: translate::Settings,
    /// Where plain HTTP is accepted.
    pub http: Vec<SocketAddr>,
    /// Where TLS is accepted.
    pub https: Vec<SocketAddr>,
    /// Where operators look.
    pub admin: SocketAddr,
    /// Threads that serve; `None` is one per processor.
    pub workers: Option<usize>,
    /// Client connections at once.
    pub max_connections: usize,
    /// Combinations of label values of one metric.
    pub max_series: usize,
    /// How the access log is written; `None` writes none.
    pub access_log: Option<LogFormat>,
    /// From the signal to the end of accepting.
    pub shutdown_delay: Duration,
    /// For requests in flight after that.
    pub drain_timeout: Duration,
}

/// Where objects come from.
#[derive(Clone, Debug)]
pub enum Source {
    /// A folder of manifests.
    Manifests(PathBuf),
    /// The Kubernetes API.
    Cluster(ClusterSettings),
}

/// How the Kubernetes API is reached and what is written to it.
#[derive(Clone, Debug)]
pub struct ClusterSettings {
    /// The file that says how to reach the API; `None` is the cluster in which this process runs.
    pub kubeconfig: Option<PathBuf>,
    /// The Service whose addresses go into the status of Ingresses.
    pub publish_service: Option<NamespacedName>,
    /// Addresses and names that go there instead.
    pub publish_status_address: Vec<String>,
    /// The Lease of the replica that writes.
    pub election_id: String,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Ended {
    /// No request was cut off.
    Drained,
    /// The drain timeout was reached: what was left was cut off.
    TimedOut,
    /// It was told a second time and did not wait.
    Hurried,
}

/// Runs until a signal says otherwise.
pub fn run(settings: Settings) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(CONTROL_THREADS)
        .thread_name("control")
        .enable_all()
        .build()
        .context("cannot start the threads of the control plane")?;
    let ended = runtime.block_on(async {
        let mut signals = Signals::new().context("cannot wait for signals")?;
        let mut app = tokio::select! {
            app = App::start(settings) => app?,
            name = signals.next() => {
                info!(signal = name, "Told to end before anything was served");
                return Ok(Ended::Drained);
            }
        };
        tokio::select! {
            name = signals.next() => {
                info!(signal = name, "Told to end; a second signal ends it at once");
            }
            failure = app.failed() => return Err(failure),
        }
        Ok(app
            .shutdown(async {
                signals.next().await;
            })
            .await)
    });
    runtime.shutdown_background();
    Ok(match ended? {
        Ended::Drained | Ended::TimedOut => ExitCode::SUCCESS,
        Ended::Hurried => ExitCode::FAILURE,
    })
}

/// The signals that end the process.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for one and returns its name.
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// A running control plane with its gateway. Dropping it ends everything at once.
#[derive(Debug)]
pub struct App {
    lifecycle: Arc<Lifecycle>,
    progress: watch::Receiver<Progress>,
    running: Arc<OnceLock<Running>>,
    failures: mpsc::Receiver<anyhow::Error>,
    http: Vec<SocketAddr>,
    https: Vec<SocketAddr>,
    admin: SocketAddr,
    shutdown_delay: Duration,
    drain_timeout: Duration,
    /// Ends the source when it is dropped.
    _directory: Option<Directory>,
    /// Tasks that see the end coming and have something to do then.
    reporters: JoinSet<()>,
    /// Tasks that are simply ended.
    _tasks: JoinSet<()>,
}

impl App {
    /// Binds all sockets and starts to read the source. Connections are accepted after the first full sync.
    pub async fn start(settings: Settings) -> anyhow::Result<Self> {
        let metrics = telemetry::metrics()?;
        gateway::describe_metrics();
        let mut translation = settings.translation;
        if translation.fake_certificate.is_none() {
            let (name, host) = (certificate::COMMON_NAME, certificate::DNS_NAME);
            let made = certificate::self_signed(name, host, &jiff::Zoned::now())?;
            translation.fake_certificate = Some(Arc::new(made));
        }
        let (events, received) = source::channel();
        let shared = Shared::default();
        let lifecycle = Arc::new(Lifecycle::new());
        let mut parts = Parts::default();
        // A folder that cannot be read is told before sockets are bound.
        let folder = match &settings.source {
            Source::Manifests(path) => Some(Folder::open(
                path,
                vec![directory::implied_class(&translation)],
            )?),
            Source::Cluster(_) => None,
        };

        let (writer, tables) = table::channel(table::compile(&RoutingModel::default()).table);
        let gateway = Gateway::bind(
            gateway::Settings {
                http: settings.http,
                https: settings.https,
                access_log: settings.access_log.map(gateway_format),
                max_series: settings.max_series,
                ..gateway_settings(settings.workers, settings.max_connections)
            },
            tables.clone(),
        )?;
        let (http, https) = (
            gateway.http_addresses().to_vec(),
            gateway.https_addresses().to_vec(),
        );
        let listener = TcpListener::bind(settings.admin)
            .await
            .with_context(|| format!("cannot listen on {} (--admin-listen)", settings.admin))?;
        let admin_address = listener.local_addr()?;

        match (folder, settings.source) {
            (Some(folder), _) => {
                parts.directory = Some(directory::spawn(folder, events)?);
            }
            (None, Source::Cluster(settings)) => {
                cluster::start(
                    settings,
                    &translation,
                    &shared,
                    &lifecycle,
                    events,
                    &mut parts,
                )
                .await?;
            }
            (None, Source::Manifests(_)) => {} // opened above
        }

        let mut tasks = parts.tasks;
        let alive = Arc::new(AtomicBool::new(true));
        let reconciler = Reconciler::new(
            Translator::new(translation),
            Publisher::new(writer),
            parts.observer,
            shared.clone(),
            parts.directory.is_some(),
        );
        let end = Alive(Arc::clone(&alive), lifecycle.subscribe());
        tasks.spawn(async move {
            let _end = end;
            reconciler.run(received).await;
        });
        let running = Arc::new(OnceLock::new());
        let (fail, failures) = mpsc::channel(1);
        tasks.spawn(serve_when_synced(
            gateway,
            shared.progress.subscribe(),
            Arc::clone(&lifecycle),
            Arc::clone(&running),
            fail,
        ));
        let live = Arc::downgrade(&running);
        tasks.spawn(admin::serve(
            listener,
            Arc::new(Admin {
                phase: lifecycle.subscribe(),
                alive,
                tables,
                problems: Arc::clone(&shared.problems),
                expiry: Arc::clone(&shared.expiry),
                metrics: metrics.clone(),
                max_series: settings.max_series,
                endpoints: Box::new(move || {
                    let running = live.upgrade();
                    let running = running.as_ref().and_then(|running| running.get());
                    running.map(endpoints).unwrap_or_default()
                }),
            }),
        ));
        tasks.spawn(async move {
            let mut tick = interval(UPKEEP);
            loop {
                tick.tick().await;
                metrics.run_upkeep();
            }
        });
        info!(?http, ?https, admin = %admin_address, version = telemetry::VERSION, "Lockgate has its sockets; waiting for the first full sync");
        Ok(Self {
            lifecycle,
            progress: shared.progress.subscribe(),
            running,
            failures,
            http,
            https,
            admin: admin_address,
            shutdown_delay: settings.shutdown_delay,
            drain_timeout: settings.drain_timeout,
            _directory: parts.directory,
            reporters: parts.reporters,
            _tasks: tasks,
        })
    }

    /// Where plain HTTP is accepted; port 0 has become a real one.
    pub fn http_addresses(&self) -> &[SocketAddr] {
        &self.http
    }

    /// Where TLS is accepted; port 0 has become a real one.
    pub fn https_addresses(&self) -> &[SocketAddr] {
        &self.https
    }

    /// Where operators look; port 0 has become a real one.
    pub fn admin_address(&self) -> SocketAddr {
        self.admin
    }

    /// How far the reconcile loop has come.
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.clone()
    }

    /// Where the process stands between its start and its end.
    pub fn phase(&self) -> watch::Receiver<Phase> {
        self.lifecycle.subscribe()
    }

    /// Waits for a failure after which it makes no sense to go on.
    pub async fn failed(&mut self) -> anyhow::Error {
        match self.failures.recv().await {
            Some(failure) => failure,
            None => std::future::pending().await,
        }
    }

    /// Ends in peace: not ready at once, accepting for the shutdown delay, then draining. As soon as `hurry` is
    /// ready it does not wait any longer.
    pub async fn shutdown(mut self, hurry: impl Future<Output = ()>) -> Ended {
        tokio::select! {
            ended = self.leave() => ended,
            () = hurry => {
                warn!("Told to end a second time: what is in flight is cut off");
                Ended::Hurried
            }
        }
    }

    async fn leave(&mut self) -> Ended {
        let served = *self.lifecycle.subscribe().borrow() == Phase::Serving;
        self.lifecycle.advance(Phase::Leaving);
        if served && !self.shutdown_delay.is_zero() {
            info!(delay = ?self.shutdown_delay, "Not ready any more; still accepting");
            sleep(self.shutdown_delay).await;
        }
        self.lifecycle.advance(Phase::Draining);
        let mut ended = Ended::Drained;
        if let Some(running) = self.running.get() {
            info!(connections = running.connections(), timeout = ?self.drain_timeout, "Draining");
            running.drain();
            if timeout(self.drain_timeout, running.drained())
                .await
                .is_err()
            {
                warn!(
                    connections = running.connections(),
                    "The drain timeout is over: what is left is cut off"
                );
                ended = Ended::TimedOut;
            }
        }
        self.lifecycle.advance(Phase::Stopped);
        self.join_workers().await;
        let farewell = async { while self.reporters.join_next().await.is_some() {} };
        if timeout(FAREWELL, farewell).await.is_err() {
            warn!("Status reporting did not end in time");
        }
        info!("Ended");
        ended
    }
}

impl App {
    /// Waits until the workers have ended and the last line of the access log is written.
    async fn join_workers(&mut self) {
        let running = Arc::into_inner(std::mem::take(&mut self.running));
        let Some(running) = running.and_then(OnceLock::into_inner) else {
            return;
        };
        let joined = tokio::task::spawn_blocking(move || running.join());
        match timeout(FAREWELL, joined).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(error))) => warn!(%error, "A worker did not end as it should"),
            Ok(Err(error)) => warn!(%error, "Waiting for the workers failed"),
            Err(_elapsed) => warn!("The workers did not end in time"),
        }
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.lifecycle.advance(Phase::Stopped);
        if let Some(running) = self.running.get() {
            running.abort();
        }
    }
}

/// What a source adds to the process.
#[derive(Default)]
struct Parts {
    directory: Option<Directory>,
    observer: Option<Box<dyn PassObserver>>,
    reporters: JoinSet<()>,
    tasks: JoinSet<()>,
}

/// Says when the reconcile loop has ended, also by a panic.
struct Alive(Arc<AtomicBool>, watch::Receiver<Phase>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
        if *self.1.borrow() < Phase::Leaving {
            error!("The control plane has ended; what was published last is still served");
        }
    }
}

async fn serve_when_synced(
    gateway: Gateway,
    mut progress: watch::Receiver<Progress>,
    lifecycle: Arc<Lifecycle>,
    running: Arc<OnceLock<Running>>,
    fail: mpsc::Sender<anyhow::Error>,
) {
    if progress
        .wait_for(|progress| progress.passes > 0)
        .await
        .is_err()
    {
        return; // the loop has ended and says so itself
    }
    match gateway.start() {
        Ok(started) => {
            // Nobody else fills it.
            let _ = running.set(started);
            lifecycle.advance(Phase::Serving);
            info!("Serving");
        }
        Err(error) => {
            let error = anyhow::Error::new(error).context("cannot start the threads that serve");
            // An error means that the process is ending already.
            let _ = fail.send(error).await;
        }
    }
}

fn gateway_settings(workers: Option<usize>, max_connections: usize) -> gateway::Settings {
    let defaults = gateway::Settings::default();
    gateway::Settings {
        workers: workers.unwrap_or(defaults.workers),
        limits: gateway::Limits {
            max_connections,
            ..defaults.limits
        },
        ..defaults
    }
}

fn gateway_format(format: LogFormat) -> gateway::LogFormat {
    match format {
        LogFormat::Json => gateway::LogFormat::Json,
        LogFormat::Text => gateway::LogFormat::Text,
    }
}

fn endpoints(running: &Running) -> Vec<Endpoint> {
    running
        .endpoint_state()
        .into_iter()
        .map(|state| Endpoint {
            backend: state.backend,
            address: state.address,
            in_flight: state.in_flight,
        })
        .collect()
}
