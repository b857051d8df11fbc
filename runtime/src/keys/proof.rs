//! From when on the gateway can prove which sealed requests it has seen.
//!
//! A sealed request is never run twice, so a gateway refuses what it may have run before it started. With `durability =
//! "always"` the journal has all of that. Otherwise, or when the journal has lost something or there is another data
//! directory beside old keys, nothing is known of requests that were sealed before the start; a clock may be ahead by
//! [`MAX_AHEAD`].

use super::{KeysError, now_ms};
use crate::config::Durability;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// How far ahead of this clock the asker's may be.
pub const MAX_AHEAD: Duration = Duration::from_secs(60);

/// The file of the data directory that says from when on, in milliseconds since 1970.
const FILE: &str = "sealed-after";

/// The time, in milliseconds since 1970, before which no request may have been sealed that this process runs. Notes it
/// for the next process. `is_whole`: the journal has lost nothing; `is_new`: the keys have just been made.
///
/// # Errors
///
/// When the data directory does not take the note.
pub fn accepted_after(
    data_dir: &Path,
    durability: Durability,
    is_whole: bool,
    is_new: bool,
) -> Result<u64, KeysError> {
    let path = data_dir.join(FILE);
    let noted = fs::read_to_string(&path).ok().and_then(|text| text.trim().parse::<u64>().ok());
    let is_proven = durability == Durability::Always && is_whole;
    let after = match noted {
        // Nobody has sealed anything to keys that were not there.
        _ if is_new && durability == Durability::Always => 0,
        Some(noted) if is_proven && noted != u64::MAX => noted,
        _ => now_ms() + MAX_AHEAD.as_millis() as u64,
    };
    let note = if durability == Durability::Always { after } else { u64::MAX };
    let temporary = path.with_extension("new");
    let write = || {
        fs::write(&temporary, format!("{note}\n"))?;
        fs::File::open(&temporary)?.sync_all()?;
        fs::rename(&temporary, &path)?;
        fs::File::open(data_dir)?.sync_all()
    };
    write().map_err(|source| KeysError::Io { path: path.clone(), source })?;
    Ok(after)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_unbroken_journal_proves_what_was_seen() {
        let folder = tempfile::tempdir().unwrap();
        let after = |durability, is_whole, is_new| {
            let before = now_ms() + 60_000;
            let after = accepted_after(folder.path(), durability, is_whole, is_new).unwrap();
            (after >= before, after)
        };
        assert_eq!(after(Durability::Always, true, true), (false, 0));
        assert_eq!(after(Durability::Always, true, false), (false, 0));
        let (is_late, late) = after(Durability::Always, false, false);
        assert!(is_late);
        assert_eq!(after(Durability::Always, true, false).1, late, "it stays so");
        for other in [Durability::Batch, Durability::Off] {
            assert!(after(other, true, true).0 && after(other, true, false).0);
            // What that process has seen is unknown to the next.
            assert!(after(Durability::Always, true, false).0);
        }
        fs::remove_file(folder.path().join(FILE)).unwrap();
        assert!(after(Durability::Always, true, false).0, "another data directory");
    }
}
