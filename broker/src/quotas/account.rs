//! What one identity makes the broker hold, counted together, whatever connection or session it does it with.
//!
//! An identity is the user that a client was authenticated as, else the address that it comes from: a client without a
//! name cannot have many accounts by choosing many client ids. An account exists as long as a connection or a session
//! is on it.

use std::{
    collections::HashMap,
    fmt,
    net::{IpAddr, Ipv6Addr},
    sync::{
        Arc, Weak,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use parking_lot::Mutex;

use crate::quotas::{fair_share::Usage, rate::Rates};

/// The account of one identity.
#[derive(Debug)]
pub(crate) struct Account {
    /// Its [`Holder`] as text, for the application's own accounts: see
    /// [`ClientInfo::account`](crate::ClientInfo::account).
    pub name: Arc<str>,
    pub holder: Holder,
    /// Connections that have a session.
    pub connections: Held,
    /// Bytes set aside for packets that have not come completely; changed by
    /// [`InputBudget`](crate::quotas::input_budget) alone.
    pub input: Held,
    /// Bytes of QoS 2 identifiers that are not released; see [`Incoming`](crate::session::incoming).
    pub unreleased: Held,
    /// Time that was spent on its connections, and on what they have caused.
    pub usage: Usage,
    /// What its connections have sent, against what they may.
    pub rates: Rates,
    /// Subscriptions of all its sessions.
    pub subscriptions: Held,
    /// What they cost ([`trie::cost`](crate::topics::trie::cost)).
    pub subscription_bytes: Held,
    /// Sessions without a connection.
    pub sessions_away: Held,
    /// Bytes of messages that wait for its sessions, or are on their way.
    pub queued_bytes: Held,
    /// Bytes of the storage that the messages in them take.
    pub stored_bytes: Held,
    /// Retained messages that it has published.
    pub retained_messages: Held,
    /// Their bytes.
    pub retained_bytes: Held,
}

impl Account {
    pub fn new(holder: Holder) -> Self {
        Self {
            name: holder.to_string().into(),
            holder,
            connections: Held::default(),
            input: Held::default(),
            unreleased: Held::default(),
            usage: Usage::default(),
            rates: Rates::default(),
            subscriptions: Held::default(),
            subscription_bytes: Held::default(),
            sessions_away: Held::default(),
            queued_bytes: Held::default(),
            stored_bytes: Held::default(),
            retained_messages: Held::default(),
            retained_bytes: Held::default(),
        }
    }
}

/// The accounts that anything is on.
#[derive(Default)]
pub(crate) struct Accounts(Mutex<HashMap<Holder, Weak<Account>>>);

impl Accounts {
    /// The account of this [name](Account::name), if anything is on it.
    pub fn named(&self, name: &str) -> Option<Arc<Account>> {
        self.0.lock().get(&Holder::named(name)?).and_then(Weak::upgrade)
    }

    /// The account of an authenticated user, or of whoever comes from `peer`.
    pub fn of(&self, user: Option<&Arc<str>>, peer: IpAddr) -> Arc<Account> {
        let holder = user.map_or_else(|| Holder::Source(source(peer)), |user| Holder::User(user.clone()));
        let accounts = &mut *self.0.lock();
        if let Some(account) = accounts.get(&holder).and_then(Weak::upgrade) {
            return account;
        }
        // Those that nothing is on any more are swept away before the table would grow.
        if accounts.len() == accounts.capacity() {
            accounts.retain(|_, account| account.strong_count() > 0);
            if accounts.capacity() > 4 * accounts.len().max(64) {
                accounts.shrink_to_fit();
            }
        }
        let account = Arc::new(Account::new(holder.clone()));
        accounts.insert(holder, Arc::downgrade(&account));
        account
    }
}

impl Holder {
    /// Whose the account of this name is.
    fn named(name: &str) -> Option<Self> {
        match name.split_once(' ')? {
            ("user", user) => Some(Self::User(user.into())),
            ("address", address) => Some(Self::Source(address.parse().ok()?)),
            _ => None,
        }
    }
}

/// Whose an account is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Holder {
    /// An authenticated user, by password or certificate.
    User(Arc<str>),
    /// All clients without a name at one address; see [`source`].
    Source(IpAddr),
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(user) => write!(f, "user {user}"),
            Self::Source(address) => write!(f, "address {address}"),
        }
    }
}

/// The address that stands for a client without a name. A host of IPv6 has a whole network of 64 bits to itself, and so
/// is that network.
pub(crate) fn source(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) if !address.is_loopback() => {
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)))
        }
        address => address,
    }
}

/// An amount that is held, against a limit that whoever adds to it knows.
#[derive(Debug, Default)]
pub(crate) struct Held(AtomicUsize);

impl Held {
    pub fn get(&self) -> usize {
        self.0.load(Relaxed)
    }

    /// Adds `amount` if no more than `limit` is held then; says whether it did.
    pub fn try_add(&self, amount: usize, limit: usize) -> bool {
        let within = |held: usize| held.checked_add(amount).filter(|&sum| sum <= limit);
        self.0.fetch_update(Relaxed, Relaxed, within).is_ok()
    }

    /// Adds `amount`, however much is held.
    pub fn add(&self, amount: usize) {
        self.0.fetch_add(amount, Relaxed);
    }

    /// Takes back what was added before.
    pub fn subtract(&self, amount: usize) {
        let before = self.0.fetch_sub(amount, Relaxed);
        debug_assert!(before >= amount, "more given back than was taken");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_ipv6_network_and_a_mapped_address_are_one_source_each() {
        assert_eq!(source(address("2001:db8::1")), source(address("2001:db8::ffff:2")));
        assert_ne!(source(address("2001:db8::1")), source(address("2001:db8:0:1::1")));
        assert_eq!(source(address("::ffff:192.0.2.1")), source(address("192.0.2.1")));
        assert_ne!(source(address("127.0.0.1")), source(address("127.0.0.2")));
        assert_ne!(source(address("::1")), source(address("::2")));
    }

    #[test]
    fn a_user_has_one_account_wherever_it_comes_from_and_strangers_one_for_each_address() {
        let accounts = Accounts::default();
        let user: Arc<str> = "anna".into();
        let (here, there) = (address("192.0.2.1"), address("192.0.2.2"));
        let anna = accounts.of(Some(&user), here);
        assert!(Arc::ptr_eq(&anna, &accounts.of(Some(&user), there)));
        let stranger = accounts.of(None, here);
        assert!(Arc::ptr_eq(&stranger, &accounts.of(None, here)));
        assert!(!Arc::ptr_eq(&stranger, &accounts.of(None, there)));
        assert_eq!((&*anna.name, &*stranger.name), ("user anna", "address 192.0.2.1"));
        for account in [&anna, &stranger] {
            assert!(Arc::ptr_eq(account, &accounts.named(&account.name).unwrap()));
        }
        for nobody in ["user", "user ", "user bert", "address 192.0.2.9", "address anna", ""] {
            assert!(accounts.named(nobody).is_none(), "{nobody:?}");
        }
    }

    #[test]
    fn accounts_that_nothing_is_on_leave_no_memory() {
        let accounts = Accounts::default();
        for number in 0..100_000_u32 {
            accounts.of(None, IpAddr::from(number.to_be_bytes()));
        }
        assert!(accounts.0.lock().capacity() < 1_000);
    }

    #[test]
    fn what_is_held_never_exceeds_its_limit() {
        let held = Held::default();
        assert!(held.try_add(6, 10) && !held.try_add(5, 10) && held.try_add(4, 10));
        held.subtract(3);
        assert_eq!(held.get(), 7);
        assert!(!held.try_add(usize::MAX, usize::MAX));
    }
}
