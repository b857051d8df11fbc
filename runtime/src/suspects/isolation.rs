//! Who executes strangers' code in this process: many at once, or one alone.

use crate::client::Client;
use crate::flow::Flow;
use offload_policy::{FairQueue, QueueLimits};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::{Notify, OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock, oneshot};
use tokio::time::{Instant, sleep_until};

/// What an execution holds until it has ended.
pub enum Permit {
    /// Others may be under way.
    Shared {
        /// Held while it is under way.
        _inside: OwnedRwLockReadGuard<()>,
    },
    /// No other is.
    Alone(Alone),
}

/// Keeps executions apart.
///
/// While one waits to be alone nothing begins, and what is under way ends. So that many of them, one after the other,
/// do not stop everything else, each is followed by as much time for the others as it took from them.
///
/// What has crashed the process alone before comes last: after all others, and not before the process has lived for
/// [`QUIET`].
pub struct Isolation {
    inside: Arc<RwLock<()>>,
    tokens: Mutex<TokenQueue>,
    reopened: Notify,
    /// The end of [`QUIET`].
    quiet: Instant,
}

/// For how long a process has to have lived before it tries again what has crashed one alone. A process that somebody
/// kills again and again, or that something else crashes, takes down whatever runs then, and the same again if that is
/// always the first to be tried: it would be found guilty by chance.
pub const QUIET: Duration = Duration::from_secs(5);

/// One execution at a time is alone, or waits for the others to end.
struct TokenQueue {
    /// Those that wait for their token, fair between clients.
    waiting: FairQueue<Flow, oneshot::Sender<Token>>,
    /// The same of those that have crashed the process alone.
    last: FairQueue<Flow, oneshot::Sender<Token>>,
    taken: bool,
    /// Until then the time is the others'.
    next: Instant,
}

/// The one token; given on when dropped.
struct Token(Arc<Isolation>);

/// The permit of an execution that is alone, or waits for the others to end.
pub struct Alone {
    since: Instant,
    inside: Option<OwnedRwLockWriteGuard<()>>,
    token: Token,
}

impl Isolation {
    /// Nothing is under way, in a process that is to live for `quiet` before it tries again what has crashed one.
    pub fn new(quiet: Duration) -> Arc<Isolation> {
        // Admission has counted whoever waits here, so the queues need no bound of their own.
        let (waiting, last) = (FairQueue::new(QueueLimits::NONE), FairQueue::new(QueueLimits::NONE));
        let now = Instant::now();
        let tokens = TokenQueue { waiting, last, taken: false, next: now };
        Arc::new(Isolation {
            inside: Arc::default(),
            tokens: Mutex::new(tokens),
            reopened: Notify::new(),
            quiet: now + quiet,
        })
    }

    /// A permit to begin beside others, unless one is alone, or waits for the others to end.
    pub fn try_share(&self) -> Option<Permit> {
        let inside = self.inside.clone().try_read_owned().ok()?;
        Some(Permit::Shared { _inside: inside })
    }

    /// Waits for a permit to begin beside others.
    pub async fn share(&self) -> Permit {
        Permit::Shared { _inside: self.inside.clone().read_owned().await }
    }

    /// Waits until nothing else is under way; for one that has crashed the process alone, until it is its turn.
    /// `None` if it need not be alone any more when it could.
    pub async fn alone(
        self: &Arc<Self>,
        client: &Client,
        has_crashed: bool,
        must_be: impl Fn() -> bool,
    ) -> Option<Permit> {
        if has_crashed && self.quiet > Instant::now() {
            sleep_until(self.quiet).await;
        }
        let token = self.acquire_token(client, has_crashed).await;
        let next = self.tokens().next;
        if next > Instant::now() {
            sleep_until(next).await;
        }
        if !must_be() {
            return None;
        }
        // Before the wait: if that is given up, those who were held back have to be told.
        let mut alone = Alone { since: Instant::now(), inside: None, token };
        alone.inside = Some(self.inside.clone().write_owned().await);
        Some(Permit::Alone(alone))
    }

    /// Returns when one that was alone, or waited to be, is done, and others may begin.
    pub async fn reopened(&self) {
        self.reopened.notified().await;
    }

    /// Whether a panic has left the queue in disorder.
    pub fn is_torn(&self) -> bool {
        self.tokens.is_poisoned()
    }

    async fn acquire_token(self: &Arc<Self>, client: &Client, has_crashed: bool) -> Token {
        let (sender, receiver) = oneshot::channel();
        {
            let mut tokens = self.tokens();
            let queue = if has_crashed { &mut tokens.last } else { &mut tokens.waiting };
            let pushed = queue.push(client.flow_key(), sender, None);
            assert!(pushed.is_ok(), "an unbounded queue has room");
        }
        self.pass_token();
        receiver.await.expect("a queued sender is only dropped by sending")
    }

    /// Passes the token to the next, if nobody has it.
    fn pass_token(self: &Arc<Self>) {
        let sender = {
            let mut tokens = self.tokens();
            if tokens.taken {
                return;
            }
            let sender = loop {
                let next = tokens.waiting.pop().or_else(|| tokens.last.pop());
                let Some((_, sender)) = next else { return };
                // Whoever has stopped waiting is passed over.
                if !sender.is_closed() {
                    break sender;
                }
            };
            tokens.taken = true;
            sender
        };
        // One that stops waiting in this moment gives it on: the failed send drops it.
        let _ = sender.send(Token(self.clone()));
    }

    fn tokens(&self) -> MutexGuard<'_, TokenQueue> {
        self.tokens.lock().expect("no panic while the lock is held")
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        self.0.tokens().taken = false;
        self.0.pass_token();
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        let Token(isolation) = &self.token;
        isolation.tokens().next = Instant::now() + self.since.elapsed();
        self.inside = None;
        isolation.reopened.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::{Future, poll_fn};
    use std::pin::{Pin, pin};
    use std::task::Poll;

    fn client(flow: &str) -> Client {
        Client { principal: None, flow: flow.into(), account: flow.into(), web: false }
    }

    /// Polls once.
    async fn now<T>(mut future: Pin<&mut impl Future<Output = T>>) -> Option<T> {
        poll_fn(|context| match future.as_mut().poll(context) {
            Poll::Ready(value) => Poll::Ready(Some(value)),
            Poll::Pending => Poll::Ready(None),
        })
        .await
    }

    #[tokio::test]
    async fn one_that_waits_to_be_alone_lets_nothing_begin_until_it_is_done() {
        let isolation = Isolation::new(Duration::ZERO);
        let (first, second) = (isolation.try_share().unwrap(), isolation.try_share().unwrap());
        let a = client("a");
        let mut alone = pin!(isolation.alone(&a, false, || true));
        assert!(now(alone.as_mut()).await.is_none());
        let mut load = pin!(isolation.share());
        assert!(isolation.try_share().is_none() && now(load.as_mut()).await.is_none());
        drop(first);
        assert!(now(alone.as_mut()).await.is_none(), "one is still under way");
        drop(second);
        let alone = alone.await.unwrap();
        assert!(isolation.try_share().is_none() && now(load.as_mut()).await.is_none());
        drop(alone);
        isolation.reopened().await;
        load.await;
        assert!(isolation.try_share().is_some());
    }

    #[tokio::test]
    async fn one_that_stops_waiting_blocks_nobody() {
        let isolation = Isolation::new(Duration::ZERO);
        let _first = isolation.try_share().unwrap();
        {
            let a = client("a");
            let mut alone = pin!(isolation.alone(&a, false, || true));
            assert!(now(alone.as_mut()).await.is_none());
            assert!(isolation.try_share().is_none());
        }
        isolation.reopened().await;
        assert!(isolation.try_share().is_some());
    }

    #[tokio::test]
    async fn after_it_the_others_have_as_much_time_as_it_took() {
        let isolation = Isolation::new(Duration::ZERO);
        let alone = isolation.alone(&client("a"), false, || true).await.unwrap();
        let begun = Instant::now();
        std::thread::sleep(Duration::from_millis(20));
        drop(alone);
        let taken = begun.elapsed();
        let (ended, b) = (Instant::now(), client("b"));
        let mut second = pin!(isolation.alone(&b, false, || true));
        assert!(now(second.as_mut()).await.is_none());
        assert!(isolation.try_share().is_some(), "the time is the others'");
        second.await.unwrap();
        assert!(ended.elapsed() >= taken - Duration::from_millis(1), "{:?}", ended.elapsed());
    }

    #[tokio::test]
    async fn turns_are_fair_between_clients_and_whoever_has_gone_has_none() {
        let isolation = Isolation::new(Duration::ZERO);
        let (many, other, gone) = (client("many"), client("other"), client("gone"));
        let first = isolation.alone(&many, false, || true).await.unwrap();
        let mut second = pin!(isolation.alone(&many, false, || true));
        let mut third = pin!(isolation.alone(&many, false, || true));
        assert!(now(second.as_mut()).await.is_none() && now(third.as_mut()).await.is_none());
        assert!(now(pin!(isolation.alone(&gone, false, || true))).await.is_none());
        let mut others = pin!(isolation.alone(&other, false, || true));
        assert!(now(others.as_mut()).await.is_none());
        drop(first);
        let second = second.await.unwrap();
        drop(second);
        let others = others.await.unwrap();
        assert!(now(third.as_mut()).await.is_none());
        drop(others);
        third.await.unwrap();
    }

    #[tokio::test]
    async fn whoever_need_not_be_alone_any_more_when_its_turn_comes_is_told() {
        let isolation = Isolation::new(Duration::ZERO);
        assert!(isolation.alone(&client("a"), false, || false).await.is_none());
        assert!(isolation.try_share().is_some());
    }

    #[tokio::test]
    async fn one_that_has_crashed_the_process_comes_after_all_others() {
        let isolation = Isolation::new(Duration::ZERO);
        let (a, b) = (client("a"), client("b"));
        let first = isolation.alone(&a, false, || true).await.unwrap();
        let mut guilty = pin!(isolation.alone(&a, true, || true));
        assert!(now(guilty.as_mut()).await.is_none());
        let mut second = pin!(isolation.alone(&b, false, || true));
        let mut third = pin!(isolation.alone(&b, false, || true));
        assert!(now(second.as_mut()).await.is_none() && now(third.as_mut()).await.is_none());
        drop(first);
        drop(second.await.unwrap());
        assert!(now(guilty.as_mut()).await.is_none());
        drop(third.await.unwrap());
        guilty.await.unwrap();
    }

    #[tokio::test]
    async fn one_that_has_crashed_the_process_is_not_tried_before_the_process_has_lived_for_a_time() {
        let quiet = Duration::from_millis(50);
        let (begun, isolation) = (Instant::now(), Isolation::new(quiet));
        let a = client("a");
        let mut guilty = pin!(isolation.alone(&a, true, || true));
        assert!(now(guilty.as_mut()).await.is_none());
        assert!(isolation.try_share().is_some(), "it holds up nobody meanwhile");
        drop(isolation.alone(&a, false, || true).await.unwrap());
        drop(guilty.await.unwrap());
        assert!(begun.elapsed() >= quiet);
    }
}
