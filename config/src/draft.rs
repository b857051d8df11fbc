//! A configuration while it is put together: what a file says, then what the command line says, then what follows.

use super::error::MAX_REFUSALS;
use super::given::Given;
use super::locate::{Document, remove_at};
use super::relations;
use super::section::Section;
use super::{Config, ConfigError, Refusal, Refusals};
use serde::Deserialize;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use toml::Spanned;
use toml::de::{DeTable, Deserializer};

/// Most bytes of a configuration file: a file given by mistake is refused before it fills the memory.
pub const MAX_FILE_BYTES: u64 = 1 << 20;

/// The tables that only the embedded broker reads.
const EMBEDDED_BROKER_TABLES: [&str; 4] = ["listen", "tls", "websocket", "watchdog"];

/// Bytes of a value that are repeated in the refusal of it.
const MAX_SHOWN: usize = 40;

impl Config {
    /// Reads `path`, and completes and checks what it says. Relative paths in it are relative to the folder that it
    /// is in.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, is larger than [`MAX_FILE_BYTES`], or holds anything that is refused.
    pub fn load(path: &Path) -> Result<Config, ConfigError> {
        Ok(Draft::read(path)?.finish()?.config)
    }

    /// Completes and checks a configuration whose values were set in code: those that are not the defaults are given,
    /// and the others follow them.
    ///
    /// # Errors
    ///
    /// Names each key, what is wrong with its value, and what is accepted.
    pub fn settle(&mut self) -> Result<(), Refusals> {
        let (given, mut refusals) = (by_difference(self), Vec::new());
        self.complete(&given, Files::Here, &mut refusals);
        Refusals::or_ok(refusals)
    }

    /// Derives what was not given, and finds what no gateway could run with.
    fn complete(&mut self, given: &Given, files: Files, refusals: &mut Vec<Refusal>) {
        for section in self.sections().iter().filter(|section| section.present) {
            for key in section.keys.iter().filter(|key| !key.in_range) {
                let problem = format!("{} is out of range", key.value.as_deref().unwrap_or_default());
                let refusal = Refusal::new(section.key(key.name), problem);
                refusals.push(refusal.accepting(key.accepts.clone()));
            }
        }
        let mut contradictions = Vec::new();
        relations::settle(self, given, &mut contradictions);
        contradictions.retain(|refusal| !refusals.iter().any(|first| refusal.is_about(&first.key)));
        refusals.extend(contradictions);
        self.check(refusals);
        if files == Files::Here {
            self.check_files(refusals);
            self.check_contents(refusals);
        }
    }
}

/// Where the files are that a configuration names.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Files {
    /// On this machine, where they are looked at.
    Here,
    /// On the gateway's.
    Elsewhere,
}

/// A configuration that is not complete yet.
#[derive(Default)]
pub struct Draft {
    config: Config,
    given: Given,
    file: Option<File>,
    /// The parts of the file that could not be used.
    refusals: Vec<Refusal>,
}

struct File {
    path: PathBuf,
    text: String,
    document: Document,
}

impl Draft {
    /// Reads `path`. What is wrong in it is told by [`Draft::finish`], so that flags may go before it.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, or is larger than [`MAX_FILE_BYTES`].
    pub fn read(path: &Path) -> Result<Draft, ConfigError> {
        let unreadable = |error| ConfigError::Read { path: path.to_owned(), error };
        let size = std::fs::metadata(path).map_err(unreadable)?.len();
        if size > MAX_FILE_BYTES {
            return Err(ConfigError::TooLarge { path: path.to_owned(), size, max: MAX_FILE_BYTES });
        }
        let text = std::fs::read_to_string(path).map_err(unreadable)?;
        Ok(Draft::parse(path, text))
    }

    /// Takes all of `text` that can be used. Relative paths in it are relative to the folder that `path` is in.
    pub(super) fn parse(path: &Path, text: String) -> Draft {
        let (mut table, errors) = DeTable::parse_recoverable(&text);
        let broken = || errors.iter().take(MAX_REFUSALS);
        let mut refusals: Vec<Refusal> =
            broken().map(|error| Refusal::new("", error.message()).at(error.span())).collect();
        let document = Document::of(table.get_ref());
        let schema = Config::schema();
        let mut unknown = document.misplaced_lists(&schema);
        unknown.extend(document.unknown_keys(&schema));
        for span in unknown.iter().filter_map(|refusal| refusal.span.as_ref()) {
            remove_at(table.get_mut(), span.start);
        }
        refusals.extend(unknown);
        let mut config = deserialize(table, &text, &document, &mut refusals);
        // What is made of a line that is no TOML says no more about it.
        let same_line = |a: usize, b: usize| !text[a.min(b)..a.max(b)].contains('\n');
        let broken: Vec<usize> = broken().filter_map(|error| Some(error.span()?.start)).collect();
        refusals.retain(|refusal| {
            let start = refusal.span.as_ref().filter(|_| !refusal.key.is_empty()).map(|span| span.start);
            start.is_none_or(|start| !broken.iter().any(|error| same_line(start, *error)))
        });
        config.resolve_paths(path.parent().unwrap_or(Path::new("")));
        let mut given = document.keys().map(str::to_owned).collect::<Given>();
        given.retain(|key| !refusals.iter().any(|refusal| refusal.is_about(key)));
        Draft { config, given, file: Some(File { path: path.to_owned(), text, document }), refusals }
    }

    /// Changes the value of `key`, whatever the file says.
    pub fn set(&mut self, key: &str, change: impl FnOnce(&mut Config)) {
        change(&mut self.config);
        self.given.insert(key);
        self.refusals.retain(|refusal| !refusal.is_about(key));
        if let Some(file) = &mut self.file {
            file.document.forget(key);
        }
    }

    /// Derives what was not given, and checks all of it.
    ///
    /// # Errors
    ///
    /// Everything that is not accepted, in the order of the file's lines.
    pub fn finish(self) -> Result<Finished, ConfigError> {
        self.finish_with(Files::Here)
    }

    /// The same for the gateway of another machine: the files that the configuration names are not looked at.
    ///
    /// # Errors
    ///
    /// As [`Draft::finish`].
    pub fn finish_elsewhere(self) -> Result<Finished, ConfigError> {
        self.finish_with(Files::Elsewhere)
    }

    fn finish_with(mut self, files: Files) -> Result<Finished, ConfigError> {
        let mut found = Vec::new();
        self.config.complete(&self.given, files, &mut found);
        // What is not there because it was refused is not missing.
        let follows = |refusal: &Refusal| {
            self.refusals.iter().any(|first| {
                refusal.is_about(&first.key) || first.other.iter().any(|other| refusal.is_about(other))
            })
        };
        let is_whole = self.refusals.iter().all(|refusal| !refusal.key.is_empty());
        found.retain(|refusal| !follows(refusal) && (is_whole || self.given.has(&refusal.key)));
        let mut refusals = self.refusals;
        refusals.extend(found);
        if let Some(file) = &self.file {
            refusals = file.locate(refusals);
        }
        Refusals::or_ok(refusals)?;
        Ok(Finished { config: self.config, given: self.given })
    }
}

/// Every key whose value is not the default.
fn by_difference(config: &Config) -> Given {
    let values = |section: Section| {
        let keys = section.keys.iter().map(|key| (section.key(key.name), key.value.clone()));
        keys.collect::<Vec<_>>()
    };
    let defaults: BTreeSet<_> = Config::schema().into_iter().flat_map(values).collect();
    let present = config.sections().into_iter().filter(|section| section.present);
    let different = present.flat_map(values).filter(|value| !defaults.contains(value));
    different.map(|(key, _)| key).collect()
}

/// A configuration to run with, and which of its keys were given.
#[derive(Debug, PartialEq)]
pub struct Finished {
    /// All values.
    pub config: Config,
    /// The keys that were given.
    pub given: Given,
}

impl Finished {
    /// The tables that were given and have no effect: an external broker takes the place of what they are for.
    pub fn ignored_tables(&self) -> impl Iterator<Item = &'static str> {
        let given = |table: &&str| self.config.broker.is_some() && self.given.has_any(table);
        EMBEDDED_BROKER_TABLES.into_iter().filter(given)
    }
}

impl File {
    /// Says where the refusals are, and puts them into the order of their lines.
    fn locate(&self, refusals: Vec<Refusal>) -> Vec<Refusal> {
        let mut refusals: Vec<Refusal> = refusals
            .into_iter()
            .map(|refusal| {
                let span = refusal.span.clone().or_else(|| self.document.span_of(&refusal.key));
                let other = refusal.other.as_ref().and_then(|other| self.document.value_of(other));
                refusal.at(span).in_file(&self.path, &self.text, other)
            })
            .collect();
        refusals.sort_by_key(|refusal| refusal.span.as_ref().map_or(usize::MAX, |span| span.start));
        refusals
    }
}

/// The values of a table. One that is refused is left out, and the rest tried again, until enough is refused.
fn deserialize(
    mut table: Spanned<DeTable<'_>>,
    text: &str,
    document: &Document,
    refusals: &mut Vec<Refusal>,
) -> Config {
    while refusals.len() < MAX_REFUSALS {
        let error = match Config::deserialize(Deserializer::from(table.clone())) {
            Ok(config) => return config,
            Err(error) => error,
        };
        let offset = error.span().map(|span| span.start);
        let key = offset.and_then(|offset| document.key_at(offset)).unwrap_or_default();
        let accepted = Config::schema().into_iter().find_map(|section| section.accepts(&key));
        let problem = problem(error.message(), error.span().and_then(|span| text.get(span)));
        refusals.push(Refusal { accepted, ..Refusal::new(key, problem) }.at(error.span()));
        let removed = offset.is_some_and(|offset| remove_at(table.get_mut(), offset));
        if !removed {
            break;
        }
    }
    Config::default()
}

/// What is wrong with `value`, in the words of TOML: serde's own name Rust's types. A refusal of ours stands as it is.
fn problem(message: &str, value: Option<&str>) -> String {
    let value =
        value.filter(|value| value.len() <= MAX_SHOWN && !value.contains('\n')).unwrap_or("the value");
    if message.starts_with("invalid value: ") {
        return format!("{value} is out of range");
    }
    if message.starts_with("unknown variant ") {
        return format!("unknown value {value}");
    }
    let Some(found) = message.strip_prefix("invalid type: ") else { return message.to_owned() };
    let kinds = [
        ("integer", "an integer"),
        ("floating point", "a number with a point"),
        ("boolean", "a boolean"),
        ("string", "a string"),
        ("sequence", "a list"),
        ("map", "a table"),
    ];
    match kinds.into_iter().find(|(serde, _)| found.starts_with(serde)) {
        Some((_, kind)) => format!("{value} is {kind}"),
        None => format!("{value} has another type"),
    }
}
