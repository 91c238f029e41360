//! The choice of an endpoint.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use ahash::AHashMap;
use balance::{Candidates, Ring, Turns, of_two, place_of_number, random, room};
use model::{Balance, EndpointSet};
use smallvec::SmallVec;
use table::{BackendSlot, CompiledBackend, Table};

use super::budget::RetryBudget;
use super::registry::{self, Endpoint, EndpointRegistry};
use super::resolver::Name;
use super::session;
use super::view::View;
use super::wish::{Level, Place, Turn, Wish};
use crate::Shared;
use crate::engine::Random;
use crate::telemetry::{BackendSeries, SeriesBudget};

/// How many points of a ring are looked at in search of the endpoints of a subset.
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
    /// `endpoints` are those of an earlier state of the backend. They are kept until there are newer ones, since what is known about an
    /// endpoint lives as long as somebody has it.
    stale: bool,
    /// The places of those that are near, where some are not.
    near: Option<Box<[u32]>>,
    /// Made from `endpoints` when it is first asked for.
    ring: Option<Ring>,
    /// The same, for users who stay.
    numbers: Option<AHashMap<u128, usize>>,
    mark: Option<u64>,
    turns: Turns,
    /// The same among the near ones.
    near_turns: Turns,
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
            Wish::Place(place) => {
                let endpoint = entry.at_place(place, turn.random, &tried);
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
                    None => entry.drawn(turn, &tried),
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

    /// Forgets backends that are not in this table: a slot that is gone is never asked for again. Returns how many are
    /// left.
    pub(crate) fn forget_gone(&self, table: &Table) -> usize {
        let mut entries = self.lock();
        entries.retain(|slot, entry| {
            // What is known about endpoints lives here, also where the worker has not seen the backend since it changed.
            table
                .backend(*slot)
                .is_some_and(|current| current.id == entry.backend.id)
        });
        entries.len()
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
                entry.numbers = None;
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
            near: None,
            ring: None,
            numbers: None,
            mark: None,
            turns: Turns::new(anywhere()),
            near_turns: Turns::new(anywhere()),
            retries: RetryBudget::new(registry::now()),
            series: Arc::new(BackendSeries::new(&backend.id, budget)),
        }
    }

    fn refresh(&mut self, resolved: Option<&Arc<[IpAddr]>>, registry: &EndpointRegistry) {
        match (&*self.backend.endpoints, resolved) {
            (EndpointSet::Addresses(set), _) => {
                if self.stale {
                    let addresses = set.iter().map(|endpoint| endpoint.address);
                    let near = near(set);
                    self.replace(registry.endpoints(&self.backend.id, addresses), near);
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
                    self.replace(registry.endpoints(&self.backend.id, addresses), None);
                    self.apply_rules();
                    self.resolved = Some(Arc::clone(resolved));
                }
            }
            (EndpointSet::Dns { .. } | EndpointSet::Invalid(_), _) => {
                if self.stale {
                    self.replace(Arc::new([]), None);
                }
            }
        }
    }

    fn replace(&mut self, endpoints: Arc<[Arc<Endpoint>]>, near: Option<Box<[u32]>>) {
        self.stale = false;
        self.near = near;
        // Often it is something else about the backend that has changed.
        let same = self.endpoints.len() == endpoints.len()
            && self
                .endpoints
                .iter()
                .zip(endpoints.iter())
                .all(|(a, b)| Arc::ptr_eq(a, b));
        if !same {
            self.endpoints = endpoints;
            self.turns.forget_credits();
            self.near_turns.forget_credits();
            self.ring = None;
            self.numbers = None;
        }
    }

    /// Tells the endpoints what has been asked for about their health.
    fn apply_rules(&self) {
        registry::apply(&self.endpoints, self.backend.health.as_deref());
    }

    /// The endpoint that the rule chooses: among the near ones that are well, else among all that are, else among whatever is left.
    fn by_rule(
        &mut self,
        turn: Turn<'_>,
        tried: &impl Fn(SocketAddr) -> bool,
    ) -> Option<Arc<Endpoint>> {
        if turn.slow_start > 0 {
            let random = || turn.random.next_u64();
            self.turns.prepare(self.endpoints.len(), random);
            if self.near.is_some() {
                self.near_turns.prepare(self.endpoints.len(), random);
            }
        }
        let now = turn.now();
        let near = self.near.as_deref();
        [
            near.map(|near| (Level::Well, Some(near))),
            Some((Level::Well, None)),
            Some((Level::Untried, None)),
            Some((Level::Any, None)),
        ]
        .into_iter()
        .flatten()
        .find_map(|(level, only)| {
            let view = View {
                endpoints: &self.endpoints,
                only,
                may: |endpoint: &Endpoint| level.admits(endpoint, tried),
                now,
                slow_start: turn.slow_start,
            };
            let draw = || turn.random.next_u64();
            let index = match turn.balance {
                Balance::RoundRobin if only.is_some() => self.near_turns.next(&view),
                Balance::RoundRobin => self.turns.next(&view),
                Balance::Ewma => of_two(&view, &draw, |index| view.time(index)),
                Balance::LeastRequest => of_two(&view, &draw, |index| view.requests(index)),
                Balance::Random => random(&view, &draw),
            };
            view.endpoint(index?).map(Arc::clone)
        })
    }

    fn ring(&mut self) -> &Ring {
        let addresses = self.endpoints.iter().map(|endpoint| endpoint.address());
        self.ring.get_or_insert_with(|| Ring::new(addresses))
    }

    /// The first endpoint from this place on that is well and has room, or one of the first so many of them.
    ///
    /// Near endpoints do not come first: every replica has to send a key to the same one.
    fn at_place(
        &mut self,
        place: Place,
        random: &Random,
        tried: &impl Fn(SocketAddr) -> bool,
    ) -> Option<Arc<Endpoint>> {
        self.ring();
        let ring = self.ring.as_ref()?;
        let in_flight = || Some(self.endpoints.first()?.load_of_all().in_flight());
        let room = place
            .bound
            .and_then(|percent| Some(room(percent, in_flight()?, self.endpoints.len())));
        let view = |bounded: bool| View {
            endpoints: &self.endpoints,
            only: None,
            may: move |endpoint: &Endpoint| {
                let has_room = room.is_none_or(|room| endpoint.in_flight() < room);
                (has_room || !bounded) && Level::Well.admits(endpoint, tried)
            },
            now: 0,
            slow_start: 0,
        };
        let has_room = view(true);
        let index = match place.subset.filter(|size| *size > 1) {
            Some(size) => of_subset(
                ring,
                place.at,
                size.min(self.endpoints.len()),
                random,
                &has_room,
            ),
            None => None,
        };
        let index = index
            .or_else(|| ring.find(place.at, &has_room))
            // Those that have room are ill.
            .or_else(|| ring.find(place.at, &view(false)))?;
        self.endpoints.get(index).map(Arc::clone)
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
            self.ring().from(place_of_number(number)).next()?
        };
        self.endpoints.get(index).map(Arc::clone)
    }

    /// A number for a new user, and the endpoint that it leads to: one that is well, and near, and ready for more if it is new.
    fn drawn(
        &mut self,
        turn: Turn<'_>,
        tried: &impl Fn(SocketAddr) -> bool,
    ) -> Option<(Arc<Endpoint>, Option<u128>)> {
        let now = turn.now();
        self.ring();
        let ring = self.ring.as_ref()?;
        let near = self.near.as_deref();
        let is_near = |index: usize| {
            near.is_none_or(|near| {
                u32::try_from(index).is_ok_and(|i| near.binary_search(&i).is_ok())
            })
        };
        let mut best: Option<((bool, bool), &Arc<Endpoint>, u128)> = None;
        for _ in 0..DRAWS {
            let number = turn.random.wide();
            let index = ring.from(place_of_number(number)).next()?;
            let endpoint = self.endpoints.get(index)?;
            let accepts = || {
                let weight = endpoint.weight(now, turn.slow_start);
                turn.slow_start == 0 || weight.accepts(turn.random.next_u64())
            };
            let is_ill = !Level::Well.admits(endpoint, tried);
            let grade = (is_ill, is_ill || !(is_near(index) && accepts()));
            if best.is_none_or(|(before, ..)| grade < before) {
                best = Some((grade, endpoint, number));
            }
            if grade == (false, false) {
                break;
            }
        }
        best.map(|(_, endpoint, number)| (Arc::clone(endpoint), Some(number)))
    }
}

/// Where a worker begins. Those that begin at the same endpoint would load it together.
fn anywhere() -> usize {
    usize::try_from(ahash::RandomState::new().hash_one(0u8) >> 32).unwrap_or(0)
}

/// One of the first so many endpoints from this place on that may be chosen.
fn of_subset(
    ring: &Ring,
    at: u32,
    size: usize,
    random: &Random,
    of: &impl Candidates,
) -> Option<usize> {
    let mut members = SmallVec::<[usize; 16]>::new();
    let mut points = ring.from(at).take(POINTS_LOOKED_AT);
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
        .filter_map(|step| members.get((start + step) % count).copied())
        .find(|index| of.may(*index))
}

/// The places of those that are near; `None` where there is no difference.
fn near(set: &[model::Endpoint]) -> Option<Box<[u32]>> {
    if set.iter().all(|endpoint| !endpoint.far) {
        return None;
    }
    let near = (0_u32..).zip(set).filter(|(_, endpoint)| !endpoint.far);
    let places: Box<[u32]> = near.map(|(place, _)| place).collect();
    (!places.is_empty()).then_some(places)
}

#[cfg(test)]
mod tests;
