//! Whom a request is counted for: one flow of an account, named once and cheap to pass on.

use offload_policy::FlowKey;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::sync::{Arc, LazyLock};

/// Keyed, since strangers choose their names and must not choose collisions.
static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// A flow and its account. Compared and hashed by both names, which are read once for that.
#[derive(Clone, Debug)]
pub struct Flow(Arc<Names>);

#[derive(Debug)]
struct Names {
    account: Name,
    flow: Name,
}

/// A name with its hash.
#[derive(Clone, Debug)]
pub struct Name {
    text: Arc<str>,
    hash: u64,
}

impl Flow {
    /// The flow of this name that this account pays for.
    pub fn new(account: Arc<str>, flow: Arc<str>) -> Flow {
        Flow(Arc::new(Names { account: Name::new(account), flow: Name::new(flow) }))
    }
}

impl FlowKey for Flow {
    type Account = Name;

    fn account(&self) -> &Name {
        &self.0.account
    }
}

impl PartialEq for Flow {
    fn eq(&self, other: &Flow) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || (self.0.flow == other.0.flow && self.0.account == other.0.account)
    }
}

impl Eq for Flow {}

impl Hash for Flow {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // Turned, so that an account and its flow of the same name do not cancel out.
        state.write_u64(self.0.flow.hash ^ self.0.account.hash.rotate_left(1));
    }
}

impl Name {
    fn new(text: Arc<str>) -> Name {
        Name { hash: HASHER.hash_one(&text), text }
    }
}

impl From<&str> for Name {
    fn from(text: &str) -> Name {
        Name::new(text.into())
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Name) -> bool {
        self.hash == other.hash && self.text == other.text
    }
}

impl Eq for Name {}

impl Hash for Name {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flows_of_one_name_and_two_accounts_are_two() {
        let flow = |account: &str, flow: &str| Flow::new(account.into(), flow.into());
        let hash = |flow: &Flow| HASHER.hash_one(flow);
        assert_eq!(flow("user a", "x"), flow("user a", "x"));
        assert_eq!(hash(&flow("user a", "x")), hash(&flow("user a", "x")));
        assert_ne!(flow("user a", "x"), flow("user b", "x"));
        assert_ne!(flow("user a", "x"), flow("user a", "y"));
        assert_eq!(flow("user a", "x").account(), flow("user a", "y").account());
        assert_ne!(flow("a", "b"), flow("b", "a"));
        assert_ne!(hash(&flow("a", "b")), hash(&flow("b", "a")));
    }
}
