//! The machine around the sandboxes, as a test sees it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Longest wait for a process to come or go. Far above what a busy machine needs: the other tests are bombs.
const PATIENCE: Duration = Duration::from_secs(120);
/// Time between two looks at the processes.
const LOOK: Duration = Duration::from_millis(10);

/// A word that no other test and no other run of this one uses.
pub fn mark(what: &str) -> String {
    format!("{what}-of-{}", std::process::id())
}

/// Command lines on this machine that hold `word`, but those of this program and the shells in which tests are typed.
pub fn running(word: &str) -> Vec<String> {
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = all.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    let lines = lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
    lines.filter(|line| line.contains(word)).collect()
}

/// Waits until `condition` holds of what is running with `word`.
pub async fn until(word: &str, condition: impl Fn(&[String]) -> bool) {
    let met = async {
        while !condition(&running(word)) {
            tokio::time::sleep(LOOK).await;
        }
    };
    if tokio::time::timeout(PATIENCE, met).await.is_err() {
        panic!("{:?}", running(word));
    }
}

/// A file of the host that everyone may read and write, in a folder that everyone may enter, and what stands in it.
pub struct Secret {
    folder: PathBuf,
    pub file: PathBuf,
    pub word: String,
}

impl Secret {
    pub fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(mark(name));
        std::fs::create_dir(&folder).unwrap();
        let file = folder.join("secret");
        let word = mark("word");
        std::fs::write(&file, &word).unwrap();
        for path in [&folder, &file] {
            std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
        }
        Self { folder, file, word }
    }

    pub fn path(&self) -> &str {
        self.file.to_str().unwrap()
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// It is as it was, and alone.
    pub fn assert_untouched(&self) {
        assert_eq!(std::fs::read_to_string(&self.file).unwrap(), self.word);
        assert_eq!(std::fs::read_dir(&self.folder).unwrap().count(), 1);
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.folder).unwrap();
    }
}

/// A process of the user whose sandboxes are tested, outside of them.
pub struct Bystander(Child);

impl Bystander {
    pub fn new() -> Self {
        Self(Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn().unwrap())
    }

    pub fn pid(&self) -> String {
        self.0.id().to_string()
    }

    pub fn assert_alive(&mut self) {
        assert_eq!(self.0.try_wait().unwrap(), None);
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}
