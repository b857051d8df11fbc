//! The permits of compilers and of sandboxes: [`Permits`] decides, here is who waits and who is told.

use crate::client::Client;
use crate::flow::Flow;
use offload_policy::{Change, PermitId, PermitLimits, Permits, Shares, Stage, Time, Urgency};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};

/// What of the jobs that have begun one client and one account may have: while a user has a quarter of them, and all
/// clients of an address half, what they began delays nobody else.
pub const SHARES: Shares = Shares { flow: 25, account: 50 };

/// Waiters that have given up and are kept before the queue is searched for them.
const MOST_GONE: usize = 64;

/// A semaphore for what is scarce and takes long, fair between accounts and the flows of each.
pub struct FairSemaphore(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    /// The policy's time counts from here.
    epoch: Instant,
}

struct State {
    permits: Permits<Flow, oneshot::Sender<Permit>>,
    /// How far each permit is served, for who has it.
    stages: HashMap<PermitId, watch::Sender<Stage>>,
    /// Those who have given up waiting and may still be in the queue.
    gone: usize,
    /// When the policy is to be asked again by itself, and a task waits for that.
    alarm: Option<Time>,
}

/// Leave to compile one module, or to build or run one program; given back when dropped.
pub struct Permit {
    semaphore: Arc<Shared>,
    id: PermitId,
    stage: watch::Receiver<Stage>,
    ended: bool,
}

impl FairSemaphore {
    /// A semaphore within these limits.
    pub fn new(limits: PermitLimits) -> FairSemaphore {
        let state = State { permits: Permits::new(limits), stages: HashMap::new(), gone: 0, alarm: None };
        FairSemaphore(Arc::new(Shared { state: Mutex::new(state), epoch: Instant::now() }))
    }

    /// Waits for a permit. Admission has counted whoever waits here.
    pub async fn acquire(&self, client: &Client, urgency: Urgency) -> Permit {
        let (sender, receiver) = oneshot::channel();
        self.0.lock().permits.request(client.flow_key(), sender, urgency);
        self.0.settle();
        let waiting = Waiting(&self.0);
        let permit = receiver.await.expect("a queued sender is only dropped by sending");
        std::mem::forget(waiting);
        permit
    }
}

/// Somebody in the queue; dropped when it gives up.
struct Waiting<'t>(&'t Shared);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.gone += 1;
        if state.gone > MOST_GONE.max(state.permits.waiting() / 2) {
            state.permits.retain_waiting(|waiter| !waiter.is_closed());
            state.gone = 0;
        }
    }
}

impl Permit {
    /// How far it is served, as that changes.
    pub fn stage(&self) -> watch::Receiver<Stage> {
        self.stage.clone()
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if !self.ended {
            self.semaphore.lock().end(self.id);
            self.semaphore.settle();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic while the lock is held")
    }

    /// Does what the policy wants done now, and sees to it that it is asked again in time.
    fn settle(self: &Arc<Self>) {
        let mut state = self.lock();
        loop {
            let now = self.epoch.elapsed().into();
            let mut given = Vec::new();
            for change in state.permits.advance(now) {
                match change {
                    Change::Granted(id, waiter, stage) => {
                        let (sender, stage) = watch::channel(stage);
                        state.stages.insert(id, sender);
                        given.push((waiter, Permit { semaphore: self.clone(), id, stage, ended: false }));
                    }
                    Change::Moved(id, stage) => {
                        state.stages[&id].send_replace(stage);
                    }
                }
            }
            // Whoever has stopped waiting takes no permit: it is the next one's.
            let mut untaken = false;
            for (waiter, permit) in given {
                if let Err(mut permit) = waiter.send(permit) {
                    permit.ended = true;
                    state.end(permit.id);
                    untaken = true;
                }
            }
            if !untaken {
                self.set_alarm(&mut state, now);
                return;
            }
        }
    }

    fn set_alarm(self: &Arc<Self>, state: &mut State, now: Time) {
        let Some(due) = state.permits.next_deadline(now) else { return };
        if state.alarm.is_some_and(|alarm| alarm <= due) {
            return;
        }
        // Without a runtime, at the end of all, nobody waits.
        let Ok(runtime) = Handle::try_current() else { return };
        state.alarm = Some(due);
        let semaphore = Arc::downgrade(self);
        let at = self.epoch + Duration::from(due);
        runtime.spawn(async move {
            tokio::time::sleep_until(at.into()).await;
            if let Some(semaphore) = semaphore.upgrade() {
                semaphore.lock().alarm.take_if(|alarm| *alarm == due);
                semaphore.settle();
            }
        });
    }
}

impl State {
    fn end(&mut self, id: PermitId) {
        self.permits.release(id);
        self.stages.remove(&id);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Longer than any test.
    const FOR_EVER: Time = Time::from_secs(3600);

    fn semaphore(concurrency: usize, quantum: Time) -> FairSemaphore {
        let round = Some(Time::from_secs(1));
        FairSemaphore::new(PermitLimits { concurrency, quantum, slots: 8, shares: SHARES, round })
    }

    fn client(flow: &str) -> Client {
        Client { principal: None, flow: flow.into(), account: flow.into(), web: false }
    }

    #[tokio::test]
    async fn one_client_leaves_a_permit_for_the_others() {
        let semaphore = semaphore(2, FOR_EVER);
        let bomber = client("bomber");
        let first = semaphore.acquire(&bomber, Urgency::Awaited).await;
        let mut second = Box::pin(semaphore.acquire(&bomber, Urgency::Awaited));
        assert!(is_waiting(&mut second).await);
        let other = semaphore.acquire(&client("honest"), Urgency::Awaited).await;
        drop(other);
        assert!(is_waiting(&mut second).await);
        drop(first);
        second.await;
    }

    #[tokio::test]
    async fn a_long_job_makes_room_for_the_next_and_goes_on_behind_it() {
        let semaphore = semaphore(1, Time::from_millis(20));
        let long = semaphore.acquire(&client("long"), Urgency::Awaited).await;
        let mut stage = long.stage();
        assert_eq!(*stage.borrow_and_update(), Stage::Full);
        // Given though the other one has not ended.
        let short = semaphore.acquire(&client("short"), Urgency::Awaited).await;
        assert_eq!(*short.stage().borrow(), Stage::Full);
        stage.changed().await.unwrap();
        assert_eq!(*stage.borrow_and_update(), Stage::Demoted);
    }

    #[tokio::test]
    async fn the_background_stops_when_somebody_waits() {
        let semaphore = semaphore(2, FOR_EVER);
        let background = semaphore.acquire(&client("any"), Urgency::Background).await;
        let mut stage = background.stage();
        assert_eq!(*stage.borrow_and_update(), Stage::Demoted);
        let awaited = semaphore.acquire(&client("any"), Urgency::Awaited).await;
        assert_eq!(*stage.borrow_and_update(), Stage::Stopped, "by the time that the other one begins");
        drop(awaited);
        assert_eq!(*stage.borrow_and_update(), Stage::Demoted);
    }

    #[tokio::test]
    async fn whoever_stops_waiting_blocks_nobody() {
        let semaphore = semaphore(1, FOR_EVER);
        let first = semaphore.acquire(&client("a"), Urgency::Awaited).await;
        let impatient = client("b");
        for _ in 0..10_000 {
            let mut gone = Box::pin(semaphore.acquire(&impatient, Urgency::Awaited));
            assert!(is_waiting(&mut gone).await);
        }
        assert!(semaphore.0.lock().permits.waiting() <= MOST_GONE + 1, "what has gone is forgotten");
        drop(first);
        semaphore.acquire(&client("c"), Urgency::Awaited).await;
    }

    /// Whether a future, polled once, is still waiting.
    pub(crate) async fn is_waiting<F: Future + Unpin>(future: &mut F) -> bool {
        std::future::poll_fn(|cx| {
            std::task::Poll::Ready(std::pin::Pin::new(&mut *future).poll(cx).is_pending())
        })
        .await
    }
}
