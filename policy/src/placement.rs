//! Which worker may run what.
//!
//! A started guest stays on its worker, and goes to whichever takes it first: work goes where there is time for it, and
//! nothing has to be balanced (a central queue in front of the servers, M/G/k). One rule limits that, in the spirit of
//! size interval task assignment (M. Harchol-Balter, M. Crovella and C. Murta, "On Choosing a Task Assignment Policy
//! for a Distributed Server System", JPDC 59(2), 1999): programs that hold up a worker are for half of the workers, so
//! that there is always one that others need not wait for.

/// The workers by what they may run.
#[derive(Clone, Copy, Debug)]
pub struct Placement {
    /// The workers from 0 on that may be held up.
    may_be_held_up: usize,
}

impl Placement {
    /// Of this many workers. One alone has no choice.
    pub fn new(workers: usize) -> Self {
        Self { may_be_held_up: workers.div_ceil(2) }
    }

    /// Whether this worker may run a program that [holds up](crate::RecentRuns::hold_up) its worker, or does not.
    #[inline]
    pub fn allows(self, worker: usize, holds_up: bool) -> bool {
        worker < self.may_be_held_up || !holds_up
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_that_hold_up_a_worker_are_for_half_of_them_and_at_least_one() {
        for (workers, allowed) in [(1, 1), (2, 1), (3, 2), (4, 2), (5, 3)] {
            let placement = Placement::new(workers);
            let count = |holds_up| (0..workers).filter(|&worker| placement.allows(worker, holds_up)).count();
            assert_eq!((count(true), count(false)), (allowed, workers), "{workers}");
        }
    }
}
