//! The requests that are on their way to other sites: they wait for their site, are sent, and sent again where that may
//! have been for nothing, until they are answered or their time is up. Bounded, and fair between sites.
//!
//! A machine without I/O: what is to be sent, and who is to be told, are values.

use super::message::{Reply, Request, Tag};
use crate::telemetry;
use offload_protocol::error::{ErrorKind, WireError};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Requests that one site may have been sent and not have answered: one that is slow holds no more of the way.
const WINDOW: usize = 256;

/// Bytes of these, beyond which a request is sent alone.
const WINDOW_BYTES: usize = 8 << 20;

/// What a request holds in memory beside its bytes: an estimate.
const OVERHEAD: usize = 1_024;

/// How long after its deadline a request that another site has is answered here: that site's own answer comes first
/// where it comes at all.
const DEADLINE_LEEWAY: Duration = Duration::from_secs(2);

/// How often the site that has a request is asked whether it still has it.
const PROBE_EVERY: Duration = Duration::from_secs(5);

/// Called once, with the answer or with why there is none.
pub type Done = Box<dyn FnOnce(Result<Reply, WireError>) + Send>;

/// A request for another site.
pub struct Departure {
    /// The site.
    pub gate: Arc<str>,
    /// What is sent.
    pub request: Request,
    /// When its client's message came.
    pub arrived: Instant,
    /// When its time is up.
    pub deadline: Option<Instant>,
    /// Whether it waits for its site where that is away.
    pub may_wait: bool,
    /// Who is to be told.
    pub done: Done,
}

/// What may be on its way.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Requests.
    pub requests: usize,
    /// Bytes of them.
    pub bytes: usize,
    /// How long one waits for its site.
    pub age: Duration,
}

/// All of them.
pub struct Departures {
    bounds: Bounds,
    instance: u64,
    next: u64,
    requests: HashMap<u64, OnItsWay>,
    gates: BTreeMap<Arc<str>, PerGate>,
    bytes: usize,
}

struct OnItsWay {
    departure: Departure,
    weight: usize,
    /// By which link it was sent, while that counts.
    sent: Option<usize>,
    /// Whether it was ever sent.
    was_sent: bool,
    /// Since when it has waited.
    since: Instant,
    /// When it was sent, or its site said last that it has it.
    confirmed: Instant,
    /// When its site was asked for it last.
    probed: Instant,
}

#[derive(Default)]
struct PerGate {
    requests: usize,
    bytes: usize,
    /// To be sent, in the order in which they came.
    waiting: BTreeSet<u64>,
    sent: usize,
    sent_bytes: usize,
}

impl Departures {
    /// None yet, of the gateway that has started as this.
    pub fn new(bounds: Bounds, instance: u64) -> Departures {
        Departures { bounds, instance, next: 0, requests: HashMap::new(), gates: BTreeMap::new(), bytes: 0 }
    }

    /// Takes a request.
    ///
    /// # Errors
    ///
    /// When there is no room, or not for this site: who is to be told, and what.
    pub fn insert(&mut self, departure: Departure, now: Instant) -> Result<(), (Done, WireError)> {
        let weight = departure.request.weight() + OVERHEAD;
        let of_gate = self.gates.get(&departure.gate);
        let (requests, bytes) = of_gate.map_or((0, 0), |gate| (gate.requests, gate.bytes));
        // No site holds more than is left for the others.
        let fits = self.requests.len() + requests < self.bounds.requests
            && (self.bytes + bytes + weight <= self.bounds.bytes || self.requests.is_empty());
        if !fits {
            let message = format!(
                "{requests} requests wait for the gate `{}`, and there is no room for more; try again after 1 s",
                departure.gate
            );
            return Err((departure.done, WireError::new(ErrorKind::Busy, message)));
        }
        let gate = self.gates.entry(departure.gate.clone()).or_default();
        gate.requests += 1;
        gate.bytes += weight;
        gate.waiting.insert(self.next);
        self.bytes += weight;
        let request = OnItsWay {
            departure,
            weight,
            sent: None,
            was_sent: false,
            since: now,
            confirmed: now,
            probed: now,
        };
        self.requests.insert(self.next, request);
        self.next += 1;
        Ok(())
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.requests.len()
    }

    /// How many there are for this site.
    pub fn of(&self, gate: &str) -> usize {
        self.gates.get(gate).map_or(0, |gate| gate.requests)
    }

    /// The sites that requests wait for.
    pub fn wanted(&self) -> Vec<Arc<str>> {
        let wanted = self.gates.iter().filter(|(_, gate)| !gate.waiting.is_empty());
        wanted.map(|(gate, _)| gate.clone()).collect()
    }

    /// The next request for this site, to be sent by this link, while it takes more.
    pub fn send(&mut self, gate: &str, link: usize, now: Instant) -> Option<Vec<u8>> {
        let gate = self.gates.get_mut(gate)?;
        let number = *gate.waiting.first()?;
        let request = self.requests.get_mut(&number)?;
        let is_full = gate.sent >= WINDOW || gate.sent_bytes + request.weight > WINDOW_BYTES;
        if is_full && gate.sent > 0 {
            return None;
        }
        gate.waiting.remove(&number);
        gate.sent += 1;
        gate.sent_bytes += request.weight;
        (request.sent, request.was_sent) = (Some(link), true);
        (request.confirmed, request.probed) = (now, now);
        let age = now.saturating_duration_since(request.departure.arrived);
        Some(request.departure.request.encode(Tag { instance: self.instance, number }, age))
    }

    /// The answer to one has come from this site. `None` where it is not waited for, or not from there.
    pub fn answered(&mut self, tag: Tag, gate: &str) -> Option<Done> {
        let request = self.requests.get(&tag.number)?;
        let is_asked = tag.instance == self.instance && *request.departure.gate == *gate && request.was_sent;
        is_asked.then(|| self.remove(tag.number)).flatten().map(|departure| departure.done)
    }

    /// This site does not have one: it waits again. The master says so where it could not hand it over, and the site
    /// where it does not know it.
    pub fn returned(&mut self, tag: Tag, gate: &str, now: Instant) {
        if self.is_with(tag, gate) {
            self.wait_again(now, |number, _| number == tag.number);
        }
    }

    /// This site says that it has one, which runs.
    pub fn confirmed(&mut self, tag: Tag, gate: &str, now: Instant) {
        if self.is_with(tag, gate)
            && let Some(request) = self.requests.get_mut(&tag.number)
        {
            request.confirmed = now;
        }
    }

    /// What each site is to be asked for now: whether it still has these, which it was sent by this link.
    pub fn probe(&mut self, now: Instant) -> BTreeMap<(Arc<str>, usize), Vec<Tag>> {
        let mut probes: BTreeMap<_, Vec<Tag>> = BTreeMap::new();
        for (number, request) in &mut self.requests {
            if let Some(link) = request.sent
                && now.saturating_duration_since(request.probed) >= PROBE_EVERY
            {
                request.probed = now;
                let tag = Tag { instance: self.instance, number: *number };
                probes.entry((request.departure.gate.clone(), link)).or_default().push(tag);
            }
        }
        probes
    }

    fn is_with(&self, tag: Tag, gate: &str) -> bool {
        let request = self.requests.get(&tag.number).filter(|_| tag.instance == self.instance);
        request.is_some_and(|request| *request.departure.gate == *gate)
    }

    /// This link is lost, and maybe all that was sent by it.
    pub fn lost_link(&mut self, link: usize, now: Instant) {
        self.wait_again(now, |_, request| request.sent == Some(link));
    }

    /// This site is lost to this link, and maybe all that it was sent.
    pub fn lost_gate(&mut self, gate: &str, link: usize, now: Instant) {
        self.wait_again(now, |_, request| request.sent == Some(link) && *request.departure.gate == *gate);
    }

    fn wait_again(&mut self, now: Instant, is_lost: impl Fn(u64, &OnItsWay) -> bool) {
        for (number, request) in
            self.requests.iter_mut().filter(|(number, request)| is_lost(**number, request))
        {
            if request.sent.take().is_some()
                && let Some(gate) = self.gates.get_mut(&request.departure.gate)
            {
                gate.sent -= 1;
                gate.sent_bytes -= request.weight;
                gate.waiting.insert(*number);
                request.since = now;
            }
        }
    }

    /// Those that are to be told now that there will be no answer: their time is up, or their site is away or silent
    /// for too long; those for sites that `exists` does not know, at once.
    pub fn give_up(&mut self, now: Instant, exists: impl Fn(&str) -> bool) -> Vec<(Done, WireError)> {
        let age = self.bounds.age;
        let why = |request: &OnItsWay| {
            let OnItsWay { departure, sent, was_sent, since, confirmed, .. } = request;
            let leeway = if sent.is_some() { DEADLINE_LEEWAY } else { Duration::ZERO };
            let waited = now.saturating_duration_since(*since);
            let silent = now.saturating_duration_since(*confirmed);
            match (departure.deadline, sent) {
                (Some(deadline), _) if now >= deadline + leeway && *was_sent => {
                    let message = format!("no answer came from the gate `{}` in time", departure.gate);
                    Some(WireError::new(ErrorKind::Timeout, message))
                }
                (Some(deadline), _) if now >= deadline && !*was_sent => {
                    let message = format!("the gate `{}` did not come back in time", departure.gate);
                    Some(WireError::new(ErrorKind::Expired, message))
                }
                (_, None) if !exists(&departure.gate) => Some(unreachable(&departure.gate, None)),
                (_, None) if waited >= age || !departure.may_wait => {
                    Some(unreachable(&departure.gate, Some(waited)))
                }
                (_, Some(_)) if silent >= age => Some(is_silent(&departure.gate, silent)),
                _ => None,
            }
        };
        let ended: Vec<(u64, WireError)> =
            self.requests.iter().filter_map(|(number, request)| Some((*number, why(request)?))).collect();
        ended.into_iter().filter_map(|(number, error)| Some((self.remove(number)?.done, error))).collect()
    }

    /// Those that wait for a site that is away: the gateway stops.
    pub fn stop_waiting(&mut self) -> Vec<Done> {
        self.take_all(|request| request.sent.is_none())
    }

    /// All of them: the gateway stops.
    pub fn stop(&mut self) -> Vec<Done> {
        self.take_all(|_| true)
    }

    fn take_all(&mut self, which: impl Fn(&OnItsWay) -> bool) -> Vec<Done> {
        let numbers = self.requests.iter().filter(|(_, request)| which(request));
        let numbers: Vec<u64> = numbers.map(|(number, _)| *number).collect();
        numbers.into_iter().filter_map(|number| Some(self.remove(number)?.done)).collect()
    }

    fn remove(&mut self, number: u64) -> Option<Departure> {
        let OnItsWay { departure, weight, sent, .. } = self.requests.remove(&number)?;
        self.bytes -= weight;
        if let Some(gate) = self.gates.get_mut(&departure.gate) {
            gate.requests -= 1;
            gate.bytes -= weight;
            gate.waiting.remove(&number);
            if sent.is_some() {
                gate.sent -= 1;
                gate.sent_bytes -= weight;
            }
            if gate.requests == 0 {
                self.gates.remove(&departure.gate);
            }
        }
        Some(departure)
    }
}

/// There is no such site, or it is away, for this long.
fn unreachable(gate: &str, waited: Option<Duration>) -> WireError {
    let gate = telemetry::bounded(gate);
    let message = match waited {
        Some(waited) => format!("the gate `{gate}` did not come back within {:.1} s", waited.as_secs_f64()),
        None => format!("there is no gate `{gate}`"),
    };
    WireError::new(ErrorKind::Unreachable, message)
}

/// The site is there, and does not say that it has what it was sent.
fn is_silent(gate: &str, silent: Duration) -> WireError {
    let (gate, seconds) = (telemetry::bounded(gate), silent.as_secs_f64());
    let message = format!("the gate `{gate}` has said nothing of the request for {seconds:.1} s");
    WireError::new(ErrorKind::Unreachable, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    const BOUNDS: Bounds = Bounds { requests: 8, bytes: 1 << 20, age: Duration::from_secs(30) };
    const INSTANCE: u64 = 5;

    struct Asked {
        departures: Departures,
        now: Instant,
    }

    impl Asked {
        fn new() -> Asked {
            Asked { departures: Departures::new(BOUNDS, INSTANCE), now: Instant::now() }
        }

        fn ask(&mut self, gate: &str, timeout: Option<u64>) -> Option<ErrorKind> {
            let request = Request {
                principal: None,
                web: false,
                path: Vec::new(),
                topic: format!("net/{gate}/localCode/x"),
                answer_topic: "result/x".to_owned(),
                user_properties: Vec::new(),
                payload: Bytes::new(),
            };
            let deadline = timeout.map(|seconds| self.now + Duration::from_secs(seconds));
            let done = Box::new(|_| {});
            let may_wait = gate != "elsewhere";
            let arrived = self.now;
            let departure = Departure { gate: gate.into(), request, arrived, deadline, may_wait, done };
            self.departures.insert(departure, self.now).err().map(|(_, error)| error.kind)
        }

        fn send(&mut self, gate: &str) -> Option<u64> {
            let bytes = self.departures.send(gate, 0, self.now)?;
            Request::tag(bytes.into()).map(|tag| tag.number)
        }

        fn pass(&mut self, seconds: u64) {
            self.now += Duration::from_secs(seconds);
        }

        fn given_up(&mut self) -> Vec<ErrorKind> {
            let given_up = self.departures.give_up(self.now, |gate| gate != "nowhere");
            given_up.into_iter().map(|(_, error)| error.kind).collect()
        }
    }

    #[test]
    fn a_request_is_sent_in_its_turn_and_answered_by_its_site_alone() {
        let mut asked = Asked::new();
        assert_eq!((asked.ask("north", None), asked.ask("north", None)), (None, None));
        assert_eq!(asked.departures.wanted(), ["north".into()]);
        assert_eq!([asked.send("north"), asked.send("north"), asked.send("north")], [Some(0), Some(1), None]);
        let tag = Tag { instance: INSTANCE, number: 0 };
        assert!(asked.departures.answered(tag, "south").is_none());
        assert!(asked.departures.answered(Tag { instance: 6, ..tag }, "north").is_none());
        assert!(asked.departures.answered(tag, "north").is_some());
        assert!(asked.departures.answered(tag, "north").is_none(), "once");
    }

    #[test]
    fn what_may_be_lost_is_sent_again_in_the_old_order() {
        let mut asked = Asked::new();
        for _ in 0..3 {
            asked.ask("north", None);
            asked.send("north");
        }
        asked.departures.returned(Tag { instance: INSTANCE, number: 1 }, "south", asked.now);
        asked.departures.returned(Tag { instance: INSTANCE, number: 2 }, "north", asked.now);
        asked.departures.lost_gate("north", 1, asked.now);
        assert_eq!([asked.send("north"), asked.send("north")], [Some(2), None], "sent by another link");
        asked.departures.lost_link(0, asked.now);
        assert_eq!([asked.send("north"), asked.send("north")], [Some(0), Some(1)]);
        // An answer counts even so.
        assert!(asked.departures.answered(Tag { instance: INSTANCE, number: 2 }, "north").is_some());
        assert_eq!(asked.send("north"), None);
    }

    #[test]
    fn one_site_takes_no_more_than_is_left_for_the_others() {
        let mut asked = Asked::new();
        let taken = |asked: &mut Asked, gate| (0..).find(|_| asked.ask(gate, None).is_some()).unwrap();
        assert_eq!(taken(&mut asked, "north"), 4);
        assert_eq!(taken(&mut asked, "south"), 2);
        assert_eq!(asked.ask("north", None), Some(ErrorKind::Busy));
    }

    #[test]
    fn a_window_bounds_what_a_slow_site_was_sent() {
        let bounds = Bounds { requests: 10_000, ..BOUNDS };
        let mut asked = Asked { departures: Departures::new(bounds, INSTANCE), now: Instant::now() };
        for _ in 0..=WINDOW {
            asked.departures.bounds.bytes = usize::MAX;
            asked.ask("north", None);
        }
        assert_eq!((0..).find(|_| asked.send("north").is_none()), Some(WINDOW));
        assert!(asked.departures.answered(Tag { instance: INSTANCE, number: 3 }, "north").is_some());
        assert_eq!(asked.send("north"), Some(WINDOW as u64));
    }

    #[test]
    fn what_waits_for_too_long_is_given_up() {
        let mut asked = Asked::new();
        asked.ask("nowhere", None);
        asked.ask("north", None);
        assert_eq!(asked.given_up(), [ErrorKind::Unreachable], "no such gate");
        asked.pass(29);
        assert_eq!(asked.given_up(), []);
        asked.send("north");
        asked.ask("elsewhere", None);
        asked.send("elsewhere");
        for _ in 0..6 {
            asked.pass(10);
            for number in 0..4 {
                let tag = Tag { instance: INSTANCE, number };
                for gate in ["north", "elsewhere"] {
                    asked.departures.confirmed(tag, gate, asked.now);
                }
            }
            assert_eq!(asked.given_up(), [], "it runs there, for as long as it likes");
        }
        asked.departures.lost_link(0, asked.now);
        assert_eq!(asked.given_up(), [ErrorKind::Unreachable], "it can run here");
        asked.pass(30);
        assert_eq!(asked.given_up(), [ErrorKind::Unreachable]);
        assert!(asked.departures.gates.is_empty() && asked.departures.bytes == 0);
    }

    #[test]
    fn a_site_is_asked_for_what_it_has_and_given_up_when_it_says_nothing() {
        let mut asked = Asked::new();
        for gate in ["north", "north", "south"] {
            asked.ask(gate, None);
        }
        assert!(asked.send("north").is_some() && asked.send("south").is_some());
        assert!(asked.departures.probe(asked.now).is_empty(), "it was sent just now");
        asked.pass(5);
        let tag = |number| Tag { instance: INSTANCE, number };
        let probes = asked.departures.probe(asked.now);
        assert_eq!(probes, [(("north".into(), 0), vec![tag(0)]), (("south".into(), 0), vec![tag(2)])].into());
        assert!(asked.departures.probe(asked.now).is_empty(), "it was asked just now");
        asked.departures.confirmed(tag(0), "south", asked.now);
        asked.departures.confirmed(tag(2), "south", asked.now);
        asked.pass(25);
        assert_eq!(
            asked.departures.give_up(asked.now, |_| true).len(),
            2,
            "the silent one, and one not sent"
        );
        assert_eq!((asked.departures.of("north"), asked.departures.of("south")), (0, 1));
    }

    #[test]
    fn a_deadline_counts_on_the_way() {
        let mut asked = Asked::new();
        asked.ask("north", Some(1));
        asked.ask("south", Some(1));
        asked.send("north");
        asked.pass(1);
        assert_eq!(asked.given_up(), [ErrorKind::Expired], "never sent");
        asked.pass(2);
        assert_eq!(asked.given_up(), [ErrorKind::Timeout], "it may have begun");
    }

    #[test]
    fn all_are_told_when_the_gateway_stops() {
        let mut asked = Asked::new();
        asked.ask("north", None);
        asked.send("north");
        asked.ask("south", None);
        assert_eq!(asked.departures.stop_waiting().len(), 1, "that for a site that is away");
        assert_eq!((asked.departures.stop().len(), asked.departures.len()), (1, 0));
    }
}
