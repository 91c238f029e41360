//! Backends in numbered slots. A route names a slot, so that an endpoint that comes or goes changes no route.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::{Backend, BackendId, BackendProtocol, EndpointSet, Health, Redacted, RoutingModel};
use smallvec::SmallVec;

use crate::shards::{Keyed, Sharded};

/// Slots that are copied together when one of them changes.
const CHUNK: usize = 64;

/// The number of a backend, kept from one table to the next while anything refers to it.
///
/// It means something in the table that it comes from, and in no other: numbers that nothing refers to any more are
/// given to other backends. What is to outlive a table is kept by [`BackendId`].
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct BackendSlot(u32);

impl BackendSlot {
    fn position(self) -> (usize, usize) {
        let index = usize::try_from(self.0).unwrap_or(usize::MAX);
        (index / CHUNK, index % CHUNK)
    }
}

/// Where requests can be sent.
#[derive(Clone, Debug)]
pub struct CompiledBackend {
    /// Which backend this is.
    pub id: BackendId,
    /// What is spoken to it.
    pub protocol: BackendProtocol,
    /// What cookies of its users are derived from.
    pub seed: Option<Redacted<Box<str>>>,
    /// How its endpoints are watched over, where that is not as usual.
    pub health: Option<Arc<Health>>,
    /// Its endpoints: the very [`Arc`] of the model, and so the same one for as long as they do not change.
    pub endpoints: Arc<EndpointSet>,
}

/// Backends with their shares.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct WeightedTargets {
    targets: SmallVec<[Target; 1]>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Target {
    slot: BackendSlot,
    weight: u32,
    /// The sum of the weights up to and including this one.
    upto: u64,
}

impl WeightedTargets {
    pub(crate) fn new(targets: impl Iterator<Item = (BackendSlot, u32)>) -> Self {
        let mut upto = 0_u64;
        let targets = targets
            .map(|(slot, weight)| {
                upto += u64::from(weight);
                Target { slot, weight, upto }
            })
            .collect();
        Self { targets }
    }

    /// The backend that `random` selects, where every value of `random` is equally likely.
    /// Nothing when there is no backend, or none with a weight.
    pub fn choose(&self, random: u32) -> Option<BackendSlot> {
        let total = self.targets.last()?.upto;
        // Scaled instead of divided, and 128 bits wide so that no list of weights overflows.
        let point = u64::try_from((u128::from(random) * u128::from(total)) >> 32).ok()?;
        let target = self.targets.iter().find(|target| point < target.upto)?;
        Some(target.slot)
    }

    /// Every backend with its weight, in the order of the route.
    pub fn iter(&self) -> impl Iterator<Item = (BackendSlot, u32)> {
        self.targets
            .iter()
            .map(|target| (target.slot, target.weight))
    }
}

/// All slots of a table.
#[derive(Clone)]
pub(crate) struct Backends {
    numbers: Sharded<Numbered>,
    chunks: Arc<Vec<Arc<Vec<Slot>>>>,
    free: Arc<Vec<BackendSlot>>,
    /// Those whose endpoints are checked.
    checked: Arc<BTreeMap<BackendId, Arc<CompiledBackend>>>,
    /// What a backend without endpoints has.
    no_endpoints: Arc<EndpointSet>,
}

#[derive(Clone)]
struct Numbered {
    id: Arc<BackendId>,
    slot: BackendSlot,
}

impl Keyed for Numbered {
    type Key = BackendId;

    fn key(&self) -> &BackendId {
        &self.id
    }
}

#[derive(Clone, Default)]
struct Slot {
    /// Whose slot it is; `None` while it is free.
    id: Option<Arc<BackendId>>,
    /// How many targets of routes name it.
    references: u32,
    /// `None` while the model has no such backend.
    backend: Option<Arc<CompiledBackend>>,
}

impl Backends {
    pub(crate) fn new() -> Self {
        Self {
            numbers: Sharded::new(),
            chunks: Arc::default(),
            free: Arc::default(),
            checked: Arc::default(),
            no_endpoints: Arc::default(),
        }
    }

    pub(crate) fn get(&self, slot: BackendSlot) -> Option<&Arc<CompiledBackend>> {
        self.slot(slot)?.backend.as_ref()
    }

    /// Those whose endpoints are checked.
    pub(crate) fn checked(&self) -> &BTreeMap<BackendId, Arc<CompiledBackend>> {
        &self.checked
    }

    /// The name of a slot's backend, also of one that the model does not have.
    pub(crate) fn id(&self, slot: BackendSlot) -> Option<&BackendId> {
        self.slot(slot)?.id.as_deref()
    }

    /// Every slot in use, in no particular order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&BackendId, Option<&CompiledBackend>)> {
        self.chunks
            .iter()
            .flat_map(|chunk| chunk.iter())
            .filter_map(|slot| Some((slot.id.as_deref()?, slot.backend.as_deref())))
    }

    /// The slot of `id`, for a route that is going to name it.
    pub(crate) fn acquire(&mut self, id: &BackendId) -> BackendSlot {
        let number = self.number(id);
        if let Some(slot) = self.slot_mut(number) {
            slot.references = slot.references.saturating_add(1);
        }
        number
    }

    /// Undoes one [`Backends::acquire`].
    pub(crate) fn release(&mut self, number: BackendSlot) {
        if let Some(slot) = self.slot_mut(number) {
            slot.references = slot.references.saturating_sub(1);
        }
        self.free_if_unused(number);
    }

    /// Takes over what the model says about `id`.
    ///
    /// A backend of which the model has only one half gets the other by default: which half is known first depends on
    /// the order in which objects arrive.
    pub(crate) fn update(&mut self, id: &BackendId, model: &RoutingModel) {
        let lasting = model.backends.get(id).map(|backend| {
            let Backend {
                protocol,
                seed,
                health,
                origin: _,
            } = &**backend;
            (*protocol, seed, health)
        });
        let endpoints = model.endpoints.get(id);
        let backend = (lasting.is_some() || endpoints.is_some()).then(|| {
            Arc::new(CompiledBackend {
                id: id.clone(),
                protocol: lasting.map_or_else(BackendProtocol::default, |(protocol, ..)| protocol),
                seed: lasting.and_then(|(_, seed, _)| seed.clone()),
                health: lasting.and_then(|(.., health)| health.clone()),
                endpoints: Arc::clone(endpoints.unwrap_or(&self.no_endpoints)),
            })
        });
        let is_checked = |backend: &&Arc<CompiledBackend>| {
            let health = backend.health.as_ref();
            health.is_some_and(|health| health.check.is_some())
        };
        if let Some(backend) = backend.as_ref().filter(is_checked) {
            Arc::make_mut(&mut self.checked).insert(id.clone(), Arc::clone(backend));
        } else if self.checked.contains_key(id) {
            Arc::make_mut(&mut self.checked).remove(id);
        }
        let number = match (self.numbers.get(id), &backend) {
            (Some(numbered), _) => numbered.slot,
            (None, Some(_)) => self.number(id),
            (None, None) => return,
        };
        if let Some(slot) = self.slot_mut(number) {
            slot.backend = backend;
        }
        self.free_if_unused(number);
    }

    fn number(&mut self, id: &BackendId) -> BackendSlot {
        if let Some(numbered) = self.numbers.get(id) {
            return numbered.slot;
        }
        let id = Arc::new(id.clone());
        let number = self.free_number();
        if let Some(slot) = self.slot_mut(number) {
            slot.id = Some(Arc::clone(&id));
        }
        self.numbers.insert(Numbered { id, slot: number });
        number
    }

    fn free_number(&mut self) -> BackendSlot {
        if !self.free.is_empty()
            && let Some(number) = Arc::make_mut(&mut self.free).pop()
        {
            return number;
        }
        let chunks = Arc::make_mut(&mut self.chunks);
        if chunks.last().is_none_or(|chunk| chunk.len() == CHUNK) {
            chunks.push(Arc::new(Vec::with_capacity(CHUNK)));
        }
        let full = chunks.len().saturating_sub(1) * CHUNK;
        let Some(last) = chunks.last_mut().map(Arc::make_mut) else {
            return BackendSlot(u32::MAX); // not reached: a chunk has just been pushed
        };
        last.push(Slot::default());
        BackendSlot(u32::try_from(full + last.len() - 1).unwrap_or(u32::MAX))
    }

    fn free_if_unused(&mut self, number: BackendSlot) {
        let unused = self.slot(number).is_some_and(|slot| {
            slot.id.is_some() && slot.references == 0 && slot.backend.is_none()
        });
        if !unused {
            return;
        }
        if let Some(id) = self.slot_mut(number).and_then(|slot| slot.id.take()) {
            self.numbers.remove(&id);
        }
        Arc::make_mut(&mut self.free).push(number);
    }

    fn slot(&self, number: BackendSlot) -> Option<&Slot> {
        let (chunk, place) = number.position();
        self.chunks.get(chunk)?.get(place)
    }

    fn slot_mut(&mut self, number: BackendSlot) -> Option<&mut Slot> {
        let (chunk, place) = number.position();
        let chunk = Arc::make_mut(&mut self.chunks).get_mut(chunk)?;
        Arc::make_mut(chunk).get_mut(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u32) -> BackendId {
        BackendId::new("ns", &format!("service-{n}"), "http")
    }

    #[test]
    fn shares_follow_the_weights() {
        let targets = |weights: &[u32]| {
            let slots = (0..).map(BackendSlot);
            WeightedTargets::new(slots.zip(weights.iter().copied()))
        };
        assert_eq!(targets(&[]).choose(0), None, "no backend");
        assert_eq!(targets(&[0, 0]).choose(7), None, "no weight");
        for (weights, want) in [
            (vec![1], vec![1000]),
            (vec![0, 1], vec![0, 1000]),
            (vec![9, 1], vec![900, 100]),
            (vec![1, 0, 3], vec![250, 0, 750]),
            (vec![u32::MAX, u32::MAX], vec![500, 500]),
        ] {
            let targets = targets(&weights);
            let mut counts = BTreeMap::<u32, u32>::new();
            for step in 0..1000_u32 {
                let chosen = targets.choose(step * (u32::MAX / 1000)).unwrap();
                *counts.entry(chosen.0).or_default() += 1;
            }
            for (slot, share) in (0_u32..).zip(&want) {
                let count = counts.get(&slot).copied().unwrap_or_default();
                assert!(count.abs_diff(*share) <= 1, "{weights:?}: {counts:?}");
            }
            assert!(targets.choose(u32::MAX).is_some());
        }
    }

    #[test]
    fn a_slot_lives_while_something_refers_to_it() {
        let mut model = RoutingModel::default();
        model.endpoints.insert(id(1), Arc::default());
        let mut backends = Backends::new();
        backends.update(&id(1), &model);
        let slot = backends.acquire(&id(1));
        assert!(backends.get(slot).is_some());

        backends.update(&id(1), &RoutingModel::default());
        assert!(backends.get(slot).is_none(), "gone from the model");
        assert_eq!(backends.id(slot), Some(&id(1)), "but named by a route");
        assert_eq!(backends.acquire(&id(1)), slot);

        backends.release(slot);
        backends.release(slot);
        assert_eq!(backends.id(slot), None, "nothing refers to it");
        assert_eq!(backends.numbers.len(), 0);
        assert_eq!(backends.acquire(&id(2)), slot, "the number is used again");
    }

    #[test]
    fn an_endpoint_change_copies_one_chunk() {
        let mut model = RoutingModel::default();
        let mut backends = Backends::new();
        for n in 0..1000 {
            model.endpoints.insert(id(n), Arc::default());
            backends.update(&id(n), &model);
        }
        let before = backends.clone();
        model.endpoints.insert(id(500), Arc::default());
        backends.update(&id(500), &model);
        let copied = before
            .chunks
            .iter()
            .zip(backends.chunks.iter())
            .filter(|(old, new)| !Arc::ptr_eq(old, new))
            .count();
        assert_eq!(copied, 1);
        assert!(Arc::ptr_eq(&before.free, &backends.free));
        let slot = backends.acquire(&id(500));
        assert!(Arc::ptr_eq(
            &backends.get(slot).unwrap().endpoints,
            &model.endpoints[&id(500)]
        ));
    }
}
