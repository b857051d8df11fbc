//! One table as it stands in a file.

use super::given::Given;
use super::table::{Key, Table, any_entry};

/// One table as it stands in a file.
pub(super) struct Section {
    /// Path of the table: `limits`, `program[0]`.
    pub path: String,
    pub heading: String,
    pub doc: &'static [&'static str],
    pub keys: Vec<Key>,
    /// False for a table that is absent, and printed as a comment to show what it could hold.
    pub present: bool,
}

impl Section {
    pub fn of<T: Table>(
        path: impl Into<String>,
        heading: impl Into<String>,
        table: &T,
        present: bool,
    ) -> Section {
        Section { path: path.into(), heading: heading.into(), doc: T::DOC, keys: table.keys(), present }
    }

    /// Path of a key of this table.
    pub fn key(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    /// The table's own name, when it is one inside of `table` (any entry of it, where that is a list).
    pub fn name_in(&self, table: &str) -> Option<&str> {
        let path = self.path.trim_end_matches("[0]");
        let (outer, name) = path.rsplit_once('.').unwrap_or(("", path));
        (any_entry(outer) == table && !name.is_empty()).then_some(name)
    }

    /// What is accepted at `path`, when that is this table or one of its keys.
    pub fn accepts(&self, path: &str) -> Option<String> {
        if path == self.path.trim_end_matches("[0]") && !path.is_empty() {
            return Some(self.heading.clone());
        }
        let (table, name) = path.rsplit_once('.').unwrap_or(("", path));
        let key = self.keys.iter().find(|key| key.name == name)?;
        (any_entry(table) == any_entry(&self.path)).then(|| key.accepts.clone())
    }

    /// The table below its documentation. Keys that were not `given` are comments.
    pub fn to_toml(&self, given: &Given) -> String {
        let mut text = String::new();
        let mut line = |line: &str| {
            text.push_str(line.trim_end());
            text.push('\n');
        };
        self.doc.iter().for_each(|doc| line(&format!("#{doc}")));
        let comment = if self.present { "" } else { "# " };
        if !self.heading.is_empty() {
            line(&format!("{comment}{}", self.heading));
        }
        for key in &self.keys {
            line("");
            key.doc.iter().for_each(|doc| line(&format!("#{doc}")));
            line(&format!("# Accepted: {}.", key.accepts));
            let is_set = self.present && given.has(&self.key(key.name));
            let comment = if is_set { "" } else { "# " };
            let value = key.value.as_deref().unwrap_or_default();
            line(&format!("{comment}{} = {value}", key.name));
        }
        text
    }
}
