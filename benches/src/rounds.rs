//! How often and how long contenders have their turns, and in which order.

use anyhow::Result;
use std::time::Duration;

/// What is run.
pub struct Plan {
    pub rounds: u32,
    /// Measured time of one turn.
    pub measured: Duration,
    /// Clients that are connected beside the load, where there is a crowd.
    pub idle_clients: usize,
}

impl Plan {
    /// Runs `round` once for each, and says so.
    pub fn each_round(&self, what: &str, mut round: impl FnMut(u32) -> Result<()>) -> Result<()> {
        (0..self.rounds).try_for_each(|number| {
            eprintln!("{what}: round {} of {}", number + 1, self.rounds);
            round(number)
        })
    }
}

/// Each round starts with the next one, so that none always follows the same rest or the same noise.
pub fn order(round: u32, count: usize) -> impl Iterator<Item = usize> {
    let first = if count == 0 { 0 } else { round as usize % count };
    (first..count).chain(0..first)
}

/// `items` in the order of this round.
pub fn turns<T>(round: u32, items: &[T]) -> impl Iterator<Item = &T> {
    order(round, items.len()).map(|index| &items[index])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_its_turn_first() {
        let orders: Vec<Vec<usize>> = (0..4).map(|round| order(round, 3).collect()).collect();
        assert_eq!(orders, [[0, 1, 2], [1, 2, 0], [2, 0, 1], [0, 1, 2]]);
        assert_eq!(turns(1, &["a", "b"]).collect::<Vec<_>>(), [&"b", &"a"]);
        assert_eq!(order(1, 0).count(), 0);
    }
}
