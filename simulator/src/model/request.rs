//! A request, from the moment that its device makes it until nothing in the world refers to it any more.

use super::order::Key;
use super::outcome::Outcome;
use crate::clock::Nanos;
use crate::random::Stream;

/// One request of one device.
#[derive(Clone, Debug)]
pub struct Request {
    /// Which one it is of all in the run, from 0.
    pub number: u64,
    /// Who asks, by its number in the world.
    pub device: u32,
    /// Whom it is counted for: the account, and the device by its number in the scenario.
    pub key: Key,
    /// The number of its device's group.
    pub group: u32,
    /// Who is asked.
    pub gateway: u32,
    /// When the device made it.
    pub created: Nanos,
    /// What is random on its way.
    pub random: Stream,
    /// The CPU time that its guest takes.
    pub demand: Nanos,
    /// How long its guest sleeps first.
    pub sleep: Nanos,
    /// How often it was sent again.
    pub attempt: u16,
    /// Packets on their way, timers, and places at a gateway that refer to it.
    pub references: u16,
    /// From when on it outlives a crash of its gateway.
    pub safe: Nanos,
    /// What its gateway knows of it.
    pub progress: Progress,
    /// Whether its device is done with it.
    pub is_done: bool,
}

#[cfg(test)]
impl Request {
    /// One that something refers to, for tests that look at its number alone.
    pub(crate) fn numbered(number: u64) -> Self {
        Self {
            number,
            device: 0,
            key: (0, 0),
            group: 0,
            gateway: 0,
            created: 0,
            random: Stream::new(1, "test", number),
            demand: 1,
            sleep: 0,
            attempt: 0,
            references: 1,
            safe: 0,
            progress: Progress::Unknown,
            is_done: false,
        }
    }
}

/// What a gateway knows of a request, by its `id`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Nothing.
    Unknown,
    /// It waits or runs: another delivery joins it.
    InFlight,
    /// It has run: another delivery gets the same answer.
    Ended(Outcome),
}
