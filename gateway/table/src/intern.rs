//! Shares equal values for as long as somebody uses them.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

/// Values by what they were made from. It keeps none of them alive: what no table uses any more goes away with the
/// last table that did.
#[derive(Debug)]
pub(crate) struct Interned<K, V> {
    values: Arc<BTreeMap<K, Weak<V>>>,
    /// How many entries were alive when the dead ones were last swept out.
    alive: usize,
}

impl<K, V> Clone for Interned<K, V> {
    fn clone(&self) -> Self {
        Self {
            values: Arc::clone(&self.values),
            alive: self.alive,
        }
    }
}

impl<K: Clone + Ord, V> Interned<K, V> {
    pub(crate) fn new() -> Self {
        Self {
            values: Arc::default(),
            alive: 0,
        }
    }

    /// The value for `key`, made by `make` when nobody has one.
    pub(crate) fn get_or_make<E>(
        &mut self,
        key: &K,
        make: impl FnOnce() -> Result<V, E>,
    ) -> Result<Arc<V>, E> {
        if let Some(value) = self.values.get(key).and_then(Weak::upgrade) {
            return Ok(value);
        }
        let value = Arc::new(make()?);
        let values = Arc::make_mut(&mut self.values);
        if values.len() >= 2 * self.alive + 16 {
            values.retain(|_, value| value.strong_count() > 0);
            self.alive = values.len();
        }
        values.insert(key.clone(), Arc::downgrade(&value));
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    #[test]
    fn equal_keys_share_a_value_and_the_unused_go() {
        let mut interned = Interned::<u32, u32>::new();
        let mut make = |n: u32| interned.get_or_make(&n, || Ok::<_, Infallible>(n)).unwrap();
        let first = make(1);
        assert!(Arc::ptr_eq(&first, &make(1)));
        for n in 2..1000 {
            make(n);
        }
        assert!(Arc::ptr_eq(&first, &make(1)), "still in use");
        assert!(
            interned.values.len() < 100,
            "{} entries",
            interned.values.len()
        );
        assert_eq!(
            interned.get_or_make(&5000, || Err::<u32, _>("no")),
            Err("no")
        );
    }
}
