//! A gateway's day: what the dispatcher and the compilers' permits decide, call by call, as a table.
//!
//! Two workers with four slots each, one compiler at full priority. Times are in milliseconds; a guest may use 20 ms of
//! CPU time and one minute on the wall.

use std::collections::BTreeMap;

use offload_policy::{
    Change, Dispatcher, DispatcherLimits, GuestId, Load, Next, PermitId, PermitLimits, Permits, RecentRuns,
    Shares, SliceTime, Stage, Submission, Time, Urgency,
};

const DAY: &str = "
    at | call                                      | answer
       | -- Nothing to do.                         |
     0 | worker 0                                  | idle
       | -- The first request for a program: nobody knows yet that it is short.
     1 | add1 of alice/meter wants add             | waits
     1 | inline 0                                  | idle
     1 | worker 0                                  | starts add1
     1 | add1 ends after 0.02                      |
       | -- From now on the ingress's thread runs it.
     2 | add2 of alice/meter wants add             | waits
     2 | inline 0                                  | starts add2
     2 | add2 ends after 0.02                      |
       | -- A hog. It goes on slice by slice, and whoever is short goes first.
    10 | hog of bob/pc wants fractal               | waits
    10 | worker 1                                  | starts hog
    11 | hog computes 0.5                          | goes on
    11 | worker 1                                  | resumes hog
    12 | add3 of alice/meter wants add             | waits
    12 | hog computes 0.5                          | goes on
    12 | worker 1                                  | starts add3
    12 | add3 ends after 0.02                      |
    12 | worker 1                                  | resumes hog
       | -- Its worker is not for the ingress's thread while it could go on.
    13 | hog computes 0.5                          | goes on
    13 | inline 1                                  | busy
    13 | worker 1                                  | resumes hog
       | -- Programs whose slices take 5 ms are for half of the workers, once that is known.
    20 | fill1 of carol/laptop wants fill          | waits
    20 | fill2 of carol/laptop wants fill          | waits
    20 | hog computes 0.5                          | goes on
    20 | worker 1                                  | starts fill1
    26 | fill1 ends after 6                        |
    26 | worker 1                                  | resumes hog
    26 | worker 0                                  | starts fill2
    32 | fill2 ends after 6                        |
       | -- A sleeper holds a slot, and its worker waits for it no longer than it may sleep.
    40 | nap of alice/lamp wants sleep             | waits
    40 | worker 0                                  | starts nap
    40 | nap sleeps after 0.1                      | goes on
    40 | worker 0                                  | idle until 60040
    90 | nap wakes                                 |
    90 | worker 0                                  | resumes nap
    90 | nap ends after 0.1                        |
       | -- Two modules to compile. The second one waits for a quantum, not for the first one's end.
   100 | big of bob/pc wants game, compiled        | waits for a compiler
   100 | compilers                                 | big begins
   110 | small of dave/car wants park, compiled    | waits for a compiler
   110 | compilers                                 |
   110 | load                                      | 2 wait, 1 runs
   200 | compilers                                 | small begins, big is demoted
   210 | small is compiled                         | waits
   210 | worker 0                                  | starts small
   210 | small ends after 0.1                      |
   900 | big is compiled                           | waits
   900 | worker 0                                  | starts big
   900 | big ends after 0.1                        |
       | -- While somebody waits to be alone elsewhere, as one that loads a suspect module, nothing starts.
   950 | close                                     |
   950 | add5 of alice/meter wants add             | waits
   950 | worker 0                                  | idle
   951 | open                                      |
   951 | worker 0                                  | starts add5
   951 | add5 ends after 0.02                      |
       | -- Sleepers of one client fill its share of the slots. What is over waits, and expires.
  1000 | s1 of erin/a wants sleep                  | waits
  1000 | s2 of erin/a wants sleep                  | waits
  1000 | s3 of erin/a wants sleep                  | waits
  1000 | s4 of erin/a wants sleep                  | waits
  1000 | s5 of erin/a wants sleep within 500       | waits
  1000 | worker 0                                  | starts s1
  1000 | s1 sleeps after 0.1                       | goes on
  1000 | worker 0                                  | starts s2
  1000 | s2 sleeps after 0.1                       | goes on
  1000 | worker 0                                  | starts s3
  1000 | s3 sleeps after 0.1                       | goes on
  1000 | worker 0                                  | starts s4
  1000 | s4 sleeps after 0.1                       | goes on
  1000 | worker 0                                  | idle until 61000
  1000 | deadline                                  | 1500
  1001 | hog computes 0.5                          | goes on
  1001 | worker 1                                  | resumes hog
  1500 | worker 0                                  | expires s5
       | -- The hog has used up its CPU time.
  1600 | hog computes 20                           | is to end
  1600 | hog is ended                              |
       | -- What is suspect runs alone: the sleepers have to end first, by themselves or by their time.
  2000 | odd of erin/b wants crash alone           | waits
  2000 | add4 of alice/meter wants add             | waits
  2000 | worker 1                                  | idle
  2000 | inline 1                                  | idle
  2500 | s1 wakes                                  |
  2500 | worker 0                                  | resumes s1
  2500 | s1 ends after 0.1                         |
 61000 | worker 0                                  | ends s2
 61000 | s2 is ended                               |
 61000 | worker 0                                  | ends s3
 61000 | s3 is ended                               |
 61000 | worker 1                                  | idle
 61000 | worker 0                                  | ends s4
 61000 | s4 is ended                               |
 61000 | worker 1                                  | starts odd
 61000 | worker 0                                  | idle
 61000 | odd ends after 1                          |
 61001 | inline 0                                  | starts add4
 61001 | add4 ends after 0.02                      |
       | -- A worker panics: what ran there is queued again, but for the one that it was busy with.
 62000 | nap2 of erin/a wants sleep                | waits
 62000 | worker 0                                  | starts nap2
 62000 | nap2 sleeps after 0.1                     | goes on
 62000 | game1 of bob/pc wants game                | waits
 62000 | worker 0                                  | starts game1
 62001 | worker 0 is lost with game1               |
 62001 | load                                      | 1 waits, 0 run
 62001 | worker 1                                  | starts nap2
 62001 | nap2 ends after 0.1                       |
       | -- The evening: what waits is told so, and whoever waits for the end is told when all have left.
 70000 | late1 of alice/meter wants add            | waits
 70000 | late2 of bob/pc wants add                 | waits
 70000 | drain                                     | late1 late2
 70000 | load                                      | 0 wait, 0 run
";

/// The limits on a guest, in milliseconds.
const CPU: f64 = 20.0;
const WALL: f64 = 60_000.0;
/// A first slice up to this long is not charged, as in the runtime.
const FREE: f64 = 2.0;
const LOAD: Load = Load { requests: 1, bytes: 100 };
const COMPILERS: PermitLimits = PermitLimits {
    concurrency: 1,
    quantum: Time::from_millis(100),
    slots: 4,
    shares: Shares { flow: 50, account: 75 },
    round: Some(Time::from_secs(1)),
};

type Name = &'static str;
type Key = (Name, Name);

#[test]
fn a_gateways_day() {
    let mut day = Day {
        dispatcher: Dispatcher::new(DispatcherLimits { workers: 2, slots: 4, ..Default::default() }),
        compilers: Permits::new(COMPILERS),
        permits: BTreeMap::new(),
        submissions: BTreeMap::new(),
        guests: BTreeMap::new(),
        now: Time::ZERO,
    };
    for line in DAY.lines().skip(2).filter(|line| !line.trim().is_empty()) {
        let mut cells = line.splitn(3, '|').map(str::trim);
        let [at, call, answer] = [(); 3].map(|()| cells.next().unwrap_or_default());
        if !call.starts_with("--") {
            day.now = ms(at.parse().expect("a time"));
            assert_eq!(day.call(call), answer, "{line}");
        }
    }
    assert_eq!(day.dispatcher.in_flight(), 0);
}

struct Day {
    dispatcher: Dispatcher<Key, Name, Name>,
    compilers: Permits<Key, Name>,
    permits: BTreeMap<Name, PermitId>,
    /// Of requests that have been admitted, also after they were submitted.
    submissions: BTreeMap<Name, Request>,
    /// Worker and number, and whether it is in its first slice.
    guests: BTreeMap<Name, (usize, GuestId, bool)>,
    now: Time,
}

#[derive(Clone, Copy)]
struct Request {
    key: Key,
    program: Name,
    deadline: Option<Time>,
}

impl Day {
    /// Makes a call of the table; its answer.
    fn call(&mut self, call: Name) -> String {
        let words: Vec<Name> = call.split_whitespace().collect();
        match words[..] {
            [name, "of", client, "wants", ref rest @ ..] => self.arrive(name, client, rest),
            [name, "is", "compiled"] => {
                self.compilers.release(self.permits[name]);
                self.submit(name, false)
            }
            ["compilers"] => self.compile(),
            ["worker", worker] => {
                let worker = worker.parse().expect("a worker");
                let next = self.dispatcher.next(worker, self.now);
                self.told(worker, next)
            }
            ["inline", worker] => {
                let worker = worker.parse().expect("a worker");
                if !self.dispatcher.may_run_inline(worker) {
                    return "busy".to_owned();
                }
                let next = self.dispatcher.next_inline(worker, self.now, |_| true);
                self.told(worker, next)
            }
            [name, "computes", time] => {
                let answer = self.slice_ended(name, time);
                let (worker, guest, _) = self.guests[name];
                self.dispatcher.ready(worker, guest, self.now);
                answer
            }
            [name, "sleeps", "after", time] => self.slice_ended(name, time),
            [name, "wakes"] => {
                let (worker, guest, _) = self.guests[name];
                self.dispatcher.ready(worker, guest, self.now);
                String::new()
            }
            [name, "ends", "after", time] => {
                let took = self.took(name, time);
                let (worker, guest, _) = self.guests.remove(name).expect("it runs");
                self.dispatcher.finished(worker, guest, took);
                String::new()
            }
            [name, "is", "ended"] => {
                let (worker, guest, _) = self.guests.remove(name).expect("it runs");
                self.dispatcher.release(worker, guest);
                String::new()
            }
            ["worker", worker, "is", "lost", "with", name] => {
                let worker = worker.parse().expect("a worker");
                let lost: Vec<Name> =
                    self.guests.iter().filter(|(_, of)| of.0 == worker).map(|(name, _)| *name).collect();
                let lost = lost.into_iter().map(|name| (name, self.guests.remove(name).expect("it runs").1));
                let again = lost.filter(|(of, _)| *of != name).map(|(name, guest)| (guest, name));
                let again: Vec<_> = again.collect();
                self.dispatcher.worker_lost(worker, again, self.now);
                String::new()
            }
            [gate @ ("open" | "close")] => {
                self.dispatcher.set_open(gate == "open");
                String::new()
            }
            ["deadline"] => {
                self.dispatcher.next_deadline().map_or_else(String::new, |at| at.as_millis().to_string())
            }
            ["drain"] => {
                let drained = self.dispatcher.drain();
                for name in &drained {
                    self.dispatcher.withdraw(&self.submissions[name].key, LOAD, self.now);
                }
                drained.join(" ")
            }
            ["load"] => {
                let (waiting, running) = (self.dispatcher.waiting().requests, self.dispatcher.running());
                let ending = |count| if count == 1 { "s" } else { "" };
                format!("{waiting} wait{}, {running} run{}", ending(waiting), ending(running))
            }
            _ => panic!("no such call: {call}"),
        }
    }

    /// `rest` is a program, then how it is to be run.
    fn arrive(&mut self, name: Name, client: Name, rest: &[Name]) -> String {
        let key = client.split_once('/').expect("an account and a flow");
        let program = rest[0].trim_end_matches(',');
        let deadline = match rest {
            [_, "within", time] => Some(self.now + ms(time.parse().expect("a time"))),
            _ => None,
        };
        if let Err(busy) = self.dispatcher.admit(&key, LOAD, self.now) {
            return busy.to_string();
        }
        self.submissions.insert(name, Request { key, program, deadline });
        match rest {
            [_, "compiled"] => {
                self.compilers.request(key, name, Urgency::Awaited);
                "waits for a compiler".to_owned()
            }
            _ => self.submit(name, rest.ends_with(&["alone"])),
        }
    }

    fn submit(&mut self, name: Name, alone: bool) -> String {
        let Request { key, program, deadline } = self.submissions[name];
        let submission =
            Submission { key, load: LOAD, program, deadline, cpu: ms(CPU), wall: ms(WALL), job: name };
        if alone {
            self.dispatcher.submit_alone(submission);
        } else {
            self.dispatcher.submit(submission);
        }
        "waits".to_owned()
    }

    fn compile(&mut self) -> String {
        let told = self.compilers.advance(self.now).into_iter().map(|change| match change {
            Change::Granted(permit, name, _) => {
                self.permits.insert(name, permit);
                format!("{name} begins")
            }
            Change::Moved(permit, stage) => {
                let (name, _) = self.permits.iter().find(|(_, of)| **of == permit).expect("it has begun");
                let stage = match stage {
                    Stage::Full => "at full priority",
                    Stage::Demoted => "demoted",
                    Stage::Stopped => "stopped",
                };
                format!("{name} is {stage}")
            }
        });
        told.collect::<Vec<_>>().join(", ")
    }

    fn told(&mut self, worker: usize, next: Next<Name>) -> String {
        let name_of = |guest| {
            let known = self.guests.iter().find(|(_, of)| (of.0, of.1) == (worker, guest));
            *known.expect("it has started").0
        };
        match next {
            Next::Start { guest, job, .. } => {
                self.guests.insert(job, (worker, guest, true));
                format!("starts {job}")
            }
            Next::Resume(guest) => format!("resumes {}", name_of(guest)),
            Next::End(guest) => format!("ends {}", name_of(guest)),
            Next::Expired(job) => format!("expires {job}"),
            Next::Idle(None) => "idle".to_owned(),
            Next::Idle(Some(until)) => format!("idle until {}", until.as_millis()),
        }
    }

    fn slice_ended(&mut self, name: Name, time: &str) -> String {
        let took = self.took(name, time);
        let (worker, guest, _) = self.guests[name];
        let goes_on = self.dispatcher.slice_ended(worker, guest, took);
        if goes_on { "goes on" } else { "is to end" }.to_owned()
    }

    fn took(&mut self, name: Name, time: &str) -> SliceTime {
        let time = time.parse().expect("a time");
        let is_first = std::mem::take(&mut self.guests.get_mut(name).expect("it runs").2);
        match ms(time) {
            free if is_first && time <= FREE => SliceTime::Free(free),
            overrun if overrun >= RecentRuns::HOLD_UP => SliceTime::Overrun(overrun),
            charged => SliceTime::Charged(charged),
        }
    }
}

fn ms(ms: f64) -> Time {
    Time::from_nanos((ms * 1e6).round() as u64)
}
