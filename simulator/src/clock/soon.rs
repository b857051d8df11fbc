//! The events that come next, in order: a few in an array, which is sorted by insertion, and the others in a heap.
//!
//! Of a handful of events an array is faster than a heap: the one that comes next is its last, and a new one moves the
//! few that come before it. Where there are many, each goes through the heap as well, and costs its levels.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::Nanos;

/// Events in the array, at the most.
const MOST: usize = 32;

/// An event, when it comes, and the number by which it comes after those of its time that were scheduled before.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry<E> {
    pub(super) time: Nanos,
    pub(super) number: u64,
    pub(super) event: E,
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Soon<E> {
    /// The latest first.
    array: Vec<Entry<E>>,
    /// Those that come after all in the array.
    heap: BinaryHeap<Reverse<Entry<E>>>,
    work: u64,
}

impl<E: Copy> Soon<E> {
    pub(super) fn new() -> Self {
        Self { array: Vec::with_capacity(MOST + 1), heap: BinaryHeap::new(), work: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.array.len() + self.heap.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        // The array is filled from the heap.
        self.array.is_empty()
    }

    /// Levels of the heap that events went through. What is in the array costs the same however many events there are.
    pub(super) fn work(&self) -> u64 {
        self.work
    }

    /// Puts one in, which may have been scheduled at any time.
    pub(super) fn push(&mut self, entry: Entry<E>) {
        self.insert(entry, |other| *other < entry);
    }

    /// Puts one in that was scheduled after all others, so that their numbers need not be compared.
    #[inline(always)]
    pub(super) fn push_newest(&mut self, entry: Entry<E>) {
        self.insert(entry, |other| other.time <= entry.time);
    }

    #[inline(always)]
    fn insert(&mut self, entry: Entry<E>, comes_after: impl Fn(&Entry<E>) -> bool) {
        if !self.heap.is_empty() && comes_after(&self.array[0]) {
            return self.push_far(entry);
        }
        self.array.push(entry);
        let mut until = self.array.as_mut_slice();
        while let [before @ .., here] = until {
            match before.last() {
                Some(other) if comes_after(other) => *here = *other,
                _ => {
                    *here = entry;
                    break;
                }
            }
            until = before;
        }
        if self.array.len() > MOST {
            self.overflows();
        }
    }

    pub(super) fn next_time(&self) -> Option<Nanos> {
        self.array.last().map(|entry| entry.time)
    }

    /// Takes the next one, which has to be there.
    #[inline(always)]
    pub(super) fn take(&mut self) -> Entry<E> {
        let last = self.array.len() - 1;
        let entry = self.array[last];
        self.array.truncate(last);
        if last == 0 && !self.heap.is_empty() {
            self.refill();
        }
        entry
    }

    fn push_far(&mut self, entry: Entry<E>) {
        self.heap.push(Reverse(entry));
        self.work += self.levels();
    }

    /// The later half of the array goes to the heap.
    #[cold]
    fn overflows(&mut self) {
        self.heap.extend(self.array.drain(..MOST / 2).map(Reverse));
        self.work += self.levels() * (MOST / 2) as u64;
    }

    /// The array has the heap's next ones.
    fn refill(&mut self) {
        self.work += self.levels() * (MOST / 2) as u64;
        let next = std::iter::from_fn(|| self.heap.pop()).take(MOST / 2);
        self.array.extend(next.map(|Reverse(entry)| entry));
        self.array.reverse();
    }

    fn levels(&self) -> u64 {
        self.heap.len().max(1).ilog2().into()
    }

    /// All of them, in no order.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Entry<E>> {
        self.array.drain(..).chain(self.heap.drain().map(|Reverse(entry)| entry))
    }
}

impl<E> Entry<E> {
    /// One number, so that comparing takes no branches.
    fn order(&self) -> u128 {
        u128::from(self.time) << 64 | u128::from(self.number)
    }
}

impl<E> PartialEq for Entry<E> {
    fn eq(&self, other: &Self) -> bool {
        self.order() == other.order()
    }
}

impl<E> Eq for Entry<E> {}

impl<E> PartialOrd for Entry<E> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> Ord for Entry<E> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.order().cmp(&other.order())
    }
}
