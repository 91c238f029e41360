//! Collections for what is usually one or two, and can be thousands.
//!
//! There is one of these for each host, backend, Secret and Ingress. The tree of the standard library has room for
//! eleven elements in its smallest node, which at ten thousand Ingresses is most of the memory.

use std::collections::{BTreeMap, BTreeSet};

/// Up to this many, moving elements is cheaper than a tree.
const FEW: usize = 8;

/// A set in order. The form follows from the number of elements, so that equal sets are equal in form.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Few<T> {
    /// In order; empty when there is a tree.
    list: Vec<T>,
    #[expect(
        clippy::box_collection,
        reason = "a pointer for what is hardly ever there"
    )]
    tree: Option<Box<BTreeSet<T>>>,
}

impl<T: Ord> Few<T> {
    /// An empty set.
    pub(crate) const fn new() -> Self {
        Self {
            list: Vec::new(),
            tree: None,
        }
    }

    /// Adds an element.
    pub(crate) fn insert(&mut self, value: T) {
        if let Some(tree) = &mut self.tree {
            tree.insert(value);
            return;
        }
        let Err(place) = self.list.binary_search(&value) else {
            return;
        };
        self.list.reserve_exact(1);
        self.list.insert(place, value);
        if self.list.len() > FEW {
            let list = std::mem::take(&mut self.list);
            self.tree = Some(Box::new(list.into_iter().collect()));
        }
    }

    /// Takes an element out.
    pub(crate) fn remove(&mut self, value: &T) {
        if let Some(tree) = &mut self.tree {
            tree.remove(value);
            if tree.len() <= FEW
                && let Some(tree) = self.tree.take()
            {
                self.list = tree.into_iter().collect();
            }
        } else if let Ok(place) = self.list.binary_search(value) {
            self.list.remove(place);
        }
    }

    /// Is there none?
    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty() && self.tree.is_none()
    }

    /// The elements in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> + Clone {
        self.list
            .iter()
            .chain(self.tree.iter().flat_map(|tree| tree.iter()))
    }
}

impl<T: Ord> Default for Few<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// A map that does not change once it is made.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Fixed<K, V>(Box<[(K, V)]>);

impl<K: Ord, V> Fixed<K, V> {
    /// The value of a key.
    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        let place = self.0.binary_search_by(|(other, _)| other.cmp(key)).ok()?;
        self.0.get(place).map(|(_, value)| value)
    }

    /// All keys in order.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &K> {
        self.0.iter().map(|(key, _)| key)
    }

    /// Everything in the order of the keys.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.0.iter().map(|(key, value)| (key, value))
    }
}

impl<K: Ord, V> From<BTreeMap<K, V>> for Fixed<K, V> {
    fn from(map: BTreeMap<K, V>) -> Self {
        Self(map.into_iter().collect())
    }
}

/// Makes a tree anew, whose nodes are full then. One that has grown in the order of its keys is little more than half full.
pub(crate) fn dense<T: Default + IntoIterator + FromIterator<T::Item>>(tree: &mut T) {
    *tree = std::mem::take(tree).into_iter().collect();
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_set_is_what_a_tree_would_be(edits in prop::collection::vec((any::<bool>(), 0..20_u8), 0..60)) {
            let mut few = Few::new();
            let mut tree = BTreeSet::new();
            for (add, value) in edits {
                if add {
                    few.insert(value);
                    tree.insert(value);
                } else {
                    few.remove(&value);
                    tree.remove(&value);
                }
                prop_assert!(few.iter().eq(tree.iter()));
                prop_assert_eq!(few.is_empty(), tree.is_empty());
                let mut again = Few::new();
                for value in tree.iter().rev() {
                    again.insert(*value);
                }
                prop_assert_eq!(&few, &again, "one form for one content");
            }
        }
    }

    #[test]
    fn a_map_finds_its_keys() {
        let map: Fixed<_, _> = BTreeMap::from([(3, "c"), (1, "a"), (2, "b")]).into();
        assert_eq!(map.get(&2), Some(&"b"));
        assert_eq!(map.get(&4), None);
        assert_eq!(map.keys().collect::<Vec<_>>(), [&1, &2, &3]);
        assert_eq!(map.iter().next(), Some((&1, &"a")));
    }
}
