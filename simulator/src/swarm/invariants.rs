//! Watches a world: what becomes of each request, and what each gateway's scheduler promises.

use std::collections::{BTreeMap, BTreeSet};

use offload_policy::{Dispatcher, DispatcherLimits};

use super::checked::Checked;
use super::fault::{Fault, Faulty};
use super::violation::{Invariant, Seen, Violation, ensure};
use crate::clock::{Nanos, policy_time};
use crate::model::order::{Job, Key};
use crate::model::router::MAX_HOPS;
use crate::model::scheduler::Scheduler;
use crate::model::{Outcome, Request};
use crate::scenario::{Scenario, Spread};
use crate::world::observer::Observer;
use crate::world::rest::Rest;
use crate::world::trace::Happening;

/// What gateways of a watched world ask what is next.
type Watched = Checked<Faulty<Dispatcher<Key, u32, Job>>>;

/// Watches a world; see the [module](self).
#[derive(Debug)]
pub struct Invariants<'s> {
    scenario: &'s Scenario,
    fault: Option<Fault>,
    /// By device and by gateway, the number of its group.
    device_groups: Vec<u32>,
    gateway_groups: Vec<u32>,
    /// By number.
    requests: Vec<Book>,
    /// By number and site: the ways by which requests have come there.
    ways: BTreeMap<(u64, usize), BTreeSet<Vec<u16>>>,
    violation: Option<Violation>,
}

/// What has become of a request.
#[derive(Clone, Copy, Debug, Default)]
struct Book {
    group: u32,
    /// Whether its gateway has given any answer.
    is_answered: bool,
    /// The outcome of its run.
    outcome: Option<Outcome>,
    /// What its device made of it.
    done: Option<Outcome>,
    /// Whether it may be lost: by QoS 0, or in a crash that nothing outlives.
    may_be_lost: bool,
}

impl<'s> Invariants<'s> {
    /// Watches a world of this scenario, into whose schedulers this fault is put.
    pub fn new(scenario: &'s Scenario, fault: Option<Fault>) -> Self {
        let groups = |counts: &mut dyn Iterator<Item = usize>| {
            counts.enumerate().flat_map(|(group, count)| vec![group as u32; count]).collect()
        };
        Self {
            scenario,
            fault,
            device_groups: groups(&mut scenario.devices.iter().map(|group| group.count)),
            gateway_groups: groups(&mut scenario.gateways.iter().map(|group| group.count)),
            requests: Vec::new(),
            ways: BTreeMap::new(),
            violation: None,
        }
    }

    /// The world has ended so.
    pub fn ended<'w>(&mut self, rest: Rest, now: Nanos, schedulers: impl Iterator<Item = &'w mut Watched>) {
        let checked = match rest {
            Rest::Seen | Rest::TooLong => Ok(()),
            Rest::AtRest => self.check_requests(),
            // Sites may wait for each other's answers.
            Rest::Stuck => self.check_requests().and_then(|()| {
                Err((Invariant::Lost, "something is left of a request, and comes to no end".to_owned()))
            }),
        };
        self.note(now, checked);
        if rest == Rest::AtRest {
            for (gateway, scheduler) in schedulers.enumerate() {
                let left = (scheduler.waiting().requests, scheduler.queued(), scheduler.running());
                let checked = ensure(left == (0, 0, 0), Invariant::Books, || {
                    format!("gateway {gateway} has {left:?} waiting, queued and running, and nothing is left")
                });
                self.note(now, checked);
            }
        }
    }

    /// The first invariant that did not hold.
    pub fn violation(&self) -> Option<&Violation> {
        self.violation.as_ref()
    }

    /// Each request has come to its end.
    fn check_requests(&self) -> Result<(), Seen> {
        for (number, book) in self.requests.iter().enumerate() {
            let is_whole = book.done.is_some() && (book.is_answered || book.may_be_lost);
            ensure(is_whole, Invariant::Lost, || {
                let group = &self.scenario.devices[book.group as usize].name;
                format!("the request with number {number}, of {group}, has never got an answer")
            })?;
        }
        Ok(())
    }

    fn book(&mut self, request: &Request) -> &mut Book {
        let number = request.number as usize;
        if number >= self.requests.len() {
            self.requests.resize(number + 1, Book::default());
        }
        let book = &mut self.requests[number];
        book.group = self.device_groups[request.device as usize];
        book
    }

    /// A device is done with a request.
    fn done(&mut self, outcome: Outcome, request: &Request) -> Result<(), Seen> {
        let book = self.book(request);
        let before = book.done.replace(outcome);
        let book = *book;
        let has_patience = self.scenario.devices[book.group as usize].timeout.is_none();
        let number = request.number;
        ensure(before.is_none(), Invariant::Books, || {
            format!("the request with number {number} has ended twice: {before:?}, {outcome:?}")
        })?;
        let is_unanswered = outcome == Outcome::Unanswered;
        ensure(!is_unanswered || !has_patience || book.may_be_lost, Invariant::Lost, || {
            format!("nothing refers to the request with number {number} any more, and it has no answer")
        })?;
        ensure(is_unanswered || book.is_answered, Invariant::Books, || {
            format!("the request with number {number} has an answer that nobody gave: {outcome:?}")
        })
    }

    /// A request has come from a site that it was at, by one of the ways by which it has come there, and never comes
    /// back.
    fn wanders(&mut self, site: usize, from: usize, path: &[u16], request: &Request) -> Result<(), Seen> {
        let number = request.number;
        let home = self.gateway_groups.get(request.gateway as usize).copied();
        let is_way_to = |site: usize, way: &[u16]| {
            let is_home = home == Some(self.scenario.sites[site].gateway as u32);
            way.is_empty() && is_home || self.ways.get(&(number, site)).is_some_and(|ways| ways.contains(way))
        };
        let is_whole = (path.split_last())
            .is_some_and(|(last, before)| usize::from(*last) == from && is_way_to(from, before));
        ensure(is_whole, Invariant::Wandering, || {
            format!(
                "the request with number {number} comes to site {site} from site {from}, and says that it was at {path:?}"
            )
        })?;
        self.ways.entry((number, site)).or_default().insert(path.to_vec());
        let comes_back = path.iter().any(|of| usize::from(*of) == site);
        ensure(!comes_back && path.len() <= MAX_HOPS, Invariant::Wandering, || {
            format!("the request with number {number} is at site {site}, and was at {path:?}")
        })
    }

    fn note(&mut self, at: Nanos, result: Result<(), Seen>) {
        if let Err((invariant, detail)) = result {
            self.violation.get_or_insert(Violation { invariant, at, detail });
        }
    }
}

impl Observer for Invariants<'_> {
    type Scheduler = Watched;

    fn scheduler(&mut self, _gateway: u32, limits: DispatcherLimits) -> Watched {
        Checked::new(Faulty::new(Dispatcher::new(limits), self.fault), limits)
    }

    fn step(&mut self, now: Nanos, what: Happening, request: &Request) {
        match what {
            Happening::Sent
            | Happening::Arrived
            | Happening::Departed
            | Happening::Visited
            | Happening::Answered(_) => {
                self.book(request);
            }
            Happening::Dropped => self.book(request).may_be_lost = true,
            Happening::Done(outcome) => {
                let checked = self.done(outcome, request);
                self.note(now, checked);
            }
        }
    }

    fn gives(&mut self, now: Nanos, outcome: Outcome, request: &Request) {
        let book = self.book(request);
        book.is_answered = true;
        let before = book.outcome;
        if outcome.is_of_a_run() {
            book.outcome = Some(outcome);
        }
        let checked = ensure(before.is_none_or(|before| before == outcome), Invariant::AnsweredTwice, || {
            format!("the request with number {} is answered {before:?}, then {outcome:?}", request.number)
        });
        self.note(now, checked);
    }

    fn departs(&mut self, now: Nanos, site: usize, requests: usize, bytes: usize) {
        let bounds = self.scenario.sites[site].bounds;
        // One request has room in any case, however large.
        let is_within = requests <= bounds.requests && (bytes <= bounds.bytes || requests == 1);
        let checked = ensure(is_within, Invariant::OverBound, || {
            format!("site {site} has {requests} requests of {bytes} bytes on their way to others")
        });
        self.note(now, checked);
    }

    fn visits(&mut self, now: Nanos, site: usize, from: usize, path: &[u16], request: &Request) {
        let checked = self.wanders(site, from, path, request);
        self.note(now, checked);
    }

    fn regards_way(&self) -> bool {
        self.fault != Some(Fault::HandsBack)
    }

    fn is_lost(&mut self, _now: Nanos, request: &Request) {
        self.book(request).may_be_lost = true;
    }

    fn driven(&mut self, now: Nanos, gateway: u32, scheduler: &mut Watched, held: Option<u32>) {
        scheduler.settle(policy_time(now));
        if let Some((invariant, detail)) = scheduler.seen() {
            let detail = format!("gateway {gateway}: {detail}");
            self.note(now, Err((*invariant, detail)));
        }
        let group = &self.scenario.gateways[self.gateway_groups[gateway as usize] as usize];
        if let Some(held) = held.filter(|_| group.spread == Spread::Queue) {
            let checked = ensure(held <= group.config.window, Invariant::OverBound, || {
                format!(
                    "gateway {gateway} has {held} requests of its work queue, and may have {}",
                    group.config.window
                )
            });
            self.note(now, checked);
        }
    }

    fn has_seen_enough(&self) -> bool {
        self.violation.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    const WORLD: &str = "duration = \"1s\"\n[program.p]\ntime = \"1ms\"\n[gateway.g]\nspread = \"queue\"\nwindow = 2\n\
                         [device.d]\ngateway = \"g\"\narrival = { every = \"1s\" }\n";

    /// Sites that requests come from and go to.
    const SITES: usize = 10;

    /// What is seen in a world in which this happens.
    fn seen(happens: impl FnOnce(&mut Invariants<'_>)) -> Option<Invariant> {
        let site = |at| format!("[gateway.s{at}]\n[site.s{at}]\n");
        let text = format!("{WORLD}[master.m]\n{}", (0..SITES).map(site).collect::<String>());
        let scenario = Scenario::parse(&text, Path::new("world.toml")).unwrap();
        let mut invariants = Invariants::new(&scenario, None);
        happens(&mut invariants);
        invariants.violation().map(|violation| violation.invariant)
    }

    #[test]
    fn a_request_has_one_outcome_however_often_it_is_answered() {
        let answers = |outcomes: &[Outcome]| {
            seen(|world| outcomes.iter().for_each(|outcome| world.gives(1, *outcome, &Request::numbered(7))))
        };
        assert_eq!(answers(&[Outcome::BusyFlow, Outcome::Ok, Outcome::Ok]), None);
        assert_eq!(answers(&[Outcome::Ok, Outcome::WallLimit]), Some(Invariant::AnsweredTwice));
        assert_eq!(answers(&[Outcome::Ok, Outcome::BusyTotal]), Some(Invariant::AnsweredTwice));
    }

    #[test]
    fn a_request_ends_once_with_an_answer_that_was_given() {
        let done = |world: &mut Invariants<'_>, outcome| {
            world.step(2, Happening::Done(outcome), &Request::numbered(0))
        };
        assert_eq!(seen(|world| done(world, Outcome::Ok)), Some(Invariant::Books), "nobody gave it");
        assert_eq!(seen(|world| done(world, Outcome::Unanswered)), Some(Invariant::Lost));
        let in_a_crash = |world: &mut Invariants<'_>| {
            world.is_lost(1, &Request::numbered(0));
            done(world, Outcome::Unanswered);
        };
        assert_eq!(seen(in_a_crash), None);
        let twice = |world: &mut Invariants<'_>| {
            world.gives(1, Outcome::Ok, &Request::numbered(0));
            done(world, Outcome::Ok);
            assert!(!world.has_seen_enough());
            done(world, Outcome::Ok);
        };
        assert_eq!(seen(twice), Some(Invariant::Books));
    }

    #[test]
    fn what_is_still_open_when_nothing_more_happens_is_lost() {
        let open = |world: &mut Invariants<'_>, rest| {
            world.step(0, Happening::Sent, &Request::numbered(0));
            world.ended(rest, 9, std::iter::empty());
        };
        assert_eq!(seen(|world| open(world, Rest::Stuck)), Some(Invariant::Lost));
        assert_eq!(seen(|world| open(world, Rest::AtRest)), Some(Invariant::Lost));
        assert_eq!(seen(|world| open(world, Rest::TooLong)), None, "nobody knows");
    }

    #[test]
    fn a_request_goes_from_site_to_site_and_never_back() {
        // From each site of a way to the next; the first one's gateway is its own.
        let goes = |way: &[u16]| {
            seen(|world| {
                let request = Request { gateway: 1 + u32::from(way[0]), ..Request::numbered(0) };
                for at in 1..way.len() {
                    world.visits(1, way[at].into(), way[at - 1].into(), &way[..at], &request);
                }
            })
        };
        assert_eq!((goes(&[0, 1, 2]), goes(&[0, 1, 0])), (None, Some(Invariant::Wandering)));
        let sites = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9];
        assert_eq!((goes(&sites[1..]), goes(&sites)), (None, Some(Invariant::Wandering)));
    }

    #[test]
    fn a_site_that_forgets_where_a_request_was_is_seen() {
        let says = |path: &[u16]| {
            seen(|world| {
                let request = Request { gateway: 1, ..Request::numbered(0) };
                world.visits(1, 1, 0, &[0], &request);
                world.visits(2, 2, 1, path, &request);
            })
        };
        assert_eq!(says(&[0, 1]), None);
        for wrong in [&[][..], &[1], &[0], &[2, 1]] {
            assert_eq!(says(wrong), Some(Invariant::Wandering), "{wrong:?}");
        }
    }

    #[test]
    fn a_work_queue_keeps_to_its_window() {
        let holding = |held| {
            seen(|world| {
                let mut scheduler = world.scheduler(0, DispatcherLimits::default());
                world.driven(1, 0, &mut scheduler, Some(held));
            })
        };
        assert_eq!((holding(2), holding(3)), (None, Some(Invariant::OverBound)));
    }
}
