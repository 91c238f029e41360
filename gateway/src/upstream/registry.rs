//! Live state of endpoints, keyed by backend and address.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use balance::{Latency, Weight};
use http::StatusCode;
use model::{BackendId, Health, HealthCheck, Outliers};

use super::health::{BackendState, Condition, Group, Limit, Place, take_one};
use super::load::Load;

/// What is known about an endpoint right now.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct EndpointState {
    /// The backend that it serves.
    pub backend: BackendId,
    /// Its address.
    pub address: SocketAddr,
    /// Requests that it is working on.
    pub in_flight: u32,
    /// Connection attempts that failed since the last one that did not.
    pub connect_failures: u32,
    /// Requests in a row that failed.
    pub failures: u32,
    /// It was ejected and has not proved to be well since.
    pub ejected: bool,
    /// It fails the checks of its health.
    pub unhealthy: bool,
    /// Others are preferred for now.
    pub avoided: bool,
}

/// One endpoint of one backend.
#[derive(Debug)]
pub(crate) struct Endpoint {
    address: SocketAddr,
    /// That of all endpoints of the backend.
    load: Arc<Load>,
    /// Milliseconds of [`now`] when it came to others that were there already; 0 if it did not.
    since: u64,
    in_flight: AtomicU32,
    /// How many requests it may have; 0 is no limit.
    most: AtomicU32,
    condition: Condition,
    /// Time to a response header.
    latency: Latency,
}

/// Seconds that an endpoint takes at least: where nothing has been measured, the number of requests decides.
const LEAST_LATENCY: f64 = 1e-6;

impl Endpoint {
    /// Where it is.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// A connection was made.
    pub(crate) fn connected(&self) {
        self.condition.connected();
    }

    /// A connection could not be made.
    pub(crate) fn refused(&self) {
        self.condition.refused(now());
    }

    /// A response header came after this time.
    pub(crate) fn measured(&self, latency: Duration) {
        self.measured_at(latency, now());
    }

    fn measured_at(&self, latency: Duration, now: u64) {
        self.latency.observe(latency.as_secs_f64(), now);
    }

    /// Requests that it is working on.
    pub(crate) fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// About how long a request would take: what it took lately times the requests at hand. What it took fades, so that who
    /// has been slow is asked again.
    pub(crate) fn expected_time(&self, now: u64) -> f64 {
        let at_hand = self.in_flight().saturating_add(1);
        self.latency.seconds(now).max(LEAST_LATENCY) * f64::from(at_hand)
    }

    /// How much of a share it gets where new endpoints begin slowly, over so many milliseconds.
    pub(super) fn weight(&self, now: u64, slow_start: u64) -> Weight {
        if self.since == 0 {
            return Weight::FULL;
        }
        Weight::at_age(now.saturating_sub(self.since), slow_start)
    }

    /// What all endpoints of its backend have to do.
    pub(super) fn load_of_all(&self) -> &Load {
        &self.load
    }

    /// It has been checked. Says whether it is taken for something else from now on.
    pub(super) fn checked(&self, check: &HealthCheck, well: bool) -> bool {
        self.condition.checked(check, well)
    }

    /// A request to its backend found no place.
    pub(crate) fn no_place(&self, limit: Limit) {
        self.condition.group().refused(limit);
    }

    /// It has been chosen.
    pub(crate) fn chosen(&self, now: impl FnOnce() -> u64) {
        self.condition.chosen(now);
    }

    /// Has it failed since it was last well?
    pub(crate) fn is_suspect(&self) -> bool {
        self.condition.is_suspect()
    }

    /// How often it has begun to fail: connections from before may lead nowhere.
    pub(crate) fn era(&self) -> u32 {
        self.condition.era()
    }

    /// Are others to be preferred? The clock is looked at only where that may be.
    pub(crate) fn is_avoided(&self, now: impl FnOnce() -> u64) -> bool {
        if self.condition.is_plain() {
            return false;
        }
        let most = self.most.load(Ordering::Relaxed);
        let full = most != 0 && self.in_flight.load(Ordering::Relaxed) >= most;
        full || self.condition.is_avoided(now)
    }

    /// Counts a request, unless it has enough of them.
    fn take(&self) -> bool {
        let most = self.most.load(Ordering::Relaxed);
        if most != 0 {
            return take_one(&self.in_flight, most);
        }
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        true
    }
}

/// Takes over what has been asked for about the health of these endpoints of one backend.
pub(super) fn apply(endpoints: &[Arc<Endpoint>], health: Option<&Health>) {
    let most = health.map_or(0, |health| health.limits.requests_per_endpoint);
    for endpoint in endpoints {
        // Nearly always there is nothing to do.
        if endpoint.most.load(Ordering::Relaxed) != most {
            endpoint.most.store(most, Ordering::Relaxed);
            endpoint.condition.limit(most != 0);
        }
    }
    if let Some(endpoint) = endpoints.first() {
        endpoint.condition.group().apply(health);
    }
}

/// Milliseconds since the process began to look at the clock.
pub(crate) fn now() -> u64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    millis(START.elapsed())
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A request that an endpoint is working on.
#[derive(Debug)]
pub(crate) struct InFlight {
    endpoint: Arc<Endpoint>,
    /// How the endpoint is judged, where that is not as usual.
    health: Option<Arc<Health>>,
    /// What it has taken of its backend.
    place: Option<Place>,
    /// The load of the backend has it in it.
    counted: bool,
    ended: bool,
}

impl InFlight {
    /// Counts a request until the result is dropped.
    pub(crate) fn on(endpoint: Arc<Endpoint>) -> Self {
        endpoint.in_flight.fetch_add(1, Ordering::Relaxed);
        let counted = endpoint.load.begin();
        Self {
            endpoint,
            health: None,
            place: None,
            counted,
            ended: false,
        }
    }

    /// The same, by these rules for the endpoint, if there is a place for the request.
    pub(crate) fn admit(
        endpoint: Arc<Endpoint>,
        health: Option<Arc<Health>>,
    ) -> Result<Self, Limit> {
        let Some(rules) = &health else {
            return Ok(Self::on(endpoint));
        };
        let place = Place::take(endpoint.condition.group(), &rules.limits)?;
        if !endpoint.take() {
            return Err(Limit::Endpoint);
        }
        let counted = endpoint.load.begin();
        Ok(Self {
            endpoint,
            health,
            place,
            counted,
            ended: false,
        })
    }

    /// There is a connection for it.
    pub(crate) fn connected(&mut self) {
        if let Some(place) = &mut self.place {
            place.connected();
        }
    }

    /// It is over. What becomes of the endpoint can still be said.
    pub(crate) fn end(&mut self) {
        if !std::mem::replace(&mut self.ended, true) {
            self.endpoint.in_flight.fetch_sub(1, Ordering::Relaxed);
            if self.counted {
                self.endpoint.load.end();
            }
            self.place = None;
        }
    }

    /// The endpoint.
    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The endpoint took the request and answered it with this status.
    pub(crate) fn answered(&self, status: Option<StatusCode>) {
        let rules = self.rules();
        if status.is_some_and(|status| rules.statuses.contains(&status.as_u16())) {
            self.endpoint.condition.failed(rules, now());
        } else {
            self.endpoint.condition.answered(rules, now);
        }
    }

    /// The endpoint took the request and did not answer it: it was silent, hung up, or spoke something else.
    pub(crate) fn failed(&self) {
        self.endpoint.condition.failed(self.rules(), now());
    }

    fn rules(&self) -> &Outliers {
        static USUAL: LazyLock<Outliers> = LazyLock::new(Outliers::default);
        self.health
            .as_ref()
            .map_or(&*USUAL, |health| &health.outliers)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.end();
    }
}

/// All endpoints that somebody still uses. Workers keep what they use in a cache of their own
/// ([`Picker`](super::Picker)) and come here only when a set of endpoints has changed.
#[derive(Debug, Default)]
pub(crate) struct EndpointRegistry {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    backends: BTreeMap<BackendId, Members>,
    visits_left: usize,
}

/// The endpoints of one backend.
#[derive(Debug)]
struct Members {
    group: Arc<Group>,
    endpoints: BTreeMap<SocketAddr, Weak<Endpoint>>,
}

impl Default for Members {
    fn default() -> Self {
        Self {
            group: Arc::new(Group::new()),
            endpoints: BTreeMap::new(),
        }
    }
}

impl EndpointRegistry {
    /// An empty one.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// The state of these endpoints, in the order of `addresses`; an endpoint that is still known keeps its state.
    pub(crate) fn endpoints(
        &self,
        backend: &BackendId,
        addresses: impl Iterator<Item = SocketAddr>,
    ) -> Arc<[Arc<Endpoint>]> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.forget_unused();
        let Members { group, endpoints } = match known.backends.get_mut(backend) {
            Some(members) => members,
            None => known.backends.entry(backend.clone()).or_default(),
        };
        endpoints.retain(|_, endpoint| endpoint.strong_count() > 0);
        let found: Vec<(SocketAddr, Option<Arc<Endpoint>>)> = addresses
            .map(|address| (address, endpoints.get(&address).and_then(Weak::upgrade)))
            .collect();
        let Beginning { since, latency } = Beginning::beside(&found);
        let load = endpoints
            .values()
            .find_map(Weak::upgrade)
            .map_or_else(Arc::default, |endpoint| Arc::clone(&endpoint.load));
        let listed: Arc<[Arc<Endpoint>]> = found
            .into_iter()
            .map(|(address, endpoint)| {
                endpoint.unwrap_or_else(|| {
                    let endpoint = Arc::new(Endpoint {
                        address,
                        load: Arc::clone(&load),
                        since,
                        in_flight: AtomicU32::new(0),
                        most: AtomicU32::new(0),
                        condition: Condition::new(Arc::clone(group)),
                        latency: Latency::known(latency, since),
                    });
                    endpoints.insert(address, Arc::downgrade(&endpoint));
                    endpoint
                })
            })
            .collect();
        group.resize(listed.len());
        enlist(endpoints, &listed);
        listed
    }

    /// Nobody checks the endpoints of this backend any more.
    pub(super) fn forget_checks(&self, backend: &BackendId) {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let members = known.backends.get(backend).into_iter();
        let endpoints = members.flat_map(|members| members.endpoints.values());
        for endpoint in endpoints.filter_map(Weak::upgrade) {
            endpoint.condition.forget_checks();
        }
    }

    /// What is known of each backend.
    pub(crate) fn groups(&self) -> Vec<BackendState> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known
            .backends
            .iter()
            .filter(|(_, members)| members.is_used())
            .map(|(backend, members)| members.group.state(backend))
            .collect()
    }

    /// What is known, by backend and address.
    pub(crate) fn states(&self) -> Vec<EndpointState> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known
            .backends
            .iter()
            .flat_map(|(backend, members)| {
                members
                    .endpoints
                    .values()
                    .filter_map(Weak::upgrade)
                    .map(|endpoint| EndpointState {
                        backend: backend.clone(),
                        address: endpoint.address,
                        in_flight: endpoint.in_flight.load(Ordering::Relaxed),
                        connect_failures: endpoint.condition.connect_failures(),
                        failures: endpoint.condition.failures(),
                        ejected: endpoint.condition.is_ejected(),
                        unhealthy: endpoint.condition.is_unhealthy(),
                        avoided: endpoint.is_avoided(now),
                    })
            })
            .collect()
    }
}

impl Members {
    fn is_used(&self) -> bool {
        self.endpoints.values().any(|e| e.strong_count() > 0)
    }
}

/// Tells the endpoints of a backend whether they still belong to it: some work on requests for longer.
fn enlist(known: &BTreeMap<SocketAddr, Weak<Endpoint>>, listed: &[Arc<Endpoint>]) {
    if known.len() == listed.len() {
        for endpoint in listed {
            endpoint.condition.enlist(true);
        }
        return;
    }
    let addresses: BTreeSet<SocketAddr> = listed.iter().map(|endpoint| endpoint.address).collect();
    for endpoint in known.values().filter_map(Weak::upgrade) {
        let is_listed = addresses.contains(&endpoint.address);
        endpoint.condition.enlist(is_listed);
    }
}

/// What new endpoints begin with.
#[derive(Clone, Copy, Debug, Default)]
struct Beginning {
    since: u64,
    latency: f64,
}

impl Beginning {
    /// Beside others that are known an endpoint is new, and taken for as fast as these are on average: one that nobody has measured
    /// yet would look like the fastest of all, and be overrun. Where all are new, none of them is.
    fn beside(found: &[(SocketAddr, Option<Arc<Endpoint>>)]) -> Self {
        let known = || found.iter().filter_map(|(_, endpoint)| endpoint.as_ref());
        let count = known().count();
        if count == 0 || count == found.len() {
            return Self::default();
        }
        let since = now().max(1);
        let measured = known().map(|endpoint| endpoint.latency.seconds(since));
        let (sum, count) = measured
            .filter(|seconds| *seconds > 0.0)
            .fold((0.0, 0_u32), |(sum, count), seconds| {
                (sum + seconds, count + 1)
            });
        Self {
            since,
            latency: sum / f64::from(count.max(1)),
        }
    }
}

impl Known {
    /// Looks for backends that nobody uses, then not again for as many visits as backends were left: constant work
    /// per visit.
    fn forget_unused(&mut self) {
        if self.visits_left > 0 {
            self.visits_left -= 1;
            return;
        }
        self.backends.retain(|_, members| members.is_used());
        self.visits_left = self.backends.len().max(1024);
    }
}

#[cfg(test)]
mod tests;
