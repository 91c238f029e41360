//! The choice of an endpoint.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use ahash::AHashMap;
use model::{Balance, EndpointSet};
use smallvec::SmallVec;
use table::{BackendSlot, CompiledBackend};

use super::budget::RetryBudget;
use super::registry::{self, Endpoint, EndpointRegistry};
use super::resolver::Name;
use super::ring::{self, Ring};
use super::session;
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
    /// What comes before the rule.
    pub(crate) wish: Wish,
}

/// What a request wants of the choice.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wish {
    /// Nothing.
    None,
    /// The endpoint at this place, or any of so many from there on.
    Place(u32, Option<usize>),
    /// The endpoint that the user had before.
    Session {
        /// What it was told.
        number: Option<u128>,
        /// A user keeps its endpoint whatever becomes of it.
        loyal: bool,
        /// As long as it is there.
        persistent: bool,
    },
}

/// How many points of a ring are looked at in search of an endpoint that is well.
const POINTS_LOOKED_AT: usize = 64;
/// How many numbers are drawn for a new user in search of one.
const DRAWS: usize = 20;

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
    /// `endpoints` are those of an earlier state. They are kept until there are others: what is known of them would go with
    /// the last who holds them.
    stale: bool,
    /// Made from `endpoints` when it is first asked for.
    ring: Option<Ring>,
    /// The same, for users who stay.
    numbers: Option<AHashMap<u128, usize>>,
    mark: Option<u64>,
    cursor: usize,
    retries: RetryBudget,
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
    ) -> Option<(Arc<Endpoint>, Option<u128>)> {
        let mut entries = self.lock();
        let entry = Entry::enter(&mut entries, slot, backend, &shared.series);
        entry.refresh(resolved, &shared.registry);
        entry.retries.count();
        match turn.wish {
            Wish::None => Some((entry.by_rule(turn, &tried)?, None)),
            Wish::Place(place, subset) => {
                let endpoint = entry.at_place(place, subset, turn.random, &tried);
                Some((endpoint.or_else(|| entry.by_rule(turn, &tried))?, None))
            }
            Wish::Session {
                number,
                loyal,
                persistent,
            } => {
                let seed = shared.seed_of(backend);
                let kept = number.and_then(|number| entry.kept(number, persistent, seed));
                match kept.filter(|endpoint| loyal || !tried(endpoint.address())) {
                    Some(endpoint) => Some((endpoint, None)),
                    None if persistent => {
                        let endpoint = entry.by_rule(turn, &tried)?;
                        let number = session::number(seed, &backend.id, endpoint.address());
                        Some((endpoint, Some(number)))
                    }
                    None => entry.drawn(turn.random, &tried),
                }
            }
        }
    }

    /// The mark of a backend in the sessions of its users.
    pub(crate) fn mark(
        &self,
        slot: BackendSlot,
        backend: &Arc<CompiledBackend>,
        shared: &Shared,
    ) -> u64 {
        let mut entries = self.lock();
        let entry = Entry::enter(&mut entries, slot, backend, &shared.series);
        let seed = shared.seed_of(backend);
        *entry
            .mark
            .get_or_insert_with(|| session::mark(seed, &backend.id))
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

    /// Takes one retry at a backend, unless too many of its requests have been sent again lately.
    pub(crate) fn may_retry(&self, slot: BackendSlot) -> bool {
        let mut entries = self.lock();
        entries
            .get_mut(&slot)
            .is_some_and(|entry| entry.retries.take(registry::now()))
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
                entry.mark = None;
                entry.stale = true;
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
            stale: true,
            ring: None,
            numbers: None,
            mark: None,
            // Workers that begin at the same endpoint would load it together.
            cursor: usize::try_from(ahash::RandomState::new().hash_one(0u8) >> 32).unwrap_or(0),
            retries: RetryBudget::new(registry::now()),
            series: Arc::new(BackendSeries::new(&backend.id, budget)),
        }
    }

    fn refresh(&mut self, resolved: Option<&Arc<[IpAddr]>>, registry: &EndpointRegistry) {
        match (&*self.backend.endpoints, resolved) {
            (EndpointSet::Addresses(set), _) => {
                if self.stale {
                    let addresses = set.iter().map(|endpoint| endpoint.address);
                    self.replace(registry.endpoints(&self.backend.id, addresses));
                    self.apply_rules();
                }
            }
            (EndpointSet::Dns { port, .. }, Some(resolved)) => {
                let same = self
                    .resolved
                    .as_ref()
                    .is_some_and(|before| Arc::ptr_eq(before, resolved));
                if !same {
                    let addresses = resolved.iter().map(|ip| SocketAddr::new(*ip, *port));
                    self.replace(registry.endpoints(&self.backend.id, addresses));
                    self.apply_rules();
                    self.resolved = Some(Arc::clone(resolved));
                }
            }
            (EndpointSet::Dns { .. } | EndpointSet::Invalid(_), _) => {
                if self.stale {
                    self.replace(Arc::new([]));
                }
            }
        }
    }

    fn replace(&mut self, endpoints: Arc<[Arc<Endpoint>]>) {
        self.endpoints = endpoints;
        self.stale = false;
        self.ring = None;
        self.numbers = None;
    }

    /// Tells the endpoints what has been asked for about their health.
    fn apply_rules(&self) {
        registry::apply(&self.endpoints, self.backend.health.as_deref());
    }

    fn by_rule(
        &mut self,
        turn: Turn<'_>,
        tried: &impl Fn(SocketAddr) -> bool,
    ) -> Option<Arc<Endpoint>> {
        match turn.balance {
            Balance::RoundRobin => self.next(tried),
            Balance::Ewma => self
                .faster_of_two(turn.random, tried)
                .or_else(|| self.next(tried)),
        }
    }

    fn ring(&mut self) -> &Ring {
        let addresses = self.endpoints.iter().map(|endpoint| endpoint.address());
        self.ring.get_or_insert_with(|| Ring::new(addresses))
    }

    /// The first endpoint from this place on that is well, or one of the first `subset` of them.
    fn at_place(
        &mut self,
        place: u32,
        subset: Option<usize>,
        random: &Random,
        tried: &impl Fn(SocketAddr) -> bool,
    ) -> Option<Arc<Endpoint>> {
        self.ring();
        let ring = self.ring.as_ref()?;
        let now = registry::now();
        let endpoint = |index: usize| self.endpoints.get(index);
        let is_well =
            |endpoint: &&Arc<Endpoint>| !tried(endpoint.address()) && !endpoint.is_avoided(|| now);
        let mut points = ring.from(place).take(POINTS_LOOKED_AT);
        let Some(size) = subset.filter(|size| *size > 1) else {
            return points.filter_map(endpoint).find(is_well).map(Arc::clone);
        };
        let mut members = SmallVec::<[usize; 8]>::new();
        let size = size.min(self.endpoints.len());
        while members.len() < size
            && let Some(index) = points.next()
        {
            if !members.contains(&index) {
                members.push(index);
            }
        }
        let start = usize::try_from(random.next_u32()).unwrap_or(0);
        let count = members.len();
        (0..count)
            .filter_map(|step| endpoint(*members.get((start + step) % count)?))
            .find(is_well)
            .map(Arc::clone)
    }

    /// The endpoint of a user who has been here before.
    fn kept(&mut self, number: u128, persistent: bool, seed: &str) -> Option<Arc<Endpoint>> {
        let index = if persistent {
            let addresses = self.endpoints.iter().map(|endpoint| endpoint.address());
            let id = &self.backend.id;
            let numbers = self
                .numbers
                .get_or_insert_with(|| session::numbers(seed, id, addresses));
            *numbers.get(&number)?
        } else {
            self.ring().from(ring::place_of_number(number)).next()?
        };
        self.endpoints.get(index).map(Arc::clone)
    }

    /// A number for a new user, and the endpoint that it leads to.
    fn drawn(
        &mut self,
        random: &Random,
        tried: &impl Fn(SocketAddr) -> bool,
    ) -> Option<(Arc<Endpoint>, Option<u128>)> {
        let now = registry::now();
        let mut last = None;
        for _ in 0..DRAWS {
            let number = random.wide();
            let endpoint = self.kept(number, false, "")?;
            let is_well = !tried(endpoint.address()) && !endpoint.is_avoided(|| now);
            last = Some((endpoint, Some(number)));
            if is_well {
                break;
            }
        }
        last
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
            .filter(|endpoint| !tried(endpoint.address()) && !endpoint.is_avoided(|| now))
            .min_by(|a, b| a.load(now).total_cmp(&b.load(now)))
            .map(Arc::clone)
    }

    fn next(&mut self, tried: &impl Fn(SocketAddr) -> bool) -> Option<Arc<Endpoint>> {
        let count = self.endpoints.len();
        if count == 0 {
            return None;
        }
        let start = self.cursor % count;
        // Not tried and not avoided is best, not tried is second, anything is third.
        let mut best: Option<(u8, usize)> = None;
        for step in 0..count {
            let index = (start + step) % count;
            let Some(endpoint) = self.endpoints.get(index) else {
                continue;
            };
            let rank = match (
                tried(endpoint.address()),
                endpoint.is_avoided(registry::now),
            ) {
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
