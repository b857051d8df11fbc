//! Sessions that are away and hold nothing: neither subscriptions nor messages, nor a will. When there are too many
//! sessions, those make room for new ones, whoever was first to go away first.

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
    /// Adds a locked session that goes away.
    pub fn add(&self, session: &Arc<Session>, state: &mut State) {
        let queue = &mut *self.0.lock();
        queue.last += 1;
        queue.sessions.insert(queue.last, Arc::downgrade(session));
        state.vacant = Some(queue.last);
    }

    /// Takes out a locked session, which is back or ends.
    pub fn remove(&self, state: &mut State) {
        if let Some(number) = state.vacant.take() {
            self.0.lock().sessions.remove(&number);
        }
    }

    /// The one that has been away longest; it is still to be taken out.
    pub fn oldest(&self) -> Option<Arc<Session>> {
        self.0.lock().sessions.values().next()?.upgrade()
    }
}
