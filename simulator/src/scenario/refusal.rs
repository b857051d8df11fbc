//! What is not accepted in a scenario, and where it stands.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Why a scenario cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// The file cannot be read, or is not UTF-8.
    #[error("cannot read the scenario {}: {error}; `offload-sim new {}` makes one", path.display(), path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        error: io::Error,
    },
    /// The path is that of a folder.
    #[error("{} is a folder, and a scenario is a file: {found}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What to name instead.
        found: String,
    },
    /// The file is larger than any scenario.
    #[error("the scenario {} has {bytes} bytes, more than {most}", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
        /// The most bytes that are read.
        most: u64,
    },
    /// Keys or values are not accepted, a line each.
    #[error("{}", .0.iter().map(Refusal::to_string).collect::<Vec<_>>().join("\n"))]
    Refused(Vec<Refusal>),
}

/// Files of a folder that are named at the most.
const MAX_FOUND: usize = 5;

impl ScenarioError {
    /// A folder was named: its files that may have been meant, or how to make one.
    pub(super) fn folder(path: &Path) -> Self {
        let entries = std::fs::read_dir(path).into_iter().flatten().filter_map(Result::ok);
        let mut files: Vec<PathBuf> = (entries.map(|entry| entry.path()))
            .filter(|file| file.extension().is_some_and(|extension| extension == "toml"))
            .collect();
        files.sort();
        let names: Vec<String> =
            files.iter().take(MAX_FOUND).map(|file| file.display().to_string()).collect();
        let found = if names.is_empty() {
            format!("`offload-sim new {}` makes one", path.join("site.toml").display())
        } else {
            format!("name one, such as {}", names.join(", "))
        };
        Self::Folder { path: path.to_owned(), found }
    }
}

/// One key or value that is not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The file.
    pub file: PathBuf,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// Path of the key: `device.sensors.arrival`; empty where the file is no TOML.
    pub key: String,
    /// What is wrong.
    pub problem: String,
    /// What is accepted instead; empty where the problem says it.
    pub accepted: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, column, key, problem, accepted } = self;
        write!(f, "{}:{line}:{column}: ", file.display())?;
        if !key.is_empty() {
            write!(f, "{key}: ")?;
        }
        f.write_str(problem)?;
        if accepted.is_empty() { Ok(()) } else { write!(f, " (accepted: {accepted})") }
    }
}
