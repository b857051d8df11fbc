//! Keeps what others can cause as often as they like from filling the log.

/// Counts an event, and picks the 1st, 2nd, 4th, 8th … of them.
#[derive(Debug, Default)]
pub(super) struct PowersOfTwo {
    count: u64,
}

impl PowersOfTwo {
    /// One more. The number of events so far, when this is one to log.
    pub fn count(&mut self) -> Option<u64> {
        self.count += 1;
        self.count.is_power_of_two().then_some(self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_a_few_lines() {
        let mut sample = PowersOfTwo::default();
        let logged: Vec<u64> = (0..1_000_000).filter_map(|_| sample.count()).collect();
        assert_eq!((logged.len(), &logged[..4]), (20, &[1, 2, 4, 8][..]));
    }
}
