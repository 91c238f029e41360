//! Live state of endpoints, keyed by backend and address.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use model::BackendId;

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
    /// Requests in a row that it took and did not answer.
    pub failures: u32,
    /// Others are preferred for now.
    pub avoided: bool,
}

/// One endpoint of one backend.
#[derive(Debug)]
pub(crate) struct Endpoint {
    address: SocketAddr,
    in_flight: AtomicU32,
    connect_failures: AtomicU32,
    failures: AtomicU32,
    /// Milliseconds of [`now`]; until then it is only tried when there is no other one.
    avoid_until: AtomicU64,
    /// Seconds to a response header, averaged with weights that fade: the bits of an `f64`.
    latency: AtomicU64,
    /// Milliseconds of [`now`] when `latency` was last written.
    measured: AtomicU64,
}

/// An endpoint is avoided when it has not answered so many requests in a row.
const FAILURES: u32 = 5;

/// How long one request tries an endpoint that has been avoided before a second one does.
const TRIAL: Duration = Duration::from_secs(5);

/// After so many seconds about a third of a measurement is left.
const MEMORY: f64 = 10.0;

impl Endpoint {
    /// Where it is.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// A connection was made.
    pub(crate) fn connected(&self) {
        // The usual case does not write: the line stays shared between cores.
        if self.connect_failures.load(Ordering::Relaxed) != 0 {
            self.connect_failures.store(0, Ordering::Relaxed);
            self.avoid_until.store(0, Ordering::Relaxed);
        }
    }

    /// A connection could not be made. Others are preferred for one second, then two, four, eight.
    pub(crate) fn refused(&self) {
        let failures = self.connect_failures.fetch_add(1, Ordering::Relaxed);
        let pause = Duration::from_secs(1 << failures.min(3));
        self.avoid_until
            .store(now().saturating_add(millis(pause)), Ordering::Relaxed);
    }

    /// It took a request and answered it, whatever the status.
    pub(crate) fn answered(&self) {
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
            self.avoid_until.store(0, Ordering::Relaxed);
        }
    }

    /// It took a request and did not answer it: it was silent, hung up, or spoke something else. From the fifth in a row on
    /// others are preferred for two seconds, then four, eight, sixteen; in between it gets requests that may prove
    /// it well.
    pub(crate) fn failed(&self) {
        let before = self.failures.fetch_add(1, Ordering::Relaxed);
        if let Some(more) = (before + 1).checked_sub(FAILURES) {
            let pause = Duration::from_secs(2 << more.min(3));
            self.avoid_until
                .store(now().saturating_add(millis(pause)), Ordering::Relaxed);
        }
    }

    /// A response header came after this time.
    pub(crate) fn measured(&self, latency: Duration) {
        self.measured_at(latency, now());
    }

    fn measured_at(&self, latency: Duration, now: u64) {
        let (before, weight) = self.remembered(now);
        let average = before * weight + latency.as_secs_f64() * (1.0 - weight);
        self.latency.store(average.to_bits(), Ordering::Relaxed);
        self.measured.store(now, Ordering::Relaxed);
    }

    /// About how long a request would take: the average times the requests at hand. The average fades, so that who has
    /// been slow is asked again.
    pub(crate) fn load(&self, now: u64) -> f64 {
        let at_hand = self.in_flight.load(Ordering::Relaxed).saturating_add(1);
        let (average, weight) = self.remembered(now);
        average * weight * f64::from(at_hand)
    }

    /// The average, and what is left of it after this time.
    fn remembered(&self, now: u64) -> (f64, f64) {
        let age = now.saturating_sub(self.measured.load(Ordering::Relaxed));
        let age = Duration::from_millis(age).as_secs_f64();
        let average = f64::from_bits(self.latency.load(Ordering::Relaxed));
        (average, (-age / MEMORY).exp())
    }

    /// It has been chosen. One that was avoided until now is tried by this request alone: if it is still lost, all others would
    /// find out in their own time.
    pub(crate) fn chosen(&self, now: impl FnOnce() -> u64) {
        let until = self.avoid_until.load(Ordering::Relaxed);
        if until == 0 {
            return;
        }
        let now = now();
        if now >= until {
            self.avoid_until
                .store(now.saturating_add(millis(TRIAL)), Ordering::Relaxed);
        }
    }

    /// Has it failed since it was last well?
    pub(crate) fn is_suspect(&self) -> bool {
        self.connect_failures.load(Ordering::Relaxed) != 0
            || self.failures.load(Ordering::Relaxed) != 0
    }

    /// Has it refused connections lately? The clock is looked at only where that may be.
    pub(crate) fn is_avoided(&self, now: impl FnOnce() -> u64) -> bool {
        let until = self.avoid_until.load(Ordering::Relaxed);
        until != 0 && now() < until
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
pub(crate) struct InFlight(Arc<Endpoint>);

impl InFlight {
    /// Counts a request until the result is dropped.
    pub(crate) fn on(endpoint: Arc<Endpoint>) -> Self {
        endpoint.in_flight.fetch_add(1, Ordering::Relaxed);
        Self(endpoint)
    }

    /// The endpoint.
    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.0
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
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
    backends: BTreeMap<BackendId, BTreeMap<SocketAddr, Weak<Endpoint>>>,
    visits_left: usize,
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
        let endpoints = match known.backends.get_mut(backend) {
            Some(endpoints) => endpoints,
            None => known.backends.entry(backend.clone()).or_default(),
        };
        endpoints.retain(|_, endpoint| endpoint.strong_count() > 0);
        addresses
            .map(|address| {
                if let Some(endpoint) = endpoints.get(&address).and_then(Weak::upgrade) {
                    return endpoint;
                }
                let endpoint = Arc::new(Endpoint {
                    address,
                    in_flight: AtomicU32::new(0),
                    connect_failures: AtomicU32::new(0),
                    failures: AtomicU32::new(0),
                    avoid_until: AtomicU64::new(0),
                    latency: AtomicU64::new(0),
                    measured: AtomicU64::new(0),
                });
                endpoints.insert(address, Arc::downgrade(&endpoint));
                endpoint
            })
            .collect()
    }

    /// What is known, by backend and address.
    pub(crate) fn states(&self) -> Vec<EndpointState> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known
            .backends
            .iter()
            .flat_map(|(backend, endpoints)| {
                endpoints
                    .values()
                    .filter_map(Weak::upgrade)
                    .map(|endpoint| EndpointState {
                        backend: backend.clone(),
                        address: endpoint.address,
                        in_flight: endpoint.in_flight.load(Ordering::Relaxed),
                        connect_failures: endpoint.connect_failures.load(Ordering::Relaxed),
                        failures: endpoint.failures.load(Ordering::Relaxed),
                        avoided: endpoint.is_avoided(now),
                    })
            })
            .collect()
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
        self.backends
            .retain(|_, endpoints| endpoints.values().any(|e| e.strong_count() > 0));
        self.visits_left = self.backends.len().max(1024);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> BackendId {
        BackendId::new("ns", name, "80")
    }

    fn addresses(ports: &[u16]) -> impl Iterator<Item = SocketAddr> {
        ports
            .iter()
            .map(|port| SocketAddr::from(([10, 0, 0, 1], *port)))
    }

    #[test]
    fn an_endpoint_keeps_its_state_while_somebody_uses_it() {
        let registry = EndpointRegistry::new();
        let first = registry.endpoints(&id("a"), addresses(&[1, 2]));
        let request = InFlight::on(Arc::clone(&first[1]));
        drop(first);

        let second = registry.endpoints(&id("a"), addresses(&[2, 3]));
        assert_eq!(second[0].in_flight.load(Ordering::Relaxed), 1);
        let other = registry.endpoints(&id("b"), addresses(&[2]));
        assert_eq!(
            other[0].in_flight.load(Ordering::Relaxed),
            0,
            "another backend at the same address counts for itself"
        );

        drop(request);
        let states = registry.states();
        let seen: Vec<_> = states
            .iter()
            .map(|state| {
                (
                    &*state.backend.service,
                    state.address.port(),
                    state.in_flight,
                )
            })
            .collect();
        assert_eq!(seen, [("a", 2, 0), ("a", 3, 0), ("b", 2, 0)]);
    }

    #[test]
    fn who_is_slow_has_more_load_until_that_is_long_ago() {
        let registry = EndpointRegistry::new();
        let endpoints = registry.endpoints(&id("a"), addresses(&[1, 2]));
        let (slow, fast) = (&endpoints[0], &endpoints[1]);
        for second in 1..=20 {
            slow.measured_at(Duration::from_millis(100), second * 1000);
            fast.measured_at(Duration::from_millis(10), second * 1000);
        }
        assert!(slow.load(20_000) > 5.0 * fast.load(20_000));
        let requests: Vec<_> = (0..19).map(|_| InFlight::on(Arc::clone(fast))).collect();
        assert!(fast.load(20_000) > slow.load(20_000), "it has enough to do");
        drop(requests);
        assert!(slow.load(120_000) < fast.load(20_000), "long ago");
    }

    #[test]
    fn what_nobody_uses_is_forgotten() {
        let registry = EndpointRegistry::new();
        for n in 0..3000 {
            registry.endpoints(&id(&n.to_string()), addresses(&[1]));
        }
        let known = registry.known.lock().unwrap();
        assert!(known.backends.len() < 1100, "{}", known.backends.len());
    }

    #[test]
    fn an_endpoint_that_refuses_is_avoided_for_a_while() {
        let registry = EndpointRegistry::new();
        let endpoints = registry.endpoints(&id("a"), addresses(&[1]));
        let endpoint = &endpoints[0];
        assert!(!endpoint.is_avoided(now));
        endpoint.refused();
        assert!(endpoint.is_avoided(now));
        assert!(!endpoint.is_avoided(|| now() + 1_001));
        endpoint.refused();
        assert!(endpoint.is_avoided(|| now() + 1_500));
        let later = now() + 2_001;
        assert!(!endpoint.is_avoided(|| later));
        endpoint.chosen(|| later);
        assert!(endpoint.is_avoided(|| later), "one request tries it");
        assert!(!endpoint.is_avoided(|| later + 5_000), "then another one");
        endpoint.connected();
        assert!(!endpoint.is_avoided(now));
        endpoint.chosen(now);
        assert!(!endpoint.is_avoided(now), "it is well");
    }

    #[test]
    fn an_endpoint_that_does_not_answer_is_avoided_until_it_does() {
        let registry = EndpointRegistry::new();
        let endpoints = registry.endpoints(&id("a"), addresses(&[1]));
        let endpoint = &endpoints[0];
        for _ in 0..3 {
            for _ in 1..FAILURES {
                endpoint.failed();
            }
            assert!(!endpoint.is_avoided(now), "some fail everywhere");
            endpoint.answered();
        }
        for _ in 0..FAILURES {
            endpoint.failed();
        }
        assert!(endpoint.is_avoided(|| now() + 1_500));
        assert!(!endpoint.is_avoided(|| now() + 2_001));
        endpoint.failed();
        assert!(endpoint.is_avoided(|| now() + 3_500), "twice as long");
        endpoint.answered();
        assert!(!endpoint.is_avoided(now));
        endpoint.failed();
        assert!(!endpoint.is_avoided(now), "it begins anew");
    }
}
