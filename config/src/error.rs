//! What is wrong with a configuration, and where.

use std::fmt::{self, Write as _};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read, or is not UTF-8.
    #[error("cannot read the configuration {}: {error}{}", path.display(), remedy(.error, .path))]
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
    /// Keys or values are not accepted.
    #[error(transparent)]
    Refused(#[from] Refusals),
}

fn remedy(error: &io::Error, path: &Path) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => {
            format!("; `offload-rt config > {}` makes one to start from", path.display())
        }
        io::ErrorKind::PermissionDenied => {
            "; the user that runs the gateway has to be able to read it".to_owned()
        }
        io::ErrorKind::IsADirectory => "; the file in it is meant".to_owned(),
        io::ErrorKind::InvalidData => "; it is not UTF-8".to_owned(),
        _ => String::new(),
    }
}

/// Most refusals that are told of one configuration: a file with more was given by mistake.
pub const MAX_REFUSALS: usize = 100;

/// All that is not accepted of one configuration, a line each, in the order of the file's lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusals(pub Vec<Refusal>);

impl Refusals {
    /// Nothing, where there are none.
    ///
    /// # Errors
    ///
    /// These refusals, [`MAX_REFUSALS`] at the most.
    pub(super) fn or_ok(mut refusals: Vec<Refusal>) -> Result<(), Refusals> {
        refusals.truncate(MAX_REFUSALS);
        if refusals.is_empty() { Ok(()) } else { Err(Refusals(refusals)) }
    }
}

impl std::error::Error for Refusals {}

impl fmt::Display for Refusals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.0.iter().map(Refusal::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
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
    /// The key that it does not go together with, or was meant to be.
    pub other: Option<String>,
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
    /// Says what is wrong with the value of `key`.
    pub fn new(key: impl Into<String>, problem: impl Into<String>) -> Refusal {
        let (key, problem) = (key.into(), problem.into());
        Refusal { key, problem, accepted: None, other: None, place: None, span: None }
    }

    /// Says what is accepted instead.
    pub fn accepting(self, accepted: impl Into<String>) -> Refusal {
        Refusal { accepted: Some(accepted.into()), ..self }
    }

    pub(super) fn beside(self, other: impl Into<String>) -> Refusal {
        Refusal { other: Some(other.into()), ..self }
    }

    pub(super) fn at(self, span: Option<Range<usize>>) -> Refusal {
        Refusal { span, ..self }
    }

    /// Says where in `text`, read from `file`, the refused bytes are, and in which line those of the other key.
    pub(super) fn in_file(self, file: &Path, text: &str, other: Option<Range<usize>>) -> Refusal {
        let Some(span) = &self.span else { return self };
        let (line, column) = position(text, span.start);
        let place = Place { file: file.to_owned(), line, column };
        let problem = match other {
            Some(other) => format!("{} (line {})", self.problem, position(text, other.start).0),
            None => self.problem,
        };
        Refusal { problem, place: Some(Box::new(place)), ..self }
    }

    /// Whether `key`, or the table that it is, is part of what is refused.
    pub(super) fn is_about(&self, key: &str) -> bool {
        let within = |path: &String| {
            path.strip_prefix(key).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        };
        !key.is_empty() && (within(&self.key) || self.other.iter().any(within))
    }
}

/// Line and column of a byte, from 1.
fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = &text[..text.floor_char_boundary(offset)];
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    (before.matches('\n').count() + 1, column)
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = self.place.as_deref().map_or_else(String::new, |Place { file, line, column }| {
            format!("{}:{line}:{column}: ", file.display())
        });
        let key = if self.key.is_empty() { String::new() } else { format!("{}: ", self.key) };
        let accepted = self.accepted.as_ref().map(|accepted| format!("; accepted: {accepted}"));
        let line = [&place, &key, &self.problem, accepted.as_deref().unwrap_or_default()].concat();
        // Keys and values can hold line ends, and each refusal is one line.
        line.chars().try_for_each(|c| match c.is_control() {
            true => write!(f, "{}", c.escape_default()),
            false => f.write_char(c),
        })
    }
}
