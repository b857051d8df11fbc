//! Which keys have been given a value; all others have their defaults, or what follows from the values that were given.

use std::collections::BTreeSet;

/// The keys that were given, by their paths: `limits.memory`, `program[1].name`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Given(BTreeSet<String>);

impl Given {
    /// Whether `key` was given.
    pub fn has(&self, key: &str) -> bool {
        self.0.contains(key)
    }

    /// All of them, in the order of their names.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// Whether any key of `table` was given.
    pub(super) fn has_any(&self, table: &str) -> bool {
        self.0.iter().any(|key| key.strip_prefix(table).is_some_and(|rest| rest.starts_with('.')))
    }

    /// From now on `key` is given.
    pub(super) fn insert(&mut self, key: &str) {
        self.0.insert(key.to_owned());
    }

    /// Forgets the keys that do not fulfil the condition.
    pub(super) fn retain(&mut self, condition: impl FnMut(&String) -> bool) {
        self.0.retain(condition);
    }
}

impl FromIterator<String> for Given {
    fn from_iter<T: IntoIterator<Item = String>>(keys: T) -> Given {
        Given(keys.into_iter().collect())
    }
}
