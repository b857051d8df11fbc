//! Where each key of a configuration file stands.

use super::Refusal;
use super::error::MAX_REFUSALS;
use super::section::Section;
use super::table::{any_entry, nearest};
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The keys of a TOML document in the order in which they stand.
pub(super) struct Document {
    entries: Vec<Entry>,
}

struct Entry {
    path: String,
    name: String,
    /// Path of the table that holds it.
    table: String,
    key: Range<usize>,
    value: Range<usize>,
    /// A table or a list of tables: its name is a heading.
    holds_keys: bool,
    /// A list, and whether it holds anything but tables.
    list: Option<Mixed>,
}

/// Whether a list holds anything but tables.
type Mixed = bool;

impl Document {
    pub fn of(table: &DeTable<'_>) -> Document {
        let mut document = Document { entries: Vec::new() };
        document.add_table("", table);
        document.entries.sort_by_key(|entry| entry.key.start);
        document
    }

    /// All keys that it gives a value.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().filter(|entry| !entry.holds_keys).map(|entry| entry.path.as_str())
    }

    /// What stands there for `key` counts no more.
    pub fn forget(&mut self, key: &str) {
        self.entries.retain(|entry| entry.path != key);
    }

    fn add_table(&mut self, path: &str, table: &DeTable<'_>) {
        for (name, value) in table {
            let inner = if path.is_empty() {
                name.get_ref().to_string()
            } else {
                format!("{path}.{}", name.get_ref())
            };
            let tables = tables_of(value);
            self.entries.push(Entry {
                path: inner.clone(),
                name: name.get_ref().to_string(),
                table: path.to_owned(),
                key: name.span(),
                value: value.span(),
                holds_keys: !tables.is_empty(),
                list: value.get_ref().as_array().map(|list| list.len() != tables.len()),
            });
            let list = value.get_ref().is_array();
            for (index, table) in tables.into_iter().enumerate() {
                self.add_table(&if list { format!("{inner}[{index}]") } else { inner.clone() }, table);
            }
        }
    }

    /// The value of `key`.
    pub fn value_of(&self, key: &str) -> Option<Range<usize>> {
        self.entries.iter().find(|entry| entry.path == key).map(|entry| entry.value.clone())
    }

    /// The value of `key`; where the file does not give it, the table that it is missing in.
    pub fn span_of(&self, key: &str) -> Option<Range<usize>> {
        self.value_of(key).or_else(|| {
            let (table, _) = key.rsplit_once('.')?;
            self.entries.iter().find(|entry| entry.table == table).map(|entry| entry.key.clone())
        })
    }

    /// Path of the innermost key or value that holds the byte at `offset`.
    pub fn key_at(&self, offset: usize) -> Option<String> {
        let here = |entry: &&Entry| entry.key.contains(&offset) || entry.value.contains(&offset);
        self.entries.iter().filter(here).min_by_key(|entry| entry.value.len()).map(|entry| entry.path.clone())
    }

    /// The first keys and tables that no table of `schema` has, [`MAX_REFUSALS`] at the most.
    pub fn unknown_keys(&self, schema: &[Section]) -> Vec<Refusal> {
        let mut refusals = Vec::new();
        for entry in &self.entries {
            let table = any_entry(&entry.table);
            let is_here = |section: &&Section| any_entry(&section.path) == table;
            let keys =
                schema.iter().filter(is_here).flat_map(|section| section.keys.iter().map(|key| key.name));
            let names: Vec<&str> =
                keys.chain(schema.iter().filter_map(|section| section.name_in(&table))).collect();
            // No names at all: a table that is refused itself, or one where a list belongs or the other way round,
            // which has its own refusal.
            if names.is_empty() || names.contains(&entry.name.as_str()) {
                continue;
            }
            let what = if entry.holds_keys { "table" } else { "key" };
            let meant = nearest(&entry.name, names.iter().copied());
            let problem = match meant {
                Some(name) => format!("unknown {what}; did you mean `{name}`?"),
                None => format!("unknown {what}"),
            };
            let refusal = Refusal::new(entry.path.clone(), problem).accepting(names.join(", "));
            let other =
                meant.map(|name| entry.path.strip_suffix(&entry.name).unwrap_or_default().to_owned() + name);
            let other = other.filter(|other| self.value_of(other).is_none());
            refusals.push(Refusal { other, ..refusal }.at(Some(entry.key.clone())));
            if refusals.len() == MAX_REFUSALS {
                break;
            }
        }
        refusals
    }

    /// The lists that stand where a table or a list of tables belongs. They would be read as tables whose keys are not
    /// named.
    pub fn misplaced_lists(&self, schema: &[Section]) -> Vec<Refusal> {
        let is_table = |path: &str| schema.iter().any(|section| any_entry(&section.path) == any_entry(path));
        let refusal = |entry: &Entry| {
            let path = entry.path.clone();
            match entry.list? {
                _ if is_table(&path) => {
                    let accepted = format!("a table, `[{path}]`");
                    Some(Refusal::new(path, "the value is a list").accepting(accepted))
                }
                true if is_table(&format!("{path}[0]")) => {
                    let accepted = format!("tables, `[[{path}]]`");
                    Some(Refusal::new(path, "the list holds what is no table").accepting(accepted))
                }
                _ => None,
            }
            .map(|refusal| refusal.at(Some(entry.value.clone())))
        };
        self.entries.iter().filter_map(refusal).take(MAX_REFUSALS).collect()
    }
}

/// Removes the innermost key whose name or value is at `offset`; false where there is none.
pub(super) fn remove_at(table: &mut DeTable<'_>, offset: usize) -> bool {
    for (_, value) in table.iter_mut() {
        let inner = match value.get_mut() {
            DeValue::Table(table) => remove_at(table, offset),
            DeValue::Array(list) => list.iter_mut().any(|value| match value.get_mut() {
                DeValue::Table(table) => remove_at(table, offset),
                _ => false,
            }),
            _ => false,
        };
        if inner {
            return true;
        }
    }
    let is_here = |(name, value): &(&Spanned<_>, &Spanned<_>)| {
        name.span().contains(&offset) || value.span().contains(&offset)
    };
    let Some(name) = table.iter().find(is_here).map(|(name, _)| name.clone()) else { return false };
    table.remove(&name).is_some()
}

/// The table that `value` is, or those that it lists.
fn tables_of<'a, 'i>(value: &'a Spanned<DeValue<'i>>) -> Vec<&'a DeTable<'i>> {
    match value.get_ref() {
        DeValue::Table(table) => vec![table],
        DeValue::Array(list) => list.iter().filter_map(|value| value.get_ref().as_table()).collect(),
        _ => Vec::new(),
    }
}
