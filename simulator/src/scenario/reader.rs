//! Reads the tables of a scenario. All that is not accepted is told at once, each with its file, line and column, and
//! with what is accepted there.

use std::cell::RefCell;
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::refusal::{Refusal, ScenarioError};
use super::units::{Bandwidth, Bytes, Rate, Time};

/// Refusals that are told of one scenario at the most.
const MAX_REFUSALS: usize = 100;

/// A scenario's file.
pub struct Document<'a> {
    text: &'a str,
    path: PathBuf,
    table: Spanned<DeTable<'a>>,
    refusals: RefCell<Vec<(usize, Refusal)>>,
}

/// One table, of which keys are asked one after the other.
pub struct Section<'a> {
    document: &'a Document<'a>,
    /// Its path from the root, and its last part.
    path: String,
    name: String,
    table: &'a DeTable<'a>,
    /// Where it stands.
    span: Range<usize>,
    /// The keys that were asked for: there are no others.
    asked: RefCell<Vec<&'static str>>,
}

/// A value that a key can have.
pub trait Value: Sized {
    /// What is accepted.
    const FORM: &'static str;

    /// Reads it.
    ///
    /// # Errors
    /// What is wrong.
    fn read(value: &DeValue<'_>) -> Result<Self, String>;

    /// What stands for a value that was refused.
    fn placeholder() -> Self;
}

impl<'a> Document<'a> {
    /// Reads TOML.
    ///
    /// # Errors
    /// When it is none.
    pub fn parse(text: &'a str, path: &Path) -> Result<Self, ScenarioError> {
        let refusals = RefCell::new(Vec::new());
        match DeTable::parse(text) {
            Ok(table) => Ok(Self { text, path: path.to_owned(), table, refusals }),
            Err(error) => {
                let (line, column) = position(text, error.span().map_or(0, |span| span.start));
                let (problem, key) = (error.message().trim().to_owned(), String::new());
                let file = path.to_owned();
                Err(ScenarioError::Refused(vec![Refusal {
                    file,
                    line,
                    column,
                    key,
                    problem,
                    accepted: String::new(),
                }]))
            }
        }
    }

    /// The table that holds all others.
    pub fn root(&'a self) -> Section<'a> {
        self.section(String::new(), String::new(), self.table.get_ref(), 0..0)
    }

    /// All that was refused.
    ///
    /// # Errors
    /// If anything was, in the order of the file's lines.
    pub fn finish(&self) -> Result<(), ScenarioError> {
        let mut refusals = self.refusals.borrow_mut();
        if refusals.is_empty() {
            return Ok(());
        }
        refusals.sort_by_key(|(at, _)| *at);
        refusals.truncate(MAX_REFUSALS);
        Err(ScenarioError::Refused(refusals.drain(..).map(|(_, refusal)| refusal).collect()))
    }

    fn section(
        &'a self,
        path: String,
        name: String,
        table: &'a DeTable<'a>,
        span: Range<usize>,
    ) -> Section<'a> {
        Section { document: self, path, name, table, span, asked: RefCell::default() }
    }

    fn refuse(&self, at: usize, key: String, problem: String, accepted: &str) {
        let (line, column) = position(self.text, at);
        let (file, accepted) = (self.path.clone(), accepted.to_owned());
        self.refusals.borrow_mut().push((at, Refusal { file, line, column, key, problem, accepted }));
    }
}

impl<'a> Section<'a> {
    /// The last part of its path: the name of a named table.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The folder of the scenario's file.
    pub fn folder(&self) -> &Path {
        self.document.path.parent().unwrap_or(Path::new(""))
    }

    /// Whether this key has a value.
    pub fn has(&self, key: &str) -> bool {
        self.table.get(key).is_some()
    }

    /// The value of a key, if it has one.
    pub fn optional<T: Value>(&self, key: &'static str) -> Option<T> {
        let value = self.get(key)?;
        Some(T::read(value.get_ref()).unwrap_or_else(|problem| {
            self.refuse(key, problem, T::FORM);
            T::placeholder()
        }))
    }

    /// The value of a key, or this one.
    pub fn or<T: Value>(&self, key: &'static str, default: T) -> T {
        self.optional(key).unwrap_or(default)
    }

    /// The value of a key, or this one, which is within these.
    pub fn or_within<T: Value + PartialOrd + std::fmt::Display>(
        &self,
        key: &'static str,
        default: T,
        range: RangeInclusive<T>,
    ) -> T {
        let accepted = || format!("{}, {} to {}", T::FORM, range.start(), range.end());
        match self.get(key).map(|value| T::read(value.get_ref())) {
            None => default,
            Some(Ok(value)) if range.contains(&value) => value,
            Some(Ok(value)) => {
                self.refuse(key, format!("{value} is out of range"), &accepted());
                value
            }
            Some(Err(problem)) => {
                self.refuse(key, problem, &accepted());
                T::placeholder()
            }
        }
    }

    /// The value of a key, which must have one.
    pub fn required<T: Value>(&self, key: &'static str) -> T {
        self.optional(key).unwrap_or_else(|| {
            self.refuse(key, "it is missing".to_owned(), T::FORM);
            T::placeholder()
        })
    }

    /// The value of a key, which must have one within these.
    pub fn required_within<T: Value + PartialOrd + std::fmt::Display>(
        &self,
        key: &'static str,
        range: RangeInclusive<T>,
    ) -> T {
        if !self.has(key) {
            let accepted = format!("{}, {} to {}", T::FORM, range.start(), range.end());
            self.refuse(key, "it is missing".to_owned(), &accepted);
        }
        self.or_within(key, T::placeholder(), range)
    }

    /// The position among `names` of the one that a key has.
    pub fn one_of(&self, key: &'static str, names: &[&str]) -> Option<usize> {
        let name = self.optional::<String>(key)?;
        let found = names.iter().position(|known| *known == name);
        if found.is_none() {
            let problem = match nearest(&name, names) {
                Some(meant) => format!("there is no {name:?}; did you mean {meant:?}?"),
                None => format!("there is no {name:?}"),
            };
            self.refuse(key, problem, &names.join(", "));
        }
        found
    }

    /// The positions among `names` of those that a key has: one, or a list of them.
    pub fn some_of(&self, key: &'static str, names: &[&str]) -> Vec<usize> {
        let Some(value) = self.get(key) else { return Vec::new() };
        let Some(list) = value.get_ref().as_array() else {
            return self.one_of(key, names).into_iter().collect();
        };
        let mut found = Vec::new();
        for value in list {
            let name = value.get_ref().as_str().unwrap_or_default();
            match names.iter().position(|known| *known == name) {
                Some(at) if !found.contains(&at) => found.push(at),
                Some(_) => self.refuse(key, format!("{name:?} stands twice"), "each once"),
                None => self.refuse(key, format!("there is no {name:?}"), &names.join(", ")),
            }
        }
        found
    }

    /// The tables below `key` by their names, `[key.NAME]`, in the order in which they stand.
    pub fn named(&self, key: &'static str) -> Vec<Section<'a>> {
        let Some(value) = self.get(key) else { return Vec::new() };
        let Some(table) = value.get_ref().as_table() else {
            self.refuse(key, "it is no table".to_owned(), &format!("tables [{key}.NAME]"));
            return Vec::new();
        };
        let mut entries: Vec<_> = table.iter().collect();
        entries.sort_by_key(|(name, _)| name.span().start);
        let section = |(name, value): (&'a Spanned<_>, &'a Spanned<DeValue<'a>>)| {
            let name_text: &std::borrow::Cow<'_, str> = name.get_ref();
            let path = self.path_of(&format!("{key}.{name_text}"));
            match value.get_ref().as_table() {
                Some(table) => Some(self.document.section(path, name_text.to_string(), table, name.span())),
                None => {
                    let problem = "it is no table".to_owned();
                    self.document.refuse(name.span().start, path, problem, &format!("[{key}.{name_text}]"));
                    None
                }
            }
        };
        entries.into_iter().filter_map(section).collect()
    }

    /// The tables that `key` lists, `[[key]]` or inline.
    pub fn list(&self, key: &'static str) -> Vec<Section<'a>> {
        let Some(value) = self.get(key) else { return Vec::new() };
        let entries = value.get_ref().as_array().map(|array| array.iter().enumerate());
        let tables = entries.and_then(|entries| {
            let section = |(index, value): (usize, &'a Spanned<DeValue<'a>>)| {
                let path = self.path_of(&format!("{key}[{index}]"));
                let table = value.get_ref().as_table()?;
                Some(self.document.section(path, index.to_string(), table, value.span()))
            };
            entries.map(section).collect::<Option<Vec<_>>>()
        });
        tables.unwrap_or_else(|| {
            self.refuse(key, "it is no list of tables".to_owned(), &format!("[[{key}]]"));
            Vec::new()
        })
    }

    /// The table that `key` is, of this form.
    pub fn table(&self, key: &'static str, form: &str) -> Option<Section<'a>> {
        let value = self.get(key)?;
        match value.get_ref().as_table() {
            Some(table) => {
                Some(self.document.section(self.path_of(key), key.to_owned(), table, value.span()))
            }
            None => {
                self.refuse(key, "it is no table".to_owned(), form);
                None
            }
        }
    }

    /// Whether the value of `key` is a table.
    pub fn is_table(&self, key: &str) -> bool {
        self.table.get(key).is_some_and(|value| value.get_ref().is_table())
    }

    /// The value of `key`, as it is in the file.
    pub fn get(&self, key: &'static str) -> Option<&'a Spanned<DeValue<'a>>> {
        if !self.asked.borrow().contains(&key) {
            self.asked.borrow_mut().push(key);
        }
        self.table.get(key)
    }

    /// The value of `key`, or the lack of it, is not accepted.
    pub fn refuse(&self, key: &str, problem: String, accepted: &str) {
        let at = self.table.get(key).map_or(self.span.start, |value| value.span().start);
        self.document.refuse(at, self.path_of(key), problem, accepted);
    }

    /// The table as a whole is not accepted.
    pub fn refuse_all(&self, problem: String, accepted: &str) {
        self.document.refuse(self.span.start, self.path.clone(), problem, accepted);
    }

    /// Refuses the keys that were not asked for.
    pub fn finish(&self) {
        let asked = self.asked.borrow();
        for (name, _) in self.table {
            let key: &str = name.get_ref();
            if asked.contains(&key) {
                continue;
            }
            let problem = match nearest(key, &asked) {
                Some(meant) => format!("unknown key; did you mean `{meant}`?"),
                None => "unknown key".to_owned(),
            };
            self.document.refuse(name.span().start, self.path_of(key), problem, &asked.join(", "));
        }
    }

    fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }
}

/// Line and column, from 1, of a byte.
fn position(text: &str, at: usize) -> (usize, usize) {
    let before = &text[..text.floor_char_boundary(at)];
    let line = before.rfind('\n').map_or(before, |end| &before[end + 1..]);
    (before.matches('\n').count() + 1, line.chars().count() + 1)
}

/// The name that was meant, if one is near: within a third of its letters, or two, that are changed, inserted, left out
/// or swapped with their neighbours.
pub(crate) fn nearest<'n>(name: &str, names: &[&'n str]) -> Option<&'n str> {
    let near = names.iter().map(|known| (strsim::osa_distance(name, known), *known)).min()?;
    (near.0 <= 2.max(name.len() / 3)).then_some(near.1)
}

/// A value that is written as text.
macro_rules! values_in_text {
    ($($type:ty),*) => {
        $(impl Value for $type {
            const FORM: &'static str = <$type>::FORM;

            fn read(value: &DeValue<'_>) -> Result<Self, String> {
                <$type>::parse(text(value)?)
            }

            fn placeholder() -> Self {
                Self(1)
            }
        })*
    };
}
values_in_text!(Time, Bytes, Bandwidth, Rate);

fn text<'v>(value: &'v DeValue<'_>) -> Result<&'v str, String> {
    value.as_str().ok_or_else(|| format!("it is {}", a(value.type_str())))
}

fn a(kind: &str) -> String {
    let article = if kind.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
    format!("{article} {kind}")
}

impl Value for String {
    const FORM: &'static str = "a text";

    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        text(value).map(str::to_owned)
    }

    fn placeholder() -> Self {
        Self::new()
    }
}

impl Value for bool {
    const FORM: &'static str = "true or false";

    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        value.as_bool().ok_or_else(|| format!("it is {}", a(value.type_str())))
    }

    fn placeholder() -> Self {
        false
    }
}

impl Value for f64 {
    const FORM: &'static str = "a number";

    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        let number = match value {
            DeValue::Float(float) => float.as_str().parse().ok(),
            DeValue::Integer(_) => whole(value).ok().map(|whole| whole as f64),
            _ => None,
        };
        number
            .filter(|number: &f64| number.is_finite())
            .ok_or_else(|| format!("it is {}", a(value.type_str())))
    }

    fn placeholder() -> Self {
        0.5
    }
}

fn whole(value: &DeValue<'_>) -> Result<i64, String> {
    let integer = value.as_integer().ok_or_else(|| format!("it is {}", a(value.type_str())))?;
    i64::from_str_radix(integer.as_str(), integer.radix()).map_err(|_| "it is too large".to_owned())
}

macro_rules! whole_numbers {
    ($($type:ty),*) => {
        $(impl Value for $type {
            const FORM: &'static str = "a whole number";

            fn read(value: &DeValue<'_>) -> Result<Self, String> {
                whole(value)?.try_into().map_err(|_| "it is out of range".to_owned())
            }

            fn placeholder() -> Self {
                1
            }
        })*
    };
}
whole_numbers!(u64, usize, u32, u16, u8);
