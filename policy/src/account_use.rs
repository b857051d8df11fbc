//! What each account has used of the workers lately, by which accounts share them.
//!
//! Use is CPU time that decays: it is halved every [`HALF_LIFE`](AccountUse::HALF_LIFE) (decay-usage scheduling, as in
//! 4.3BSD: J. L. Hellerstein, "Achieving Service Rate Objectives with Decay Usage Scheduling", IEEE Transactions on
//! Software Engineering 19(8), 1993). The accounts that have used least go first. One that asks for less than its part
//! has always used less than those that ask for more, and does not wait for them; those that ask for more get equal
//! parts (max-min fairness: D. Bertsekas and R. Gallager, *Data Networks*, 2nd edition, 1992, section 6.5.2).
//!
//! Use is compared in steps of [`STEP`](AccountUse::STEP). Accounts on one step are equals, whose guests go by what
//! each of them has used: where nobody takes much, accounts make no difference.
//!
//! All operations are O(1); each half-life costs a step for each account that has a guest, or has used something
//! lately.

use std::hash::Hash;

use slab::Slab;

use crate::Time;
use crate::key_map::KeyMap;
use crate::slices::{AccountId, RunQueue};
use crate::table::Table;

/// See the [module](self). Accounts are found by a table of their names.
#[derive(Debug)]
pub struct AccountUse<A, T = KeyMap<A, Option<AccountId>>> {
    accounts: Slab<Account<A>>,
    by_name: T,
    /// When all use is halved next.
    halves: Time,
}

#[derive(Debug)]
struct Account<A> {
    name: A,
    used: Time,
    guests: usize,
}

impl<A: Clone + Eq + Hash> AccountUse<A> {
    /// The time after which half of what was used is forgotten. An account that comes back is ahead of those that have
    /// computed all the time for about as long, at the most. A shorter time would take an account that computes in
    /// bursts for one that always does.
    pub const HALF_LIFE: Time = Time::from_millis(100);

    /// What an account may use beyond another one and still be its equal.
    pub const STEP: Time = RunQueue::LONG;

    /// Half-lives after which all is forgotten: less than [`RunQueue::SHORT`] is left of an hour.
    const MEMORY: u32 = 26;

    /// Of no account yet.
    pub fn new() -> Self {
        Self::default()
    }
}

impl<A: Clone, T: Table<A, Option<AccountId>>> AccountUse<A, T> {
    /// The account has one more guest.
    #[inline]
    pub fn enter(&mut self, name: &A) -> AccountId {
        let account = self.by_name.get(name).unwrap_or_else(|| {
            let of = Account { name: name.clone(), used: Time::ZERO, guests: 0 };
            let account = self.accounts.insert(of);
            self.by_name.set(name, Some(account));
            account
        });
        self.accounts[account].guests += 1;
        account
    }

    /// A guest of the account has left. What was used is remembered.
    ///
    /// # Panics
    /// If there is no such account.
    #[inline]
    pub fn leave(&mut self, account: AccountId) {
        self.accounts[account].guests -= 1;
    }

    /// A guest of the account has used so much.
    ///
    /// # Panics
    /// If there is no such account.
    #[inline]
    pub fn charge(&mut self, account: AccountId, time: Time) {
        self.accounts[account].used += time;
    }

    /// What is used decays until `now`.
    pub fn decay(&mut self, now: Time) {
        self.decay_telling(now, |_| ());
    }

    /// The same, for whom accounts are to be told that are remembered no more.
    #[inline]
    pub(crate) fn decay_telling(&mut self, now: Time, is_forgotten: impl FnMut(&A)) {
        if now >= self.halves {
            self.halve(now, is_forgotten);
        }
    }

    fn halve(&mut self, now: Time, mut tell: impl FnMut(&A)) {
        let late = now.saturating_sub(self.halves);
        // In 64 bits, which divide faster: milliseconds fill them after half a billion years.
        let half_lives =
            1 + (late.as_millis() as u64 / AccountUse::<()>::HALF_LIFE.as_millis() as u64) as u32;
        self.halves += AccountUse::<()>::HALF_LIFE * half_lives;
        let parts = 1 << half_lives.min(AccountUse::<()>::MEMORY);
        let Self { accounts, by_name, .. } = self;
        accounts.retain(|_, account| {
            account.used /= parts;
            // Too little to tell it from one that is not known.
            let is_forgotten = account.guests == 0 && account.used < RunQueue::SHORT;
            if is_forgotten {
                by_name.set(&account.name, None);
                tell(&account.name);
            }
            !is_forgotten
        });
        if accounts.is_empty() {
            *accounts = Slab::new();
        }
    }

    /// How many steps of use the account is at.
    ///
    /// # Panics
    /// If there is no such account.
    #[inline]
    pub fn step(&self, account: AccountId) -> u32 {
        step_of(self.accounts[account].used)
    }

    /// The same, of an account that may have used nothing.
    pub fn step_of(&self, name: &A) -> u32 {
        self.by_name.get(name).map_or(0, |account| self.step(account))
    }

    /// Accounts that are remembered.
    pub fn len(&self) -> usize {
        self.accounts.len()
    }

    /// Whether no account is remembered.
    pub fn is_empty(&self) -> bool {
        self.accounts.is_empty()
    }
}

impl<A, T: Default> Default for AccountUse<A, T> {
    fn default() -> Self {
        Self { accounts: Slab::new(), by_name: T::default(), halves: AccountUse::<()>::HALF_LIFE }
    }
}

fn step_of(used: Time) -> u32 {
    (used.as_micros() as u64 / AccountUse::<()>::STEP.as_micros() as u64) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    type Use = AccountUse<char>;

    const STEP: Time = Use::STEP;
    const HALF_LIFE: Time = Use::HALF_LIFE;

    #[test]
    fn use_is_halved_again_and_again_and_then_forgotten() {
        let mut accounts = Use::new();
        let busy = accounts.enter(&'a');
        accounts.charge(busy, STEP * 8);
        let steps = |accounts: &Use| (accounts.step(busy), accounts.step_of(&'b'));
        assert_eq!(steps(&accounts), (8, 0), "an account without use is at the lowest step");
        for (at, step) in [(HALF_LIFE - Time::from_nanos(1), 8), (HALF_LIFE, 4), (HALF_LIFE * 3, 1)] {
            accounts.decay(at);
            assert_eq!(steps(&accounts), (step, 0), "{at:?}");
        }
        accounts.decay(HALF_LIFE * 100);
        assert_eq!((steps(&accounts), accounts.len()), ((0, 0), 1), "it has a guest");
        accounts.leave(busy);
        accounts.decay(HALF_LIFE * 101);
        assert!(accounts.is_empty());
    }

    #[test]
    fn an_account_that_leaves_and_comes_back_has_still_used_what_it_has() {
        let mut accounts = Use::new();
        let account = accounts.enter(&'a');
        accounts.charge(account, STEP * 2);
        accounts.leave(account);
        accounts.decay(HALF_LIFE);
        let again = accounts.enter(&'a');
        assert_eq!((again, accounts.step(again)), (account, 1));
    }

    #[test]
    fn accounts_that_use_little_are_not_remembered_for_long() {
        let mut accounts = AccountUse::<u32>::new();
        for number in 0..100_000 {
            let at = Time::from_micros(20) * number;
            accounts.decay(at);
            let account = accounts.enter(&number);
            accounts.charge(account, Time::from_micros(20));
            accounts.leave(account);
            assert!(accounts.len() <= 5_000, "{} accounts after {at:?}", accounts.len());
        }
    }
}
