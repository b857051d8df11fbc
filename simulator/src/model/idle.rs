//! Which workers of a gateway run no slice: a bit for each, by which the next one is found without looking at others.

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Idle(Vec<u64>);

/// Workers of one word.
const PER_WORD: usize = u64::BITS as usize;

impl Idle {
    /// All of this many workers are idle.
    pub(super) fn all(workers: usize) -> Self {
        let mut idle = Self(vec![0; workers.div_ceil(PER_WORD)]);
        (0..workers).for_each(|worker| idle.insert(worker));
        idle
    }

    /// This worker runs no slice any more.
    pub(super) fn insert(&mut self, worker: usize) {
        self.0[worker / PER_WORD] |= 1 << (worker % PER_WORD);
    }

    /// This worker runs a slice.
    pub(super) fn remove(&mut self, worker: usize) {
        self.0[worker / PER_WORD] &= !(1 << (worker % PER_WORD));
    }

    /// The first one that is idle, from this one on.
    #[inline]
    pub(super) fn next(&self, worker: usize) -> Option<usize> {
        let mut at = worker / PER_WORD;
        let mut word = self.0.get(at)? & (u64::MAX << (worker % PER_WORD));
        while word == 0 {
            at += 1;
            word = *self.0.get(at)?;
        }
        Some(at * PER_WORD + word.trailing_zeros() as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_idle_worker_is_found_in_any_word() {
        let mut idle = Idle::all(130);
        let of = |idle: &Idle| {
            let next = |worker: &usize| idle.next(worker + 1);
            std::iter::successors(idle.next(0), next).collect::<Vec<_>>()
        };
        assert_eq!(of(&idle), (0..130).collect::<Vec<_>>());
        (0..130).filter(|worker| ![5, 63, 129].contains(worker)).for_each(|worker| idle.remove(worker));
        assert_eq!(of(&idle), [5, 63, 129]);
        idle.remove(129);
        idle.insert(64);
        assert_eq!((of(&idle), idle.next(65), idle.next(1_000)), (vec![5, 63, 64], None, None));
        assert_eq!(Idle::all(0).next(0), None);
    }
}
