//! A hash map over those that requests are counted for, and over what is kept for them. Clients come and go, so what
//! one leaves is given back.
//!
//! The hasher is a fast one, since a request is looked up several times on its way. It has a seed of its own in each
//! process, but is not made to withstand strangers that choose their names: keys hash by what a keyed hash, or a
//! digest, made of those.

use std::hash::Hash;

use foldhash::{HashMap, HashMapExt};

/// Below this capacity shrinking is not worth the copying.
const KEPT_KEYS: usize = 64;

/// A table by keys that are hashed; see the [module](self).
#[derive(Debug)]
pub struct KeyMap<K, V>(HashMap<K, V>);

impl<K: Eq + Hash, V> KeyMap<K, V> {
    pub(crate) fn new() -> Self {
        Self(HashMap::new())
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        self.0.get(key)
    }

    pub(crate) fn insert(&mut self, key: K, value: V) {
        self.0.insert(key, value);
    }

    /// Forgets the key; a map three quarters empty is halved, which costs O(1) a removal, amortised.
    pub(crate) fn remove(&mut self, key: &K) {
        self.0.remove(key);
        let capacity = self.0.capacity();
        if capacity > KEPT_KEYS && self.0.len() < capacity / 4 {
            self.0.shrink_to(capacity / 2);
        }
    }

    /// Keys that memory is held for.
    #[cfg(test)]
    pub(crate) fn capacity(&self) -> usize {
        self.0.capacity()
    }
}

impl<K, V> Default for KeyMap<K, V> {
    fn default() -> Self {
        Self(HashMap::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_follows_the_keys_that_are_there() {
        let mut map = KeyMap::new();
        for key in 0..10_000 {
            map.insert(key, ());
        }
        for key in 0..10_000 {
            map.remove(&key);
            assert!(
                map.capacity() <= KEPT_KEYS.max(4 * map.len() + 8),
                "{} for {}",
                map.capacity(),
                map.len()
            );
        }
        assert_eq!(map.len(), 0);
    }
}
