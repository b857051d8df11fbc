//! Where each key of a configuration file stands.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::table::{any_entry, nearest};
use super::{Refusal, Section};

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
}

impl Document {
    pub fn parse(text: &str) -> Result<Document, Refusal> {
        let table = DeTable::parse(text)
            .map_err(|error| Refusal { span: error.span(), ..Refusal::new("", error.message()) })?;
        let mut document = Document { entries: Vec::new() };
        document.add_table("", table.get_ref());
        document.entries.sort_by_key(|entry| entry.key.start);
        Ok(document)
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
            });
            let list = value.get_ref().is_array();
            for (index, table) in tables.into_iter().enumerate() {
                self.add_table(&if list { format!("{inner}[{index}]") } else { inner.clone() }, table);
            }
        }
    }

    /// The value of `key`; where the file does not give it, the table that it is missing in.
    pub fn span_of(&self, key: &str) -> Option<Range<usize>> {
        let value = self.entries.iter().find(|entry| entry.path == key).map(|entry| entry.value.clone());
        value.or_else(|| {
            let (table, _) = key.rsplit_once('.')?;
            self.entries.iter().find(|entry| entry.table == table).map(|entry| entry.key.clone())
        })
    }

    /// Path of the innermost key or value that holds the byte at `offset`.
    pub fn key_at(&self, offset: usize) -> Option<String> {
        let here = |entry: &&Entry| entry.key.contains(&offset) || entry.value.contains(&offset);
        self.entries.iter().filter(here).min_by_key(|entry| entry.value.len()).map(|entry| entry.path.clone())
    }

    /// Refuses the first key that no table of `schema` has.
    pub fn refuse_unknown_keys(&self, schema: &[Section]) -> Result<(), Refusal> {
        for entry in &self.entries {
            let table = any_entry(&entry.table);
            let is_here = |section: &&Section| any_entry(&section.path) == table;
            let keys =
                schema.iter().filter(is_here).flat_map(|section| section.keys.iter().map(|key| key.name));
            let names: Vec<&str> =
                keys.chain(schema.iter().filter_map(|section| section.name_in(&table))).collect();
            // No names at all: a table where a list belongs, or the other way round, which has its own refusal.
            if names.is_empty() || names.contains(&entry.name.as_str()) {
                continue;
            }
            let what = if entry.holds_keys { "table" } else { "key" };
            let problem = match nearest(&entry.name, names.iter().copied()) {
                Some(name) => format!("unknown {what}; did you mean `{name}`?"),
                None => format!("unknown {what}"),
            };
            let refusal = Refusal::new(entry.path.clone(), problem).accepting(names.join(", "));
            return Err(Refusal { span: Some(entry.key.clone()), ..refusal });
        }
        Ok(())
    }
}

/// The table that `value` is, or those that it lists.
fn tables_of<'a, 'i>(value: &'a Spanned<DeValue<'i>>) -> Vec<&'a DeTable<'i>> {
    match value.get_ref() {
        DeValue::Table(table) => vec![table],
        DeValue::Array(list) => list.iter().filter_map(|value| value.get_ref().as_table()).collect(),
        _ => Vec::new(),
    }
}
