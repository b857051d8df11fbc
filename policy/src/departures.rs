//! The requests that are on their way to other gateways: they wait for their gateway, are sent, and sent again where
//! that may have been for nothing, until they are answered or their time is up (J. H. Saltzer, D. P. Reed and D. D.
//! Clark, "End-to-End Arguments in System Design", ACM Transactions on Computer Systems 2(4), 1984: whoever asks keeps
//! the request). A gateway that has one is asked for it again and again: what it does not know is sent again, and what
//! it says nothing of for too long is given up.
//!
//! What is kept is bounded by its number, its bytes and its age. It is fair between gateways by the dynamic thresholds
//! of A. K. Choudhury and E. L. Hahne (IEEE/ACM Transactions on Networking 6(2), 1998): none holds more than is left
//! for the others. What one gateway was sent and has not answered is bounded by a window.
//!
//! Calls cost O(log requests), but for those that look at all of them: [`lost_link`](Departures::lost_link),
//! [`lost_gate`](Departures::lost_gate), [`probe`](Departures::probe) and [`give_up`](Departures::give_up).

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet};

use crate::Time;

/// Requests that one gateway may have been sent and not have answered: one that is slow holds no more of the way.
pub const DEPARTURE_WINDOW: usize = 256;

/// Bytes of these, beyond which a request is sent alone.
const WINDOW_BYTES: usize = 8 << 20;

/// How long after its deadline a request that another gateway has is given up: that gateway's own answer comes first
/// where it comes at all.
const DEADLINE_LEEWAY: Time = Time::from_secs(2);

/// How often the gateway that has a request is asked whether it still has it.
const PROBE_EVERY: Time = Time::from_secs(5);

/// A request for another gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Departure<G, T> {
    /// The gateway.
    pub gate: G,
    /// What it holds in memory, in bytes.
    pub weight: usize,
    /// When its time is up.
    pub deadline: Option<Time>,
    /// Whether it waits for its gateway where that is away.
    pub may_wait: bool,
    /// What the driver wants to know of it.
    pub content: T,
}

/// What may be on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DepartureBounds {
    /// Requests.
    pub requests: usize,
    /// Bytes of them.
    pub bytes: usize,
    /// How long one waits for its gateway, or for a word of one that has it.
    pub age: Time,
}

/// Why there will be no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GivenUp {
    /// Its time is up; it was sent, and may have run.
    Timeout,
    /// Its time is up; it was never sent.
    Expired,
    /// There is no such gateway.
    Unknown,
    /// Its gateway has been away for this long.
    Away(Time),
    /// Its gateway is there, and has not said for this long that it has it.
    Silent(Time),
}

/// All of them; see the [module](self).
#[derive(Debug)]
pub struct Departures<G, T> {
    bounds: DepartureBounds,
    next: u64,
    requests: BTreeMap<u64, OnItsWay<G, T>>,
    gates: BTreeMap<G, PerGate>,
    bytes: usize,
}

#[derive(Debug)]
struct OnItsWay<G, T> {
    departure: Departure<G, T>,
    /// By which link it was sent, while that counts.
    sent: Option<usize>,
    /// Whether it was ever sent.
    was_sent: bool,
    /// Since when it has waited.
    since: Time,
    /// When it was sent, or its gateway said last that it has it.
    confirmed: Time,
    /// When its gateway was asked for it last.
    probed: Time,
}

#[derive(Debug, Default)]
struct PerGate {
    requests: usize,
    bytes: usize,
    /// To be sent, in the order in which they came.
    waiting: BTreeSet<u64>,
    sent: usize,
    sent_bytes: usize,
}

impl<G: Clone + Ord, T> Departures<G, T> {
    /// None yet.
    pub fn new(bounds: DepartureBounds) -> Self {
        Self { bounds, next: 0, requests: BTreeMap::new(), gates: BTreeMap::new(), bytes: 0 }
    }

    /// Takes a request. Its number is the one after the last one's.
    ///
    /// # Errors
    /// When there is no room, or not for its gateway: the request.
    pub fn insert(&mut self, departure: Departure<G, T>, now: Time) -> Result<u64, Departure<G, T>> {
        let weight = departure.weight;
        let of_gate = self.gates.get(&departure.gate);
        let (requests, bytes) = of_gate.map_or((0, 0), |gate| (gate.requests, gate.bytes));
        // No gateway holds more than is left for the others.
        let fits = self.requests.len() + requests < self.bounds.requests
            && (self.bytes + bytes + weight <= self.bounds.bytes || self.requests.is_empty());
        if !fits {
            return Err(departure);
        }
        let number = self.next;
        let gate = self.gates.entry(departure.gate.clone()).or_default();
        gate.requests += 1;
        gate.bytes += weight;
        gate.waiting.insert(number);
        self.bytes += weight;
        let request =
            OnItsWay { departure, sent: None, was_sent: false, since: now, confirmed: now, probed: now };
        self.requests.insert(number, request);
        self.next += 1;
        Ok(number)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.requests.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    /// Bytes of them.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// What the driver wants to know of one.
    pub fn get(&self, number: u64) -> Option<&T> {
        self.requests.get(&number).map(|request| &request.departure.content)
    }

    /// The same of one that is this gateway's.
    pub fn get_from<Q: Ord + ?Sized>(&self, number: u64, gate: &Q) -> Option<&T>
    where
        G: Borrow<Q>,
    {
        let request = self.requests.get(&number).filter(|request| request.is_for(gate))?;
        Some(&request.departure.content)
    }

    /// Takes one, and says whether it was ever sent: its gateway may have it.
    pub fn cancel(&mut self, number: u64) -> Option<(Departure<G, T>, bool)> {
        let was_sent = self.requests.get(&number)?.was_sent;
        Some((self.remove(number)?, was_sent))
    }

    /// How many there are for this gateway.
    pub fn of<Q: Ord + ?Sized>(&self, gate: &Q) -> usize
    where
        G: Borrow<Q>,
    {
        self.gates.get(gate).map_or(0, |gate| gate.requests)
    }

    /// The gateways that requests wait for.
    pub fn wanted(&self) -> Vec<G> {
        let wanted = self.gates.iter().filter(|(_, gate)| !gate.waiting.is_empty());
        wanted.map(|(gate, _)| gate.clone()).collect()
    }

    /// The next request for this gateway, which is sent by this link now, while it takes more.
    pub fn send<Q: Ord + ?Sized>(&mut self, gate: &Q, link: usize, now: Time) -> Option<(u64, &T)>
    where
        G: Borrow<Q>,
    {
        let gate = self.gates.get_mut(gate)?;
        let number = *gate.waiting.first()?;
        let request = self.requests.get_mut(&number)?;
        let weight = request.departure.weight;
        let is_full = gate.sent >= DEPARTURE_WINDOW || gate.sent_bytes + weight > WINDOW_BYTES;
        if is_full && gate.sent > 0 {
            return None;
        }
        gate.waiting.remove(&number);
        gate.sent += 1;
        gate.sent_bytes += weight;
        (request.sent, request.was_sent) = (Some(link), true);
        (request.confirmed, request.probed) = (now, now);
        Some((number, &request.departure.content))
    }

    /// The answer to one has come from this gateway. `None` where it is not waited for, or not from there.
    pub fn answered<Q: Ord + ?Sized>(&mut self, number: u64, gate: &Q) -> Option<T>
    where
        G: Borrow<Q>,
    {
        let request = self.requests.get(&number)?;
        let is_asked = request.is_for(gate) && request.was_sent;
        is_asked.then(|| self.remove(number)).flatten().map(|departure| departure.content)
    }

    /// This gateway does not have one, which could not be handed over to it, or which it does not know: it waits again.
    pub fn returned<Q: Ord + ?Sized>(&mut self, number: u64, gate: &Q, now: Time)
    where
        G: Borrow<Q>,
    {
        if let Some(request) = self.requests.get_mut(&number).filter(|request| request.is_for(gate)) {
            request.wait_again(number, &mut self.gates, now);
        }
    }

    /// This gateway says that it has one, which runs.
    pub fn confirmed<Q: Ord + ?Sized>(&mut self, number: u64, gate: &Q, now: Time)
    where
        G: Borrow<Q>,
    {
        if let Some(request) = self.requests.get_mut(&number).filter(|request| request.is_for(gate)) {
            request.confirmed = now;
        }
    }

    /// What each gateway is to be asked for now: whether it still has these, which it was sent by this link.
    pub fn probe(&mut self, now: Time) -> BTreeMap<(G, usize), Vec<u64>> {
        let mut probes: BTreeMap<_, Vec<u64>> = BTreeMap::new();
        for (number, request) in &mut self.requests {
            if let Some(link) = request.sent
                && now.saturating_sub(request.probed) >= PROBE_EVERY
            {
                request.probed = now;
                probes.entry((request.departure.gate.clone(), link)).or_default().push(*number);
            }
        }
        probes
    }

    /// This link is lost, and maybe all that was sent by it.
    pub fn lost_link(&mut self, link: usize, now: Time) {
        self.wait_again(now, |request| request.sent == Some(link));
    }

    /// This gateway is lost to this link, and maybe all that it was sent.
    pub fn lost_gate<Q: Ord + ?Sized>(&mut self, gate: &Q, link: usize, now: Time)
    where
        G: Borrow<Q>,
    {
        self.wait_again(now, |request| request.sent == Some(link) && request.is_for(gate));
    }

    /// Takes those to which there will be no answer: their time is up, or their gateway is away or silent for too
    /// long; those for gateways that `exists` does not know, at once.
    pub fn give_up(
        &mut self,
        now: Time,
        mut exists: impl FnMut(&G) -> bool,
    ) -> Vec<(Departure<G, T>, GivenUp)> {
        let age = self.bounds.age;
        let mut why = |request: &OnItsWay<G, T>| {
            let OnItsWay { departure, sent, was_sent, since, confirmed, .. } = request;
            let leeway = if sent.is_some() { DEADLINE_LEEWAY } else { Time::ZERO };
            let waited = now.saturating_sub(*since);
            let silent = now.saturating_sub(*confirmed);
            match (departure.deadline, sent) {
                (Some(deadline), _) if now >= deadline + leeway && *was_sent => Some(GivenUp::Timeout),
                (Some(deadline), _) if now >= deadline && !*was_sent => Some(GivenUp::Expired),
                (_, None) if !exists(&departure.gate) => Some(GivenUp::Unknown),
                (_, None) if waited >= age || !departure.may_wait => Some(GivenUp::Away(waited)),
                (_, Some(_)) if silent >= age => Some(GivenUp::Silent(silent)),
                _ => None,
            }
        };
        let ended: Vec<(u64, GivenUp)> =
            self.requests.iter().filter_map(|(number, request)| Some((*number, why(request)?))).collect();
        ended.into_iter().filter_map(|(number, why)| Some((self.remove(number)?, why))).collect()
    }

    /// Takes those that wait for their gateway.
    pub fn take_waiting(&mut self) -> Vec<Departure<G, T>> {
        self.take_where(|request| request.sent.is_none())
    }

    /// Takes all of them.
    pub fn take_all(&mut self) -> Vec<Departure<G, T>> {
        self.take_where(|_| true)
    }

    fn take_where(&mut self, which: impl Fn(&OnItsWay<G, T>) -> bool) -> Vec<Departure<G, T>> {
        let numbers = self.requests.iter().filter(|(_, request)| which(request));
        let numbers: Vec<u64> = numbers.map(|(number, _)| *number).collect();
        numbers.into_iter().filter_map(|number| self.remove(number)).collect()
    }

    fn wait_again(&mut self, now: Time, is_lost: impl Fn(&OnItsWay<G, T>) -> bool) {
        for (number, request) in self.requests.iter_mut().filter(|(_, request)| is_lost(request)) {
            request.wait_again(*number, &mut self.gates, now);
        }
    }

    fn remove(&mut self, number: u64) -> Option<Departure<G, T>> {
        let OnItsWay { departure, sent, .. } = self.requests.remove(&number)?;
        self.bytes -= departure.weight;
        if let Some(gate) = self.gates.get_mut(&departure.gate) {
            gate.requests -= 1;
            gate.bytes -= departure.weight;
            gate.waiting.remove(&number);
            if sent.is_some() {
                gate.sent -= 1;
                gate.sent_bytes -= departure.weight;
            }
            if gate.requests == 0 {
                self.gates.remove(&departure.gate);
            }
        }
        Some(departure)
    }
}

impl<G: Ord, T> OnItsWay<G, T> {
    fn is_for<Q: Ord + ?Sized>(&self, gate: &Q) -> bool
    where
        G: Borrow<Q>,
    {
        self.departure.gate.borrow() == gate
    }

    fn wait_again(&mut self, number: u64, gates: &mut BTreeMap<G, PerGate>, now: Time) {
        if self.sent.take().is_some()
            && let Some(gate) = gates.get_mut(&self.departure.gate)
        {
            gate.sent -= 1;
            gate.sent_bytes -= self.departure.weight;
            gate.waiting.insert(number);
            self.since = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_size(requests: usize) -> Departures<&'static str, u32> {
        Departures::new(DepartureBounds { requests, bytes: 1 << 30, age: Time::from_secs(30) })
    }

    fn to(gate: &'static str, content: u32) -> Departure<&'static str, u32> {
        Departure { gate, weight: 1_000, deadline: None, may_wait: true, content }
    }

    #[test]
    fn a_window_bounds_what_a_slow_gateway_was_sent() {
        let mut departures = of_size(10_000);
        for number in 0..=DEPARTURE_WINDOW {
            departures.insert(to("north", number as u32), Time::ZERO).unwrap();
        }
        assert_eq!((0..).find(|_| departures.send("north", 0, Time::ZERO).is_none()), Some(DEPARTURE_WINDOW));
        assert_eq!(departures.answered(3, "south"), None, "south was not asked");
        assert_eq!((departures.get_from(3, "south"), departures.get_from(3, "north")), (None, Some(&3)));
        assert_eq!(departures.answered(3, "north"), Some(3));
        let last = DEPARTURE_WINDOW as u32;
        assert_eq!(departures.send("north", 0, Time::ZERO), Some((u64::from(last), &last)));
    }

    #[test]
    fn what_is_large_is_sent_alone() {
        let mut departures = of_size(10);
        for content in 0..2 {
            departures
                .insert(Departure { weight: 2 * WINDOW_BYTES, ..to("north", content) }, Time::ZERO)
                .unwrap();
        }
        assert_eq!(departures.send("north", 0, Time::ZERO), Some((0, &0)));
        assert_eq!(departures.send("north", 0, Time::ZERO), None);
        departures.answered(0, "north");
        assert_eq!(departures.send("north", 0, Time::ZERO), Some((1, &1)));
    }

    #[test]
    fn bytes_bound_what_is_kept_and_one_request_has_room_in_any_case() {
        let bounds = DepartureBounds { requests: 10, bytes: 2_999, age: Time::from_secs(1) };
        let mut departures = Departures::new(bounds);
        departures.insert(Departure { weight: 5_000, ..to("north", 0) }, Time::ZERO).unwrap();
        assert_eq!(departures.insert(to("south", 1), Time::ZERO).unwrap_err().content, 1);
        departures.send("north", 0, Time::ZERO);
        departures.answered(0, "north");
        departures.insert(to("north", 2), Time::ZERO).unwrap();
        // Another one of the north would hold more than is left.
        assert!(departures.insert(to("north", 3), Time::ZERO).is_err());
        departures.insert(to("south", 4), Time::ZERO).unwrap();
        assert_eq!((departures.len(), departures.bytes(), departures.of("north")), (2, 2_000, 1));
    }

    #[test]
    fn what_may_be_lost_waits_again_in_the_old_order_and_is_given_up_in_time() {
        let mut departures = of_size(10);
        let second = Time::from_secs;
        for content in 0..3 {
            departures.insert(to("north", content), Time::ZERO).unwrap();
            departures.send("north", content as usize % 2, Time::ZERO);
        }
        departures.lost_link(0, second(10));
        departures.confirmed(1, "north", second(30));
        assert_eq!((departures.wanted(), departures.give_up(second(39), |_| true).len()), (vec!["north"], 0));
        let given_up = departures.give_up(second(40), |_| true);
        let told: Vec<_> = given_up.iter().map(|(departure, why)| (departure.content, *why)).collect();
        assert_eq!(told, [(0, GivenUp::Away(second(30))), (2, GivenUp::Away(second(30)))]);
        departures.returned(1, "south", second(40));
        assert!(departures.wanted().is_empty(), "south was not asked");
        departures.confirmed(1, "north", second(40));
        departures.returned(1, "north", second(40));
        assert_eq!(departures.give_up(second(41), |_| false)[0].1, GivenUp::Unknown);
        assert!(departures.is_empty() && departures.gates.is_empty());
    }

    #[test]
    fn a_gateway_is_asked_for_what_it_has_and_given_up_when_it_says_nothing() {
        let mut departures = of_size(10);
        let second = Time::from_secs;
        for gate in ["north", "south"] {
            departures.insert(to(gate, 0), Time::ZERO).unwrap();
        }
        assert!(departures.probe(second(9)).is_empty(), "neither was sent");
        assert!(departures.send("north", 0, Time::ZERO).is_some());
        assert!(departures.send("south", 1, Time::ZERO).is_some());
        assert!(departures.probe(second(4)).is_empty(), "they were sent just now");
        let probes = departures.probe(second(5));
        assert_eq!(probes, [(("north", 0), vec![0]), (("south", 1), vec![1])].into());
        assert!(departures.probe(second(9)).is_empty(), "they were asked just now");
        departures.confirmed(0, "south", second(5));
        departures.confirmed(1, "south", second(5));
        let given_up = departures.give_up(second(30), |_| true);
        assert_eq!(given_up.len(), 1);
        assert_eq!((given_up[0].0.gate, given_up[0].1), ("north", GivenUp::Silent(second(30))));
        assert_eq!(departures.give_up(second(35), |_| true)[0].1, GivenUp::Silent(second(30)));
        assert!(departures.is_empty() && departures.gates.is_empty());
    }
}
