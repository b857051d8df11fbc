//! Makes a scenario smaller, as long as it still breaks what it broke: delta debugging over the tree that its TOML is
//! (A. Zeller and R. Hildebrandt, "Simplifying and Isolating Failure-Inducing Input", IEEE Transactions on Software
//! Engineering 28(2), 2002; on trees as in G. Misherghi and Z. Su, "HDD: Hierarchical Delta Debugging", ICSE 2006).
//!
//! Three kinds of edits are tried: to leave out a table, an entry or a key, to put a part of a value in its place, and
//! to make a number smaller or rounder. What the scenario's reader refuses is no scenario, and is passed over. The
//! order is fixed, large parts first, so that the same scenario shrinks to the same one.

use toml::{Table, Value};

use crate::scenario::units::{Bytes, Time};

/// Where a value is: the keys and positions that lead to it.
type Path = Vec<Step>;

#[derive(Clone, Debug)]
enum Step {
    Key(String),
    Index(usize),
}

/// What is done to a value.
#[derive(Clone, Debug)]
enum Edit {
    Remove,
    Replace(Value),
}

/// The smallest scenario that was found of which `fails` still says yes, and how often that was asked, `tries` at the
/// most.
pub fn shrink(scenario: &Table, tries: usize, mut fails: impl FnMut(&Table) -> bool) -> (Table, usize) {
    let mut smallest = scenario.clone();
    let mut tried = 0;
    loop {
        let mut has_shrunk = false;
        let mut at = 0;
        // What comes after an edit that was made is what came after it before, or nearly.
        while let Some((path, edit)) = edits(&smallest).into_iter().nth(at) {
            if tried == tries {
                return (smallest, tried);
            }
            let mut candidate = smallest.clone();
            apply(&mut candidate, &path, edit);
            tried += 1;
            if candidate != smallest && fails(&candidate) {
                smallest = candidate;
                has_shrunk = true;
            } else {
                at += 1;
            }
        }
        if !has_shrunk {
            return (smallest, tried);
        }
    }
}

/// All that can be done to a scenario, what removes most first.
fn edits(scenario: &Table) -> Vec<(Path, Edit)> {
    let mut nodes = Vec::new();
    for (key, value) in scenario {
        collect(vec![Step::Key(key.clone())], value, &mut nodes);
    }
    nodes.sort_by_key(|(path, _)| path.len());
    let removals = nodes.iter().map(|(path, _)| (path.clone(), Edit::Remove));
    let smaller = nodes.iter().flat_map(|(path, value)| {
        let key = path.iter().rev().find_map(|step| match step {
            Step::Key(key) => Some(key.as_str()),
            Step::Index(_) => None,
        });
        let smaller = smaller(key.unwrap_or_default(), value);
        smaller.into_iter().map(|value| (path.clone(), Edit::Replace(value)))
    });
    removals.chain(smaller).collect()
}

fn collect<'v>(path: Path, value: &'v Value, nodes: &mut Vec<(Path, &'v Value)>) {
    let below = |step| [&path[..], &[step]].concat();
    match value {
        Value::Table(table) => {
            table.iter().for_each(|(key, value)| collect(below(Step::Key(key.clone())), value, nodes));
        }
        Value::Array(array) => {
            (array.iter().enumerate())
                .for_each(|(index, value)| collect(below(Step::Index(index)), value, nodes));
        }
        _ => {}
    }
    nodes.push((path, value));
}

/// Values that are simpler than one, the simplest first.
fn smaller(key: &str, value: &Value) -> Vec<Value> {
    match value {
        Value::Integer(number) if *number > 1 => {
            let mut smaller = vec![1, number / 2, number - 1];
            smaller.dedup();
            smaller.into_iter().map(Value::Integer).collect()
        }
        // Whatever is in it may stand for it.
        Value::Table(table) => table.values().cloned().collect(),
        Value::Array(array) => array.clone(),
        Value::String(text) => {
            if let Ok(Time(time)) = Time::parse(text) {
                let shorter =
                    if key == "duration" { vec![rounded(time / 2), one_less(time)] } else { vec![] };
                let times = shorter.into_iter().chain([rounded(time)]);
                times
                    .filter(|of| *of != time && *of > 0)
                    .map(|of| Value::String(Time(of).to_string()))
                    .collect()
            } else if let Ok(Bytes(bytes)) = Bytes::parse(text) {
                let bytes = if bytes > 1 { Some(Value::String(Bytes(bytes / 2).to_string())) } else { None };
                bytes.into_iter().collect()
            } else {
                rounder_rate(text).into_iter().collect()
            }
        }
        _ => Vec::new(),
    }
}

/// With one digit that is not zero.
fn rounded(number: u64) -> u64 {
    number / unit(number) * unit(number)
}

/// Less by one in its first digit, or in its second one where the first is one.
fn one_less(number: u64) -> u64 {
    let unit = unit(number);
    rounded(number) - if number / unit > 1 { unit } else { (unit / 10).max(1) }
}

/// What its first digit counts.
fn unit(number: u64) -> u64 {
    10_u64.pow(number.checked_ilog10().unwrap_or(0))
}

fn rounder_rate(text: &str) -> Option<Value> {
    let (number, unit) = text.split_once('/')?;
    let number: f64 = number.parse().ok()?;
    let whole = rounded(number as u64);
    (whole > 0 && whole as f64 != number).then(|| Value::String(format!("{whole}/{unit}")))
}

fn apply(scenario: &mut Table, path: &[Step], edit: Edit) {
    let [Step::Key(first), below @ ..] = path else { return };
    let Some(mut value) = scenario.get_mut(first) else { return };
    let Some((last, way)) = below.split_last() else {
        match edit {
            Edit::Remove => drop(scenario.remove(first)),
            Edit::Replace(with) => *value = with,
        }
        return;
    };
    for step in way {
        let next = match step {
            Step::Key(key) => value.get_mut(key.as_str()),
            Step::Index(index) => value.get_mut(*index),
        };
        let Some(next) = next else { return };
        value = next;
    }
    match (value, last, edit) {
        (Value::Table(table), Step::Key(key), Edit::Remove) => drop(table.remove(key)),
        (Value::Array(array), Step::Index(index), Edit::Remove) => drop(array.remove(*index)),
        (value, Step::Key(key), Edit::Replace(with)) => {
            if let Some(value) = value.get_mut(key.as_str()) {
                *value = with;
            }
        }
        (value, Step::Index(index), Edit::Replace(with)) => {
            if let Some(value) = value.get_mut(*index) {
                *value = with;
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shrunk(text: &str, fails: impl Fn(&Table) -> bool) -> String {
        shrink(&text.parse().unwrap(), 1_000, |table| fails(table)).0.to_string()
    }

    #[test]
    fn what_does_not_matter_goes_and_numbers_become_the_least_that_matter() {
        let text = "a = 1\nb = { c = 40, d = \"x\" }\ne = [{ f = 1 }, { f = 2 }, { f = 3 }]\n";
        let at_least_seven = |table: &Table| table.get("b").and_then(|b| b.get("c")?.as_integer()) >= Some(7);
        assert_eq!(shrunk(text, at_least_seven), "[b]\nc = 7\n");
        let has_two = |table: &Table| {
            let list = table.get("e").and_then(Value::as_array);
            list.is_some_and(|list| list.iter().any(|of| of.get("f").and_then(Value::as_integer) == Some(2)))
        };
        assert_eq!(shrunk(text, has_two), "[[e]]\nf = 2\n");
    }

    #[test]
    fn a_part_stands_for_the_whole_and_times_become_round() {
        let text = "time = { exponential = \"1234us\" }\nduration = \"37s\"\n";
        let is_long = |table: &Table| {
            let text = |key: &str| table.get(key)?.as_str().and_then(|text| Time::parse(text).ok());
            text("time") > Some(Time(0)) && text("duration") > Some(Time(3_000_000_000))
        };
        let start = "time = \"1234us\"\nduration = \"37s\"\n";
        assert_eq!(shrunk(start, is_long), shrunk(start, is_long));
        assert_eq!(shrunk(start, is_long), "duration = \"4s\"\ntime = \"1ms\"\n");
        let mentions = |table: &Table| table.to_string().contains("1234us");
        assert_eq!(shrunk(text, mentions), "time = \"1234us\"\n");
    }

    #[test]
    fn tries_are_bounded() {
        let (_, tried) = shrink(&"a = 1000000\n".parse().unwrap(), 2, |table| table.contains_key("a"));
        assert_eq!(tried, 2);
    }
}
