//! Retained messages that a session's subscriptions are still to get: where each of them is in the store.
//!
//! They are not copied when a client subscribes, but taken from the store as its queue has room, one subscription after
//! the other. There are no more cursors than subscriptions.

use std::{collections::BTreeMap, sync::Arc};

use crate::packet::subscribe::SubscriptionOptions;

/// How far one subscription has come.
pub(crate) struct Cursor {
    pub filter: Arc<str>,
    pub options: SubscriptionOptions,
    /// The last that was kept when it subscribed: what came later, it gets as it is published.
    pub until: u64,
    /// The last topic that it was past.
    pub after: Option<Arc<str>>,
}

/// Cursors in the order of their subscriptions, by number.
#[derive(Default)]
pub(crate) struct Backlog {
    cursors: BTreeMap<u64, Cursor>,
    last: u64,
}

impl Backlog {
    pub fn is_empty(&self) -> bool {
        self.cursors.is_empty()
    }

    /// Adds a cursor; returns its number.
    pub fn add(&mut self, cursor: Cursor) -> u64 {
        self.last += 1;
        self.cursors.insert(self.last, cursor);
        self.last
    }

    /// The subscription is no more, or starts again.
    pub fn remove(&mut self, number: u64) {
        self.cursors.remove(&number);
    }

    /// The next to be served.
    pub fn first(&mut self) -> Option<&mut Cursor> {
        self.cursors.first_entry().map(std::collections::btree_map::OccupiedEntry::into_mut)
    }

    /// The first has come to its end.
    pub fn finish_first(&mut self) -> Option<Cursor> {
        self.cursors.pop_first().map(|(_, cursor)| cursor)
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Cursor> {
        self.cursors.values_mut()
    }
}
