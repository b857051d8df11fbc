//! Files that are read again when they change: the password file, certificates and their keys.
//!
//! A file counts as changed when its device, inode, size or modification time is another than at the last look. A
//! file that cannot be used leaves in force what was read before, and is tried again at every look until it can.

use std::fmt::Display;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::task::AbortOnDropHandle;

/// Time between two looks at the files.
pub const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Files as they were at the last look.
///
/// Made before the files are read for the first time, so that no change after that is missed.
#[derive(Debug)]
pub struct WatchedFiles {
    paths: Vec<PathBuf>,
    seen: Vec<Option<Identity>>,
}

/// What tells that a file is another one than before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    size: u64,
    /// In seconds and nanoseconds.
    modified: (i64, i64),
}

impl WatchedFiles {
    /// Takes a first look at `paths`, which need not exist.
    pub fn new(paths: impl IntoIterator<Item = PathBuf>) -> WatchedFiles {
        let paths: Vec<PathBuf> = paths.into_iter().collect();
        let seen = look(&paths);
        WatchedFiles { paths, seen }
    }

    /// Whether any file is another one than at the last look.
    fn have_changed(&mut self) -> bool {
        let seen = look(&self.paths);
        let changed = seen != self.seen;
        self.seen = seen;
        changed
    }

    /// Starts to look every [`LOOK_EVERY`]. `load` is called after a change, from a thread that may block: it reads the
    /// files and puts them into force, or says why it cannot. Call it within a tokio runtime.
    pub fn watch<E: Display + 'static>(self, load: impl FnMut() -> Result<(), E> + Send + 'static) -> Reload {
        self.watch_every(LOOK_EVERY, load)
    }

    fn watch_every<E: Display + 'static>(
        self,
        period: Duration,
        load: impl FnMut() -> Result<(), E> + Send + 'static,
    ) -> Reload {
        let watcher = Watcher { files: self, load, failure: None };
        Reload { _task: AbortOnDropHandle::new(tokio::spawn(watch(watcher, period))) }
    }
}

fn look(paths: &[PathBuf]) -> Vec<Option<Identity>> {
    let identity = |path: &PathBuf| {
        // A file that is away, or out of reach, is one without identity.
        let found = std::fs::metadata(path).ok()?;
        Some(Identity {
            device: found.dev(),
            inode: found.ino(),
            size: found.size(),
            modified: (found.mtime(), found.mtime_nsec()),
        })
    };
    paths.iter().map(identity).collect()
}

/// Files that are being watched. Dropping it ends that.
#[derive(Debug)]
pub struct Reload {
    _task: AbortOnDropHandle<()>,
}

struct Watcher<L> {
    files: WatchedFiles,
    load: L,
    /// Why the last attempt failed.
    failure: Option<String>,
}

async fn watch<E: Display + 'static, L: FnMut() -> Result<(), E> + Send + 'static>(
    mut watcher: Watcher<L>,
    period: Duration,
) {
    let mut looks = interval(period);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let looked = spawn_blocking(move || {
            watcher.look();
            watcher
        });
        match looked.await {
            Ok(back) => watcher = back,
            Err(error) => return tracing::error!(%error, "changed files are not noticed any more"),
        }
    }
}

impl<E: Display, L: FnMut() -> Result<(), E>> Watcher<L> {
    /// Loads the files if they changed, or if they could not be used the last time.
    fn look(&mut self) {
        // In any case, and before the files are read: what changes meanwhile is seen at the next look.
        let changed = self.files.have_changed();
        if !(changed || self.failure.is_some()) {
            return;
        }
        let paths = &self.files.paths;
        match (self.load)() {
            Ok(()) => {
                self.failure = None;
                tracing::info!(files = ?paths, "read again");
            }
            Err(error) => {
                let error = error.to_string();
                // Once for each change and each reason, not once for each look.
                if changed || self.failure.as_ref() != Some(&error) {
                    tracing::error!(
                        files = ?paths,
                        %error,
                        "files cannot be read again: what was read before stays in force"
                    );
                }
                self.failure = Some(error);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::tests::logged;
    use std::fs;
    use std::io::{self, Write};
    use std::path::Path;
    use std::sync::{Arc, Mutex};
    use tokio::sync::mpsc;

    /// Loads the number that a file holds.
    fn watcher(path: &Path, loaded: Arc<Mutex<Vec<i32>>>) -> Watcher<impl FnMut() -> Result<(), String>> {
        let file = path.to_owned();
        let load = move || {
            let text = fs::read_to_string(&file).map_err(|error| error.to_string())?;
            let number = text.parse().map_err(|_| format!("{text:?} is no number"))?;
            loaded.lock().unwrap().push(number);
            Ok(())
        };
        Watcher { files: WatchedFiles::new([path.to_owned()]), load, failure: None }
    }

    /// Puts another file in its place.
    fn replace(path: &Path, text: &str) {
        let mut new = tempfile::NamedTempFile::new_in(path.parent().unwrap()).unwrap();
        new.write_all(text.as_bytes()).unwrap();
        new.persist(path).unwrap();
    }

    #[test]
    fn a_file_is_read_again_when_it_is_another_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("number");
        replace(&path, "1");
        let loaded = Arc::new(Mutex::new(Vec::new()));
        let mut watcher = watcher(&path, loaded.clone());
        watcher.look();
        assert!(loaded.lock().unwrap().is_empty(), "it has not changed");
        replace(&path, "2");
        watcher.look();
        watcher.look();
        fs::write(&path, "33").unwrap();
        watcher.look();
        let file = fs::File::options().append(true).open(&path).unwrap();
        file.set_modified(std::time::UNIX_EPOCH).unwrap();
        watcher.look();
        watcher.look();
        assert_eq!(*loaded.lock().unwrap(), [2, 33, 33]);
    }

    #[test]
    fn a_file_that_cannot_be_used_is_logged_once_and_tried_until_it_can() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("number");
        replace(&path, "1");
        let loaded = Arc::new(Mutex::new(Vec::new()));
        let mut watcher = watcher(&path, loaded.clone());
        let log = logged(|| {
            replace(&path, "one");
            (0..3).for_each(|_| watcher.look());
            fs::remove_file(&path).unwrap();
            (0..3).for_each(|_| watcher.look());
        });
        assert_eq!(log.matches("ERROR").count(), 2, "{log}");
        assert!(log.contains("is no number"), "{log}");
        assert!(log.contains("No such file"), "{log}");
        assert!(loaded.lock().unwrap().is_empty());
        let log = logged(|| {
            replace(&path, "2");
            (0..3).for_each(|_| watcher.look());
        });
        assert!(log.matches("read again").count() == 1 && !log.contains("ERROR"), "{log}");
        assert_eq!(*loaded.lock().unwrap(), [2]);
    }

    #[tokio::test]
    async fn the_task_sees_changes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("number");
        replace(&path, "1");
        let watched = WatchedFiles::new([path.clone()]);
        let load = |sender: mpsc::UnboundedSender<String>| {
            let path = path.clone();
            move || {
                sender.send(fs::read_to_string(&path)?).expect("the test listens");
                io::Result::Ok(())
            }
        };
        let (sender, mut loads) = mpsc::unbounded_channel();
        let reload = watched.watch_every(Duration::from_millis(1), load(sender));
        replace(&path, "2");
        assert_eq!(loads.recv().await.unwrap(), "2");
        replace(&path, "3");
        assert_eq!(loads.recv().await.unwrap(), "3");
        drop(reload);
        assert_eq!(loads.recv().await, None, "its end drops the loader");
    }
}
