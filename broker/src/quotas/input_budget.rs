//! Memory for packets that have not come completely, in all and for each identity.
//!
//! Every connection may hold a little of its own. For a packet that is larger, memory is reserved by its declared
//! length before more of it is read, and given back when it is handled or its connection ends. So a connection that has
//! a [`Reservation`] can finish, and none waits for a packet that is half read. One that has none is not read from, and
//! waits: first in, first out within its identity, and round robin among identities.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::{
    config::Config,
    quotas::account::{Account, Held},
    stats::count,
};

pub(crate) struct InputBudget {
    /// Bytes for all.
    total: usize,
    /// Bytes for one identity.
    each: usize,
    /// What all hold; changed with `waiting` locked.
    held: Held,
    /// Identities of whose connections some wait, in the order in which they are served.
    waiting: Mutex<VecDeque<Waiting>>,
    /// Packets that had to wait.
    waits: AtomicU64,
}

impl InputBudget {
    pub fn new(config: &Config) -> Self {
        Self {
            total: config.max_input_bytes,
            each: config.max_input_bytes_per_identity.max(config.max_packet_size),
            held: Held::default(),
            waiting: Mutex::default(),
            waits: AtomicU64::new(0),
        }
    }

    /// Bytes that are set aside now.
    pub fn held(&self) -> usize {
        self.held.get()
    }

    /// Packets that had to wait for memory.
    pub fn waits(&self) -> u64 {
        self.waits.load(Relaxed)
    }

    /// Reserves memory for a packet of `bytes`, at most as many as there are in all. The reservation comes at once or
    /// later; a connection that does not want it any more drops what this returns.
    pub fn reserve(self: &Arc<Self>, account: &Arc<Account>, bytes: usize) -> oneshot::Receiver<Reservation> {
        let (sender, receiver) = oneshot::channel();
        let unwanted = {
            let waiting = &mut *self.waiting.lock();
            let at = waiting.iter().position(|one| Arc::ptr_eq(&one.account, account));
            let at = at.unwrap_or_else(|| {
                waiting.push_back(Waiting { account: account.clone(), packets: VecDeque::new() });
                waiting.len() - 1
            });
            let packets = &mut waiting[at].packets;
            // Those whose connections ended leave before the queue would grow.
            if packets.len() == packets.capacity() {
                packets.retain(|(_, sender)| !sender.is_closed());
            }
            packets.push_back((bytes, sender));
            self.hand_out(waiting)
        };
        drop(unwanted);
        if receiver.is_empty() {
            count(&self.waits);
        }
        receiver
    }

    fn give_back(self: &Arc<Self>, account: &Account, bytes: usize) {
        let unwanted = {
            let waiting = &mut *self.waiting.lock();
            self.held.subtract(bytes);
            account.input.subtract(bytes);
            self.hand_out(waiting)
        };
        drop(unwanted);
    }

    /// Gives memory to those that wait, round robin; returns the reservations that came too late, to be dropped when
    /// the lock is released.
    fn hand_out(self: &Arc<Self>, waiting: &mut VecDeque<Waiting>) -> Vec<Reservation> {
        let mut unwanted = Vec::new();
        let mut at = 0;
        while let Some(next) = waiting.get_mut(at) {
            while next.packets.front().is_some_and(|(_, sender)| sender.is_closed()) {
                next.packets.pop_front();
            }
            let Some(&(bytes, _)) = next.packets.front() else {
                waiting.remove(at);
                continue;
            };
            match self.verdict(next.account.input.get(), bytes) {
                Verdict::Own => at += 1,
                // What becomes free is for this one: smaller packets of others must not take it for ever.
                Verdict::Others => break,
                Verdict::Fits => {
                    let Some((bytes, sender)) = next.packets.pop_front() else { continue };
                    self.held.add(bytes);
                    next.account.input.add(bytes);
                    let reservation =
                        Reservation { budget: self.clone(), account: next.account.clone(), bytes };
                    unwanted.extend(sender.send(reservation).err());
                    // The others are next.
                    if let Some(served) = waiting.remove(at) {
                        waiting.push_back(served);
                    }
                }
            }
        }
        unwanted
    }

    /// An identity may have one packet as soon as there is memory for it, and more as long as it then holds no more
    /// than is left for others: so each that comes finds as much as the last one has, however many came before.
    fn verdict(&self, own: usize, bytes: usize) -> Verdict {
        let left = self.total.saturating_sub(self.held.get());
        match left.checked_sub(bytes) {
            Some(_) if own == 0 => Verdict::Fits,
            None if own == 0 => Verdict::Others,
            Some(left) if own + bytes <= self.each && own + bytes <= left => Verdict::Fits,
            _ => Verdict::Own,
        }
    }
}

/// Memory for one packet. It is given back when dropped.
pub(crate) struct Reservation {
    budget: Arc<InputBudget>,
    account: Arc<Account>,
    bytes: usize,
}

impl Reservation {
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.give_back(&self.account, self.bytes);
    }
}

struct Waiting {
    account: Arc<Account>,
    /// Bytes, and who is to have them, in the order in which they asked.
    packets: VecDeque<(usize, oneshot::Sender<Reservation>)>,
}

/// What stands between an identity and more memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Fits,
    /// What the identity holds itself.
    Own,
    /// What others hold.
    Others,
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::quotas::account::Accounts;

    type Asked = oneshot::Receiver<Reservation>;

    /// A budget in which the largest packet has 10 bytes, and some identities.
    fn budget(total: usize, each: usize) -> (Arc<InputBudget>, Vec<Arc<Account>>) {
        let config = Config {
            max_packet_size: 10,
            max_input_bytes: total,
            max_input_bytes_per_identity: each,
            ..Config::default()
        };
        let accounts = Accounts::default();
        let account = |number: u32| accounts.of(None, IpAddr::from((number + 1).to_be_bytes()));
        (Arc::new(InputBudget::new(&config)), (0..5).map(account).collect())
    }

    /// The room that was given, if it was.
    fn given(asked: &mut Asked) -> Option<Reservation> {
        asked.try_recv().ok()
    }

    #[test]
    fn an_identity_has_its_part_and_what_it_gives_back_is_the_next_ones() {
        let (budget, accounts) = budget(100, 30);
        let mut asked: Vec<_> = (0..5).map(|_| budget.reserve(&accounts[0], 10)).collect();
        let mut rooms: Vec<_> = asked.iter_mut().map(given).collect();
        assert_eq!(rooms.iter().flatten().count(), 3);
        assert_eq!((budget.held(), accounts[0].input.get(), budget.waits()), (30, 30, 2));
        // Another is not behind it.
        let mut other = budget.reserve(&accounts[1], 10);
        assert!(given(&mut other).is_some());
        rooms[1] = None;
        rooms[3] = given(&mut asked[3]);
        assert!(rooms[3].is_some() && given(&mut asked[4]).is_none(), "first come, first served");
        drop(rooms);
        assert!(given(&mut asked[4]).is_some());
        drop((asked, other));
        assert_eq!((budget.held(), accounts[0].input.get()), (0, 0));
        assert!(budget.waiting.lock().is_empty());
    }

    #[test]
    fn nobody_holds_more_than_is_left_but_one_packet_is_always_possible() {
        let (budget, accounts) = budget(40, 40);
        let mut hoarder: Vec<_> = (0..4).map(|_| budget.reserve(&accounts[0], 10)).collect();
        let rooms: Vec<_> = hoarder.iter_mut().filter_map(given).collect();
        assert_eq!(rooms.len(), 2, "half of all: as much as is left");
        let mut others: Vec<_> = (1..4).map(|at| budget.reserve(&accounts[at], 10)).collect();
        let others_rooms: Vec<_> = others.iter_mut().map(given).collect();
        let had: Vec<_> = others_rooms.iter().map(Option::is_some).collect();
        assert_eq!(had, [true, true, false]);
        // It is served before the hoarder, and before a smaller one that asks later.
        let mut small = budget.reserve(&accounts[4], 1);
        assert!(given(&mut small).is_none());
        let mut rooms = rooms.into_iter();
        drop(rooms.next());
        let third = given(&mut others[2]);
        assert!(third.is_some() && given(&mut small).is_none());
        drop(hoarder);
        drop(rooms);
        assert!(given(&mut small).is_some());
    }

    #[test]
    fn who_went_away_waiting_holds_nothing_and_keeps_nobody() {
        let (budget, accounts) = budget(10, 10);
        let mut first = budget.reserve(&accounts[0], 10);
        let room = given(&mut first);
        for _ in 0..1_000 {
            drop(budget.reserve(&accounts[0], 10));
            drop(budget.reserve(&accounts[1], 10));
        }
        assert!(budget.waiting.lock().iter().all(|one| one.packets.capacity() < 16));
        let mut last = budget.reserve(&accounts[1], 10);
        drop(room);
        assert!(given(&mut last).is_some());
        drop(last);
        assert_eq!(budget.held(), 0);
        assert!(budget.waiting.lock().is_empty());
    }

    #[test]
    fn room_that_comes_too_late_is_given_back() {
        let (budget, accounts) = budget(10, 10);
        let mut first = budget.reserve(&accounts[0], 10);
        let second = budget.reserve(&accounts[1], 10);
        drop(given(&mut first)); // the second has it now, in its channel
        assert_eq!(budget.held(), 10);
        drop(second);
        assert_eq!(budget.held(), 0);
    }
}
