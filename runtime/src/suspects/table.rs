//! Which executions are suspect of having crashed the process, and which are guilty: a state machine without a file or
//! a clock.
//!
//! Whatever ran when the process crashed is a suspect. A suspect is executed alone, and only a crash while it runs so
//! counts: one that ends is no suspect any more, and one that has crashed the process [`POISON_AT`] times is poison,
//! which is not executed. A stop that was planned, and a machine that was restarted, accuse nobody.

use super::record::{Record, State};
use crate::fingerprint::Fingerprint;
use std::collections::HashMap;
use std::time::Duration;

/// Crashes of the process, while nothing else ran, that make an execution poison. The first may have had another reason
/// (somebody killed the gateway, memory was short); a second one in the same moment hardly has.
pub const POISON_AT: u8 = 2;

/// For how long suspects and poison are remembered: longer than any broker keeps a request for a gateway that is away,
/// and not for ever, since what crashed the gateway may have been mended.
pub const MEMORY: Duration = Duration::from_hours(7 * 24);

/// Where a record is in the file.
pub type Slot = usize;

/// A change for the file. Without a record the slot is free.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// Where.
    pub slot: Slot,
    /// What the slot holds from now on.
    pub record: Option<Record>,
}

/// What is known of what is to be executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing.
    Innocent,
    /// It ran when the process crashed: it has to run alone.
    Suspect,
    /// It has crashed the process this number of times, alone: it must not run.
    Poison(u8),
}

/// How the process ended that wrote the records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It crashed, or was killed.
    Crash,
    /// It was told to stop, or the whole machine went down.
    Planned,
}

/// The executions that are under way, and those that were when the process crashed.
#[derive(Debug)]
pub struct Table {
    free: Vec<Slot>,
    suspects: HashMap<Fingerprint, Suspect>,
    /// Executions end because the gateway stops, which acquits nobody.
    stopping: bool,
}

#[derive(Debug)]
struct Suspect {
    slot: Slot,
    since: u64,
    crashes: u8,
    alone: bool,
}

/// An execution that has begun; to be given back to [`Table::end`].
#[derive(Debug, PartialEq, Eq)]
pub struct Begun {
    slot: Slot,
    /// What names it among the suspects, if it runs alone for being one.
    suspect: Option<Fingerprint>,
}

impl Table {
    /// What follows from the records of a process that has ended. `capacity` records have room, in slots from 0; `now`
    /// is in seconds of Unix time. [`Table::records`] are what the file holds from now on.
    pub fn recover(records: impl IntoIterator<Item = Record>, end: End, capacity: usize, now: u64) -> Table {
        let mut found: HashMap<Fingerprint, (u64, u8)> = HashMap::new();
        for Record { fingerprint, since, state } in records {
            let (since, crashes) = match (state, end) {
                (State::Running, End::Crash) => (now, 0),
                (State::Running, End::Planned) => continue,
                (State::RunningAlone { crashes }, End::Crash) => (now, crashes.saturating_add(1)),
                (State::RunningAlone { crashes }, End::Planned) | (State::Suspect { crashes }, _) => {
                    // A clock that was set back keeps nothing for longer.
                    (since.min(now), crashes)
                }
            };
            if now - since <= MEMORY.as_secs() {
                let known = found.entry(fingerprint).or_insert((since, crashes));
                *known = (known.0.max(since), known.1.max(crashes));
            }
        }
        let mut found: Vec<_> = found.into_iter().collect();
        // The file may have been larger: the most important come first.
        found.sort_unstable_by_key(|&(fingerprint, (since, crashes))| {
            std::cmp::Reverse((crashes, since, fingerprint.0))
        });
        found.truncate(capacity);
        let suspects: HashMap<_, _> = found
            .into_iter()
            .enumerate()
            .map(|(slot, (fingerprint, (since, crashes)))| {
                (fingerprint, Suspect { slot, since, crashes, alone: false })
            })
            .collect();
        let free = (suspects.len()..capacity).rev().collect();
        Table { free, suspects, stopping: false }
    }

    /// All records that are to be remembered.
    pub fn records(&self) -> impl Iterator<Item = (Slot, Record)> {
        self.suspects.iter().map(|(fingerprint, suspect)| (suspect.slot, suspect.record(*fingerprint)))
    }

    /// What is known of this one.
    pub fn verdict(&self, fingerprint: &Fingerprint, now: u64) -> Verdict {
        match self.suspects.get(fingerprint) {
            Some(suspect) if now.saturating_sub(suspect.since) > MEMORY.as_secs() => Verdict::Innocent,
            Some(suspect) if suspect.crashes >= POISON_AT => Verdict::Poison(suspect.crashes),
            Some(_) => Verdict::Suspect,
            None => Verdict::Innocent,
        }
    }

    /// How often it has crashed the process while it ran alone.
    pub fn crashes(&self, fingerprint: &Fingerprint) -> u8 {
        self.suspects.get(fingerprint).map_or(0, |suspect| suspect.crashes)
    }

    /// It is no suspect any more, because somebody says so; one that runs alone in this moment stays one until it has
    /// ended.
    pub fn acquit(&mut self, fingerprint: &Fingerprint) -> Option<Change> {
        let slot = self.suspects.get(fingerprint).filter(|suspect| !suspect.alone)?.slot;
        self.suspects.remove(fingerprint);
        self.free.push(slot);
        Some(Change { slot, record: None })
    }

    /// Whether nothing at all is suspect.
    pub fn is_clear(&self) -> bool {
        self.suspects.is_empty()
    }

    /// An execution begins. `None` when as many are under way as there is room for: this one leaves no trace.
    pub fn begin(&mut self, fingerprint: Fingerprint, alone: bool) -> Option<(Begun, Change)> {
        if alone && let Some(suspect) = self.suspects.get_mut(&fingerprint) {
            suspect.alone = true;
            let slot = suspect.slot;
            let change = Change { slot, record: Some(suspect.record(fingerprint)) };
            return Some((Begun { slot, suspect: Some(fingerprint) }, change));
        }
        let slot = self.free.pop().or_else(|| self.forget_one())?;
        let record = Record { fingerprint, since: 0, state: State::Running };
        Some((Begun { slot, suspect: None }, Change { slot, record: Some(record) }))
    }

    /// An execution has ended, and the process with it has not.
    pub fn end(&mut self, begun: Begun) -> Change {
        let Begun { slot, suspect } = begun;
        if let Some(fingerprint) = suspect {
            let suspect = self.suspects.get_mut(&fingerprint).expect("it is kept while it runs");
            suspect.alone = false;
            if self.stopping {
                return Change { slot, record: Some(suspect.record(fingerprint)) };
            }
            self.suspects.remove(&fingerprint);
        }
        self.free.push(slot);
        Change { slot, record: None }
    }

    /// From now on executions end because the gateway stops.
    pub fn stop(&mut self) {
        self.stopping = true;
    }

    /// Makes room: of those that have crashed the process least, the oldest is forgotten.
    fn forget_one(&mut self) -> Option<Slot> {
        let waiting = self.suspects.iter().filter(|(_, suspect)| !suspect.alone);
        let least = waiting.min_by_key(|(_, suspect)| (suspect.crashes, suspect.since))?;
        let fingerprint = *least.0;
        self.suspects.remove(&fingerprint).map(|suspect| suspect.slot)
    }
}

impl Suspect {
    fn record(&self, fingerprint: Fingerprint) -> Record {
        let crashes = self.crashes;
        let state = if self.alone { State::RunningAlone { crashes } } else { State::Suspect { crashes } };
        Record { fingerprint, since: self.since, state }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    const NOW: u64 = 1_800_000_000;
    const CAPACITY: usize = 4;

    fn print(number: u8) -> Fingerprint {
        Fingerprint([number; 32])
    }

    /// A table, and the file as its changes have left it.
    struct Process {
        table: Table,
        file: BTreeMap<Slot, Record>,
    }

    impl Process {
        fn first() -> Process {
            Process { table: Table::recover([], End::Planned, CAPACITY, NOW), file: BTreeMap::new() }
        }

        /// The next process finds what this one has left.
        fn next(self, end: End, now: u64) -> Process {
            let table = Table::recover(self.file.into_values(), end, CAPACITY, now);
            let file = table.records().collect();
            Process { table, file }
        }

        fn crash(self) -> Process {
            self.next(End::Crash, NOW)
        }

        fn begin(&mut self, number: u8) -> Option<Begun> {
            let alone = self.verdict(number) == Verdict::Suspect;
            let (begun, change) = self.table.begin(print(number), alone)?;
            self.change(change);
            Some(begun)
        }

        fn end(&mut self, begun: Option<Begun>) {
            let change = self.table.end(begun.expect("it has left a trace"));
            self.change(change);
        }

        fn change(&mut self, Change { slot, record }: Change) {
            assert!(slot < CAPACITY);
            match record {
                Some(record) => self.file.insert(slot, record),
                None => self.file.remove(&slot),
            };
        }

        fn verdict(&self, number: u8) -> Verdict {
            self.table.verdict(&print(number), NOW)
        }
    }

    #[test]
    fn what_ran_during_a_crash_is_suspect_and_nothing_else_is() {
        let mut process = Process::first();
        let ended = process.begin(1);
        process.begin(2);
        process.begin(3);
        process.end(ended);
        let process = process.crash();
        assert_eq!([1, 2, 3, 4].map(|number| process.verdict(number)), {
            use Verdict::{Innocent, Suspect};
            [Innocent, Suspect, Suspect, Innocent]
        });
    }

    #[test]
    fn a_suspect_that_ends_is_acquitted() {
        let mut process = Process::first();
        process.begin(1);
        let mut process = process.crash();
        let alone = process.begin(1);
        process.end(alone);
        assert!(process.table.is_clear() && process.file.is_empty());
    }

    #[test]
    fn what_is_acquitted_by_hand_is_as_if_it_had_never_been_there() {
        let mut process = Process::first();
        process.begin(1);
        process.begin(2);
        let mut process = process.crash();
        process.begin(1);
        let mut process = process.crash();
        assert_eq!([1, 2, 3].map(|number| process.table.crashes(&print(number))), [1, 0, 0]);
        let change = process.table.acquit(&print(1)).unwrap();
        process.change(change);
        assert_eq!(process.table.acquit(&print(3)), None);
        let mut process = process.crash();
        assert_eq!([1, 2].map(|number| process.verdict(number)), [Verdict::Innocent, Verdict::Suspect]);
        let alone = process.begin(2);
        assert_eq!(process.table.acquit(&print(2)), None, "it runs");
        process.end(alone);
        assert!(process.table.is_clear() && process.file.is_empty());
    }

    #[test]
    fn only_crashes_while_it_runs_alone_count_and_two_are_enough() {
        let mut process = Process::first();
        process.begin(1);
        process.begin(2);
        for _ in 0..3 {
            process = process.crash();
            assert_eq!(process.verdict(1), Verdict::Suspect, "nothing ran alone");
        }
        process.begin(1);
        let mut process = process.crash();
        assert_eq!(process.verdict(1), Verdict::Suspect, "once");
        process.begin(1);
        let process = process.crash();
        assert_eq!(process.verdict(1), Verdict::Poison(POISON_AT));
        assert_eq!(process.verdict(2), Verdict::Suspect, "it waited meanwhile");
        let process = process.crash().next(End::Planned, NOW);
        assert_eq!(process.verdict(1), Verdict::Poison(POISON_AT), "it stays so");
    }

    #[test]
    fn planned_stops_count_for_nothing_and_acquit_nobody() {
        let mut process = Process::first();
        process.begin(1);
        let process = process.next(End::Planned, NOW);
        assert!(process.table.is_clear());

        let mut process = process;
        process.begin(1);
        let mut process = process.crash();
        process.begin(1);
        // Cut off while it runs alone.
        let mut process = process.next(End::Planned, NOW);
        assert_eq!(process.verdict(1), Verdict::Suspect);
        // Ended by the stop.
        let alone = process.begin(1);
        process.table.stop();
        process.end(alone);
        let mut process = process.next(End::Planned, NOW);
        assert_eq!(process.verdict(1), Verdict::Suspect);
        process.begin(1);
        let process = process.crash();
        assert_eq!(process.verdict(1), Verdict::Suspect, "this was the first time");
    }

    #[test]
    fn one_execution_twice_at_once_is_one_suspect() {
        let mut process = Process::first();
        process.begin(1);
        process.begin(1);
        let mut process = process.crash();
        assert_eq!(process.file.len(), 1);
        let alone = process.begin(1);
        process.end(alone);
        assert_eq!(process.verdict(1), Verdict::Innocent);
    }

    #[test]
    fn what_is_old_is_forgotten_in_a_process_that_lives_and_in_the_next() {
        let mut process = Process::first();
        process.begin(1);
        let process = process.crash();
        let last = NOW + MEMORY.as_secs();
        assert_eq!(process.table.verdict(&print(1), last), Verdict::Suspect);
        assert_eq!(process.table.verdict(&print(1), last + 1), Verdict::Innocent);
        let process = process.next(End::Planned, last);
        assert!(!process.table.is_clear());
        assert!(process.next(End::Planned, last + 1).table.is_clear());
    }

    #[test]
    fn a_clock_that_was_wrong_keeps_nothing_for_longer() {
        let mut process = Process::first();
        process.begin(1);
        let process = process.next(End::Crash, NOW + 1_000_000_000).next(End::Planned, NOW);
        assert_eq!(process.verdict(1), Verdict::Suspect);
        assert!(process.next(End::Planned, NOW + MEMORY.as_secs() + 1).table.is_clear());
    }

    #[test]
    fn a_full_table_forgets_the_oldest_of_those_with_the_fewest_crashes() {
        let mut process = Process::first();
        let mut now = NOW - 100;
        process.begin(1);
        for _ in 0..=POISON_AT {
            process = process.next(End::Crash, now);
            process.begin(1);
        }
        for number in 2..=4 {
            process.begin(number);
            now += 1;
            process = process.next(End::Crash, now);
        }
        let verdicts = |process: &Process| [1, 2, 3, 4].map(|number| process.verdict(number));
        use Verdict::{Innocent, Poison, Suspect};
        assert!(matches!(verdicts(&process), [Poison(_), Suspect, Suspect, Suspect]));
        let first = process.begin(5);
        assert!(matches!(verdicts(&process), [Poison(_), Innocent, Suspect, Suspect]));
        // What runs is not forgotten.
        process.begin(3);
        process.begin(6);
        assert!(matches!(verdicts(&process), [Poison(_), Innocent, Suspect, Innocent]));
        process.begin(7);
        assert_eq!(process.begin(8), None, "all that there is room for runs");
        process.end(first);
        assert!(process.begin(8).is_some());
        assert_eq!(process.file.len(), CAPACITY);
    }

    #[test]
    fn of_a_larger_file_the_worst_is_kept() {
        let record = |number, crashes| Record {
            fingerprint: print(number),
            since: NOW - u64::from(number),
            state: State::Suspect { crashes },
        };
        let records = (0..20).map(|number| record(number, number % 5));
        let table = Table::recover(records, End::Crash, CAPACITY, NOW);
        let mut kept: Vec<u8> = table.records().map(|(_, record)| record.fingerprint.0[0]).collect();
        kept.sort_unstable();
        assert_eq!(kept, [4, 9, 14, 19]);
    }
}
