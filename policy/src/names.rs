//! Small numbers for the flows and accounts that a [`Dispatcher`](crate::Dispatcher) has requests of: a name is hashed
//! when its request comes, and what is counted for it is then found by its number.
//!
//! A flow has its number for as long as it has requests, and a little longer: the last [`KEPT_NAMES`] that had their
//! last one answered are kept, so that a client that asks again and again is not made anew each time. An account has
//! its number for as long as it has such flows, or what it has used is remembered. All operations are O(1).

use std::collections::VecDeque;

use slab::Slab;

use crate::flow_key::FlowKey;
use crate::key_map::KeyMap;
use crate::table::{Counted, Dense, Entry, Number};

/// Flows without requests that are remembered at the most.
const KEPT_NAMES: usize = 64;

/// An account that has flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccountNumber(u32);

/// A flow that has requests, and its account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowNumber {
    flow: u32,
    account: AccountNumber,
}

/// The numbers of flows and accounts.
#[derive(Debug)]
pub(crate) struct Names<K: FlowKey> {
    flow_of: KeyMap<K, FlowNumber>,
    account_of: KeyMap<K::Account, AccountNumber>,
    flows: Slab<Flow<K>>,
    accounts: Slab<Account<K::Account>>,
    /// The flow that got a request last, which often is the one that is asked for next: that takes no hashing.
    latest: Option<FlowNumber>,
    /// Flows without requests, and some that have got requests since; in the order in which they came here.
    idle: VecDeque<FlowNumber>,
}

#[derive(Debug)]
struct Account<A> {
    name: A,
    /// Its flows here, and whoever else [holds](Names::hold) its number.
    holds: usize,
}

#[derive(Debug)]
struct Flow<K> {
    key: K,
    requests: usize,
    /// Whether it is in [`Names::idle`].
    is_listed: bool,
}

impl<K: FlowKey> Names<K> {
    /// Nobody has a number yet.
    pub(crate) fn new() -> Self {
        Self {
            flow_of: KeyMap::new(),
            account_of: KeyMap::new(),
            flows: Slab::new(),
            accounts: Slab::new(),
            latest: None,
            idle: VecDeque::new(),
        }
    }

    /// The number of a flow; `None` where it has no requests.
    #[inline(always)]
    pub(crate) fn of(&self, key: &K) -> Option<FlowNumber> {
        let is_it = |number: &FlowNumber| self.flows.get(number.index()).is_some_and(|flow| flow.key == *key);
        self.latest.filter(is_it).or_else(|| self.flow_of.get(key).copied())
    }

    /// The number of a flow that gets one more request.
    #[inline(always)]
    pub(crate) fn enter(&mut self, key: &K) -> FlowNumber {
        let number = self.of(key).unwrap_or_else(|| self.name(key));
        self.flows[number.index()].requests += 1;
        self.latest = Some(number);
        number
    }

    /// A request of a flow has left.
    #[inline(always)]
    pub(crate) fn leave(&mut self, number: FlowNumber) {
        let flow = &mut self.flows[number.index()];
        flow.requests -= 1;
        if flow.requests == 0 && !std::mem::replace(&mut flow.is_listed, true) {
            self.idle.push_back(number);
            if self.idle.len() > KEPT_NAMES {
                self.forget_one();
            }
        }
    }

    /// An account keeps its number, whether it has flows or not, until it is [let go](Self::let_go).
    pub(crate) fn hold(&mut self, number: AccountNumber) {
        self.accounts[number.index()].holds += 1;
    }

    /// Whoever holds an account's number needs it no more.
    pub(crate) fn let_go(&mut self, number: AccountNumber) {
        let account = &mut self.accounts[number.index()];
        account.holds -= 1;
        if account.holds == 0 {
            let Account { name, .. } = self.accounts.remove(number.index());
            self.account_of.remove(&name);
        }
    }

    fn name(&mut self, key: &K) -> FlowNumber {
        let account = self.account_of.get(key.account()).copied().unwrap_or_else(|| {
            let account = Account { name: key.account().clone(), holds: 0 };
            let number = AccountNumber::new(self.accounts.insert(account));
            self.account_of.insert(key.account().clone(), number);
            number
        });
        self.hold(account);
        let flow = self.flows.insert(Flow { key: key.clone(), requests: 0, is_listed: false });
        let flow = u32::try_from(flow).expect("fewer than 2^32 flows have requests");
        let number = FlowNumber { flow, account };
        self.flow_of.insert(key.clone(), number);
        number
    }

    /// Forgets the flow that has been idle for longest, or finds that it is not idle any more.
    fn forget_one(&mut self) {
        let Some(number) = self.idle.pop_front() else { return };
        let flow = &mut self.flows[number.index()];
        flow.is_listed = false;
        if flow.requests > 0 {
            return;
        }
        let Flow { key, .. } = self.flows.remove(number.index());
        self.flow_of.remove(&key);
        self.let_go(number.account);
    }
}

impl AccountNumber {
    /// The account whose [index](Number::index) this is.
    pub(crate) fn new(index: usize) -> Self {
        Self(index as u32)
    }
}

impl Number for AccountNumber {
    #[inline]
    fn index(self) -> usize {
        self.0 as usize
    }
}

impl Number for FlowNumber {
    #[inline]
    fn index(self) -> usize {
        self.flow as usize
    }
}

impl Counted for FlowNumber {
    type Account = AccountNumber;
    type Flows<V: Entry> = Dense<V>;
    type Accounts<V: Entry> = Dense<V>;

    #[inline]
    fn paid_by(&self) -> &AccountNumber {
        &self.account
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[test]
    fn an_account_that_is_held_keeps_its_number_without_flows() {
        let mut names = Names::new();
        let ask = |names: &mut Names<(char, u32)>, account, flow| {
            let number = names.enter(&(account, flow));
            names.leave(number);
            number.account
        };
        let held = ask(&mut names, 'a', 0);
        names.hold(held);
        (1..1_000).for_each(|flow| assert_ne!(ask(&mut names, 'b', flow), held));
        assert_eq!(ask(&mut names, 'a', 1), held);
        names.let_go(held);
        (1..1_000).for_each(|flow| _ = ask(&mut names, 'b', flow));
        assert_eq!(names.accounts.len(), 1);
    }

    #[test]
    fn what_idle_flows_held_is_given_back_but_for_the_last_ones() {
        let mut names = Names::new();
        for number in (0..10_000).map(|key| ("account", key)) {
            let flow = names.enter(&number);
            names.leave(flow);
        }
        assert_eq!((names.flows.len(), names.flow_of.len(), names.idle.len()), (64, 64, 64));
        assert_eq!((names.accounts.len(), names.account_of.len()), (1, 1));
        let is_known = |key| names.of(&("account", key)).is_some();
        assert_eq!([0, 9_935, 9_936, 9_999].map(is_known), [false, false, true, true]);
    }

    proptest! {
        /// A flow has one number while it has requests, nobody else has it, and accounts are told apart.
        #[test]
        fn numbers_stand_for_names(
            steps in prop::collection::vec((any::<bool>(), (0..8u8, 0..40u8)), 0..600),
        ) {
            let mut names = Names::new();
            let mut model: BTreeMap<(u8, u8), (FlowNumber, usize)> = BTreeMap::new();
            for (enters, key) in steps {
                if enters {
                    let number = names.enter(&key);
                    let (known, requests) = model.entry(key).or_insert((number, 0));
                    *requests += 1;
                    prop_assert_eq!(*known, number);
                } else if let Some((number, requests)) = model.get_mut(&key) {
                    names.leave(*number);
                    *requests -= 1;
                    if *requests == 0 {
                        model.remove(&key);
                    }
                }
                for (key, (number, _)) in &model {
                    prop_assert_eq!(names.of(key), Some(*number));
                    for (other, (of_other, _)) in &model {
                        prop_assert_eq!(number.flow == of_other.flow, key == other);
                        prop_assert_eq!(number.account == of_other.account, key.0 == other.0);
                    }
                }
                prop_assert!(names.flows.len() <= model.len() + KEPT_NAMES);
                prop_assert_eq!(names.flows.len(), names.flow_of.len());
                prop_assert_eq!(names.accounts.len(), names.account_of.len());
            }
        }
    }
}
