//! Who takes turns, and which of them are compared.

use crate::serve::Kind;

/// What every request carries: arguments of the gateway's default program, which adds them.
pub const REQUEST: &[u8] = b"5 7";

/// One server under load.
pub struct Contender {
    /// How it is started.
    pub kind: Kind,
    /// Its name in tables.
    pub name: &'static str,
    /// The answer to [`REQUEST`]; a server that answers anything else is not measured but reported.
    pub answer: &'static [u8],
}

/// All of them, in the order of the first round.
pub const ALL: [Contender; 4] = [
    Contender { kind: Kind::Gateway, name: "gateway", answer: b"12\n" },
    Contender { kind: Kind::Echo, name: "echo", answer: REQUEST },
    Contender { kind: Kind::BrokerEcho, name: "broker echo", answer: REQUEST },
    Contender { kind: Kind::MosquittoEcho, name: "mosquitto echo", answer: REQUEST },
];

/// What is divided by what, as places in [`ALL`].
pub const RATIOS: [(usize, usize); 4] = [(0, 1), (0, 3), (1, 3), (2, 3)];
