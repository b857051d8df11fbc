//! Whose password is hashed next: a bounded number at a time, fair by source address and by user name.
//!
//! Whoever waits here is nobody yet. It is told apart by the address that it comes from and by the name that it gives,
//! and can have many of either, so a permit counts for both: in each round an address has one permit, and a name has
//! one. An attempt's round is the later one of its address's and its name's; the earliest round is served first, and
//! within it whoever came first. Neither an address that tries many names nor a name that is tried from many addresses
//! keeps another's attempt waiting for more than the permits that are out.
//!
//! This is start-time fair queueing (P. Goyal, H. M. Vin, H. Cheng, SIGCOMM 1996) with equal costs and two keys. A full
//! queue drops from the longest lane (P. McKenney, "Stochastic Fairness Queueing", INFOCOM 1990).

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasher, Hash, RandomState};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::oneshot;

/// Most attempts that wait: about twice what one core hashes in the ten seconds that the broker waits for a CONNECT.
/// Who came after them would wait in vain.
pub(super) const MAX_WAITING: usize = 1024;

/// Hands out permits to compute a hash.
pub(super) struct HashingQueue(Arc<Mutex<State>>);

struct State {
    /// Permits that nobody has.
    free: usize,
    waiting: Waiting<oneshot::Sender<Permit>>,
}

impl HashingQueue {
    /// A queue for this number of permits.
    pub fn new(permits: usize) -> HashingQueue {
        HashingQueue(Arc::new(Mutex::new(State { free: permits, waiting: Waiting::new() })))
    }

    /// Waits for a permit. `None` when too many wait. Dropping the future leaves the queue.
    pub async fn permit(&self, source: IpAddr, name: &str) -> Option<Permit> {
        let (sender, permit) = oneshot::channel();
        let arrival = lock(&self.0).waiting.push(source, name, sender)?;
        let _queued = Queued { queue: &self.0, arrival };
        hand_out(&self.0);
        // The sender is dropped when others need the place more.
        permit.await.ok()
    }
}

/// Leave to compute one hash; given back when dropped.
pub(super) struct Permit(Arc<Mutex<State>>);

impl Drop for Permit {
    fn drop(&mut self) {
        lock(&self.0).free += 1;
        hand_out(&self.0);
    }
}

/// An attempt in the queue, until it has its permit or gives up.
struct Queued<'a> {
    queue: &'a Mutex<State>,
    arrival: u64,
}

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        lock(self.queue).waiting.remove(self.arrival);
    }
}

fn lock(queue: &Mutex<State>) -> MutexGuard<'_, State> {
    queue.lock().expect("no panic while the lock is held")
}

/// Gives free permits to those who wait.
fn hand_out(queue: &Arc<Mutex<State>>) {
    loop {
        let sender = {
            let mut state = lock(queue);
            if state.free == 0 {
                return;
            }
            let Some(sender) = state.waiting.pop() else { return };
            state.free -= 1;
            sender
        };
        // Whoever has stopped waiting gives the permit straight back: the failed send drops it.
        let _ = sender.send(Permit(queue.clone()));
    }
}

/// The attempts that wait, and which one is next.
struct Waiting<T> {
    /// In order of arrival; at most [`MAX_WAITING`], so that looking through all of them costs nothing beside a hash.
    attempts: Vec<Attempt<T>>,
    arrivals: u64,
    /// The round that is being served; newcomers join it.
    round: u64,
    served_in_round: usize,
    sources: Lanes<IpAddr>,
    /// By their hashes: a name can be as long as a client likes.
    names: Lanes<u64>,
    hasher: RandomState,
}

struct Attempt<T> {
    arrival: u64,
    source: IpAddr,
    name: u64,
    item: T,
}

impl<T> Waiting<T> {
    fn new() -> Waiting<T> {
        Waiting {
            attempts: Vec::new(),
            arrivals: 0,
            round: 0,
            served_in_round: 0,
            sources: Lanes::default(),
            names: Lanes::default(),
            hasher: RandomState::new(),
        }
    }

    /// Puts an attempt in and returns its number. Where the queue is full, the last attempt of the most crowded address
    /// or name is dropped for it; `None` where that is this one.
    fn push(&mut self, source: IpAddr, name: &str, item: T) -> Option<u64> {
        let name = self.hasher.hash_one(name);
        if self.attempts.len() >= MAX_WAITING {
            let crowd = |source, name| self.sources.waiting(source).max(self.names.waiting(name));
            let crowds = self.attempts.iter().map(|one| (crowd(one.source, one.name), one.arrival));
            let (largest, last) = crowds.max()?;
            if crowd(source, name) + 1 >= largest {
                return None;
            }
            self.remove(last);
        }
        self.arrivals += 1;
        self.sources.enter(source);
        self.names.enter(name);
        self.attempts.push(Attempt { arrival: self.arrivals, source, name, item });
        Some(self.arrivals)
    }

    /// Takes the attempt that is next.
    fn pop(&mut self) -> Option<T> {
        let turn = |one: &Attempt<T>| {
            let rounds = [self.sources.round(one.source), self.names.round(one.name)];
            let [source, name] = rounds.map(|round| round.max(self.round));
            // In the same round, one of whose keys has had no permit comes before one of whose both have.
            (source.max(name), source.min(name), one.arrival)
        };
        let (round, _, arrival) = self.attempts.iter().map(turn).min()?;
        self.served_in_round += 1;
        // A round ends however many newcomers join it: nobody waits for ever, and few lanes are remembered.
        let overlong = self.served_in_round > MAX_WAITING;
        let round = round.max(self.round + u64::from(overlong));
        if round > self.round {
            self.round = round;
            self.served_in_round = 1;
            self.sources.forget_idle(round);
            self.names.forget_idle(round);
        }
        let index = self.index_of(arrival)?;
        let Attempt { source, name, .. } = self.attempts[index];
        self.sources.served(source, round);
        self.names.served(name, round);
        self.remove(arrival)
    }

    /// Takes this attempt out, if it is there.
    fn remove(&mut self, arrival: u64) -> Option<T> {
        let index = self.index_of(arrival)?;
        let Attempt { source, name, item, .. } = self.attempts.remove(index);
        self.sources.leave(source, self.round);
        self.names.leave(name, self.round);
        Some(item)
    }

    fn index_of(&self, arrival: u64) -> Option<usize> {
        self.attempts.binary_search_by_key(&arrival, |one| one.arrival).ok()
    }
}

/// Addresses, or names, that have something waiting or have had a permit in this round.
#[derive(Debug)]
struct Lanes<K>(HashMap<K, Lane>);

#[derive(Clone, Copy, Debug, Default)]
struct Lane {
    /// The first round in which it may have its next permit.
    round: u64,
    waiting: usize,
}

impl<K> Default for Lanes<K> {
    fn default() -> Lanes<K> {
        Lanes(HashMap::new())
    }
}

impl<K: Eq + Hash> Lanes<K> {
    fn of(&self, key: K) -> Lane {
        self.0.get(&key).copied().unwrap_or_default()
    }

    fn round(&self, key: K) -> u64 {
        self.of(key).round
    }

    fn waiting(&self, key: K) -> usize {
        self.of(key).waiting
    }

    fn enter(&mut self, key: K) {
        self.0.entry(key).or_default().waiting += 1;
    }

    fn served(&mut self, key: K, round: u64) {
        self.0.entry(key).or_default().round = round + 1;
    }

    fn leave(&mut self, key: K, round: u64) {
        if let Entry::Occupied(mut lane) = self.0.entry(key) {
            lane.get_mut().waiting -= 1;
            if lane.get().is_idle(round) {
                lane.remove();
            }
        }
    }

    fn forget_idle(&mut self, round: u64) {
        self.0.retain(|_, lane| !lane.is_idle(round));
    }
}

impl Lane {
    fn is_idle(&self, round: u64) -> bool {
        self.waiting == 0 && self.round <= round
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::pin::pin;
    use std::task::Poll;

    fn address(number: usize) -> IpAddr {
        IpAddr::from((number as u32).to_be_bytes())
    }

    const HOME: usize = usize::MAX >> 40;

    /// Takes out all that waits, in order.
    fn drained<T>(waiting: &mut Waiting<T>) -> Vec<T> {
        std::iter::from_fn(|| waiting.pop()).collect()
    }

    /// A queue in which an attempt of the attacker's has its permit, and these wait.
    fn attacked(attempts: impl Iterator<Item = (usize, String)>) -> Waiting<&'static str> {
        let mut waiting = Waiting::new();
        for (source, name) in attempts {
            waiting.push(address(source), &name, "attacker").unwrap();
        }
        assert_eq!(waiting.pop(), Some("attacker"));
        waiting
    }

    #[test]
    fn a_newcomer_comes_before_those_of_one_address_or_of_one_name() {
        let one_address_one_name = || attacked((0..200).map(|_| (1, "root".to_owned())));
        let one_address = || attacked((0..200).map(|n| (1, format!("guess{n}"))));
        let one_name = || attacked((0..200).map(|n| (n, "root".to_owned())));
        for mut waiting in [one_address_one_name(), one_address(), one_name()] {
            waiting.push(address(HOME), "device", "device").unwrap();
            assert_eq!(waiting.pop(), Some("device"));
            assert_eq!(drained(&mut waiting), ["attacker"; 199]);
        }
        // Behind the attacker's address, and with the attacked name.
        let mut waiting = one_address_one_name();
        waiting.push(address(1), "device", "device").unwrap();
        assert_eq!(waiting.pop(), Some("device"));
        let mut waiting = one_address_one_name();
        waiting.push(address(HOME), "root", "device").unwrap();
        assert_eq!(waiting.pop(), Some("device"));
    }

    #[test]
    fn one_that_comes_again_and_again_takes_turns_with_the_rest() {
        let mut waiting = attacked((0..100).map(|n| (1, format!("guess{n}"))));
        let mut order = Vec::new();
        for _ in 0..6 {
            waiting.push(address(HOME), "device", "device").unwrap();
            order.extend([waiting.pop().unwrap(), waiting.pop().unwrap()]);
        }
        assert_eq!(order.iter().filter(|who| **who == "device").count(), 6, "{order:?}");
    }

    #[test]
    fn attempts_of_the_same_kind_are_served_in_order_of_arrival() {
        let mut waiting = Waiting::new();
        for (number, who) in [(1, "a"), (2, "b"), (1, "c"), (2, "d"), (3, "e")] {
            waiting.push(address(number), who, who).unwrap();
        }
        assert_eq!(drained(&mut waiting), ["a", "b", "e", "c", "d"]);
    }

    #[test]
    fn nobody_is_overtaken_for_ever() {
        let mut waiting = attacked((0..2).map(|_| (1, "patient".to_owned())));
        // One more of the same address and name waits: for the next round, which newcomers keep from coming.
        let mut others = 0;
        for number in 2.. {
            waiting.push(address(number), &format!("newcomer {number}"), "newcomer").unwrap();
            if waiting.pop() == Some("attacker") {
                break;
            }
            others += 1;
        }
        assert_eq!(others, MAX_WAITING);
    }

    #[test]
    fn a_full_queue_drops_the_last_of_whoever_crowds_it() {
        let mut waiting = Waiting::new();
        waiting.push(address(HOME), "early", "early").unwrap();
        let first = waiting.push(address(1), "guess", "first").unwrap();
        for number in 2..MAX_WAITING {
            waiting.push(address(1), &format!("guess{number}"), "attacker").unwrap();
        }
        assert_eq!(waiting.push(address(1), "more", "attacker"), None);
        for (number, name) in [(2, "late"), (3, "later")] {
            assert!(waiting.push(address(number), name, "late").is_some());
            assert_eq!(waiting.attempts.len(), MAX_WAITING);
        }
        let order = drained(&mut waiting);
        assert_eq!(order[..4], ["early", "first", "late", "late"]);
        assert_eq!(order.len(), MAX_WAITING);
        assert!(waiting.remove(first).is_none());
    }

    #[test]
    fn what_is_over_is_forgotten() {
        let mut waiting = Waiting::new();
        for number in 0..100_000 {
            let arrival = waiting.push(address(number), &number.to_string(), ()).unwrap();
            if number % 2 == 0 {
                assert!(waiting.pop().is_some());
            } else {
                assert!(waiting.remove(arrival).is_some());
            }
        }
        assert!(waiting.sources.0.len() <= MAX_WAITING && waiting.names.0.len() <= MAX_WAITING);
    }

    /// What a future says without waiting.
    async fn at_once<T>(mut future: std::pin::Pin<&mut impl Future<Output = T>>) -> Option<T> {
        poll_fn(|context| {
            Poll::Ready(match future.as_mut().poll(context) {
                Poll::Ready(value) => Some(value),
                Poll::Pending => None,
            })
        })
        .await
    }

    #[tokio::test]
    async fn whoever_gives_up_leaves_the_queue() {
        let queue = HashingQueue::new(1);
        let first = queue.permit(address(1), "a").await;
        {
            let mut impatient = pin!(queue.permit(address(2), "b"));
            assert!(at_once(impatient.as_mut()).await.is_none());
            assert_eq!(lock(&queue.0).waiting.attempts.len(), 1);
        }
        assert_eq!(lock(&queue.0).waiting.attempts.len(), 0);
        let mut sent = pin!(queue.permit(address(3), "c"));
        assert!(at_once(sent.as_mut()).await.is_none());
        drop(first);
        assert_eq!(lock(&queue.0).free, 0, "it is on its way to who waits");
        let permit = at_once(sent.as_mut()).await;
        assert!(permit.is_some());
        drop(permit);
        assert_eq!(lock(&queue.0).free, 1);
    }

    #[tokio::test]
    async fn who_is_dropped_from_a_full_queue_is_told() {
        let queue = HashingQueue::new(0);
        let mut attackers: Vec<_> =
            (0..MAX_WAITING).map(|_| Box::pin(queue.permit(address(1), "root"))).collect();
        for attacker in &mut attackers {
            assert!(at_once(attacker.as_mut()).await.is_none());
        }
        let mut device = pin!(queue.permit(address(2), "device"));
        assert!(at_once(device.as_mut()).await.is_none(), "it waits");
        let last = attackers.last_mut().unwrap();
        assert!(matches!(at_once(last.as_mut()).await, Some(None)), "it makes room");
        assert!(matches!(at_once(pin!(queue.permit(address(1), "root"))).await, Some(None)));
    }
}
