//! Whom a request is counted for, on two levels: the account that pays, and within it the flow.
//!
//! An account is what nobody can have many of: a user, or a source address. All anonymous clients of one address
//! share an account, and each of them is a flow of its own. So quotas are counted by account, where many names do not
//! help, and service stays fair between the flows of one account, which do not starve each other either.

use std::fmt::Debug;
use std::hash::Hash;

/// A flow's name, and with it the name of its account. Two keys are equal where both are: flows of two accounts are two
/// flows, whatever they are called.
///
/// Where strangers choose the names, a key and its account feed a keyed hash of them to the hasher, and not the
/// names: what is counted here is kept in hash tables that strangers could fill with collisions otherwise.
pub trait FlowKey: Clone + Eq + Hash {
    /// The account's name.
    type Account: Clone + Debug + Eq + Hash;

    /// Who pays for this flow.
    fn account(&self) -> &Self::Account;
}

/// The plain form: account, then flow.
impl<A: Clone + Debug + Eq + Hash, F: Clone + Eq + Hash> FlowKey for (A, F) {
    type Account = A;

    fn account(&self) -> &A {
        &self.0
    }
}

/// In tests of one level each account has one flow.
#[cfg(test)]
mod single {
    macro_rules! accounts_of_one_flow {
        ($($name:ty),*) => {
            $(impl super::FlowKey for $name {
                type Account = Self;

                fn account(&self) -> &Self {
                    self
                }
            })*
        };
    }
    accounts_of_one_flow!(char, u8, u32, i32);
}
