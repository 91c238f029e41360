//! Listeners as numbers, and sets of them as bits.

use std::collections::BTreeSet;
use std::sync::Arc;

use model::{Listener, ListenerName, ListenerSelector, ObjectRef, Origin, RoutingModel};

use crate::reject::Reject;

/// As many as a [`ListenerMask`] has bits.
const MAX: usize = 64;

/// The number of a listener in the table that it comes from.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct ListenerId(u8);

/// A set of listeners.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct ListenerMask(u64);

impl ListenerMask {
    pub(crate) const ALL: Self = Self(u64::MAX);

    pub(crate) fn contains(self, listener: ListenerId) -> bool {
        self.0 & (1 << (u32::from(listener.0) % u64::BITS)) != 0
    }
}

/// The listeners of a table, sorted; the position is the number.
#[derive(Clone, Default, Eq, PartialEq)]
pub(crate) struct Listeners(Arc<[ListenerName]>);

impl Listeners {
    pub(crate) fn compile(model: &RoutingModel) -> (Self, Vec<Reject>) {
        let names = model
            .listeners
            .iter()
            .map(|(name, Listener { protocol: _ })| name);
        let rejects = names
            .clone()
            .skip(MAX)
            .map(|name| Reject {
                origin: Origin::new(ObjectRef::new("Listener", "", name.as_str()), ""),
                reason: format!("there can be {MAX} listeners; this one has no routes"),
            })
            .collect();
        (Self(names.take(MAX).cloned().collect()), rejects)
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &ListenerName> {
        self.0.iter()
    }

    pub(crate) fn id(&self, name: &ListenerName) -> Option<ListenerId> {
        let position = self.0.binary_search(name).ok()?;
        u8::try_from(position).ok().map(ListenerId)
    }

    /// The listeners that `selector` means, and those that it names and nobody knows.
    pub(crate) fn select<'a>(
        &self,
        selector: &'a ListenerSelector,
    ) -> (ListenerMask, Vec<&'a ListenerName>) {
        let names = match selector {
            ListenerSelector::All => return (ListenerMask::ALL, Vec::new()),
            ListenerSelector::Only(names) => names,
        };
        let mut mask = 0;
        let mut unknown = Vec::new();
        for name in names {
            match self.id(name) {
                Some(ListenerId(number)) => mask |= 1 << number,
                None => unknown.push(name),
            }
        }
        (ListenerMask(mask), unknown)
    }

    /// What [`Listeners::select`] made of a selector, as a selector.
    pub(crate) fn selector(&self, mask: ListenerMask) -> ListenerSelector {
        if mask == ListenerMask::ALL {
            return ListenerSelector::All;
        }
        let names = (0..).zip(&*self.0);
        let chosen: BTreeSet<_> = names
            .filter(|(number, _)| mask.contains(ListenerId(*number)))
            .map(|(_, name)| name.clone())
            .collect();
        ListenerSelector::Only(chosen)
    }
}
