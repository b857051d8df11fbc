//! What every report ends with: how right the simulator is, and which keys of gateways' configurations are not
//! simulated.

use serde_json::{Map, Value, json};

use crate::scenario::Scenario;
use crate::validation;

/// Characters of a line.
pub const WIDTH: usize = 80;

/// Keys of one configuration that a text names; JSON has all.
const MOST_KEYS: usize = 12;

/// What is not simulated of the configurations of some scenarios.
#[derive(Clone, Debug, Default)]
pub struct Notes {
    /// By name of the gateways.
    not_simulated: Vec<(String, Vec<String>)>,
}

impl Notes {
    /// On these scenarios together.
    pub fn on(scenarios: &[&Scenario]) -> Self {
        let mut not_simulated = Vec::new();
        for gateway in scenarios.iter().flat_map(|scenario| &scenario.gateways) {
            let of = (gateway.name.clone(), gateway.config.not_taken.clone());
            if !of.1.is_empty() && !not_simulated.contains(&of) {
                not_simulated.push(of);
            }
        }
        Self { not_simulated }
    }

    /// Lines for a terminal.
    pub fn text(&self) -> String {
        let of_gateway = |(name, keys): &(String, Vec<String>)| {
            let more = keys.len().saturating_sub(MOST_KEYS);
            let more = if more > 0 { format!(" and {more} more (--json)") } else { String::new() };
            let keys = keys[..keys.len().min(MOST_KEYS)].join(", ");
            wrapped(&format!("not simulated of the configuration of {name}: {keys}{more}"))
        };
        let not_simulated: String = self.not_simulated.iter().map(of_gateway).collect();
        not_simulated + &wrapped(&validation::line())
    }

    /// What a report as JSON has, beside what else it has.
    pub fn add_to(&self, report: &mut Value) {
        let keys: Map<String, Value> =
            self.not_simulated.iter().map(|(name, keys)| (name.clone(), json!(keys))).collect();
        if let Some(report) = report.as_object_mut() {
            report.insert("not_simulated".to_owned(), keys.into());
            report.insert("validation".to_owned(), validation::summary());
        }
    }
}

/// Lines that a terminal has room for; further ones are indented.
fn wrapped(text: &str) -> String {
    let mut lines = String::new();
    let mut width = 0;
    for word in text.split(' ') {
        let length = word.chars().count();
        if width == 0 {
            width = length;
        } else if width + 1 + length <= WIDTH {
            lines.push(' ');
            width += 1 + length;
        } else {
            lines.push_str("\n  ");
            width = 2 + length;
        }
        lines.push_str(word);
    }
    lines + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_go_on_below() {
        let text = "throughput within 7 %, ".repeat(8);
        let lines = wrapped(text.trim());
        assert!(
            lines.lines().count() > 1 && lines.lines().all(|line| line.chars().count() <= WIDTH),
            "{lines}"
        );
        assert_eq!(lines.split_whitespace().collect::<Vec<_>>(), text.split_whitespace().collect::<Vec<_>>());
    }
}
