//! How often a part that has failed is started again: the restart intensity of supervisors (J. Armstrong, "Making
//! reliable distributed systems in the presence of software errors", KTH Stockholm, 2003, section 5.2).

use std::collections::VecDeque;

use crate::Time;

/// Allows a number of restarts within any span of a length. One more means that they do not help.
#[derive(Debug)]
pub struct Restarts {
    most: usize,
    within: Time,
    /// The latest, oldest first; never more than `most`.
    latest: VecDeque<Time>,
}

impl Restarts {
    /// At most `most` of them within each span of `within`.
    pub fn new(most: usize, within: Time) -> Self {
        Self { most, within, latest: VecDeque::with_capacity(most) }
    }

    /// Something has failed: whether it may be started again. If so, that is counted.
    pub fn allow(&mut self, now: Time) -> bool {
        while self.latest.front().is_some_and(|at| now.saturating_sub(*at) >= self.within) {
            self.latest.pop_front();
        }
        let allowed = self.latest.len() < self.most;
        if allowed {
            self.latest.push_back(now);
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn one_more_within_the_span_is_too_many_and_later_ones_are_allowed_again() {
        let mut restarts = Restarts::new(2, Time::from_secs(60));
        let mut allow = |second| restarts.allow(Time::from_secs(second));
        assert_eq!([0, 30, 59, 60, 89, 90].map(&mut allow), [true, true, false, true, false, true]);
        assert!(allow(1000) && allow(1001) && !allow(1002));
    }

    proptest! {
        #[test]
        fn no_span_has_more_than_are_allowed(
            most in 0..4usize,
            steps in prop::collection::vec(0..40u64, 0..60),
        ) {
            let within = Time::from_secs(60);
            let mut restarts = Restarts::new(most, within);
            let mut now = Time::ZERO;
            let mut allowed: Vec<Time> = Vec::new();
            for step in steps {
                now += Time::from_secs(step);
                let before = allowed.iter().filter(|at| now - **at < within).count();
                prop_assert_eq!(restarts.allow(now), before < most);
                if before < most {
                    allowed.push(now);
                }
            }
        }
    }
}
