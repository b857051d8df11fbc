//! The password file: user names and argon2id hashes, one user a line.
//!
//! ```text
//! # a comment; empty lines are skipped, too
//! dev1:$argon2id$v=19$m=19456,t=2,p=1$<salt>$<hash>
//! ```
//!
//! `offload-rt passwd` writes it, and any tool that writes PHC strings can. Nothing here shows a password, a hash or a
//! line of the file in an error or in `Debug`.

use argon2::password_hash::PasswordHasher;
use argon2::password_hash::phc::PasswordHash;
use argon2::{Argon2, Params};
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Most bytes of a password file: a file given by mistake is refused before it fills the memory.
pub const MAX_FILE_BYTES: u64 = 4 << 20;
/// Most users of a password file.
pub const MAX_USERS: usize = 16_384;
/// Most bytes of a user name.
pub const MAX_NAME_BYTES: usize = 64;
/// Most memory that checking one password may take, in KiB; `passwd` writes hashes that take 19 MiB.
pub const MAX_HASH_MEMORY_KIB: u32 = 256 << 10;
/// Most passes over that memory; `passwd` writes hashes that make 2.
pub const MAX_HASH_PASSES: u32 = 16;

/// Why a password file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PasswordFileError {
    /// It cannot be read, or is not UTF-8.
    #[error("cannot read the password file {}: {error}; `offload-rt passwd FILE NAME` makes one", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        error: io::Error,
    },
    /// It is larger than any password file.
    #[error("the password file {} has more than {MAX_FILE_BYTES} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// A line is not what it should be.
    #[error("{}:{line}: {problem}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it. Does not repeat it.
        problem: Problem,
    },
}

/// What is wrong with a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// It has no colon.
    #[error("no colon; accepted: NAME:HASH")]
    NoColon,
    /// The name is not one.
    #[error(transparent)]
    Name(#[from] BadName),
    /// The hash is not one, or not one that is taken.
    #[error("another kind of hash; accepted: argon2id, $argon2id$v=19$…, as `offload-rt passwd` writes it")]
    Hash,
    /// The hash takes more memory or passes than a gateway can afford.
    #[error("the hash takes more than {MAX_HASH_MEMORY_KIB} KiB or {MAX_HASH_PASSES} passes to check")]
    Costly,
    /// The user was there before.
    #[error("this user has a line already")]
    Twice,
    /// There are too many.
    #[error("more than {MAX_USERS} users")]
    TooMany,
}

/// A text that is no user name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a user name has 1 to {MAX_NAME_BYTES} bytes, without `:`, `+`, `#`, `/` and control characters, and no `$` in front"
)]
pub struct BadName;

/// Whether `name` can be a user's: it is part of topics and of lines.
///
/// # Errors
///
/// When it cannot.
pub fn check_name(name: &str) -> Result<(), BadName> {
    let allowed = |c: char| !matches!(c, ':' | '+' | '#' | '/') && !c.is_control();
    let is_name =
        (1..=MAX_NAME_BYTES).contains(&name.len()) && !name.starts_with('$') && name.chars().all(allowed);
    if is_name { Ok(()) } else { Err(BadName) }
}

/// A new hash of `password`, as it stands in the file: argon2id with 19 MiB and 2 passes, as OWASP recommends.
///
/// # Errors
///
/// When the system has no randomness for the salt.
pub fn hash(password: &[u8]) -> io::Result<String> {
    let hash: PasswordHash = Argon2::default().hash_password(password).map_err(io::Error::other)?;
    Ok(hash.to_string())
}

/// The user that a line of the file is about, if it is about one.
pub fn user_of(line: &str) -> Option<&str> {
    let is_blank = line.trim().is_empty() || line.starts_with('#');
    line.split_once(':').map(|(name, _)| name).filter(|_| !is_blank)
}

/// A password file: its users with their hashes, in the order of the names.
pub struct PasswordFile {
    /// A name, and the hash of its password.
    pub users: Vec<(String, PasswordHash)>,
}

impl PasswordFile {
    /// Reads the file.
    ///
    /// # Errors
    ///
    /// When it cannot be read, is larger than [`MAX_FILE_BYTES`], or has a line that is not taken.
    pub fn load(path: &Path) -> Result<PasswordFile, PasswordFileError> {
        PasswordFile::parse(path, &read(path)?)
    }

    /// The users in `text`, which is that of the file `path`.
    ///
    /// # Errors
    ///
    /// When it is larger than [`MAX_FILE_BYTES`], or has a line that is not taken.
    pub fn parse(path: &Path, text: &str) -> Result<PasswordFile, PasswordFileError> {
        if text.len() as u64 > MAX_FILE_BYTES {
            return Err(PasswordFileError::TooLarge { path: path.to_owned() });
        }
        let wrong = |line, problem| PasswordFileError::Line { path: path.to_owned(), line, problem };
        let mut users = Vec::new();
        for (line, text) in (1..).zip(text.lines()) {
            if text.trim().is_empty() || text.starts_with('#') {
                continue;
            }
            let user = parse_user(text).map_err(|problem| wrong(line, problem))?;
            if users.len() == MAX_USERS {
                return Err(wrong(line, Problem::TooMany));
            }
            users.push((user, line));
        }
        // Stable: of two with one name the later line is the one that is wrong.
        users.sort_by(|(a, _), (b, _)| a.0.cmp(&b.0));
        if let Some(pair) = users.windows(2).find(|pair| pair[0].0.0 == pair[1].0.0) {
            return Err(wrong(pair[1].1, Problem::Twice));
        }
        Ok(PasswordFile { users: users.into_iter().map(|(user, _)| user).collect() })
    }

    /// All user names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.users.iter().map(|(name, _)| name.as_str())
    }

    /// Whether there is a user of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.users.binary_search_by(|(user, _)| user.as_str().cmp(name)).is_ok()
    }
}

/// The number of users alone.
impl fmt::Debug for PasswordFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PasswordFile").field("users", &self.users.len()).finish()
    }
}

/// The file's text, and no more of it than shows that it is too large.
///
/// # Errors
///
/// When it cannot be read, or is not UTF-8.
pub fn read(path: &Path) -> Result<String, PasswordFileError> {
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text))
        .map_err(|error| PasswordFileError::Read { path: path.to_owned(), error })?;
    Ok(text)
}

fn parse_user(line: &str) -> Result<(String, PasswordHash), Problem> {
    let (name, hash) = line.split_once(':').ok_or(Problem::NoColon)?;
    check_name(name)?;
    let hash = PasswordHash::new(hash.trim_end()).map_err(|_| Problem::Hash)?;
    let is_argon2id = hash.algorithm == argon2::ARGON2ID_IDENT;
    let is_version_19 = hash.version == Some(argon2::Version::V0x13.into());
    let params = Params::try_from(&hash).map_err(|_| Problem::Hash)?;
    if !is_argon2id || !is_version_19 || hash.salt.is_none() || hash.hash.is_none() {
        return Err(Problem::Hash);
    }
    if params.m_cost() > MAX_HASH_MEMORY_KIB || params.t_cost() > MAX_HASH_PASSES {
        return Err(Problem::Costly);
    }
    Ok((name.to_owned(), hash))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A hash of something, as `passwd` would write it with the least cost.
    const HASH: &str =
        "$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHRzYWx0$c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2U";

    #[test]
    fn a_file_has_users_comments_and_empty_lines() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = format!("# devices\n\nzoë:{HASH}\r\ndev 1:{}\n", hash(b"b").unwrap());
        std::fs::write(&file, text).unwrap();
        let passwords = PasswordFile::load(file.path()).unwrap();
        assert_eq!(passwords.names().collect::<Vec<_>>(), ["dev 1", "zoë"]);
        assert!(passwords.contains("zoë") && !passwords.contains("zo"));
        assert_eq!(format!("{passwords:?}"), "PasswordFile { users: 2 }");
        assert_eq!(user_of("dev 1:$argon2id"), Some("dev 1"));
        assert_eq!((user_of("#a:b"), user_of(" "), user_of("a")), (None, None, None));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line_and_not_repeated() {
        let good = HASH;
        let long = "n".repeat(MAX_NAME_BYTES + 1);
        let costly = good.replace("m=8,", "m=4194304,");
        let slow = good.replace("t=1,", "t=17,");
        let old = good.replace("v=19", "v=16");
        for (line, problem) in [
            ("secret".to_owned(), Problem::NoColon),
            (format!(":{good}"), Problem::Name(BadName)),
            (format!("{long}:{good}"), Problem::Name(BadName)),
            (format!("a+b:{good}"), Problem::Name(BadName)),
            (format!("a\tb:{good}"), Problem::Name(BadName)),
            ("a:secret".to_owned(), Problem::Hash),
            ("a:$6$rounds=5000$secret$secret".to_owned(), Problem::Hash),
            (format!("a:{}", good.replace("argon2id", "argon2i")), Problem::Hash),
            (format!("a:{}", good.rsplit_once('$').unwrap().0), Problem::Hash),
            (format!("a:{good}:"), Problem::Hash),
            (format!("a:{old}"), Problem::Hash),
            (format!("a:{costly}"), Problem::Costly),
            (format!("a:{slow}"), Problem::Costly),
            (format!("first:{good}"), Problem::Twice),
        ] {
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(&file, format!("first:{good}\n# second\n{line}\n")).unwrap();
            let error = PasswordFile::load(file.path()).unwrap_err().to_string();
            assert_eq!(error, format!("{}:3: {problem}", file.path().display()), "{line}");
            assert!(!error.contains("secret"));
        }
    }

    #[test]
    fn files_that_are_no_password_files_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let load = |name: &str| PasswordFile::load(&folder.path().join(name));
        let error = load("none").unwrap_err().to_string();
        assert!(error.contains("none: No such file"), "{error}");
        std::fs::write(folder.path().join("binary"), [0xFF; 8]).unwrap();
        assert!(matches!(load("binary"), Err(PasswordFileError::Read { .. })));
        let sparse = File::create(folder.path().join("large")).unwrap();
        sparse.set_len(MAX_FILE_BYTES + 1).unwrap();
        assert!(matches!(load("large"), Err(PasswordFileError::TooLarge { .. })));
        let many: String = (0..=MAX_USERS).map(|n| format!("u{n}:{HASH}\n")).collect();
        std::fs::write(folder.path().join("many"), many).unwrap();
        let error = load("many").unwrap_err();
        let expected_line = MAX_USERS + 1;
        assert!(
            matches!(error, PasswordFileError::Line { line, problem: Problem::TooMany, .. } if line == expected_line)
        );
    }
}
