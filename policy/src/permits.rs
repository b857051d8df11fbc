//! Who may use what is scarce and takes long: compilers, and the sandboxes of native programs.
//!
//! How long a job takes is unknown when it begins, so it begins at *full* priority. A job that has used up its quantum
//! while another one waits is *demoted*: it goes on with what the others leave, or is *stopped* until its round comes.
//! So a newcomer that needs little waits for [`PermitLimits::quantum`] at the most, however long the others' jobs take.
//! This is the multilevel feedback queue of CTSS (F. J. Corbató et al., "An Experimental Time-Sharing System", AFIPS
//! SJCC 1962) with two levels, the second one round robin.
//!
//! A job that is demoted or stopped still holds memory, so the number of jobs that have begun is bounded, and shared
//! between flows and accounts as [`Slots`] are: only a newcomer that finds all slots taken waits for another's end.
//!
//! Jobs in the *background*, which nobody waits for, are one at a time, beside those slots, and run only while nobody
//! else runs or waits.
//!
//! Nothing is decided for compilers, sandboxes and workers together, so each has a state machine of its own, which the
//! runtime keeps behind a lock of its own: compilers do not slow down the [`Dispatcher`](crate::Dispatcher). What waits
//! for a permit counts in its [admission](crate::Admission).
//!
//! Calls cost O(slots), which are few; requests in the queue cost what [`FairQueue`] says.

use std::collections::BTreeMap;

use crate::Time;
use crate::fair_queue::{FairQueue, QueueLimits};
use crate::flow_key::FlowKey;
use crate::slots::{Shares, Slots};

/// The one "worker" that has the slots.
const WORKER: usize = 0;

/// How much there is to share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PermitLimits {
    /// Jobs at full priority at once. Of two or more, one flow never has all.
    pub concurrency: usize,
    /// How long a job stays at full priority while others wait.
    pub quantum: Time,
    /// Jobs that have begun and not ended, without that in the background.
    pub slots: usize,
    /// The parts of the slots that one flow and one account may hold.
    pub shares: Shares,
    /// How long a demoted job runs before another one has its round. `None` where jobs cannot be stopped: then all that
    /// are demoted go on, and nothing is done in the background.
    pub round: Option<Time>,
}

/// Whether somebody waits for a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// Somebody waits for it.
    Awaited,
    /// Nobody waits for it.
    Background,
}

/// How a job is to be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It runs at full priority.
    Full,
    /// It has used up its quantum, and runs with what the others leave.
    Demoted,
    /// It does not run.
    Stopped,
}

/// Names a job that has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PermitId(u64);

/// What the driver has to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Change<T> {
    /// Whoever waits with this may begin.
    Granted(PermitId, T, Stage),
    /// The job is to be served so from now on.
    Moved(PermitId, Stage),
}

#[derive(Debug)]
struct Job<K> {
    key: K,
    urgency: Urgency,
    stage: Stage,
    /// What the driver was told last.
    told: Stage,
    /// When it came to its stage.
    since: Time,
}

/// The jobs that have begun, and those that wait to begin; see the [module](self).
#[derive(Debug)]
pub struct Permits<K: FlowKey, T> {
    limits: PermitLimits,
    /// In the order in which they began.
    jobs: BTreeMap<PermitId, Job<K>>,
    next: u64,
    slots: Slots<K>,
    awaited: FairQueue<K, T>,
    background: FairQueue<K, T>,
    /// In the order of their rounds; those that have ended in the meantime are passed over.
    stopped: FairQueue<K, PermitId>,
}

impl<K: FlowKey, T> Permits<K, T> {
    /// Nothing has begun, and nothing waits.
    pub fn new(limits: PermitLimits) -> Self {
        Self {
            limits,
            jobs: BTreeMap::new(),
            next: 0,
            slots: Slots::new(1, limits.slots, limits.shares),
            awaited: FairQueue::new(QueueLimits::NONE),
            background: FairQueue::new(QueueLimits::NONE),
            stopped: FairQueue::new(QueueLimits::NONE),
        }
    }

    /// A job waits for its permit. How many may wait is bounded by whoever admits them.
    pub fn request(&mut self, key: K, waiter: T, urgency: Urgency) {
        let queue = match urgency {
            Urgency::Awaited => &mut self.awaited,
            Urgency::Background => &mut self.background,
        };
        assert!(queue.push(key, waiter, None).is_ok(), "an unbounded queue has room");
    }

    /// Jobs that wait for their permits.
    pub fn waiting(&self) -> usize {
        self.awaited.len() + self.background.len()
    }

    /// Forgets those that have given up waiting; looks at all of them.
    pub fn retain_waiting(&mut self, mut keep: impl FnMut(&T) -> bool) {
        self.awaited.retain(&mut keep);
        self.background.retain(keep);
    }

    /// A job has ended.
    ///
    /// # Panics
    /// If it has not begun, or has ended before: the driver's books are wrong.
    pub fn release(&mut self, id: PermitId) {
        let job = self.jobs.remove(&id).expect("a permit that was granted");
        if job.urgency == Urgency::Awaited {
            self.slots.release(WORKER, &job.key);
        }
    }

    /// What is to be done now; to be called after each of the calls above, and at
    /// [`next_deadline`](Self::next_deadline).
    pub fn advance(&mut self, now: Time) -> Vec<Change<T>> {
        let mut changes = Vec::new();
        while let Some((id, waiter)) = self.begin_awaited(now) {
            changes.push(Change::Granted(id, waiter, Stage::Full));
        }
        if let Some(round) = self.limits.round {
            self.rotate_demoted(round, now);
            if let Some((id, waiter)) = self.serve_background(now) {
                changes.push(Change::Granted(id, waiter, Stage::Demoted));
            }
        }
        let moved = self.jobs.iter_mut().filter(|(_, job)| job.told != job.stage);
        changes.extend(moved.map(|(id, job)| {
            job.told = job.stage;
            Change::Moved(*id, job.stage)
        }));
        changes
    }

    /// When [`advance`](Self::advance) next has something to do by itself, as of the last call of it.
    pub fn next_deadline(&self, now: Time) -> Option<Time> {
        let someone_waits = !self.awaited.is_empty();
        let someone_is_stopped = self.awaited_at(Stage::Stopped).next().is_some();
        let due = self.jobs.values().filter_map(|job| match (job.stage, self.limits.round) {
            (Stage::Full, _) if someone_waits => Some(job.since + self.limits.quantum),
            (Stage::Demoted, Some(round)) if someone_is_stopped => Some(job.since + round),
            _ => None,
        });
        due.filter(|due| *due > now).min()
    }

    /// Lets the next one in turn begin for which there is room, if need be in place of one whose quantum is used up.
    fn begin_awaited(&mut self, now: Time) -> Option<(PermitId, T)> {
        let Self { limits, jobs, slots, awaited, .. } = self;
        let at_full = |job: &&Job<K>| job.stage == Stage::Full;
        let has_room = jobs.values().filter(at_full).count() < limits.concurrency;
        let is_due = |id: &PermitId| {
            let job = &jobs[id];
            job.stage == Stage::Full && job.since + limits.quantum <= now
        };
        // It began first, so it has been at full priority for longest.
        let due_first = jobs.keys().copied().find(is_due);
        if slots.free(WORKER) == 0 || !(has_room || due_first.is_some()) {
            return None;
        }
        let most_of_flow = limits.concurrency.saturating_sub(1).max(1);
        // Whom this flow would take its permit from: nobody, or one whose quantum is used up.
        let in_place_of = |key: &K| {
            let of_flow = || jobs.iter().filter(|(_, job)| job.key == *key);
            if of_flow().filter(|(_, job)| at_full(job)).count() >= most_of_flow {
                return of_flow().map(|(id, _)| *id).find(is_due).map(Some);
            }
            if has_room { Some(None) } else { due_first.map(Some) }
        };
        let (key, waiter) = awaited.pop_where(
            |account| slots.account_may_start(account),
            |key, _| slots.flow_may_start(key) && in_place_of(key).is_some(),
        )?;
        if let Some(due) = in_place_of(&key).expect("a flow was chosen for which there is room") {
            let job = jobs.get_mut(&due).expect("a job at full priority has begun");
            (job.stage, job.since) = (Stage::Demoted, now);
        }
        slots.try_acquire(WORKER, &key).expect("a slot is free and within the shares");
        Some((self.begin(key, Urgency::Awaited, Stage::Full, now), waiter))
    }

    /// Gives the demoted their rounds: as many run as could at full priority, but one at least.
    fn rotate_demoted(&mut self, round: Time, now: Time) {
        let at_full = self.awaited_at(Stage::Full).count();
        let room = self.limits.concurrency.saturating_sub(at_full).max(1);
        let mut running: Vec<(Time, PermitId)> =
            self.awaited_at(Stage::Demoted).map(|(id, job)| (job.since, id)).collect();
        running.sort_unstable();
        let surplus = running.len().saturating_sub(room);
        // Those that are stopped here count as well: whose round is over makes room for them at once.
        let someone_is_stopped = surplus > 0 || self.awaited_at(Stage::Stopped).next().is_some();
        let over = |(at, (since, _)): (usize, &(Time, PermitId))| {
            at < surplus || (someone_is_stopped && *since + round <= now)
        };
        let stopping: Vec<PermitId> =
            running.iter().enumerate().filter(|one| over(*one)).map(|(_, (_, id))| *id).collect();
        for id in &stopping {
            let job = self.jobs.get_mut(id).expect("it runs");
            (job.stage, job.since) = (Stage::Stopped, now);
            let pushed = self.stopped.push(job.key.clone(), *id, None);
            assert!(pushed.is_ok(), "an unbounded queue has room");
        }
        let mut left = room.saturating_sub(running.len() - stopping.len());
        while left > 0
            && let Some((_, id)) = self.stopped.pop()
        {
            if let Some(job) = self.jobs.get_mut(&id) {
                (job.stage, job.since) = (Stage::Demoted, now);
                left -= 1;
            }
        }
    }

    /// Runs what nobody waits for, or stops it.
    fn serve_background(&mut self, now: Time) -> Option<(PermitId, T)> {
        let mut jobs = self.jobs.values_mut();
        let idle = self.awaited.is_empty() && jobs.all(|job| job.urgency == Urgency::Background);
        let running = self.jobs.values_mut().find(|job| job.urgency == Urgency::Background);
        if let Some(job) = running {
            let stage = if idle { Stage::Demoted } else { Stage::Stopped };
            if job.stage != stage {
                (job.stage, job.since) = (stage, now);
            }
            return None;
        }
        if !idle {
            return None;
        }
        let (key, waiter) = self.background.pop()?;
        Some((self.begin(key, Urgency::Background, Stage::Demoted, now), waiter))
    }

    fn begin(&mut self, key: K, urgency: Urgency, stage: Stage, now: Time) -> PermitId {
        let id = PermitId(self.next);
        self.next += 1;
        self.jobs.insert(id, Job { key, urgency, stage, told: stage, since: now });
        id
    }

    fn awaited_at(&self, stage: Stage) -> impl Iterator<Item = (PermitId, &Job<K>)> {
        let these =
            move |(_, job): &(&PermitId, &Job<K>)| job.urgency == Urgency::Awaited && job.stage == stage;
        self.jobs.iter().filter(these).map(|(id, job)| (*id, job))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMITS: PermitLimits = PermitLimits {
        concurrency: 2,
        quantum: Time::from_millis(100),
        slots: 8,
        shares: Shares { flow: 50, account: 75 },
        round: Some(Time::from_millis(1000)),
    };

    type Key = (char, u32);

    /// Permits whose waiters are names, driven by a table.
    struct Table {
        permits: Permits<Key, &'static str>,
        now: Time,
        granted: Vec<(&'static str, PermitId)>,
    }

    impl Table {
        fn new(limits: PermitLimits) -> Self {
            Self { permits: Permits::new(limits), now: Time::ZERO, granted: Vec::new() }
        }

        fn id(&self, name: &str) -> PermitId {
            self.granted.iter().find(|(granted, _)| *granted == name).expect("it has begun").1
        }

        /// What is done now: `name` and its stage, in order.
        fn advance(&mut self) -> Vec<(&'static str, Stage)> {
            let mut told = Vec::new();
            for change in self.permits.advance(self.now) {
                match change {
                    Change::Granted(id, name, stage) => {
                        self.granted.push((name, id));
                        told.push((name, stage));
                    }
                    Change::Moved(id, stage) => {
                        let name = self.granted.iter().find(|(_, granted)| *granted == id).unwrap().0;
                        told.push((name, stage));
                    }
                }
            }
            told
        }

        fn request(&mut self, account: char, flow: u32, name: &'static str) -> Vec<(&'static str, Stage)> {
            self.permits.request((account, flow), name, Urgency::Awaited);
            self.advance()
        }

        fn background(&mut self, account: char, name: &'static str) -> Vec<(&'static str, Stage)> {
            self.permits.request((account, 0), name, Urgency::Background);
            self.advance()
        }

        fn release(&mut self, name: &str) -> Vec<(&'static str, Stage)> {
            self.permits.release(self.id(name));
            self.advance()
        }

        fn at(&mut self, ms: u64) -> Vec<(&'static str, Stage)> {
            self.now = Time::from_millis(ms);
            self.advance()
        }
    }

    use Stage::{Demoted, Full, Stopped};

    #[test]
    fn a_newcomer_waits_for_a_quantum_whatever_the_others_do() {
        let mut table = Table::new(LIMITS);
        assert_eq!(table.request('a', 0, "a"), [("a", Full)]);
        table.now = Time::from_millis(50);
        assert_eq!(table.request('b', 0, "b"), [("b", Full)]);
        assert_eq!(table.permits.next_deadline(table.now), None, "nobody waits: nobody makes room");
        table.now = Time::from_millis(60);
        assert_eq!(table.request('c', 0, "c"), []);
        assert_eq!(table.permits.next_deadline(table.now), Some(Time::from_millis(100)));
        assert_eq!(table.at(99), []);
        // One demoted job may run beside two at full priority, with what they leave.
        assert_eq!(table.at(100), [("c", Full), ("a", Demoted)]);
        assert_eq!(table.request('d', 0, "d"), []);
        assert_eq!(table.at(150), [("d", Full), ("a", Stopped), ("b", Demoted)]);
        assert_eq!(table.permits.next_deadline(table.now), Some(Time::from_millis(1150)));
        assert_eq!(table.release("c"), []);
        assert_eq!(
            table.release("d"),
            [("a", Demoted)],
            "all that runs is demoted, and there is room for two"
        );
    }

    #[test]
    fn the_demoted_go_round() {
        let mut table = Table::new(PermitLimits { concurrency: 1, ..LIMITS });
        table.request('a', 0, "a");
        table.request('b', 0, "b");
        assert_eq!(table.at(100), [("b", Full), ("a", Demoted)]);
        table.request('c', 0, "c");
        assert_eq!(table.at(200), [("c", Full), ("a", Stopped), ("b", Demoted)]);
        assert_eq!(table.at(1199), []);
        assert_eq!(table.at(1200), [("a", Demoted), ("b", Stopped)]);
        assert_eq!(table.at(2200), [("a", Stopped), ("b", Demoted)]);
        // What has ended while it was stopped is passed over.
        assert_eq!(table.release("a"), []);
        assert_eq!(table.permits.next_deadline(table.now), None);
        assert_eq!(table.release("b"), []);
        assert_eq!(table.release("c"), []);
        assert!(table.permits.jobs.is_empty() && table.permits.slots.free(WORKER) == 8);
    }

    #[test]
    fn a_flow_leaves_a_permit_for_the_others_and_replaces_its_own() {
        let mut table = Table::new(LIMITS);
        assert_eq!(table.request('a', 0, "first"), [("first", Full)]);
        assert_eq!(table.request('a', 0, "second"), []);
        assert_eq!(table.request('a', 1, "another flow"), [("another flow", Full)]);
        assert_eq!(table.at(100), [("second", Full), ("first", Demoted)]);
    }

    #[test]
    fn accounts_take_turns_however_many_names_they_have() {
        let mut table = Table::new(PermitLimits { concurrency: 1, ..LIMITS });
        table.request('a', 0, "a0");
        for (flow, name) in [(1, "a1"), (2, "a2"), (3, "a3")] {
            assert_eq!(table.request('a', flow, name), []);
        }
        assert_eq!(table.request('b', 0, "b"), []);
        assert_eq!(table.release("a0"), [("a1", Full)]);
        assert_eq!(table.release("a1"), [("b", Full)]);
        assert_eq!(table.release("b"), [("a2", Full)]);
    }

    #[test]
    fn slots_are_bounded_and_some_are_left() {
        let mut table = Table::new(PermitLimits { concurrency: 1, ..LIMITS });
        let names = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];
        for (flow, name) in (0..).zip(names) {
            table.request('a', flow, name);
        }
        for second in 1..=20 {
            table.at(1000 * second);
        }
        assert_eq!(table.granted.len(), 6, "three quarters of eight");
        assert_eq!(table.request('b', 0, "b").first(), Some(&("b", Full)));
    }

    #[test]
    fn the_background_runs_while_nobody_else_does() {
        let mut table = Table::new(LIMITS);
        assert_eq!(table.background('a', "one"), [("one", Demoted)]);
        assert_eq!(table.background('b', "two"), [], "one at a time");
        assert_eq!(table.request('c', 0, "c"), [("c", Full), ("one", Stopped)]);
        assert_eq!(table.release("c"), [("one", Demoted)]);
        assert_eq!(table.release("one"), [("two", Demoted)]);
        assert_eq!(table.request('a', 0, "a"), [("a", Full), ("two", Stopped)]);
        assert_eq!(table.background('c', "three"), []);
        assert_eq!(table.release("two"), [], "somebody else runs");
        assert_eq!(table.release("a"), [("three", Demoted)]);
    }

    #[test]
    fn what_cannot_be_stopped_goes_on() {
        let mut table = Table::new(PermitLimits { round: None, concurrency: 1, ..LIMITS });
        table.request('a', 0, "a");
        table.request('b', 0, "b");
        assert_eq!(table.at(100), [("b", Full), ("a", Demoted)]);
        table.request('c', 0, "c");
        assert_eq!(table.at(200), [("c", Full), ("b", Demoted)]);
        assert_eq!(table.permits.next_deadline(table.now), None);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Request(Key, bool),
        Release(prop::sample::Index),
        Wait(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let key = || (prop::sample::select(vec!['a', 'b', 'c', 'd']), 0..3u32);
        let step = prop_oneof![
            4 => (key(), prop::bool::weighted(0.2)).prop_map(|(key, background)| Step::Request(key, background)),
            3 => any::<prop::sample::Index>().prop_map(Step::Release),
            3 => (1..400u64).prop_map(Step::Wait),
        ];
        prop::collection::vec(step, 0..200)
    }

    proptest! {
        #[test]
        fn no_limit_is_exceeded_and_nobody_is_forgotten(steps in steps(), concurrency in 1..4usize) {
            let limits = PermitLimits { concurrency, ..LIMITS };
            let mut permits: Permits<Key, usize> = Permits::new(limits);
            let mut now = Time::ZERO;
            let (mut asked, mut granted) = (0, 0);
            let mut stages: BTreeMap<PermitId, Stage> = BTreeMap::new();
            for step in steps {
                match step {
                    Step::Request(key, background) => {
                        let urgency = if background { Urgency::Background } else { Urgency::Awaited };
                        permits.request(key, asked, urgency);
                        asked += 1;
                    }
                    Step::Release(_) if stages.is_empty() => {}
                    Step::Release(which) => {
                        let id = *stages.keys().nth(which.index(stages.len())).unwrap();
                        stages.remove(&id);
                        permits.release(id);
                    }
                    Step::Wait(ms) => now += Time::from_millis(ms),
                }
                for change in permits.advance(now) {
                    match change {
                        Change::Granted(id, _, stage) => {
                            granted += 1;
                            prop_assert!(stages.insert(id, stage).is_none());
                        }
                        Change::Moved(id, stage) => {
                            let before = stages.insert(id, stage);
                            prop_assert!(before.is_some_and(|before| before != stage && stage != Stage::Full));
                        }
                    }
                }
                let jobs: Vec<&Job<Key>> = permits.jobs.values().collect();
                let count = |urgency, stage| {
                    jobs.iter().filter(|job| job.urgency == urgency && job.stage == stage).count()
                };
                let awaited = |stage| count(Urgency::Awaited, stage);
                prop_assert!(awaited(Stage::Full) <= concurrency);
                prop_assert!(awaited(Stage::Demoted) <= concurrency.saturating_sub(awaited(Stage::Full)).max(1));
                prop_assert!(awaited(Stage::Stopped) == 0 || awaited(Stage::Demoted) > 0, "one goes on");
                prop_assert_eq!(permits.slots.free(WORKER), 8 - jobs.len() + count(Urgency::Background, Stage::Demoted)
                    + count(Urgency::Background, Stage::Stopped));
                let idle = permits.awaited.is_empty() && jobs.iter().all(|job| job.urgency == Urgency::Background);
                prop_assert_eq!(count(Urgency::Background, Stage::Demoted) == 1,
                    idle && jobs.len() == 1, "the background runs exactly while nobody else does");
                prop_assert_eq!(granted + permits.awaited.len() + permits.background.len(), asked);
                prop_assert!(permits.next_deadline(now).is_none_or(|due| due > now));
                // Nobody waits in vain: no advance at a later time without a deadline before it.
                prop_assert_eq!(permits.advance(now), Vec::new());
            }
        }
    }
}
