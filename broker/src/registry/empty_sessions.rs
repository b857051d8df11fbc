//! Empty sessions: without a connection, a subscription, a message or a will. When there are too many sessions, those
//! make room for new ones, the one that has been without a connection for longest first.

use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
};

use parking_lot::Mutex;

use crate::session::{Session, State};

#[derive(Default)]
pub(crate) struct EmptySessions(Mutex<Queue>);

#[derive(Default)]
struct Queue {
    sessions: BTreeMap<u64, Weak<Session>>,
    last: u64,
}

impl EmptySessions {
    /// Adds a locked session that has lost its connection.
    pub fn add(&self, session: &Arc<Session>, state: &mut State) {
        let queue = &mut *self.0.lock();
        queue.last += 1;
        queue.sessions.insert(queue.last, Arc::downgrade(session));
        state.empty_number = Some(queue.last);
    }

    /// Removes a locked session, which has a connection again or ends.
    pub fn remove(&self, state: &mut State) {
        if let Some(number) = state.empty_number.take() {
            self.0.lock().sessions.remove(&number);
        }
    }

    /// The session that was added first; it is still to be removed.
    pub fn oldest(&self) -> Option<Arc<Session>> {
        self.0.lock().sessions.values().next()?.upgrade()
    }
}
