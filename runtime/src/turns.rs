//! Whose module is compiled next: a bounded number at a time, fair between clients.

use crate::ingress::Client;
use offload_policy::{FairQueue, QueueLimits, Slots};
use std::sync::{Arc, Mutex};
use tokio::sync::oneshot;

/// The one "worker" whose slots are the turns.
const COMPILER: usize = 0;

/// Turns at the compiler. One client never holds all of them while there are at least two, so that its modules,
/// however long they take, do not keep another's waiting.
pub struct Turns(Arc<Mutex<State>>);

struct State {
    waiting: FairQueue<Arc<str>, oneshot::Sender<Turn>>,
    slots: Slots<Arc<str>>,
}

impl Turns {
    /// `concurrency` turns at a time.
    pub fn new(concurrency: usize) -> Turns {
        // Admission has counted whoever waits here, so the queue needs no bound of its own.
        let waiting = FairQueue::new(QueueLimits { per_key: usize::MAX, total: usize::MAX });
        let share = (concurrency.saturating_sub(1).max(1) * 100).div_ceil(concurrency);
        Turns(Arc::new(Mutex::new(State { waiting, slots: Slots::new(1, concurrency, share) })))
    }

    /// Waits for a turn.
    pub async fn take(&self, client: &Client) -> Turn {
        let (sender, receiver) = oneshot::channel();
        let pushed = self.lock().waiting.push(client.key().clone(), sender, None);
        assert!(pushed.is_ok(), "an unbounded queue has room");
        hand_out(&self.0);
        receiver.await.expect("a queued sender is only dropped by sending")
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().expect("no panic while the lock is held")
    }
}

/// Gives free turns to those who wait.
fn hand_out(turns: &Arc<Mutex<State>>) {
    loop {
        let (sender, turn) = {
            let mut state = turns.lock().expect("no panic while the lock is held");
            let State { waiting, slots } = &mut *state;
            if slots.free(COMPILER) == 0 {
                return;
            }
            let Some((key, sender)) = waiting.pop_where(|key, _| slots.may_start(key)) else { return };
            slots.try_acquire(COMPILER, &key).expect("a slot is free and within the quota");
            (sender, Turn { turns: turns.clone(), key })
        };
        // Whoever has stopped waiting gives the turn straight back: the failed send drops it.
        let _ = sender.send(turn);
    }
}

/// Leave to compile one module; given back when dropped.
pub struct Turn {
    turns: Arc<Mutex<State>>,
    key: Arc<str>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.turns.lock().expect("no panic while the lock is held").slots.release(COMPILER, &self.key);
        hand_out(&self.turns);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(flow: &str) -> Client {
        Client { principal: None, flow: flow.into(), account: flow.into(), web: false }
    }

    #[tokio::test]
    async fn one_client_leaves_a_turn_for_the_others() {
        let turns = Turns::new(2);
        let bomber = client("bomber");
        let first = turns.take(&bomber).await;
        let mut second = Box::pin(turns.take(&bomber));
        assert!(is_waiting(&mut second).await);
        let other = turns.take(&client("honest")).await;
        drop(other);
        assert!(is_waiting(&mut second).await);
        drop(first);
        second.await;
    }

    #[tokio::test]
    async fn whoever_stops_waiting_blocks_nobody() {
        let turns = Turns::new(1);
        let first = turns.take(&client("a")).await;
        let impatient = client("b");
        let mut gone = Box::pin(turns.take(&impatient));
        assert!(is_waiting(&mut gone).await);
        drop(gone);
        drop(first);
        turns.take(&client("c")).await;
    }

    /// Whether a future, polled once, is still waiting.
    async fn is_waiting<F: Future + Unpin>(future: &mut F) -> bool {
        std::future::poll_fn(|cx| {
            std::task::Poll::Ready(std::pin::Pin::new(&mut *future).poll(cx).is_pending())
        })
        .await
    }
}
