//! The requests that are on their way to other sites, as [`offload_policy::Departures`] keeps them: what is sent is
//! encoded, and what will have no answer has an error that says why.
//!
//! A machine without I/O: what is to be sent, and who is to be told, are values.

use super::message::{Reply, Request, Tag};
use crate::stream::Stream;
use crate::telemetry;
use offload_policy::{DepartureBounds, GivenUp, Time};
use offload_protocol::error::{ErrorKind, WireError};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

/// What a request holds in memory beside its bytes: an estimate.
const OVERHEAD: usize = 1_024;

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
    /// Takes what the other site streams.
    pub stream: Option<Arc<Stream>>,
    /// Who is to be told.
    pub done: Done,
}

/// All of them.
pub struct Departures {
    instance: u64,
    /// From when on the policy's time is counted.
    started: Instant,
    requests: offload_policy::Departures<Arc<str>, Departing>,
}

/// What is kept of a request.
struct Departing {
    request: Request,
    arrived: Instant,
    stream: Option<Arc<Stream>>,
    done: Done,
}

/// A request that goes nowhere any more.
pub struct Cancelled {
    /// The site that it was for.
    pub gate: Arc<str>,
    /// What was sent, if anything was.
    pub request: Request,
    /// Who is to be told.
    pub done: Done,
    /// Whether the site may have it.
    pub was_sent: bool,
}

impl Departures {
    /// None yet, of the gateway that has started as this.
    pub fn new(bounds: DepartureBounds, instance: u64) -> Departures {
        let (started, requests) = (Instant::now(), offload_policy::Departures::new(bounds));
        Departures { instance, started, requests }
    }

    /// Takes a request, which has this number from now on.
    ///
    /// # Errors
    ///
    /// When there is no room, or not for this site: who is to be told, and what.
    pub fn insert(&mut self, departure: Departure, now: Instant) -> Result<u64, (Done, WireError)> {
        let Departure { gate, request, arrived, deadline, may_wait, stream, done } = departure;
        let departure = offload_policy::Departure {
            gate,
            weight: request.weight() + OVERHEAD,
            deadline: deadline.map(|deadline| self.time(deadline)),
            may_wait,
            content: Departing { request, arrived, stream, done },
        };
        let now = self.time(now);
        self.requests.insert(departure, now).map_err(|refused| {
            let waiting = self.of(&refused.gate);
            let message = format!(
                "{waiting} requests wait for the gate `{}`, and there is no room for more; try again after 1 s",
                refused.gate
            );
            (refused.content.done, WireError::new(ErrorKind::Busy, message))
        })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.requests.len()
    }

    /// How many there are for this site.
    pub fn of(&self, gate: &str) -> usize {
        self.requests.of(gate)
    }

    /// The sites that requests wait for.
    pub fn wanted(&self) -> Vec<Arc<str>> {
        self.requests.wanted()
    }

    /// The next request for this site, to be sent by this link, while it takes more.
    pub fn send(&mut self, gate: &str, link: usize, now: Instant) -> Option<Vec<u8>> {
        let now_at = self.time(now);
        let (number, Departing { request, arrived, .. }) = self.requests.send(gate, link, now_at)?;
        let age = now.saturating_duration_since(*arrived);
        Some(request.encode(Tag { instance: self.instance, number }, age))
    }

    /// The answer to one has come from this site. `None` where it is not waited for, or not from there.
    pub fn answered(&mut self, tag: Tag, gate: &str) -> Option<Done> {
        let is_ours = tag.instance == self.instance;
        is_ours.then(|| self.requests.answered(tag.number, gate)).flatten().map(|departing| departing.done)
    }

    /// What takes the stream of one, if this site was asked and may stream it.
    pub fn stream(&self, tag: Tag, gate: &str) -> Option<Arc<Stream>> {
        let is_ours = tag.instance == self.instance;
        is_ours.then(|| self.requests.get_from(tag.number, gate)).flatten()?.stream.clone()
    }

    /// One is cancelled, and goes nowhere any more.
    pub fn cancel(&mut self, number: u64) -> Option<Cancelled> {
        let (departure, was_sent) = self.requests.cancel(number)?;
        let Departing { request, done, .. } = departure.content;
        Some(Cancelled { gate: departure.gate, request, done, was_sent })
    }

    /// This site does not have one: it waits again. The master says so where it could not hand it over, and the site
    /// where it does not know it.
    pub fn returned(&mut self, tag: Tag, gate: &str, now: Instant) {
        if tag.instance == self.instance {
            let now = self.time(now);
            self.requests.returned(tag.number, gate, now);
        }
    }

    /// This site says that it has one, which runs.
    pub fn confirmed(&mut self, tag: Tag, gate: &str, now: Instant) {
        if tag.instance == self.instance {
            let now = self.time(now);
            self.requests.confirmed(tag.number, gate, now);
        }
    }

    /// What each site is to be asked for now: whether it still has these, which it was sent by this link.
    pub fn probe(&mut self, now: Instant) -> BTreeMap<(Arc<str>, usize), Vec<Tag>> {
        let (now, instance) = (self.time(now), self.instance);
        let tags = |numbers: Vec<u64>| numbers.into_iter().map(|number| Tag { instance, number }).collect();
        self.requests.probe(now).into_iter().map(|(to, numbers)| (to, tags(numbers))).collect()
    }

    /// This link is lost, and maybe all that was sent by it.
    pub fn lost_link(&mut self, link: usize, now: Instant) {
        let now = self.time(now);
        self.requests.lost_link(link, now);
    }

    /// This site is lost to this link, and maybe all that it was sent.
    pub fn lost_gate(&mut self, gate: &str, link: usize, now: Instant) {
        let now = self.time(now);
        self.requests.lost_gate(gate, link, now);
    }

    /// Those that are to be told now that there will be no answer: their time is up, or their site is away or silent
    /// for too long; those for sites that `exists` does not know, at once.
    pub fn give_up(&mut self, now: Instant, exists: impl Fn(&str) -> bool) -> Vec<(Done, WireError)> {
        let now = self.time(now);
        let given_up = self.requests.give_up(now, |gate| exists(gate)).into_iter();
        given_up.map(|(departure, why)| (departure.content.done, error(&departure.gate, why))).collect()
    }

    /// Those that wait for a site that is away: the gateway stops.
    pub fn stop_waiting(&mut self) -> Vec<Done> {
        self.requests.take_waiting().into_iter().map(|departure| departure.content.done).collect()
    }

    /// All of them: the gateway stops.
    pub fn stop(&mut self) -> Vec<Done> {
        self.requests.take_all().into_iter().map(|departure| departure.content.done).collect()
    }

    fn time(&self, at: Instant) -> Time {
        at.saturating_duration_since(self.started).into()
    }
}

/// What is said of a request that this gate will not answer.
fn error(gate: &str, why: GivenUp) -> WireError {
    let gate = telemetry::bounded(gate);
    let (kind, message) = match why {
        GivenUp::Timeout => (ErrorKind::Timeout, format!("no answer came from the gate `{gate}` in time")),
        GivenUp::Expired => (ErrorKind::Expired, format!("the gate `{gate}` did not come back in time")),
        GivenUp::Unknown => (ErrorKind::Unreachable, format!("there is no gate `{gate}`")),
        GivenUp::Away(waited) => {
            let waited = waited.as_secs_f64();
            (ErrorKind::Unreachable, format!("the gate `{gate}` did not come back within {waited:.1} s"))
        }
        GivenUp::Silent(silent) => {
            let silent = silent.as_secs_f64();
            let message = format!("the gate `{gate}` has said nothing of the request for {silent:.1} s");
            (ErrorKind::Unreachable, message)
        }
    };
    WireError::new(kind, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use std::time::Duration;

    const BOUNDS: DepartureBounds = DepartureBounds { requests: 8, bytes: 1 << 20, age: Time::from_secs(30) };
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
                answer_room: None,
                user_properties: Vec::new(),
                payload: Bytes::new(),
            };
            let deadline = timeout.map(|seconds| self.now + Duration::from_secs(seconds));
            let done = Box::new(|_| {});
            let may_wait = gate != "elsewhere";
            let arrived = self.now;
            let departure =
                Departure { gate: gate.into(), request, arrived, deadline, may_wait, stream: None, done };
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
        assert!(asked.departures.len() == 0 && asked.departures.requests.bytes() == 0);
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
    fn what_is_cancelled_goes_nowhere_any_more() {
        let mut asked = Asked::new();
        asked.ask("north", None);
        asked.send("north");
        asked.ask("north", None);
        let was_sent = |asked: &mut Asked, number| asked.departures.cancel(number).map(|of| of.was_sent);
        assert_eq!([0, 1, 0].map(|number| was_sent(&mut asked, number)), [Some(true), Some(false), None]);
        assert_eq!(asked.send("north"), None);
        assert!(asked.departures.len() == 0 && asked.departures.requests.bytes() == 0);
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
