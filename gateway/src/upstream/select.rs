//! The choice of an endpoint.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use ahash::AHashMap;
use model::{Balance, EndpointSet};
use table::{BackendSlot, CompiledBackend};

use super::registry::{self, Endpoint, EndpointRegistry};
use super::resolver::Name;
use crate::Shared;
use crate::engine::Random;
use crate::telemetry::{BackendSeries, SeriesBudget};

/// How an endpoint is chosen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Turn<'a> {
    /// By which rule.
    pub(crate) balance: Balance,
    /// For rules that draw.
    pub(crate) random: &'a Random,
}

/// What a worker remembers about the backends that it uses. It belongs to one worker, so its lock is never waited
/// for; the shared registry is only asked when a set of endpoints has changed.
#[derive(Debug, Default)]
pub(crate) struct Picker {
    entries: Mutex<AHashMap<BackendSlot, Entry>>,
}

#[derive(Debug)]
struct Entry {
    /// Compared by address: while it is the same, so is everything in it.
    backend: Arc<CompiledBackend>,
    /// For names: the addresses that `endpoints` was made from.
    resolved: Option<Arc<[IpAddr]>>,
    name: Option<Arc<Name>>,
    endpoints: Arc<[Arc<Endpoint>]>,
    cursor: usize,
    series: Arc<BackendSeries>,
}

impl Picker {
    /// An empty one.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// The counters of a backend.
    pub(crate) fn series(
        &self,
        slot: BackendSlot,
        backend: &Arc<CompiledBackend>,
        budget: &SeriesBudget,
    ) -> Arc<BackendSeries> {
        let mut entries = self.lock();
        if let Some(entry) = entries.get(&slot)
            && Arc::ptr_eq(&entry.backend, backend)
        {
            return Arc::clone(&entry.series);
        }
        let entry = Entry::enter(&mut entries, slot, backend, budget);
        Arc::clone(&entry.series)
    }

    /// The name behind a backend, if this worker has looked it up before.
    pub(crate) fn name(
        &self,
        slot: BackendSlot,
        backend: &Arc<CompiledBackend>,
    ) -> Option<Arc<Name>> {
        self.lock()
            .get(&slot)
            .filter(|entry| Arc::ptr_eq(&entry.backend, backend))
            .and_then(|entry| entry.name.clone())
    }

    /// Remembers the name behind a backend.
    pub(crate) fn remember_name(&self, slot: BackendSlot, name: &Arc<Name>) {
        if let Some(entry) = self.lock().get_mut(&slot) {
            entry.name = Some(Arc::clone(name));
        }
    }

    /// Takes the next endpoint in turn. Those for which `tried` holds come after all others, those that refused
    /// connections lately after the ones that did not.
    ///
    /// `resolved` are the addresses of a backend that is a name.
    pub(crate) fn choose(
        &self,
        slot: BackendSlot,
        backend: &Arc<CompiledBackend>,
        resolved: Option<&Arc<[IpAddr]>>,
        shared: &Shared,
        turn: Turn<'_>,
        tried: impl Fn(SocketAddr) -> bool,
    ) -> Option<Arc<Endpoint>> {
        let mut entries = self.lock();
        let entry = Entry::enter(&mut entries, slot, backend, &shared.series);
        entry.refresh(resolved, &shared.registry);
        match turn.balance {
            Balance::RoundRobin => entry.next(&tried),
            Balance::Ewma => entry
                .faster_of_two(turn.random, &tried)
                .or_else(|| entry.next(&tried)),
        }
    }

    /// Is there an endpoint for which `tried` does not hold?
    pub(crate) fn has_another(
        &self,
        slot: BackendSlot,
        backend: &Arc<CompiledBackend>,
        tried: impl Fn(SocketAddr) -> bool,
    ) -> bool {
        self.lock().get(&slot).is_some_and(|entry| {
            Arc::ptr_eq(&entry.backend, backend)
                && entry.endpoints.iter().any(|e| !tried(e.address()))
        })
    }

    /// Forgets what `keep` does not want. Called now and then, since a slot that is gone is never asked for again.
    pub(crate) fn retain(&self, keep: impl Fn(BackendSlot, &Arc<CompiledBackend>) -> bool) {
        self.lock()
            .retain(|slot, entry| keep(*slot, &entry.backend));
    }

    /// How many backends are remembered.
    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, AHashMap<BackendSlot, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    /// The entry for this backend; one for another backend, or for an earlier state of it, gives way.
    fn enter<'a>(
        entries: &'a mut AHashMap<BackendSlot, Self>,
        slot: BackendSlot,
        backend: &Arc<CompiledBackend>,
        budget: &SeriesBudget,
    ) -> &'a mut Self {
        let entry = entries
            .entry(slot)
            .or_insert_with(|| Self::new(backend, budget));
        if !Arc::ptr_eq(&entry.backend, backend) {
            if entry.backend.id == backend.id {
                // The turn goes on where it was: a swap must not send everybody to the first endpoint.
                entry.backend = Arc::clone(backend);
                entry.resolved = None;
                entry.name = None;
                entry.endpoints = Arc::new([]);
            } else {
                *entry = Self::new(backend, budget);
            }
        }
        entry
    }

    fn new(backend: &Arc<CompiledBackend>, budget: &SeriesBudget) -> Self {
        Self {
            backend: Arc::clone(backend),
            resolved: None,
            name: None,
            endpoints: Arc::new([]),
            // Workers that begin at the same endpoint would load it together.
            cursor: usize::try_from(ahash::RandomState::new().hash_one(0u8) >> 32).unwrap_or(0),
            series: Arc::new(BackendSeries::new(&backend.id, budget)),
        }
    }

    fn refresh(&mut self, resolved: Option<&Arc<[IpAddr]>>, registry: &EndpointRegistry) {
        match (&*self.backend.endpoints, resolved) {
            (EndpointSet::Addresses(set), _) => {
                if self.endpoints.is_empty() && !set.is_empty() {
                    let addresses = set.iter().map(|endpoint| endpoint.address);
                    self.endpoints = registry.endpoints(&self.backend.id, addresses);
                }
            }
            (EndpointSet::Dns { port, .. }, Some(resolved)) => {
                let same = self
                    .resolved
                    .as_ref()
                    .is_some_and(|before| Arc::ptr_eq(before, resolved));
                if !same {
                    let addresses = resolved.iter().map(|ip| SocketAddr::new(*ip, *port));
                    self.endpoints = registry.endpoints(&self.backend.id, addresses);
                    self.resolved = Some(Arc::clone(resolved));
                }
            }
            (EndpointSet::Dns { .. } | EndpointSet::Invalid(_), _) => {}
        }
    }

    /// Of two endpoints drawn at random the one that has been faster lately, times the requests that it is working on.
    /// Nothing where neither of them is good: then the turn decides.
    fn faster_of_two(
        &self,
        random: &Random,
        tried: &impl Fn(SocketAddr) -> bool,
    ) -> Option<Arc<Endpoint>> {
        let count = u32::try_from(self.endpoints.len())
            .ok()
            .filter(|count| *count > 1)?;
        let now = registry::now();
        let first = random.next_u32() % count;
        let second = (first + 1 + random.next_u32() % (count - 1)) % count;
        [first, second]
            .into_iter()
            .filter_map(|index| self.endpoints.get(usize::try_from(index).ok()?))
            .filter(|endpoint| !tried(endpoint.address()) && !endpoint.is_avoided(now))
            .min_by(|a, b| a.load(now).total_cmp(&b.load(now)))
            .map(Arc::clone)
    }

    fn next(&mut self, tried: &impl Fn(SocketAddr) -> bool) -> Option<Arc<Endpoint>> {
        let count = self.endpoints.len();
        if count == 0 {
            return None;
        }
        let now = registry::now();
        let start = self.cursor % count;
        // Not tried and not avoided is best, not tried is second, anything is third.
        let mut best: Option<(u8, usize)> = None;
        for step in 0..count {
            let index = (start + step) % count;
            let Some(endpoint) = self.endpoints.get(index) else {
                continue;
            };
            let rank = match (tried(endpoint.address()), endpoint.is_avoided(now)) {
                (false, false) => 0,
                (false, true) => 1,
                (true, _) => 2,
            };
            if best.is_none_or(|(before, _)| rank < before) {
                best = Some((rank, index));
            }
            if rank == 0 {
                break;
            }
        }
        let (_, index) = best?;
        self.cursor = index + 1;
        self.endpoints.get(index).map(Arc::clone)
    }
}
