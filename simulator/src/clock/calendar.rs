//! The events to come, in the order of their times: a calendar queue (R. Brown, "Calendar Queues: A Fast O(1) Priority
//! Queue Implementation for the Simulation Event Set Problem", Communications of the ACM 31(10), 1988).
//!
//! A year has a power of two of days, and each day a list of the events that come on it, in this year or a later one.
//! The events of the current day, which are few, are kept in order. Events of one time come in the order in which they
//! were scheduled, so that a run depends on nothing but its scenario and seed.
//!
//! Brown's calendar sorts each day's list; here a day is sorted when it comes, so that scheduling touches one list's
//! head. A bitmap of the days that have events is searched for the next one. Days are made shorter or longer, and more
//! or fewer, when the events have become so, which is looked at after as many events as there are in the calendar, and
//! at once where these have become twice as many as there are days: each event costs O(1), amortised.

use super::Nanos;
use super::soon::{Entry, Soon};

/// Days of the smallest year.
const MIN_DAYS: usize = 1 << 8;

/// Days of the largest year: with their heads and the bitmap 68 MB.
const MAX_DAYS: usize = 1 << 24;

/// So few events are all kept in order, as if the current day had no end: a list and a bitmap would cost more.
const FEW: usize = 64;

/// Of a day without an end: 292 years.
const ENDLESS: u32 = 63;

/// Events after which the lengths of day and year are looked at, at least.
const MIN_REVIEW: u64 = 1 << 14;

/// Events whose distance says how long a day is to be, at least; where fewer have come, those to come say it.
const MIN_SAMPLE: u64 = 1 << 10;

/// No event: the end of a list.
const NONE: u32 = u32::MAX;

/// The events to come; see the [module](self).
#[derive(Debug)]
pub struct Calendar<E> {
    now: Nanos,
    /// The events of the current day.
    today: Soon<E>,
    /// The current day, counted from time zero.
    day: u64,
    /// A day has two to the power of this nanoseconds.
    day_shift: u32,
    /// By the day of the year: the first event in `later`.
    heads: Vec<u32>,
    /// A bit for each day of the year, set where the day has events.
    marked: Vec<u64>,
    later: Vec<Later<E>>,
    free: u32,
    in_later: usize,
    scheduled: u64,
    /// Events that were taken since the last review, and when that was.
    taken: u64,
    reviewed: Nanos,
    work: u64,
}

#[derive(Clone, Copy, Debug)]
struct Later<E> {
    entry: Entry<E>,
    next: u32,
}

impl<E: Copy> Calendar<E> {
    /// Empty, at time zero.
    pub fn new() -> Self {
        Self {
            now: 0,
            today: Soon::new(),
            day: 0,
            day_shift: ENDLESS,
            heads: vec![NONE; MIN_DAYS],
            marked: vec![0; MIN_DAYS / 64],
            later: Vec::new(),
            free: NONE,
            in_later: 0,
            scheduled: 0,
            taken: 0,
            reviewed: 0,
            work: 0,
        }
    }

    /// The time of the event that was taken last.
    pub fn now(&self) -> Nanos {
        self.now
    }

    /// Events to come.
    pub fn len(&self) -> usize {
        self.today.len() + self.in_later
    }

    /// Whether nothing is to come.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Events that were scheduled, those that have come too.
    pub fn scheduled(&self) -> u64 {
        self.scheduled
    }

    /// What all this has cost: each event is put in and taken out; lists, words of the bitmap and levels of today's
    /// heap are gone through. It counts what a clock would measure, and is the same on each machine.
    pub fn work(&self) -> u64 {
        2 * self.scheduled + self.work + self.today.work()
    }

    /// An event is to come at `time`, or now where that is in the past. Inlined, it is made where it stays: what is
    /// written in small pieces and copied in large ones at once is waited for.
    ///
    /// # Panics
    /// If there are more than four thousand million events.
    #[inline(always)]
    pub fn schedule(&mut self, time: Nanos, event: E) {
        let (time, number) = (time.max(self.now), self.scheduled);
        self.scheduled += 1;
        if self.is_today(time) {
            self.today.push_newest(Entry { time, number, event });
            if self.today.len() > 2 * FEW && self.day_shift == ENDLESS {
                self.rebuild();
            }
        } else {
            self.insert_later(Entry { time, number, event });
            if self.in_later > 2 * self.heads.len() && self.heads.len() < MAX_DAYS {
                self.rebuild();
            }
        }
    }

    /// Takes the next event, if any is to come.
    pub fn pop(&mut self) -> Option<(Nanos, E)> {
        self.next_time().map(|time| (time, self.take()))
    }

    /// When the next event comes, if any is to come.
    #[inline(always)]
    pub fn next_time(&mut self) -> Option<Nanos> {
        if self.today.is_empty() && !self.turn_the_page() {
            return None;
        }
        self.today.next_time()
    }

    /// Takes the next event.
    ///
    /// # Panics
    /// If none is to come, or nobody has asked [when](Self::next_time).
    #[inline(always)]
    pub fn take(&mut self) -> E {
        let Entry { time, event, .. } = self.today.take();
        self.now = time;
        self.taken += 1;
        if self.taken >= MIN_REVIEW && self.taken >= self.len() as u64 {
            self.review();
        }
        event
    }

    fn is_today(&self, time: Nanos) -> bool {
        time >> self.day_shift <= self.day
    }

    fn insert_later(&mut self, entry: Entry<E>) {
        self.work += 1;
        let of_year = (entry.time >> self.day_shift) as usize & (self.heads.len() - 1);
        let later = Later { entry, next: self.heads[of_year] };
        let at = if self.free == NONE {
            let at = u32::try_from(self.later.len()).expect("fewer events than u32 counts");
            self.later.push(later);
            at
        } else {
            let at = self.free;
            self.free = std::mem::replace(&mut self.later[at as usize], later).next;
            at
        };
        self.heads[of_year] = at;
        self.marked[of_year / 64] |= 1 << (of_year % 64);
        self.in_later += 1;
    }

    /// Goes on to the next day that has an event of its year. False where nothing is to come.
    #[cold]
    fn turn_the_page(&mut self) -> bool {
        while self.in_later > 0 {
            let year = self.heads.len();
            let mut day = self.day + 1;
            let end = self.day + year as u64;
            while let Some(next) = self.next_marked(day, end) {
                self.day = next;
                self.take_day();
                if !self.today.is_empty() {
                    return true;
                }
                day = next + 1;
                if day > end {
                    break;
                }
            }
            // Nothing in a whole year: on to the day of the earliest event.
            self.work += (self.in_later + year) as u64;
            let earliest = self.lists().map(|at| self.later[at as usize].entry.time).min();
            if let Some(earliest) = earliest {
                self.day = earliest >> self.day_shift;
                self.take_day();
                if !self.today.is_empty() {
                    return true;
                }
            }
        }
        false
    }

    /// The first day from `from` up to `end` that has events, of this year or of others.
    fn next_marked(&mut self, from: u64, end: u64) -> Option<u64> {
        let mask = self.heads.len() as u64 - 1;
        let mut day = from;
        while day <= end {
            self.work += 1;
            let of_year = day & mask;
            let word = self.marked[of_year as usize / 64] >> (of_year % 64);
            if word != 0 {
                let found = day + u64::from(word.trailing_zeros());
                return (found <= end).then_some(found);
            }
            day += 64 - of_year % 64;
        }
        None
    }

    /// Puts the events of the current day in order, and leaves those of its namesakes in other years.
    fn take_day(&mut self) {
        let of_year = self.day as usize & (self.heads.len() - 1);
        let mut at = std::mem::replace(&mut self.heads[of_year], NONE);
        let mut kept = NONE;
        while at != NONE {
            self.work += 1;
            let Later { entry, next } = self.later[at as usize];
            if self.is_today(entry.time) {
                self.today.push(entry);
                self.later[at as usize].next = std::mem::replace(&mut self.free, at);
                self.in_later -= 1;
            } else {
                self.later[at as usize].next = std::mem::replace(&mut kept, at);
            }
            at = next;
        }
        self.heads[of_year] = kept;
        if kept == NONE {
            self.marked[of_year / 64] &= !(1 << (of_year % 64));
        }
    }

    /// The places of all events that are not today's.
    fn lists(&self) -> impl Iterator<Item = u32> {
        self.heads.iter().flat_map(move |head| {
            let mut at = *head;
            std::iter::from_fn(move || {
                let here = at;
                (here != NONE).then(|| {
                    at = self.later[here as usize].next;
                    here
                })
            })
        })
    }

    /// Makes days and years anew where their lengths do not suit the events any more.
    #[cold]
    fn review(&mut self) {
        let shift =
            if self.len() < FEW { ENDLESS } else { day_shift((self.now - self.reviewed) / self.taken) };
        let days = self.len().next_power_of_two().clamp(MIN_DAYS, MAX_DAYS);
        let are_right = shift.abs_diff(self.day_shift) <= 1
            && (days.ilog2().abs_diff(self.heads.len().ilog2()) <= 1 || self.len() < MIN_DAYS);
        if are_right {
            (self.taken, self.reviewed) = (0, self.now);
        } else {
            self.rebuild();
        }
    }

    /// Makes days as long as two events are apart, and years so long that there is a day for each event to come.
    #[cold]
    fn rebuild(&mut self) {
        let mut entries: Vec<Entry<E>> = self.lists().map(|at| self.later[at as usize].entry).collect();
        entries.extend(self.today.drain());
        self.work += entries.len() as u64;
        let shift = if entries.len() < FEW {
            ENDLESS
        } else if self.taken >= MIN_SAMPLE {
            day_shift((self.now - self.reviewed) / self.taken)
        } else {
            // The earlier half: some of the later one may be years away.
            let half = entries.len() / 2;
            let (_, median, _) = entries.select_nth_unstable_by_key(half, |entry| entry.time);
            day_shift((median.time - self.now) / (half as u64).max(1))
        };
        let days = entries.len().next_power_of_two().clamp(MIN_DAYS, MAX_DAYS);
        (self.taken, self.reviewed) = (0, self.now);
        (self.day_shift, self.day) = (shift, self.now >> shift);
        self.heads = vec![NONE; days];
        self.marked = vec![0; days / 64];
        self.later.clear();
        self.later.shrink_to(entries.len());
        (self.free, self.in_later) = (NONE, 0);
        for entry in entries {
            if self.is_today(entry.time) {
                self.today.push(entry);
            } else {
                self.insert_later(entry);
            }
        }
    }
}

/// For days as long as two events that are this far apart.
fn day_shift(apart: Nanos) -> u32 {
    apart.saturating_mul(2).max(1).ilog2().min(ENDLESS - 1)
}

impl<E: Copy> Default for Calendar<E> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Stream;

    /// What a sorted list does.
    fn check(steps: usize, population: usize, delay: impl Fn(&mut Stream) -> Nanos) {
        let mut random = Stream::new(7, "calendar", 0);
        let mut calendar = Calendar::new();
        let mut sorted = std::collections::BTreeSet::new();
        let mut number = 0_u64;
        for step in 0..steps {
            while calendar.len() < population {
                let time = calendar.now() + delay(&mut random);
                calendar.schedule(time, number);
                sorted.insert((time, number));
                number += 1;
            }
            assert_eq!(calendar.pop(), sorted.pop_first(), "step {step}");
        }
        while let Some(next) = calendar.pop() {
            assert_eq!(Some(next), sorted.pop_first());
        }
        assert!(sorted.is_empty() && calendar.is_empty());
    }

    #[test]
    fn events_come_in_the_order_of_their_times_whatever_these_are() {
        check(100_000, 1, |_| 5);
        check(100_000, 1_000, |random| random.below(1_000));
        check(100_000, 5_000, |random| random.below(1 << 40));
        // Near ones and far ones, and many at one time.
        check(100_000, 3_000, |random| if random.below(10) == 0 { 900 << 30 } else { random.below(64) });
        // Sparse: years apart.
        check(20_000, 3, |random| random.below(1 << 50));
    }

    #[test]
    fn events_of_one_time_come_in_the_order_in_which_they_were_scheduled() {
        let mut calendar = Calendar::new();
        (0..1_000).for_each(|number| calendar.schedule(9, number));
        let came: Vec<_> = std::iter::from_fn(|| calendar.pop()).map(|(_, number)| number).collect();
        assert_eq!(came, (0..1_000).collect::<Vec<_>>());
    }

    /// What an event costs where this many are to come, each of which is followed by another one.
    fn work_of_an_event(population: u64, delay: impl Fn(&mut Stream) -> Nanos) -> f64 {
        let mut random = Stream::new(7, "calendar", 0);
        let mut calendar = Calendar::new();
        (0..population).for_each(|number| calendar.schedule(delay(&mut random), number));
        for _ in 0..2 * population {
            let (now, number) = calendar.pop().unwrap();
            calendar.schedule(now + delay(&mut random), number);
        }
        calendar.work() as f64 / calendar.scheduled() as f64
    }

    #[test]
    fn an_event_costs_the_same_however_many_there_are() {
        let minutes = |random: &mut Stream| random.below(900 * crate::clock::SECOND);
        let near_and_far =
            |random: &mut Stream| if random.below(8) == 0 { minutes(random) } else { random.below(1 << 20) };
        for population in [1_000, 30_000, 1_000_000] {
            assert!(work_of_an_event(population, minutes) < 20.0, "{population}");
            assert!(work_of_an_event(population, near_and_far) < 20.0, "{population}");
        }
    }

    #[test]
    fn what_is_late_comes_at_once() {
        let mut calendar = Calendar::new();
        calendar.schedule(10, 'a');
        calendar.pop();
        calendar.schedule(3, 'b');
        assert_eq!(calendar.pop(), Some((10, 'b')));
    }
}
