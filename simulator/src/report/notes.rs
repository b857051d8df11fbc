//! What every report ends with: how right the simulator is, and which keys of gateways' configurations are not
//! simulated.

use serde_json::{Map, Value, json};

use crate::scenario::Scenario;
use crate::validation;
use crate::wrapping::wrapped;

/// Characters of a line.
pub const WIDTH: usize = 80;

/// Before the further lines of a note.
const INDENT: &str = "  ";

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
            wrapped(&format!("not simulated of the configuration of {name}: {keys}{more}"), WIDTH, INDENT)
        };
        let not_simulated: String = self.not_simulated.iter().map(of_gateway).collect();
        not_simulated + &wrapped(&validation::line(), WIDTH, INDENT)
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
