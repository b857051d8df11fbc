//! What is wrong with a configuration, and where.

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read, or is not UTF-8.
    #[error("cannot read the configuration {}: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        error: io::Error,
    },
    /// The file is larger than any configuration.
    #[error("the configuration {} has {size} bytes, more than {max}", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size in bytes.
        size: u64,
        /// The most bytes that are read.
        max: u64,
    },
    /// The file holds what is not accepted.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// One key or value that is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Refusal {
    /// Path of the key: `limits.memory`, `program[1].name`; empty where the file is no TOML.
    pub key: String,
    /// What is wrong.
    pub problem: String,
    /// What is accepted instead.
    pub accepted: Option<String>,
    /// Where it stands, for a value that came from a file.
    pub place: Option<Box<Place>>,
    pub(super) span: Option<Range<usize>>,
}

/// A position in a configuration file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub file: PathBuf,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
}

impl Refusal {
    pub(super) fn new(key: impl Into<String>, problem: impl Into<String>) -> Refusal {
        Refusal { key: key.into(), problem: problem.into(), accepted: None, place: None, span: None }
    }

    pub(super) fn accepting(self, accepted: impl Into<String>) -> Refusal {
        Refusal { accepted: Some(accepted.into()), ..self }
    }

    /// Says where in `text`, read from `file`, the refused bytes are.
    pub(super) fn in_file(self, file: &Path, text: &str) -> Refusal {
        let start = self.span.as_ref().map_or(0, |span| span.start.min(text.len()));
        let before = &text[..text.floor_char_boundary(start)];
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        Refusal { place: Some(Box::new(Place { file: file.to_owned(), line, column })), ..self }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(Place { file, line, column }) = self.place.as_deref() {
            write!(f, "{}:{line}:{column}: ", file.display())?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.problem)?;
        match &self.accepted {
            Some(accepted) => write!(f, "; accepted: {accepted}"),
            None => Ok(()),
        }
    }
}
