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
//! All operations are O(1); each half-life costs a step for each account that has used something lately.

use std::hash::Hash;

use crate::Time;
use crate::key_map::KeyMap;
use crate::slices::RunQueue;
use crate::table::Table;

/// See the [module](self). What accounts have used is in a table by their names.
#[derive(Debug)]
pub struct AccountUse<A, T = KeyMap<A, Time>> {
    used: T,
    /// The accounts that have used something.
    accounts: Vec<A>,
    /// When all use is halved next.
    halves: Time,
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

    /// Nobody has used anything yet.
    pub fn new() -> Self {
        Self::default()
    }
}

impl<A: Clone, T: Table<A, Time>> AccountUse<A, T> {
    /// A guest of the account has used so much. Returns whether the account is remembered from now on, which it was not
    /// before.
    #[inline]
    pub fn charge(&mut self, account: &A, time: Time) -> bool {
        let is_new = self.used.change(account, |used| {
            let was_used = *used;
            *used += time;
            was_used.is_zero() && !used.is_zero()
        });
        if is_new {
            self.accounts.push(account.clone());
        }
        is_new
    }

    /// What is used decays until `now`. Accounts of which little is left are forgotten, unless they have guests.
    pub fn decay(&mut self, now: Time, has_guests: impl Fn(&A) -> bool) {
        self.decay_telling(now, has_guests, |_| ());
    }

    /// The same, for whom accounts are to be told that are remembered no more.
    #[inline]
    pub(crate) fn decay_telling(
        &mut self,
        now: Time,
        has_guests: impl Fn(&A) -> bool,
        is_forgotten: impl FnMut(&A),
    ) {
        if now >= self.halves {
            self.halve(now, has_guests, is_forgotten);
        }
    }

    #[cold]
    fn halve(&mut self, now: Time, has_guests: impl Fn(&A) -> bool, mut tell: impl FnMut(&A)) {
        let late = now.saturating_sub(self.halves);
        let half_lives = 1 + (late.as_nanos() / AccountUse::<()>::HALF_LIFE.as_nanos()) as u32;
        self.halves += AccountUse::<()>::HALF_LIFE * half_lives;
        let parts = 1 << half_lives.min(AccountUse::<()>::MEMORY);
        let Self { used, accounts, .. } = self;
        accounts.retain(|account| {
            let is_left = used.change(account, |used| {
                *used /= parts;
                // Too little to tell it from one that is not known.
                if *used < RunQueue::SHORT && !has_guests(account) {
                    *used = Time::ZERO;
                }
                !used.is_zero()
            });
            if !is_left {
                tell(account);
            }
            is_left
        });
        if accounts.is_empty() {
            *accounts = Vec::new();
        }
    }

    /// At which step of use the account is.
    pub fn step_of(&self, account: &A) -> u32 {
        (self.used.get(account).as_nanos() / AccountUse::<()>::STEP.as_nanos()) as u32
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
        Self { used: T::default(), accounts: Vec::new(), halves: AccountUse::<()>::HALF_LIFE }
    }
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
        assert!(accounts.charge(&'a', STEP * 8));
        let steps = |accounts: &Use| (accounts.step_of(&'a'), accounts.step_of(&'b'));
        assert_eq!(steps(&accounts), (8, 0), "an account without use is at the lowest step");
        for (at, step) in [(HALF_LIFE - Time::from_nanos(1), 8), (HALF_LIFE, 4), (HALF_LIFE * 3, 1)] {
            accounts.decay(at, |_| true);
            assert_eq!(steps(&accounts), (step, 0), "{at:?}");
        }
        accounts.decay(HALF_LIFE * 13, |_| true);
        assert_eq!((steps(&accounts), accounts.len()), ((0, 0), 1), "it has a guest");
        accounts.decay(HALF_LIFE * 14, |_| false);
        assert!(accounts.is_empty());
    }

    #[test]
    fn what_is_halved_to_nothing_is_forgotten_beside_a_guest_too() {
        let mut accounts = Use::new();
        for at in [0, 100] {
            assert!(accounts.charge(&'a', STEP) && !accounts.charge(&'a', Time::ZERO));
            accounts.decay(HALF_LIFE * (at + 99), |_| true);
            assert!(accounts.is_empty() && !accounts.charge(&'a', Time::ZERO));
        }
    }

    #[test]
    fn an_account_that_leaves_and_comes_back_has_still_used_what_it_has() {
        let mut accounts = Use::new();
        accounts.charge(&'a', STEP * 2);
        accounts.decay(HALF_LIFE, |_| false);
        assert_eq!((accounts.step_of(&'a'), accounts.charge(&'a', STEP)), (1, false));
    }

    #[test]
    fn accounts_that_use_little_are_not_remembered_for_long() {
        let mut accounts = AccountUse::<u32>::new();
        for number in 0..100_000 {
            let at = Time::from_micros(20) * number;
            accounts.decay(at, |_| false);
            accounts.charge(&number, Time::from_micros(20));
            assert!(accounts.len() <= 5_000, "{} accounts after {at:?}", accounts.len());
        }
    }
}
