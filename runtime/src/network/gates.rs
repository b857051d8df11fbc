//! The table of gates: which sites a master knows, and how they are. Routers and people read it.

use offload_protocol::topic;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Most gates that are remembered; of those that have gone, the one that went first makes room.
const MAX_GATES: usize = 1_024;

/// The table of gates, as a master publishes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gates {
    /// The name of whoever publishes it.
    pub name: String,
    /// Whether the master listens on loopback alone.
    pub local: bool,
    /// Milliseconds since the master's start: gates come back one by one then.
    pub uptime_ms: u64,
    /// Which gate it is; only where a gateway publishes the table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gate: Option<String>,
    /// The masters, in the order in which they are preferred; only where a gateway publishes the table.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub masters: Vec<MasterState>,
    /// The gates, by their names.
    pub gates: BTreeMap<String, Gate>,
}

/// A master, as a gateway sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MasterState {
    /// Where it is.
    pub url: String,
    /// Whether the gateway has joined it.
    pub joined: bool,
}

/// One gate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gate {
    /// Whether it is there.
    pub state: State,
    /// Where its router has connected from.
    pub address: String,
    /// Seconds since 1970 at which it came into this state.
    pub since: u64,
    /// Counts the connections of routers at this master: another one may have lost what was on its way.
    pub session: u64,
    /// What its router says of itself.
    #[serde(flatten)]
    pub join: Join,
    /// How busy its gateway is, as far as is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load: Option<Load>,
}

/// Whether a gate is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Its router is connected.
    Online,
    /// Its router has said that it goes.
    Left,
    /// Its router was lost: it answers no more, or its connection broke.
    Lost,
}

impl State {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Online => "online",
            State::Left => "left",
            State::Lost => "lost",
        }
    }
}

/// What a router says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Join {
    /// Drawn at random when its gateway started.
    pub instance: u64,
    /// Whether its gateway is reached by loopback alone.
    pub local: bool,
    /// The version of its gateway.
    pub version: String,
    /// What it takes of other sites' messages: `<gate>/<filter>`.
    #[serde(default)]
    pub imports: Vec<String>,
}

/// What a router says when it goes, itself or by its will.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leave {
    /// Of which start of its gateway.
    pub instance: u64,
    /// How.
    pub state: State,
}

/// How busy a gateway is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Load {
    /// Threads that run guests.
    pub workers: usize,
    /// Requests that run.
    pub running: usize,
    /// Requests that wait.
    pub waiting: usize,
    /// Those that run and wait for their next slice: it is for this gateway alone, which hands on while many do.
    #[serde(skip)]
    pub runnable: usize,
}

impl Gates {
    /// Whether this gate is there.
    pub fn is_online(&self, gate: &str) -> bool {
        self.gates.get(gate).is_some_and(|gate| gate.state == State::Online)
    }

    /// Which connection of this gate's router it is, if it is there.
    pub fn session(&self, gate: &str) -> Option<u64> {
        self.gates.get(gate).filter(|gate| gate.state == State::Online).map(|gate| gate.session)
    }

    /// Whether the master and all gateways that are there listen on loopback alone.
    pub fn are_local(&self) -> bool {
        self.local
            && self.gates.values().filter(|gate| gate.state == State::Online).all(|gate| gate.join.local)
    }

    /// The gates that are there and take messages of this gate on this topic.
    pub fn importers(&self, of: &str, topic: &str) -> impl Iterator<Item = &str> {
        let name = format!("{of}/{topic}");
        let takes = move |gate: &Gate| gate.join.imports.iter().any(|filter| topic::matches(filter, &name));
        let there = self.gates.iter().filter(|(_, gate)| gate.state == State::Online);
        there.filter(move |(_, gate)| takes(gate)).map(|(name, _)| name.as_str())
    }

    /// A gate more, or one that is back.
    pub fn insert(&mut self, name: &str, gate: Gate) {
        if self.gates.len() >= MAX_GATES && !self.gates.contains_key(name) {
            let gone = self.gates.iter().filter(|(_, gate)| gate.state != State::Online);
            if let Some(oldest) = gone.min_by_key(|(_, gate)| gate.since).map(|(name, _)| name.clone()) {
                self.gates.remove(&oldest);
            }
        }
        self.gates.insert(name.to_owned(), gate);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(state: State, local: bool) -> Gate {
        let join = Join { instance: 1, local, version: "0".to_owned(), imports: Vec::new() };
        Gate { state, address: "127.0.0.1:1".to_owned(), since: 1, session: 3, join, load: None }
    }

    #[test]
    fn a_table_is_read_as_it_was_written() {
        let mut gates = Gates { name: "m".to_owned(), local: true, uptime_ms: 5, ..Gates::default() };
        gates.insert("north", gate(State::Online, true));
        gates.insert("south", Gate { load: Some(Load::default()), ..gate(State::Lost, false) });
        let text = serde_json::to_string(&gates).unwrap();
        assert_eq!(serde_json::from_str::<Gates>(&text).unwrap(), gates);
        assert!(gates.is_online("north") && !gates.is_online("south") && !gates.is_online("west"));
        assert_eq!((gates.session("north"), gates.session("south")), (Some(3), None));
    }

    #[test]
    fn a_network_is_local_while_all_who_are_there_are() {
        let mut gates = Gates { local: true, ..Gates::default() };
        gates.insert("north", gate(State::Online, true));
        gates.insert("south", gate(State::Left, false));
        assert!(gates.are_local());
        gates.insert("south", gate(State::Online, false));
        assert!(!gates.are_local());
        assert!(!Gates::default().are_local());
    }

    #[test]
    fn only_gates_that_have_gone_are_forgotten() {
        let mut gates = Gates::default();
        for number in 0..MAX_GATES {
            let state = if number == 7 { State::Left } else { State::Online };
            gates.insert(&format!("g{number}"), gate(state, true));
        }
        gates.insert("new", gate(State::Online, true));
        assert_eq!((gates.gates.len(), gates.gates.contains_key("g7")), (MAX_GATES, false));
    }
}
