//! What is kept for those that are counted: a table by flow, and one by account.
//!
//! Each part of the scheduler has such tables, and a request is looked up in them some twenty times on its way. What a
//! driver names by a [`FlowKey`] is hashed for that ([`KeyMap`]). The [`Dispatcher`](crate::Dispatcher) gives each name
//! a small number first, and its parts index arrays with those ([`Dense`]).

use std::fmt::Debug;
use std::hash::Hash;

use crate::flow_key::FlowKey;
use crate::key_map::KeyMap;

/// A flow, as tables have it: each [`FlowKey`], and the numbers that stand for them.
pub trait Counted: Clone + Eq {
    /// What stands for its account.
    type Account: Clone + Debug + Eq;

    /// A table by flow.
    type Flows<V: Entry>: Table<Self, V>;

    /// A table by account.
    type Accounts<V: Entry>: Table<Self::Account, V>;

    /// Who pays for this flow.
    fn paid_by(&self) -> &Self::Account;
}

impl<K: FlowKey> Counted for K {
    type Account = <K as FlowKey>::Account;
    type Flows<V: Entry> = KeyMap<K, V>;
    type Accounts<V: Entry> = KeyMap<<K as FlowKey>::Account, V>;

    fn paid_by(&self) -> &<K as FlowKey>::Account {
        self.account()
    }
}

/// What a table has for a key: small, and its default for whoever is not there.
pub trait Entry: Copy + Default + Eq {}

impl<V: Copy + Default + Eq> Entry for V {}

/// A map in which each key has an entry, which is the default one until another is set.
pub trait Table<K, V: Entry>: Default {
    /// The entry of a key.
    fn get(&self, key: &K) -> V;

    /// Changes the entry of a key.
    fn change<R>(&mut self, key: &K, change: impl FnOnce(&mut V) -> R) -> R;

    /// From now on the key has this entry.
    fn set(&mut self, key: &K, entry: V) {
        self.change(key, |held| *held = entry);
    }

    /// Whether all keys have the default entry.
    #[cfg(test)]
    fn is_empty(&self) -> bool;
}

/// Its memory follows the keys whose entry is not the default one.
impl<K: Clone + Eq + Hash, V: Entry> Table<K, V> for KeyMap<K, V> {
    fn get(&self, key: &K) -> V {
        self.get(key).copied().unwrap_or_default()
    }

    fn change<R>(&mut self, key: &K, change: impl FnOnce(&mut V) -> R) -> R {
        let held = self.get(key).copied();
        let mut entry = held.unwrap_or_default();
        let result = change(&mut entry);
        if entry != V::default() {
            self.insert(key.clone(), entry);
        } else if held.is_some() {
            self.remove(key);
        }
        result
    }

    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A number that indexes an array: given out again once it is free, so that it is small.
pub trait Number: Copy {
    /// Where what is kept for it is.
    fn index(self) -> usize;
}

/// A table by numbers that are small: as long as the largest one whose entry was set. It stays that long, as does the
/// slab that the numbers are of: there are as many as had requests at once.
#[derive(Debug)]
pub struct Dense<V>(Vec<V>);

impl<V: Entry> Dense<V> {
    #[cold]
    fn grow_to(&mut self, index: usize) -> &mut V {
        self.0.resize(index + 1, V::default());
        &mut self.0[index]
    }
}

impl<V> Default for Dense<V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<K: Number, V: Entry> Table<K, V> for Dense<V> {
    #[inline]
    fn get(&self, key: &K) -> V {
        self.0.get(key.index()).copied().unwrap_or_default()
    }

    #[inline]
    fn change<R>(&mut self, key: &K, change: impl FnOnce(&mut V) -> R) -> R {
        let index = key.index();
        change(if index < self.0.len() { &mut self.0[index] } else { self.grow_to(index) })
    }

    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.0.iter().all(|entry| *entry == V::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::AccountNumber;
    use proptest::prelude::*;

    proptest! {
        /// Both tables have what was set last, and the hashed one has memory for no more than that.
        #[test]
        fn tables_are_alike(steps in prop::collection::vec((0..3u8, 0..9usize), 0..200)) {
            let (mut dense, mut hashed) = (Dense::default(), KeyMap::new());
            let mut model = [0; 10];
            for (entry, (step, key)) in (1..).zip(steps) {
                let entry = if step == 0 { 0 } else { entry };
                dense.set(&AccountNumber::new(key), entry);
                hashed.set(&key, entry);
                model[key] = entry;
                for (key, entry) in (0..).zip(model) {
                    prop_assert_eq!(dense.get(&AccountNumber::new(key)), entry);
                    prop_assert_eq!(Table::get(&hashed, &key), entry);
                }
                let held = model.iter().filter(|entry| **entry != 0).count();
                prop_assert_eq!(hashed.len(), held);
                let is_empty = Table::<AccountNumber, _>::is_empty(&dense);
                prop_assert_eq!((is_empty, Table::is_empty(&hashed)), (held == 0, held == 0));
            }
        }
    }
}
