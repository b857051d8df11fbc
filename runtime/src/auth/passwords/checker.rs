//! Checking passwords, at a price that a gateway can pay.

use super::queue::HashingQueue;
use super::{Passwords, User};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, RwLock};
use tokio::task::spawn_blocking;

/// Why a password is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotTaken {
    /// It is not this user's, or there is no such user.
    Wrong,
    /// Too many wait for theirs to be checked.
    Busy,
}

/// Says whether a password is right; shared by all connections.
///
/// - A hash takes tens of milliseconds and 19 MiB by design, so hashes are computed aside, a bounded number at a time,
///   in an order that is fair by source address and by user name.
/// - A password that was right once is recognised by an HMAC under a random key that never leaves this process, so a
///   fleet that connects again costs no hashes, after a change of others' lines of the file neither.
/// - An unknown name costs what a wrong password costs: the hash of another user is computed, the same one for each
///   name, so that the time does not tell which names exist.
pub struct PasswordChecker {
    passwords: RwLock<Arc<Passwords>>,
    key: [u8; 32],
    /// One permit for each hash that may be computed at once.
    queue: HashingQueue,
}

impl PasswordChecker {
    /// Computes hashes on half of the cores at most.
    ///
    /// # Errors
    ///
    /// When the system has no randomness for the key.
    pub fn new(passwords: Passwords) -> Result<PasswordChecker, getrandom::Error> {
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
        PasswordChecker::with_permits(passwords, (cores / 2).max(1))
    }

    fn with_permits(passwords: Passwords, permits: usize) -> Result<PasswordChecker, getrandom::Error> {
        let mut key = [0; 32];
        getrandom::fill(&mut key)?;
        let queue = HashingQueue::new(permits);
        Ok(PasswordChecker { passwords: RwLock::new(Arc::new(passwords)), key, queue })
    }

    /// The credential that `password` is, if it is that of the user `name`: a number that is this line's of the
    /// password file for as long as the line stays as it is; not 0. `source` is where the attempt comes from. Dropping
    /// the future gives its place in the queue back.
    ///
    /// # Errors
    ///
    /// When it is wrong by the file as it is when this returns, or too many wait.
    pub async fn check(&self, source: IpAddr, name: &str, password: &[u8]) -> Result<u64, NotTaken> {
        let mac = self.mac(name, password);
        if let Some(credential) = recognised(&self.passwords(), name, &mac) {
            return Ok(credential);
        }
        let permit = self.queue.permit(source, name).await.ok_or(NotTaken::Busy)?;
        // Only now: the file may have changed, and the password been right elsewhere, while this one waited.
        let passwords = self.passwords();
        if let Some(credential) = recognised(&passwords, name, &mac) {
            return Ok(credential);
        }
        let known = passwords.find(name);
        let user = known.or_else(|| self.stand_in(name, &passwords)).ok_or(NotTaken::Wrong)?.clone();
        let (is_known, password) = (known.is_some(), password.to_vec());
        let hashed = spawn_blocking(move || {
            // Here and not with the caller, who may be gone long before the hash is done.
            let _permit = permit;
            let is_right = is_known & user.verifies(&password);
            if is_right {
                user.recognised.get_or_init(|| mac.finalize().into_bytes().into());
            }
            is_right.then_some(user.credential)
        });
        // It ends early only with the process.
        let credential = hashed.await.ok().flatten().ok_or(NotTaken::Wrong)?;
        if self.is_current(name, credential) { Ok(credential) } else { Err(NotTaken::Wrong) }
    }

    /// Whether `credential` is still that of the user `name`.
    pub fn is_current(&self, name: &str, credential: u64) -> bool {
        self.passwords().find(name).is_some_and(|user| user.credential == credential)
    }

    /// Whether there is a user of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.passwords().contains(name)
    }

    /// Takes `passwords` from now on. Users whose lines are the same keep their credentials, and are recognised.
    pub fn replace(&self, mut passwords: Passwords) {
        passwords.keep_known(&self.passwords());
        *self.passwords.write().expect("no panic while the lock is held") = Arc::new(passwords);
    }

    fn passwords(&self) -> Arc<Passwords> {
        self.passwords.read().expect("no panic while the lock is held").clone()
    }

    /// The user whose hash is computed for a name that there is not. By name, as a known name has always the same hash.
    fn stand_in<'a>(&self, name: &str, passwords: &'a Passwords) -> Option<&'a Arc<User>> {
        let mark = self.mac(name, b"").finalize().into_bytes();
        let number = u64::from_le_bytes(mark[..8].try_into().expect("a mark has more bytes"));
        let index = number.checked_rem(passwords.users.len() as u64)?;
        passwords.users.get(index as usize)
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

/// The user's credential, if `mac` is of its name and of its password that was right before.
fn recognised(passwords: &Passwords, name: &str, mac: &Hmac<Sha256>) -> Option<u64> {
    let user = passwords.find(name)?;
    let right = user.recognised.get()?;
    mac.clone().verify_slice(right).is_ok().then_some(user.credential)
}

/// Without the key.
impl fmt::Debug for PasswordChecker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PasswordChecker").field("passwords", &*self.passwords()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::passwords::queue::{MAX_WAITING, Permit};
    use crate::auth::passwords::tests::cheap;
    use crate::config::password_file::PasswordFile;
    use std::net::Ipv4Addr;
    use std::path::Path;
    use std::pin::{Pin, pin};
    use std::task::Poll;
    use std::time::Duration;
    use tokio::time::timeout;

    /// Longer than anything takes that does not hang.
    const PATIENCE: Duration = Duration::from_secs(60);

    const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    /// Lines of a password file, and the users that they are.
    fn lines(users: &[(&str, &str)]) -> String {
        users.iter().map(|(name, password)| format!("{name}:{}\n", cheap(password))).collect()
    }

    fn passwords(lines: &str) -> Passwords {
        PasswordFile::parse(Path::new("passwords"), lines).unwrap().into()
    }

    fn checker(users: &[(&str, &str)]) -> PasswordChecker {
        PasswordChecker::with_permits(passwords(&lines(users)), 1).unwrap()
    }

    impl PasswordChecker {
        async fn is_right(&self, name: &str, password: &[u8]) -> bool {
            self.check(ADDRESS, name, password).await.is_ok()
        }
    }

    /// What a check says without computing a hash: nothing, where it has to.
    async fn at_once<T>(check: &mut Pin<&mut impl Future<Output = T>>) -> Option<T> {
        std::future::poll_fn(|context| {
            Poll::Ready(match check.as_mut().poll(context) {
                Poll::Ready(is_right) => Some(is_right),
                Poll::Pending => None,
            })
        })
        .await
    }

    /// Takes the one permit to compute a hash.
    async fn take_the_permit(checker: &PasswordChecker) -> Permit {
        checker.queue.permit(ADDRESS, "whoever has it").await.unwrap()
    }

    #[tokio::test]
    async fn the_right_password_of_the_right_user_is_right() {
        let checker = checker(&[("dev1", "one"), ("dev2", "two"), ("empty", "")]);
        for _ in 0..2 {
            assert!(checker.is_right("dev1", b"one").await);
            assert!(checker.is_right("dev2", b"two").await);
            assert!(checker.is_right("empty", b"").await);
            for (name, password) in
                [("dev1", "two"), ("dev1", ""), ("dev", "1one"), ("dev3", "one"), ("dev3", "two"), ("", "")]
            {
                assert!(!checker.is_right(name, password.as_bytes()).await, "{name} {password}");
            }
        }
        assert!(!PasswordChecker::new(Passwords::default()).unwrap().is_right("dev1", b"one").await);
    }

    #[tokio::test]
    async fn only_a_password_that_was_right_once_needs_no_hash() {
        let checker = checker(&[("dev1", "one"), ("dev2", "two")]);
        assert!(checker.is_right("dev1", b"one").await);
        assert!(!checker.is_right("dev1", b"wrong").await);
        let permit = take_the_permit(&checker).await;
        assert_eq!(at_once(&mut pin!(checker.is_right("dev1", b"one"))).await, Some(true));
        let mut first = pin!(checker.is_right("dev2", b"two"));
        let mut wrong = pin!(checker.is_right("dev1", b"wrong"));
        let mut unknown = pin!(checker.is_right("nobody", b"one"));
        assert_eq!(at_once(&mut first).await, None);
        assert_eq!(at_once(&mut wrong).await, None);
        assert_eq!(at_once(&mut unknown).await, None, "an unknown name costs a hash, too");
        drop(permit);
        let results = tokio::join!(first, wrong, unknown);
        assert_eq!(results, (true, false, false));
    }

    #[tokio::test]
    async fn what_waits_behind_the_same_password_needs_no_hash_of_its_own() {
        let checker = checker(&[("dev1", "one")]);
        let permit = take_the_permit(&checker).await;
        let mut waiting = pin!(checker.is_right("dev1", b"one"));
        assert_eq!(at_once(&mut waiting).await, None);
        let passwords = checker.passwords();
        let mark = checker.mac("dev1", b"one").finalize().into_bytes().into();
        passwords.users[0].recognised.get_or_init(|| mark);
        drop(permit);
        assert_eq!(at_once(&mut waiting).await, Some(true));
    }

    #[tokio::test]
    async fn whoever_gives_up_leaves_the_queue() {
        let checker = checker(&[("dev1", "one")]);
        let permit = take_the_permit(&checker).await;
        {
            let mut waiting = pin!(checker.is_right("dev1", b"one"));
            assert_eq!(at_once(&mut waiting).await, None);
        }
        drop(permit);
        let _permit = at_once(&mut pin!(take_the_permit(&checker))).await.expect("nobody else has it");
    }

    #[tokio::test]
    async fn a_newcomer_is_served_before_the_next_of_one_who_guesses() {
        let checker = checker(&[("dev1", "one")]);
        let guesser = IpAddr::from([192, 0, 2, 1]);
        let guess = || checker.check(guesser, "dev1", b"guess");
        let permit = checker.queue.permit(guesser, "dev1").await;
        let mut guesses: Vec<_> = (0..200).map(|_| Box::pin(guess())).collect();
        for guess in &mut guesses {
            assert!(at_once(&mut guess.as_mut()).await.is_none());
        }
        let mut device = pin!(checker.check(ADDRESS, "dev1", b"one"));
        assert!(at_once(&mut device).await.is_none());
        drop(permit);
        // Whoever else had the permit would keep it: none of them goes on.
        assert!(timeout(PATIENCE, device).await.expect("it is the next").is_ok());
        // Its permit went to the first of them, which has not begun.
        for guess in &mut guesses[1..] {
            assert!(at_once(&mut guess.as_mut()).await.is_none());
        }
    }

    #[tokio::test]
    async fn who_finds_no_room_is_told_so() {
        let checker = checker(&[("dev1", "one")]);
        let _permit = take_the_permit(&checker).await;
        let mut guesses: Vec<_> =
            (0..MAX_WAITING).map(|_| Box::pin(checker.check(ADDRESS, "dev1", b"guess"))).collect();
        for guess in &mut guesses {
            assert!(at_once(&mut guess.as_mut()).await.is_none());
        }
        let mut more = pin!(checker.check(ADDRESS, "dev1", b"guess"));
        assert_eq!(at_once(&mut more).await, Some(Err(NotTaken::Busy)));
    }

    #[tokio::test]
    async fn another_file_replaces_users() {
        let checker = checker(&[("dev1", "one"), ("dev2", "two")]);
        assert!(checker.is_right("dev1", b"one").await && checker.is_right("dev2", b"two").await);
        checker.replace(passwords(&lines(&[("dev1", "new")])));
        assert!(checker.contains("dev1") && !checker.contains("dev2"));
        assert!(!checker.is_right("dev1", b"one").await && !checker.is_right("dev2", b"two").await);
        assert!(checker.is_right("dev1", b"new").await);
    }

    #[tokio::test]
    async fn a_line_that_stays_keeps_its_credential_and_what_was_recognised() {
        let kept = lines(&[("dev1", "one")]);
        let checker = PasswordChecker::with_permits(passwords(&kept), 1).unwrap();
        let credential = checker.check(ADDRESS, "dev1", b"one").await.unwrap();
        checker.replace(passwords(&(kept.clone() + &lines(&[("dev2", "two")]))));
        let permit = take_the_permit(&checker).await;
        let mut again = pin!(checker.check(ADDRESS, "dev1", b"one"));
        assert_eq!(at_once(&mut again).await, Some(Ok(credential)), "without a hash");
        drop(permit);
        let other = checker.check(ADDRESS, "dev2", b"two").await.unwrap();
        assert!(checker.is_current("dev1", credential) && checker.is_current("dev2", other));
        assert!(!checker.is_current("dev2", credential) && credential != other && credential != 0);

        // Another hash of the same password is another line.
        checker.replace(passwords(&lines(&[("dev1", "one")])));
        assert!(!checker.is_current("dev1", credential) && !checker.is_current("dev2", other));
        assert_ne!(checker.check(ADDRESS, "dev1", b"one").await, Ok(credential));
    }

    #[tokio::test]
    async fn a_check_goes_by_the_file_as_it_is_at_its_end() {
        let checker = checker(&[("dev1", "one"), ("dev2", "two")]);
        let permit = take_the_permit(&checker).await;
        let mut removed = pin!(checker.is_right("dev1", b"one"));
        let mut changed = pin!(checker.is_right("dev2", b"two"));
        let mut new = pin!(checker.is_right("dev3", b"three"));
        assert_eq!(at_once(&mut removed).await, None);
        assert_eq!(at_once(&mut changed).await, None);
        assert_eq!(at_once(&mut new).await, None);
        checker.replace(passwords(&lines(&[("dev2", "other"), ("dev3", "three")])));
        drop(permit);
        assert_eq!(tokio::join!(removed, changed, new), (false, false, true));
    }

    #[test]
    fn who_is_removed_while_its_hash_is_computed_is_not_let_in() {
        let checker = checker(&[("dev1", "one")]);
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.max_blocking_threads(1).build().unwrap().block_on(async {
            // The one thread that hashes has something else to do until the file has changed.
            let (begin, begins) = std::sync::mpsc::channel();
            let busy = spawn_blocking(move || begins.recv());
            let mut check = pin!(checker.is_right("dev1", b"one"));
            assert_eq!(at_once(&mut check).await, None, "it waits for the thread");
            checker.replace(passwords(&lines(&[("dev2", "two")])));
            begin.send(()).unwrap();
            assert!(!check.await);
            busy.await.unwrap().unwrap();
        });
    }

    #[tokio::test]
    async fn names_that_there_are_not_are_spread_over_the_users() {
        let users: Vec<String> = (0..8).map(|n| format!("dev{n}")).collect();
        let users: Vec<(&str, &str)> = users.iter().map(|name| (name.as_str(), "pw")).collect();
        let checker = checker(&users);
        let passwords = checker.passwords();
        let stand_in = |n: usize| checker.stand_in(&format!("nobody{n}"), &passwords).unwrap().credential;
        let used: std::collections::HashSet<u64> = (0..1000).map(stand_in).collect();
        assert_eq!(used.len(), users.len());
        assert_eq!(stand_in(1), stand_in(1));
    }

    #[tokio::test]
    async fn nothing_secret_is_in_debug_output() {
        let checker = checker(&[("dev1", "one")]);
        assert!(checker.is_right("dev1", b"one").await);
        assert_eq!(format!("{checker:?}"), "PasswordChecker { passwords: Passwords { users: 1 }, .. }");
    }
}
