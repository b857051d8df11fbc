//! What is run on both sides.

use super::deployment::Kind;
use super::parameters::Parameters;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

/// Where the clients of a load beside another one come from: another account than those on 127.0.0.1.
pub const OTHER_ACCOUNT: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

/// Clients that ask at given moments, and what there is beside them.
pub struct Case {
    pub name: &'static str,
    pub kind: Kind,
    /// Which of [the programs](super::programs) is asked for.
    pub program: &'static str,
    /// The part of what the gateways can do at the most that is asked of them.
    pub load: f64,
    /// Requests are spread over these clients in rotation.
    pub connections: usize,
    /// Clients of another account, each with one request in flight all the time.
    pub beside: Option<Beside>,
    /// The part of the run after which one gateway is killed.
    pub killed_at: Option<f64>,
}

/// A load beside another one.
pub struct Beside {
    pub name: &'static str,
    pub program: &'static str,
    pub connections: usize,
}

const fn computing(name: &'static str, load: f64) -> Case {
    Case { name, kind: Kind::One, program: "computes", load, connections: 4, beside: None, killed_at: None }
}

const fn sleeping(name: &'static str, load: f64) -> Case {
    Case { kind: Kind::FewSlots, program: "sleeps", ..computing(name, load) }
}

/// All of them.
pub const CASES: [Case; 10] = [
    computing("a worker at 30 %", 0.3),
    computing("a worker at 60 %", 0.6),
    computing("a worker at 90 %", 0.9),
    sleeping("eight slots at 30 %", 0.3),
    sleeping("eight slots at 60 %", 0.6),
    sleeping("eight slots at 90 %", 0.9),
    Case {
        beside: Some(Beside { name: "the hogs", program: "long", connections: 4 }),
        ..computing("beside four hogs", 0.3)
    },
    Case {
        beside: Some(Beside { name: "the flood", program: "short", connections: 64 }),
        program: "short",
        ..computing("beside a flood", 0.2)
    },
    Case {
        kind: Kind::Nats,
        program: "sleeps-long",
        killed_at: Some(0.4),
        ..computing("three gateways on NATS, one killed", 0.5)
    },
    Case { kind: Kind::Sites, ..sleeping("across two sites", 0.6) },
];

/// The programs that cases of this kind ask for, each once.
pub fn programs_of(kind: Kind) -> Vec<&'static str> {
    let of_kind = CASES.iter().filter(|case| case.kind == kind);
    let names = of_kind.flat_map(|case| [Some(case.program), case.beside.as_ref().map(|of| of.program)]);
    let names: BTreeSet<_> = names.flatten().collect();
    names.into_iter().collect()
}

impl Case {
    /// Whether all that its worker is asked for is known: each request at its moment, and each keeps the worker busy.
    pub fn is_known(&self) -> bool {
        self.kind == Kind::One && self.beside.is_none()
    }

    /// Requests a second.
    pub fn rate(&self, parameters: &Parameters) -> f64 {
        let takes = parameters.mean(self.program).as_secs_f64();
        self.load * self.kind.servers(self.program) as f64 / takes
    }

    /// What is asked in it, for people, by what was measured in all runs; and what a request `took` of its worker in
    /// each, where that is known.
    pub fn describe(&self, all: &[Parameters], took: Option<&Vec<Duration>>) -> String {
        let mean =
            |of: &dyn Fn(&Parameters) -> f64| all.iter().map(of).sum::<f64>() / all.len().max(1) as f64;
        let ms = |program| mean(&|of| of.mean(program).as_secs_f64() * 1e3);
        let Case { name, program, connections, .. } = self;
        let asked = format!(
            "{name}: {connections} clients ask {} for `{program}` of {:.1} ms, {:.0} times a second",
            self.kind.describe(),
            ms(program),
            mean(&|of| self.rate(of)),
        );
        let beside = self.beside.as_ref().map(|Beside { program, connections, .. }| {
            format!(
                "; {connections} of another account for one `{program}` of {:.1} ms after the other",
                ms(program)
            )
        });
        let killed =
            self.killed_at.map(|part| format!("; one is killed after {:.0} % of the run", part * 100.0));
        let took = took.filter(|took| !took.is_empty()).map(|took| {
            let mean = took.iter().sum::<Duration>() / took.len() as u32;
            format!("; in the runs themselves one took {:.2} ms of the worker", mean.as_secs_f64() * 1e3)
        });
        [Some(asked), beside, killed, took, Some(".".to_owned())].into_iter().flatten().collect()
    }

    /// The names of its loads: its own, and that beside it.
    pub fn loads(&self) -> impl Iterator<Item = String> {
        let beside = self.beside.as_ref().map(|beside| format!("{} ({})", beside.name, self.name));
        [Some(self.name.to_owned()), beside].into_iter().flatten()
    }
}
