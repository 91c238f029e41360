//! Checks of the health of endpoints: for each backend that asks for them, in one place of the process.
//!
//! They run on a thread of their own, which is there while anybody asks for them, so that no request waits for a
//! handshake of theirs.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use model::{BackendId, EndpointSet, HealthCheck};
use table::CompiledBackend;
use tokio::runtime::{Builder, Handle};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::probe::Probe;
use crate::Shared;
use crate::upstream::registry::Endpoint;

/// How many endpoints are checked at the same time.
const AT_ONCE: usize = 64;

/// How often a name is looked up.
const LOOK_UP: Duration = Duration::from_secs(30);

/// The checks that are running.
#[derive(Debug, Default)]
pub(crate) struct Checks(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    running: BTreeMap<BackendId, Running>,
    thread: Option<Thread>,
}

/// The checks of one backend.
struct Running {
    /// Compared by address: while it is the same, so are they.
    backend: Arc<CompiledBackend>,
    /// Those that are being checked, so that what is known of them outlives a swap.
    endpoints: Endpoints,
    asked_for: Arc<AskedFor>,
    task: AbortHandle,
}

type Endpoints = Arc<Mutex<Arc<[Arc<Endpoint>]>>>;

/// Whether results still count. Ending a task does not wait for it: what it has found out a moment later would stand for
/// ever, since nobody looks again.
#[derive(Debug, Default)]
struct AskedFor {
    ended: Mutex<bool>,
}

impl AskedFor {
    /// Takes over a result, unless nobody asks for it any more.
    fn take<T>(&self, result: impl FnOnce() -> T) -> Option<T> {
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        (!*ended).then(result)
    }

    /// From now on no result counts, and none is being taken over.
    fn end(&self) {
        *self.ended.lock().unwrap_or_else(PoisonError::into_inner) = true;
    }
}

impl Running {
    /// No further check begins, and no result of one that runs counts.
    fn end(&self) {
        self.task.abort();
        self.asked_for.end();
    }
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running")
            .field("backend", &self.backend.id)
            .finish_non_exhaustive()
    }
}

/// The thread that they run on. It ends with this, and all of them with it.
#[derive(Debug)]
struct Thread {
    runtime: Handle,
    places: Arc<Semaphore>,
    _alive: oneshot::Sender<()>,
}

impl Thread {
    fn start() -> std::io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (alive, gone) = oneshot::channel();
        let handle = runtime.handle().clone();
        std::thread::Builder::new()
            .name("health".to_owned())
            .spawn(move || {
                // Fails when the other end is gone, which is what is waited for.
                let _ = runtime.block_on(gone);
            })?;
        Ok(Self {
            runtime: handle,
            places: Arc::new(Semaphore::new(AT_ONCE)),
            _alive: alive,
        })
    }
}

impl Checks {
    /// Begins and ends checks, so that they are those that the table in force asks for.
    pub(crate) fn update(&self, shared: &Arc<Shared>) {
        let table = shared.tables.pin();
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let State { running, thread } = &mut *state;
        running.retain(|id, checks| {
            let wanted = table.checked().contains_key(id);
            if !wanted {
                checks.end();
                shared.registry.forget_checks(id);
            }
            wanted
        });
        for backend in table.checked().values() {
            let before = running.get(&backend.id);
            if before.is_some_and(|before| Arc::ptr_eq(&before.backend, backend)) {
                continue;
            }
            let Some(check) = backend
                .health
                .as_ref()
                .and_then(|health| health.check.clone())
            else {
                continue;
            };
            let thread = match thread {
                Some(thread) => thread,
                None => match Thread::start() {
                    Ok(started) => thread.insert(started),
                    Err(error) => {
                        warn!(%error, "Cannot start the thread that checks the health of endpoints");
                        return;
                    }
                },
            };
            let endpoints =
                before.map_or_else(Endpoints::default, |before| Arc::clone(&before.endpoints));
            let asked_for = Arc::new(AskedFor::default());
            let watch = Watch {
                backend: Arc::clone(backend),
                check,
                shared: Arc::clone(shared),
                places: Arc::clone(&thread.places),
                endpoints: Arc::clone(&endpoints),
                asked_for: Arc::clone(&asked_for),
            };
            watch.look_up_addresses();
            let task = thread.runtime.spawn(watch.run()).abort_handle();
            let started = Running {
                backend: Arc::clone(backend),
                endpoints,
                asked_for,
                task,
            };
            if let Some(before) = running.insert(backend.id.clone(), started) {
                before.end();
            }
        }
        if running.is_empty() {
            *thread = None;
        }
    }
}

/// The checks of one backend.
struct Watch {
    backend: Arc<CompiledBackend>,
    check: HealthCheck,
    shared: Arc<Shared>,
    places: Arc<Semaphore>,
    endpoints: Endpoints,
    asked_for: Arc<AskedFor>,
}

impl Watch {
    async fn run(self) {
        let probe = match Probe::new(&self.backend, &self.check) {
            Ok(probe) => probe,
            Err(error) => {
                warn!(backend = %self.backend.id, %error, "The endpoints of a backend cannot be checked");
                return;
            }
        };
        loop {
            let endpoints = Arc::clone(
                &self
                    .endpoints
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner),
            );
            let mut checks: FuturesUnordered<_> = endpoints
                .iter()
                .map(|endpoint| self.keep_checking(endpoint, &probe))
                .collect();
            match &*self.backend.endpoints {
                EndpointSet::Dns { .. } => {
                    let known = !checks.is_empty();
                    let looked_up = if known { LOOK_UP } else { Duration::ZERO };
                    let _ = timeout(looked_up, checks.next()).await;
                    drop(checks);
                    if !self.look_up_name().await {
                        sleep(self.interval()).await;
                    }
                }
                EndpointSet::Addresses(_) => {
                    // They never end; without endpoints there is nothing to do until the next table.
                    checks.next().await;
                    return;
                }
                EndpointSet::Invalid(_) => return,
            }
        }
    }

    async fn keep_checking(&self, endpoint: &Arc<Endpoint>, probe: &Probe) {
        let interval = self.interval();
        // Not all at the same time, and not in step with other replicas.
        sleep(interval.mul_f64(fraction())).await;
        loop {
            // Nobody closes it.
            let place = self.places.acquire().await;
            let patience = Duration::from_millis(self.check.timeout_ms.into());
            let address = endpoint.address();
            let result = match timeout(patience, probe.run(address)).await {
                Ok(result) => result,
                Err(_elapsed) => Err("it does not answer in time".into()),
            };
            drop(place);
            let checked = || endpoint.checked(&self.check, result.is_ok());
            let Some(changed) = self.asked_for.take(checked) else {
                return;
            };
            let backend = &self.backend.id;
            match (changed, result) {
                (true, Ok(())) => info!(%backend, %address, "An endpoint is healthy again"),
                (true, Err(cause)) => {
                    warn!(%backend, %address, %cause, "An endpoint is unhealthy");
                }
                (false, _) => {}
            }
            sleep(interval.mul_f64(0.9 + 0.2 * fraction())).await;
        }
    }

    fn interval(&self) -> Duration {
        Duration::from_millis(self.check.interval_ms.max(1).into())
    }

    /// Takes over the endpoints of a backend that has addresses.
    fn look_up_addresses(&self) {
        if let EndpointSet::Addresses(set) = &*self.backend.endpoints {
            self.take(set.iter().map(|endpoint| endpoint.address));
        }
    }

    /// The same for one that is a name. Says whether that has any.
    async fn look_up_name(&self) -> bool {
        let EndpointSet::Dns { host, port } = &*self.backend.endpoints else {
            return false;
        };
        let resolver = &self.shared.resolver;
        let Ok(found) = resolver.addresses(&resolver.name(host)).await else {
            return false;
        };
        self.take(found.iter().map(|ip| SocketAddr::new(*ip, *port)));
        true
    }

    fn take(&self, addresses: impl Iterator<Item = SocketAddr>) {
        let found = self.shared.registry.endpoints(&self.backend.id, addresses);
        *self
            .endpoints
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = found;
    }
}

/// From 0 to 1, another one each time.
fn fraction() -> f64 {
    let bits = RandomState::new().hash_one(0_u8) >> 32;
    u32::try_from(bits).map_or(0.5, |bits| f64::from(bits) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_asks_for_any_more_does_not_count() {
        let asked_for = AskedFor::default();
        assert_eq!(asked_for.take(|| 1), Some(1));
        asked_for.end();
        assert_eq!(asked_for.take(|| 2), None);
    }
}
