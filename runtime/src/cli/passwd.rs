//! `offload-rt passwd`: adds, changes and removes users of a password file.

use super::output;
use crate::config::password_file::{self, PasswordFile};
use anyhow::{Context, bail, ensure};
use clap::Args;
use rustix::fs::{FlockOperation, flock};
use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};
use std::fs::{self, File, OpenOptions};
use std::io::{self, IsTerminal, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Longest password, in bytes: MQTT carries no longer one.
const MAX_PASSWORD_BYTES: usize = u16::MAX as usize;
/// Longest line that a terminal hands over, in bytes.
const MAX_TYPED_BYTES: usize = 4096;
/// What a terminal makes of ctrl-c.
const CTRL_C: u8 = 3;
/// Only the owner reads and writes a file that we make.
const FILE_MODE: u32 = 0o600;

/// The password file, the user, and what to do.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Passwd {
    /// The password file; it is created if it does not exist
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The user
    #[arg(value_name = "NAME")]
    name: String,
    /// Remove the user
    #[arg(long)]
    delete: bool,
}

const EXAMPLES: &str = "\
Examples:
  offload-rt passwd passwords dev1
  echo secret | offload-rt passwd passwords dev1
  offload-rt passwd --delete passwords dev1";

pub fn run(command: Passwd) -> anyhow::Result<ExitCode> {
    let Passwd { file, name, delete } = command;
    password_file::check_name(&name)?;
    // Before the lock: who types a password holds up nobody.
    let hash = if delete { None } else { Some(password_file::hash(&ask(&name)?)?) };
    let done = change(&file, &name, hash.as_deref())?;
    output::print_line(format_args!("{done} {name} in {}", file.display()))?;
    Ok(ExitCode::SUCCESS)
}

/// The new password: typed twice at a terminal, else the first line of standard input.
fn ask(name: &str) -> anyhow::Result<Vec<u8>> {
    let password = if io::stdin().is_terminal() {
        let first = type_unseen(&format!("New password of {name}: "))?;
        ensure!(type_unseen("Once more: ")? == first, "the two passwords are not the same");
        first
    } else {
        first_line(io::stdin().lock())?
    };
    ensure!(!password.is_empty(), "the password is empty");
    ensure!(password.len() <= MAX_PASSWORD_BYTES, "a password has at most {MAX_PASSWORD_BYTES} bytes");
    Ok(password)
}

/// A line from the terminal, which does not show it.
fn type_unseen(prompt: &str) -> anyhow::Result<Vec<u8>> {
    /// Puts the terminal back as it was, whatever happens.
    struct Unseen(Termios);
    impl Drop for Unseen {
        fn drop(&mut self) {
            // A terminal that is gone needs nothing back.
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.0);
        }
    }
    let before = tcgetattr(io::stdin())?;
    let mut unseen = before.clone();
    // Ctrl-c ends the line instead of this process, which has the terminal to put back.
    unseen.local_modes.remove(LocalModes::ECHO | LocalModes::ISIG);
    unseen.local_modes.insert(LocalModes::ECHONL);
    unseen.special_codes[SpecialCodeIndex::VEOL] = CTRL_C;
    tcsetattr(io::stdin(), OptionalActions::Flush, &unseen)?;
    let _restored = Unseen(before);
    // After that: what is typed from here on is not shown.
    io::stderr().write_all(prompt.as_bytes())?;
    let mut line = [0; MAX_TYPED_BYTES];
    let count = rustix::io::read(io::stdin(), &mut line)?;
    match line[..count].split_last() {
        Some((&CTRL_C, _)) => bail!("interrupted"),
        Some((b'\n', line)) => Ok(line.to_vec()),
        _ => bail!("the password is not one line"),
    }
}

fn first_line(input: impl Read) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    // One byte more than is taken, and a line end.
    input.take(MAX_PASSWORD_BYTES as u64 + 3).read_to_end(&mut text)?;
    let line = text.split(|&byte| byte == b'\n').next().unwrap_or_default();
    Ok(line.strip_suffix(b"\r").unwrap_or(line).to_vec())
}

/// Gives the user this hash, or removes the user where there is none. Says what was done.
fn change(file: &Path, name: &str, hash: Option<&str>) -> anyhow::Result<&'static str> {
    let (path, locked) = lock(file, hash.is_some())?;
    let text = password_file::read(&path)?;
    let known = PasswordFile::parse(&path, &text)?.contains(name);
    let done = match (known, hash) {
        (true, Some(_)) => "changed the password of",
        (false, Some(_)) => "added",
        (true, None) => "removed",
        (false, None) => bail!("there is no user {name} in {}", file.display()),
    };
    let text = with_user(&text, name, hash);
    // What the gateway would refuse is not written.
    PasswordFile::parse(&path, &text)?;
    replace(&path, &locked, &text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(done)
}

/// The text with the user's line changed, added at the end, or left out. All else stays as it is.
fn with_user(text: &str, name: &str, hash: Option<&str>) -> String {
    let own = hash.map(|hash| format!("{name}:{hash}\n")).unwrap_or_default();
    let mut result = String::with_capacity(text.len() + own.len());
    let mut placed = false;
    for line in text.split_inclusive('\n') {
        if password_file::user_of(line) == Some(name) {
            result.push_str(&own);
            placed = true;
        } else {
            result.push_str(line);
        }
    }
    if !placed {
        if !result.is_empty() && !result.ends_with('\n') {
            result.push('\n');
        }
        result.push_str(&own);
    }
    result
}

/// Opens the file, makes it where that is wanted, and locks it until it is dropped; waits for whoever has the lock.
/// Gives its path without links, so that replacing it replaces the file and not a link.
fn lock(file: &Path, create: bool) -> anyhow::Result<(PathBuf, File)> {
    let attempt = || -> io::Result<Option<(PathBuf, File)>> {
        let mut options = OpenOptions::new();
        // To write is not needed; whoever may not is told now.
        options.read(true).write(true).create(create).mode(FILE_MODE);
        let locked = options.open(file)?;
        flock(&locked, FlockOperation::LockExclusive)?;
        let path = fs::canonicalize(file)?;
        let (ours, there) = (locked.metadata()?, fs::metadata(&path)?);
        let still_there = (ours.dev(), ours.ino()) == (there.dev(), there.ino());
        Ok(still_there.then_some((path, locked)))
    };
    loop {
        // Another process may have replaced the file while we waited: then it is that file that is to be locked.
        if let Some(locked) = attempt().map_err(|error| unopened(file, &error))? {
            return Ok(locked);
        }
    }
}

fn unopened(file: &Path, error: &io::Error) -> anyhow::Error {
    let remedy = match error.kind() {
        io::ErrorKind::NotFound => "; it is made in a folder that exists, by `offload-rt passwd FILE NAME`",
        io::ErrorKind::PermissionDenied => "; root may change it, and the user that it belongs to",
        _ => "",
    };
    anyhow::anyhow!("cannot open {}: {error}{remedy}", file.display())
}

/// Puts a file with this text in the place of `old`, with its owner and mode. A gateway that reads meanwhile has the
/// one or the other.
fn replace(path: &Path, old: &File, text: &str) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let mut new = tempfile::NamedTempFile::new_in(folder)?;
    new.write_all(text.as_bytes())?;
    let (owned, was) = (new.as_file().metadata()?, old.metadata()?);
    if (owned.uid(), owned.gid()) != (was.uid(), was.gid()) {
        fchown(new.as_file(), Some(was.uid()), Some(was.gid()))?;
    }
    new.as_file().set_permissions(was.permissions())?;
    new.as_file().sync_all()?;
    new.persist(path)?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn all_lines_but_the_users_own_stay_as_they_are() {
        let text = "# ours\na:1\n\n#b:2\nb:3";
        assert_eq!(with_user(text, "a", Some("4")), "# ours\na:4\n\n#b:2\nb:3");
        assert_eq!(with_user(text, "b", Some("4")), "# ours\na:1\n\n#b:2\nb:4\n");
        assert_eq!(with_user(text, "c", Some("4")), "# ours\na:1\n\n#b:2\nb:3\nc:4\n");
        assert_eq!(with_user(text, "a", None), "# ours\n\n#b:2\nb:3");
        assert_eq!(with_user("", "a", Some("4")), "a:4\n");
    }

    #[test]
    fn the_first_line_of_a_pipe_is_the_password() {
        let cases: [(&[u8], &[u8]); 5] =
            [(b"pw", b"pw"), (b"p w \r\nmore", b"p w "), (b"\n", b""), (b"", b""), (b"\xFF\n", b"\xFF")];
        for (input, password) in cases {
            assert_eq!(first_line(input).unwrap(), password);
        }
        let long = vec![b'x'; 1 << 20];
        assert!(first_line(&long[..]).unwrap().len() > MAX_PASSWORD_BYTES);
    }

    #[test]
    fn a_replaced_file_keeps_its_mode_and_the_link_to_it() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("passwords"), folder.path().join("link"));
        let hash = password_file::hash(b"pw").unwrap();
        assert_eq!(change(&file, "dev1", Some(&hash)).unwrap(), "added");
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        symlink(&file, &link).unwrap();
        assert_eq!(change(&link, "dev2", Some(&hash)).unwrap(), "added");
        assert!(link.is_symlink());
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(change(&link, "dev1", None).unwrap(), "removed");
        assert_eq!(PasswordFile::load(&file).unwrap().names().collect::<Vec<_>>(), ["dev2"]);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "nothing is left behind");
    }

    #[test]
    fn what_cannot_be_done_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("passwords");
        let hash = password_file::hash(b"pw").unwrap();
        let error = change(&file, "dev1", None).unwrap_err();
        assert!(format!("{error:#}").contains("No such file"), "{error:#}");
        assert!(!file.exists());
        change(&file, "dev1", Some(&hash)).unwrap();
        let before = fs::read(&file).unwrap();
        let error = change(&file, "dev2", None).unwrap_err().to_string();
        assert!(error.starts_with("there is no user dev2 in "), "{error}");
        assert_eq!(fs::read(&file).unwrap(), before);
        fs::write(&file, "no password file\n").unwrap();
        let error = change(&file, "dev1", Some(&hash)).unwrap_err().to_string();
        assert!(error.ends_with(":1: no colon; accepted: NAME:HASH"), "{error}");
        assert_eq!(fs::read(&file).unwrap(), b"no password file\n");
    }

    #[test]
    fn no_change_is_lost_among_many_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("passwords");
        let hash = password_file::hash(b"pw").unwrap();
        let names: Vec<String> = (0..16).map(|n| format!("dev{n:02}")).collect();
        std::thread::scope(|scope| {
            for name in &names {
                scope.spawn(|| change(&file, name, Some(&hash)).unwrap());
            }
        });
        assert_eq!(PasswordFile::load(&file).unwrap().names().collect::<Vec<_>>(), names);
    }
}
