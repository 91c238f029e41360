//! A map in shards: changing one entry copies one shard and shares the others.

use std::hash::Hash;
use std::sync::Arc;

use ahash::RandomState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

/// At 100,000 entries a shard holds about a hundred, so that a change copies about a hundred pointers.
const SHARDS: usize = 1024;

/// A value that knows its own key.
pub(crate) trait Keyed: Clone {
    /// What it is found by.
    type Key: Eq + Hash + ?Sized;

    /// The key of this value.
    fn key(&self) -> &Self::Key;
}

/// A hash map whose clones share what neither of them changed.
#[derive(Clone)]
pub(crate) struct Sharded<V> {
    hasher: RandomState,
    shards: Arc<Vec<Arc<HashTable<V>>>>,
    len: usize,
}

impl<V: Keyed> Sharded<V> {
    pub(crate) fn new() -> Self {
        let empty = Arc::new(HashTable::new());
        Self {
            hasher: RandomState::new(),
            shards: Arc::new((0..SHARDS).map(|_| Arc::clone(&empty)).collect()),
            len: 0,
        }
    }

    /// Adds `value` and gives back what had its key before.
    pub(crate) fn insert(&mut self, value: V) -> Option<V> {
        let Self {
            hasher,
            shards,
            len,
        } = self;
        let hash = hasher.hash_one(value.key());
        let shard = Arc::make_mut(Arc::make_mut(shards).get_mut(shard_of(hash))?);
        let entry = shard.entry(
            hash,
            |other| other.key() == value.key(),
            |other| hasher.hash_one(other.key()),
        );
        match entry {
            Entry::Occupied(mut entry) => Some(std::mem::replace(entry.get_mut(), value)),
            Entry::Vacant(entry) => {
                entry.insert(value);
                *len += 1;
                None
            }
        }
    }

    /// Takes the entry of `key` out.
    pub(crate) fn remove(&mut self, key: &V::Key) -> Option<V> {
        self.get(key)?; // a shard without the entry stays shared
        let hash = self.hasher.hash_one(key);
        let shard = Arc::make_mut(Arc::make_mut(&mut self.shards).get_mut(shard_of(hash))?);
        let entry = shard.find_entry(hash, |value| value.key() == key).ok()?;
        self.len -= 1;
        Some(entry.remove().0)
    }

    pub(crate) fn get(&self, key: &V::Key) -> Option<&V> {
        if self.len == 0 {
            return None;
        }
        let hash = self.hasher.hash_one(key);
        self.shards
            .get(shard_of(hash))?
            .find(hash, |value| value.key() == key)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// All values in no particular order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &V> {
        self.shards.iter().flat_map(|shard| shard.iter())
    }
}

/// The table within a shard uses the lowest and the highest bits of the hash, so the shard comes from the middle.
fn shard_of(hash: u64) -> usize {
    usize::try_from((hash >> 32) & (SHARDS as u64 - 1)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Debug, Eq, PartialEq)]
    struct Pair(String, u32);

    impl Keyed for Pair {
        type Key = str;

        fn key(&self) -> &str {
            &self.0
        }
    }

    #[test]
    fn a_clone_does_not_see_later_changes() {
        let mut map = Sharded::new();
        for n in 0..5000 {
            assert_eq!(map.insert(Pair(n.to_string(), n)), None);
        }
        let before = map.clone();
        assert_eq!(
            map.insert(Pair("7".into(), 70)),
            Some(Pair("7".into(), 7)),
            "replaced"
        );
        assert_eq!(map.remove("8"), Some(Pair("8".into(), 8)));
        assert_eq!(map.remove("8"), None);
        assert_eq!(map.len(), 4999);
        assert_eq!(map.get("7"), Some(&Pair("7".into(), 70)));
        assert_eq!(map.get("8"), None);
        assert_eq!(before.get("7"), Some(&Pair("7".into(), 7)));
        assert_eq!(before.get("8"), Some(&Pair("8".into(), 8)));
        assert_eq!(before.iter().count(), 5000);
    }

    #[test]
    fn one_change_copies_one_shard() {
        let mut map = Sharded::new();
        for n in 0..5000 {
            map.insert(Pair(n.to_string(), n));
        }
        let before = map.clone();
        map.insert(Pair("7".into(), 70));
        map.remove("not there");
        let copied = before
            .shards
            .iter()
            .zip(map.shards.iter())
            .filter(|(old, new)| !Arc::ptr_eq(old, new))
            .count();
        assert_eq!(copied, 1);
    }
}
