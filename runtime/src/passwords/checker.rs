//! Checking passwords, at a price that a gateway can pay.

use std::collections::HashSet;
use std::sync::{Arc, RwLock};
use std::{fmt, mem};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use super::Passwords;

/// HMAC-SHA-256 of a user name and a password.
pub(super) type Mark = [u8; 32];

/// Says whether a password is right; shared by all connections.
///
/// - A hash takes tens of milliseconds and 19 MiB by design, so hashes are computed aside, a bounded number at a time.
///   Whoever asks waits for a turn, so how many wait is bounded where connections are.
/// - A password that was right once is recognised by an HMAC under a random key that never leaves this process, so a
///   fleet that connects again costs no hashes.
/// - An unknown name costs what a wrong password costs: the hash of another user is computed, the same one for each name,
///   so that the time does not tell which names exist.
pub struct PasswordChecker {
    passwords: RwLock<Arc<Passwords>>,
    key: [u8; 32],
    /// One permit for each hash that may be computed at once.
    turns: Arc<Semaphore>,
}

impl PasswordChecker {
    /// Computes hashes on half of the cores at most.
    ///
    /// # Errors
    /// When the system has no randomness for the key.
    pub fn new(passwords: Passwords) -> Result<PasswordChecker, getrandom::Error> {
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
        let mut key = [0; 32];
        getrandom::fill(&mut key)?;
        Ok(PasswordChecker {
            passwords: RwLock::new(Arc::new(passwords)),
            key,
            turns: Arc::new(Semaphore::new((cores / 2).max(1))),
        })
    }

    /// Whether `password` is that of the user `name`. Dropping the future gives its place in the queue back.
    pub async fn check(&self, name: &str, password: &[u8]) -> bool {
        let passwords = self.passwords();
        if passwords.users.is_empty() {
            return false;
        }
        let mac = self.mac(name, password);
        let mark: Mark = mac.clone().finalize().into_bytes().into();
        let known = passwords.position(name);
        let index = known.unwrap_or_else(|| self.stand_in(name, &passwords));
        if known.is_some()
            && let Some(right) = passwords.users[index].recognised.get()
            && mac.verify_slice(right).is_ok()
        {
            return true;
        }
        let turn = self.turns.clone().acquire_owned().await.expect("the semaphore is never closed");
        let password = password.to_vec();
        let hashed = spawn_blocking(move || {
            // Here and not with the caller, who may be gone long before the hash is done.
            let _turn = turn;
            let user = &passwords.users[index];
            let is_right = known.is_some() & user.verifies(&password);
            if is_right {
                user.recognised.get_or_init(|| mark);
            }
            is_right
        });
        // It ends early only with the process.
        hashed.await.unwrap_or(false)
    }

    /// Whether there is a user of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.passwords().contains(name)
    }

    /// Takes `passwords` from now on, and forgets what was recognised. A check that is under way ends by the old ones.
    /// Returns the users that there are no more.
    pub fn replace(&self, passwords: Passwords) -> HashSet<String> {
        let new = Arc::new(passwords);
        let old =
            mem::replace(&mut *self.passwords.write().expect("no panic while the lock is held"), new.clone());
        old.names().filter(|name| !new.contains(name)).map(str::to_owned).collect()
    }

    fn passwords(&self) -> Arc<Passwords> {
        self.passwords.read().expect("no panic while the lock is held").clone()
    }

    /// The user whose hash is computed for a name that there is not. By name, as a known name has always the same hash.
    fn stand_in(&self, name: &str, passwords: &Passwords) -> usize {
        let mark = self.mac(name, b"").finalize().into_bytes();
        let number = u64::from_le_bytes(mark[..8].try_into().expect("a mark has more bytes"));
        (number % passwords.users.len() as u64) as usize
    }

    fn mac(&self, name: &str, password: &[u8]) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).expect("HMAC takes a key of any length");
        // With its length, so that no other name and password give the same bytes.
        mac.update(&(name.len() as u64).to_le_bytes());
        mac.update(name.as_bytes());
        mac.update(password);
        mac
    }
}

/// Without the key.
impl fmt::Debug for PasswordChecker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PasswordChecker").field("passwords", &*self.passwords()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::pin::{Pin, pin};
    use std::task::Poll;

    use super::*;
    use crate::passwords::tests::cheap;

    fn passwords(users: &[(&str, &str)]) -> Passwords {
        let lines: String =
            users.iter().map(|(name, password)| format!("{name}:{}\n", cheap(password))).collect();
        Passwords::parse(Path::new("passwords"), &lines).unwrap()
    }

    fn checker(users: &[(&str, &str)]) -> PasswordChecker {
        PasswordChecker::new(passwords(users)).unwrap()
    }

    /// What a check says without computing a hash: nothing, where it has to.
    async fn at_once(check: &mut Pin<&mut impl Future<Output = bool>>) -> Option<bool> {
        std::future::poll_fn(|context| {
            Poll::Ready(match check.as_mut().poll(context) {
                Poll::Ready(is_right) => Some(is_right),
                Poll::Pending => None,
            })
        })
        .await
    }

    /// Takes all turns at computing hashes.
    async fn take_all_turns(checker: &PasswordChecker) -> tokio::sync::OwnedSemaphorePermit {
        let all = checker.turns.available_permits();
        checker.turns.clone().acquire_many_owned(all as u32).await.unwrap()
    }

    #[tokio::test]
    async fn the_right_password_of_the_right_user_is_right() {
        let checker = checker(&[("dev1", "one"), ("dev2", "two"), ("empty", "")]);
        for _ in 0..2 {
            assert!(checker.check("dev1", b"one").await);
            assert!(checker.check("dev2", b"two").await);
            assert!(checker.check("empty", b"").await);
            for (name, password) in
                [("dev1", "two"), ("dev1", ""), ("dev", "1one"), ("dev3", "one"), ("dev3", "two"), ("", "")]
            {
                assert!(!checker.check(name, password.as_bytes()).await, "{name} {password}");
            }
        }
        assert!(!PasswordChecker::new(Passwords::default()).unwrap().check("dev1", b"one").await);
    }

    #[tokio::test]
    async fn only_a_password_that_was_right_once_needs_no_hash() {
        let checker = checker(&[("dev1", "one"), ("dev2", "two")]);
        assert!(checker.check("dev1", b"one").await);
        assert!(!checker.check("dev1", b"wrong").await);
        let turns = take_all_turns(&checker).await;
        assert_eq!(at_once(&mut pin!(checker.check("dev1", b"one"))).await, Some(true));
        let mut first = pin!(checker.check("dev2", b"two"));
        let mut wrong = pin!(checker.check("dev1", b"wrong"));
        let mut unknown = pin!(checker.check("nobody", b"one"));
        assert_eq!(at_once(&mut first).await, None);
        assert_eq!(at_once(&mut wrong).await, None);
        assert_eq!(at_once(&mut unknown).await, None, "an unknown name costs a hash, too");
        drop(turns);
        assert_eq!((first.await, wrong.await, unknown.await), (true, false, false));
    }

    #[tokio::test]
    async fn whoever_gives_up_leaves_the_queue() {
        let checker = checker(&[("dev1", "one")]);
        let turns = take_all_turns(&checker).await;
        {
            let mut waiting = pin!(checker.check("dev1", b"one"));
            assert_eq!(at_once(&mut waiting).await, None);
        }
        drop(turns);
        assert!(checker.turns.available_permits() >= 1);
        assert!(checker.check("dev1", b"one").await);
    }

    #[tokio::test]
    async fn another_file_replaces_users_and_what_was_recognised() {
        let checker = checker(&[("dev1", "one"), ("dev2", "two")]);
        assert!(checker.check("dev1", b"one").await && checker.check("dev2", b"two").await);
        checker.replace(passwords(&[("dev1", "new")]));
        assert!(checker.contains("dev1") && !checker.contains("dev2"));
        assert!(!checker.check("dev1", b"one").await && !checker.check("dev2", b"two").await);
        assert!(checker.check("dev1", b"new").await);
    }

    #[tokio::test]
    async fn names_that_there_are_not_are_spread_over_the_users() {
        let users: Vec<String> = (0..8).map(|n| format!("dev{n}")).collect();
        let users: Vec<(&str, &str)> = users.iter().map(|name| (name.as_str(), "pw")).collect();
        let checker = checker(&users);
        let passwords = checker.passwords();
        let stand_in = |n: usize| checker.stand_in(&format!("nobody{n}"), &passwords);
        let used: std::collections::HashSet<usize> = (0..1000).map(stand_in).collect();
        assert_eq!(used.len(), users.len());
        assert_eq!(stand_in(1), stand_in(1));
    }

    #[tokio::test]
    async fn nothing_secret_is_in_debug_output() {
        let checker = checker(&[("dev1", "one")]);
        assert!(checker.check("dev1", b"one").await);
        assert_eq!(format!("{checker:?}"), "PasswordChecker { passwords: Passwords { users: 1 }, .. }");
    }
}
