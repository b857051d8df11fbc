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
    type Flows<V>: Table<Self, V>;

    /// A table by account.
    type Accounts<V>: Table<Self::Account, V>;

    /// Who pays for this flow.
    fn paid_by(&self) -> &Self::Account;
}

impl<K: FlowKey> Counted for K {
    type Account = <K as FlowKey>::Account;
    type Flows<V> = KeyMap<K, V>;
    type Accounts<V> = KeyMap<<K as FlowKey>::Account, V>;

    fn paid_by(&self) -> &<K as FlowKey>::Account {
        self.account()
    }
}

/// A map whose memory follows what is in it.
pub trait Table<K, V>: Default {
    /// Keys that are in it.
    fn len(&self) -> usize;

    /// Whether nothing is in it.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What is kept for a key.
    fn get(&self, key: &K) -> Option<&V>;

    /// The same, to be changed.
    fn get_mut(&mut self, key: &K) -> Option<&mut V>;

    /// Keeps this for a key.
    fn insert(&mut self, key: K, value: V);

    /// Forgets a key.
    fn remove(&mut self, key: &K);

    /// Keys that memory is held for.
    #[cfg(test)]
    fn capacity(&self) -> usize;
}

impl<K: Eq + Hash, V> Table<K, V> for KeyMap<K, V> {
    fn len(&self) -> usize {
        self.len()
    }

    fn get(&self, key: &K) -> Option<&V> {
        self.get(key)
    }

    fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.get_mut(key)
    }

    fn insert(&mut self, key: K, value: V) {
        self.insert(key, value);
    }

    fn remove(&mut self, key: &K) {
        self.remove(key);
    }

    #[cfg(test)]
    fn capacity(&self) -> usize {
        self.capacity()
    }
}

/// A number that indexes an array: given out again once it is free, so that it is small.
pub trait Number: Copy {
    /// Where what is kept for it is.
    fn index(self) -> usize;
}

/// Once it is empty, a table keeps room for this many numbers and gives the rest back.
const KEPT_NUMBERS: usize = 256;

/// A table by numbers that are small.
#[derive(Debug)]
pub struct Dense<V> {
    values: Vec<Option<V>>,
    len: usize,
}

impl<V> Default for Dense<V> {
    fn default() -> Self {
        Self { values: Vec::new(), len: 0 }
    }
}

impl<K: Number, V> Table<K, V> for Dense<V> {
    fn len(&self) -> usize {
        self.len
    }

    #[inline]
    fn get(&self, key: &K) -> Option<&V> {
        self.values.get(key.index())?.as_ref()
    }

    #[inline]
    fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.values.get_mut(key.index())?.as_mut()
    }

    #[inline]
    fn insert(&mut self, key: K, value: V) {
        let index = key.index();
        if index >= self.values.len() {
            self.values.resize_with(index + 1, || None);
        }
        self.len += usize::from(self.values[index].replace(value).is_none());
    }

    #[inline]
    fn remove(&mut self, key: &K) {
        let Some(value) = self.values.get_mut(key.index()) else { return };
        self.len -= usize::from(value.take().is_some());
        if self.len == 0 && self.values.len() > KEPT_NUMBERS {
            *self = Self::default();
        }
    }

    #[cfg(test)]
    fn capacity(&self) -> usize {
        self.values.capacity()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::AccountNumber;
    use proptest::prelude::*;

    #[test]
    fn an_emptied_table_gives_its_memory_back() {
        let mut table = Dense::default();
        let numbers = || (0..10_000).map(AccountNumber::new);
        numbers().for_each(|number| table.insert(number, ()));
        numbers().for_each(|number| table.remove(&number));
        assert_eq!((Table::<AccountNumber, ()>::capacity(&table), table.len), (0, 0));
    }

    proptest! {
        /// Both tables keep what the other one keeps.
        #[test]
        fn tables_are_alike(steps in prop::collection::vec((0..3u8, 0..9u32), 0..200)) {
            let (mut dense, mut hashed) = (Dense::default(), KeyMap::new());
            for (value, (step, key)) in steps.into_iter().enumerate() {
                let number = AccountNumber::new(key);
                if step == 0 {
                    dense.remove(&number);
                    hashed.remove(&key);
                } else {
                    dense.insert(number, value);
                    hashed.insert(key, value);
                }
                for key in 0..10 {
                    prop_assert_eq!(dense.get(&AccountNumber::new(key)), hashed.get(&key));
                }
                prop_assert_eq!(dense.len, hashed.len());
            }
        }
    }
}
