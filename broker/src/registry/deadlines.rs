//! When sessions without a connection have to be looked at: their will is due or they end.

use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
};

use parking_lot::Mutex;
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use crate::session::{Session, State};

/// At most one entry a session.
#[derive(Default)]
pub(crate) struct Deadlines {
    due: Mutex<BTreeMap<(Instant, u64), Weak<Session>>>,
    earlier: Notify,
}

impl Deadlines {
    /// Enters a locked session anew, or takes it out when nothing is to come.
    pub fn set(&self, session: &Arc<Session>, state: &mut State) {
        let next = [state.will_due, state.expires].into_iter().flatten().min();
        let mut due = self.due.lock();
        if let Some(former) = state.deadline.take() {
            due.remove(&(former, session.serial));
        }
        if let Some(at) = next {
            state.deadline = Some(at);
            let first = due.first_key_value().is_none_or(|((first, _), _)| at < *first);
            due.insert((at, session.serial), Arc::downgrade(session));
            if first {
                self.earlier.notify_one();
            }
        }
    }

    /// The listener that waited here waits no longer: another has to look at what comes next.
    pub fn hand_over(&self) {
        self.earlier.notify_one();
    }

    /// Waits for the next session to be due, for ever if there is none.
    pub async fn next(&self) -> Arc<Session> {
        loop {
            let first = self.due.lock().first_key_value().map(|((at, _), _)| *at);
            let Some(at) = first else {
                self.earlier.notified().await;
                continue;
            };
            tokio::select! {
                () = sleep_until(at) => if let Some(session) = self.take_due() { return session },
                () = self.earlier.notified() => {}
            }
        }
    }

    fn take_due(&self) -> Option<Arc<Session>> {
        let mut due = self.due.lock();
        let first = due.first_entry()?;
        if first.key().0 > Instant::now() {
            return None;
        }
        first.remove().upgrade()
    }
}
