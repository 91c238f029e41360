//! The composition root: makes the parts of the process and connects them.
//!
//! [`run`] is the whole process with its signals; [`App`] is the same without them, for tests and for whoever wants
//! to run a gateway inside another program.

mod admission;
pub mod backend_metrics;
mod cluster;
mod gateway_settings;
mod live;
mod ports;
mod settings;
mod signals;
mod sockets;
mod succession;

use std::future::Future;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context;
use gateway::{Gateway, Running};
use model::RoutingModel;
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};
use tracing::{error, info, warn};
use translate::Translator;

use crate::admin::{self, Admin};
use crate::certificate::default_certificate;
use crate::descriptors;
use crate::lifecycle::{Lifecycle, Phase};
use crate::memory;
use crate::nginx_metrics::NginxMetrics;
use crate::publish::Publisher;
use crate::reconcile::{PassObserver, Progress, Reconciler, Shared};
use crate::telemetry;
use crate::watch as source;
use crate::watch::directory::{self, Directory, Folder};
use gateway_settings::{gateway_labels, gateway_settings, nginx_labels};
use signals::Signals;
use sockets::Sockets;
use succession::{Heritage, Succession};

pub use crate::memory::MemoryMark;
pub use settings::{
    ClientLimits, ClusterSettings, Engine, Listen, MetricsNames, Serve, Settings, Source,
};

/// Threads of the control plane. The gateway has its own.
const CONTROL_THREADS: usize = 2;

/// What tasks get to put their affairs in order (a Lease to give back) after the last request.
const FAREWELL: Duration = Duration::from_secs(3);

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
pub fn run(mut settings: Settings) -> anyhow::Result<ExitCode> {
    settings.serve.max_connections = descriptors::affordable(settings.serve.max_connections);
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
        let relieved = app.relieved();
        tokio::select! {
            name = signals.next() => {
                info!(signal = name, "Told to end; a second signal ends it at once");
            }
            failure = app.failed() => return Err(failure),
            () = relieved => {}
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

/// A running control plane with its gateway. Dropping it ends everything at once.
#[derive(Debug)]
pub struct App {
    lifecycle: Arc<Lifecycle>,
    progress: watch::Receiver<Progress>,
    running: Arc<OnceLock<Running>>,
    failures: mpsc::Receiver<anyhow::Error>,
    /// Another process serves.
    relieved: watch::Receiver<bool>,
    /// Accepts connections of operators.
    admin: AbortHandle,
    listen: Listen,
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
    #[expect(
        clippy::too_many_lines,
        reason = "one part after the other, and each needs those before it"
    )]
    pub async fn start(mut settings: Settings) -> anyhow::Result<Self> {
        let metrics = telemetry::metrics(&gateway::NGINX_BUCKETS)?;
        gateway::describe_metrics();
        if settings.translation.fake_certificate.is_none() {
            let made = default_certificate(&jiff::Zoned::now())?;
            settings.translation.fake_certificate = Some(Arc::new(made));
        }
        let (writer, tables) = table::channel(table::compile(&RoutingModel::default()).table);
        let (events, received) = source::channel();
        let shared = Shared::default();
        let lifecycle = Arc::new(Lifecycle::new());
        let names = nginx_labels(&settings);
        let nginx = names.as_ref().map(|(labels, election)| {
            gateway::describe_nginx_metrics();
            Arc::new(NginxMetrics::new(labels.clone(), election))
        });
        // A folder that cannot be read is told before sockets are bound.
        let opened = Opened::open(settings.source, &settings.translation)?;
        let labels = names.map(|(labels, _)| gateway_labels(labels));
        let farewell = settings.drain_timeout;
        let takeover = settings.takeover.clone();
        let gateway = |http, https| gateway::Settings {
            keep_sockets: takeover.is_some(),
            ..gateway_settings(http, https, &settings.serve, farewell, labels)
        };
        let (heritage, predecessor) = Heritage::of(takeover.as_deref()).await?;
        let certificate = settings.translation.admission_secret.as_ref();
        let mut sockets = Sockets::bind(
            settings.listen,
            gateway,
            tables.clone(),
            certificate,
            heritage,
        )
        .await?;
        let weak = events.downgrade();
        let mut parts = Parts::default();
        match opened {
            Opened::Folder(folder) => parts.directory = Some(directory::spawn(folder, events)?),
            Opened::Cluster(cluster) => {
                let (translation, parts) = (&settings.translation, &mut parts);
                cluster::start(cluster, translation, &shared, &lifecycle, events, parts).await?;
            }
        }

        let alive = Arc::new(AtomicBool::new(true));
        let reconciler = Reconciler::new(
            Translator::new(settings.translation),
            Publisher::new(writer),
            parts.observer,
            shared.clone(),
            parts.directory.is_some(),
        );
        let end = Alive(Arc::clone(&alive), lifecycle.subscribe());
        let mut tasks = parts.tasks;
        let reconciler = admission::connect(sockets.reviews.take(), reconciler, &mut tasks);
        tasks.spawn(async move {
            let _end = end;
            reconciler.run(received).await;
        });
        let running = Arc::new(OnceLock::new());
        let (fail, failures) = mpsc::channel(1);
        let (relieved_sender, relieved) = watch::channel(false);
        if let Some(path) = takeover {
            let succession = Succession {
                path,
                predecessor,
                admin: sockets.admin_copy()?,
                running: Arc::downgrade(&running),
                relieved: relieved_sender,
            };
            tasks.spawn(succession.run(lifecycle.subscribe(), fail.clone()));
        }
        tasks.spawn(serve_when_synced(
            sockets.gateway,
            shared.progress.subscribe(),
            Arc::clone(&lifecycle),
            Arc::clone(&running),
            fail,
        ));
        tasks.spawn(ports::keep(
            live::port_updates(&running),
            shared.progress.subscribe(),
            lifecycle.subscribe(),
            weak,
        ));
        let admin = Admin {
            phase: lifecycle.subscribe(),
            alive,
            tables,
            problems: Arc::clone(&shared.problems),
            expiry: Arc::clone(&shared.expiry),
            metrics,
            max_series: settings.serve.max_series,
            nginx: nginx.clone(),
            endpoints: live::endpoints(&running),
            backends: live::backend_metrics(&running, settings.serve.max_series),
        };
        let admin = tasks.spawn(admin::serve(sockets.listener, Arc::new(admin)));
        tasks.spawn(memory::watch(settings.serve.memory, live::press(&running)));
        if let Some(nginx) = nginx {
            let progress = shared.progress.subscribe();
            tasks.spawn(async move { nginx.follow(progress).await });
        }
        Ok(Self {
            lifecycle,
            progress: shared.progress.subscribe(),
            running,
            failures,
            relieved,
            admin,
            listen: sockets.bound,
            shutdown_delay: settings.shutdown_delay,
            drain_timeout: settings.drain_timeout,
            _directory: parts.directory,
            reporters: parts.reporters,
            _tasks: tasks,
        })
    }

    /// Where plain HTTP is accepted; port 0 has become a real one.
    pub fn http_addresses(&self) -> &[SocketAddr] {
        &self.listen.http
    }

    /// Where TLS is accepted; port 0 has become a real one.
    pub fn https_addresses(&self) -> &[SocketAddr] {
        &self.listen.https
    }

    /// Where operators look; port 0 has become a real one.
    pub fn admin_address(&self) -> SocketAddr {
        self.listen.admin
    }

    /// Where reviews are answered, if anywhere; port 0 has become a real one.
    pub fn admission_address(&self) -> Option<SocketAddr> {
        self.listen.admission
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

    /// Waits until another process serves in the place of this one. It is to be shut down then.
    pub fn relieved(&self) -> impl Future<Output = ()> + use<> {
        let mut relieved = self.relieved.clone();
        async move {
            if relieved.wait_for(|relieved| *relieved).await.is_err() {
                std::future::pending::<()>().await;
            }
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
        let relieved = *self.relieved.borrow();
        self.lifecycle.advance(Phase::Leaving);
        if relieved {
            // The other process answers operators, on the same socket.
            self.admin.abort();
        } else if served && !self.shutdown_delay.is_zero() {
            info!(delay = ?self.shutdown_delay, "Not ready any more; still accepting");
            sleep(self.shutdown_delay).await;
        }
        self.lifecycle.advance(Phase::Draining);
        let mut ended = Ended::Drained;
        if let Some(running) = self.running.get() {
            let connections = running.connections();
            if relieved {
                running.hand_over();
            } else {
                running.drain();
            }
            info!(connections, timeout = ?self.drain_timeout, "Draining");
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
        let Ok(running) = timeout(FAREWELL, alone(std::mem::take(&mut self.running))).await else {
            return warn!("Something still asks for the workers; the last lines may be missing");
        };
        let Some(running) = running.into_inner() else {
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

/// A source of which it is known that it can be used.
enum Opened {
    Folder(Folder),
    Cluster(ClusterSettings),
}

impl Opened {
    fn open(source: Source, translation: &translate::Settings) -> anyhow::Result<Self> {
        Ok(match source {
            Source::Manifests(path) => {
                let class = directory::implied_class(translation);
                Self::Folder(Folder::open(&path, vec![class])?)
            }
            Source::Cluster(settings) => Self::Cluster(settings),
        })
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
        .wait_for(|progress| progress.generation > 0)
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
            info!("Accepting connections");
        }
        Err(error) => {
            let error = anyhow::Error::new(error).context("cannot start the threads that serve");
            // An error means that the process is ending already.
            let _ = fail.send(error).await;
        }
    }
}

/// Waits until nobody else holds this any more: whoever asks for it does so for a moment.
async fn alone<T>(mut shared: Arc<T>) -> T {
    loop {
        match Arc::try_unwrap(shared) {
            Ok(alone) => return alone,
            Err(others) => shared = others,
        }
        sleep(Duration::from_millis(5)).await;
    }
}
