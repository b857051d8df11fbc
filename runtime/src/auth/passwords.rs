//! Who the users are, and whether their passwords are right.
//!
//! The file is [`PasswordFile`]'s; what was learnt of a line stays for as long as the line does.

pub mod checker;
mod queue;

use crate::config::password_file::{PasswordFile, PasswordFileError};
use argon2::Argon2;
use argon2::password_hash::PasswordVerifier;
use argon2::password_hash::phc::PasswordHash;
use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// HMAC-SHA-256 of a user name and a password.
type Mark = [u8; 32];

/// The users of a password file.
#[derive(Default)]
pub struct Passwords {
    /// By name. Shared with a later reading of the file, in which their lines are the same.
    users: Vec<Arc<User>>,
}

struct User {
    name: String,
    hash: PasswordHash,
    /// Numbers this line among all that were read; not 0.
    credential: u64,
    /// The mark of the right password, from when it came first: see [`checker::PasswordChecker`].
    recognised: OnceLock<Mark>,
}

impl User {
    fn new((name, hash): (String, PasswordHash)) -> User {
        static LAST_CREDENTIAL: AtomicU64 = AtomicU64::new(0);
        let credential = LAST_CREDENTIAL.fetch_add(1, Ordering::Relaxed) + 1;
        User { name, hash, credential, recognised: OnceLock::new() }
    }

    /// Takes as long as the hash says.
    fn verifies(&self, password: &[u8]) -> bool {
        Argon2::default().verify_password(password, &self.hash).is_ok()
    }
}

impl Passwords {
    /// Reads the file.
    ///
    /// # Errors
    ///
    /// As [`PasswordFile::load`].
    pub fn load(path: &Path) -> Result<Passwords, PasswordFileError> {
        PasswordFile::load(path).map(Passwords::from)
    }

    /// Keeps what is known of those whose lines are as they were in `former`.
    fn keep_known(&mut self, former: &Passwords) {
        for user in &mut self.users {
            let known = former.find(&user.name).filter(|known| known.hash == user.hash);
            if let Some(known) = known {
                *user = known.clone();
            }
        }
    }

    /// Whether there is a user of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    fn find(&self, name: &str) -> Option<&Arc<User>> {
        let index = self.users.binary_search_by(|user| user.name.as_str().cmp(name)).ok()?;
        Some(&self.users[index])
    }
}

impl From<PasswordFile> for Passwords {
    fn from(file: PasswordFile) -> Passwords {
        Passwords { users: file.users.into_iter().map(|user| Arc::new(User::new(user))).collect() }
    }
}

/// The number of users alone.
impl fmt::Debug for Passwords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Passwords").field("users", &self.users.len()).finish()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use argon2::Params;
    use argon2::password_hash::PasswordHasher;

    /// A hash that costs a test nothing.
    pub(crate) fn cheap(password: &str) -> String {
        let params = Params::new(8, 1, 1, None).unwrap();
        let argon2 = Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params);
        let hash: PasswordHash = argon2.hash_password(password.as_bytes()).unwrap();
        hash.to_string()
    }

    #[test]
    fn a_password_is_that_of_its_user() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, format!("zoë:{}\ndev 1:{}\n", cheap("a"), cheap("b"))).unwrap();
        let passwords = Passwords::load(file.path()).unwrap();
        assert!(passwords.contains("zoë") && !passwords.contains("zo"));
        let [dev, zoe] = &passwords.users[..] else { panic!("{passwords:?}") };
        assert!(dev.verifies(b"b") && !dev.verifies(b"a") && zoe.verifies(b"a"));
        assert_eq!(format!("{passwords:?}"), "Passwords { users: 2 }");
    }
}
