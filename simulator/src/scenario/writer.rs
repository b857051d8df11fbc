//! Writes a scenario's TOML as people do: a table for each entity, with all that belongs to it inline.

use toml::{Table, Value};

/// What stands above the tables, and the tables, in this order; others follow by their names.
const ORDER: [&str; 12] = [
    "name", "seed", "replicas", "duration", "warm_up", "program", "link", "gateway", "master", "site",
    "device", "failure",
];

/// The text of a scenario.
pub fn write(scenario: &Table) -> String {
    let mut keys: Vec<&String> = scenario.keys().collect();
    keys.sort_by_key(|key| (ORDER.iter().position(|known| known == key).unwrap_or(ORDER.len()), *key));
    let mut text = String::new();
    let mut tables = String::new();
    for key in keys {
        match &scenario[key] {
            Value::Table(named) if named.values().all(Value::is_table) => {
                for (name, table) in sorted(named) {
                    tables += &format!("\n[{key}.{}]\n", key_of(name));
                    write_keys(table, &mut tables);
                }
            }
            Value::Array(list) if list.iter().all(Value::is_table) => {
                for table in list {
                    tables += &format!("\n[[{key}]]\n");
                    write_keys(table, &mut tables);
                }
            }
            value => text += &format!("{} = {value}\n", key_of(key)),
        }
    }
    text + &tables
}

fn write_keys(table: &Value, text: &mut String) {
    for (key, value) in table.as_table().into_iter().flat_map(sorted) {
        *text += &format!("{} = {value}\n", key_of(key));
    }
}

fn sorted(table: &Table) -> Vec<(&String, &Value)> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(key, _)| *key);
    entries
}

fn key_of(name: &str) -> String {
    let is_bare = |letter: char| letter.is_ascii_alphanumeric() || letter == '_' || letter == '-';
    if !name.is_empty() && name.chars().all(is_bare) {
        name.to_owned()
    } else {
        Value::String(name.to_owned()).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Scenario;
    use std::path::Path;

    #[test]
    fn what_is_written_of_a_scenario_that_ships_reads_as_the_same() {
        let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios"));
        let mut read = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let text = std::fs::read_to_string(&path).unwrap();
            let written = write(&text.parse().unwrap());
            Scenario::parse(&written, &path).unwrap_or_else(|error| panic!("{error}\n{written}"));
            assert_eq!(text.parse::<Table>().unwrap(), written.parse::<Table>().unwrap(), "{path:?}");
            assert_eq!(written, write(&written.parse().unwrap()));
            read += 1;
        }
        assert!(read >= 6);
    }

    #[test]
    fn names_and_texts_that_need_quotes_get_them() {
        let text = "name = 'a \"b\"'\n\n[device.\"ä b\"]\narrival = { every = \"1s\" }\nqos = 0\n";
        assert_eq!(write(&text.parse().unwrap()), text);
    }
}
