//! The requests that have come from other sites. A router sends one again when its answer may be lost: then it runs no
//! second time, and gets the same answer. An answer is kept until the gateway that asked says that it has it. State
//! without I/O.

use super::message::Tag;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

/// Answers that are kept until they are received, and bytes of them. What is beyond that is forgotten, the oldest
/// first: gateways that have died never receive theirs.
const MAX_ANSWERS: usize = 4_096;
const MAX_ANSWER_BYTES: usize = 32 << 20;

/// Requests whose answers are received and that are still known: a copy of one may be on another way.
const MAX_RECEIVED: usize = 65_536;

/// Bytes of answers that are sent again at once; one answer is, however large.
const MAX_AGAIN_BYTES: usize = 1 << 20;

/// A request as it is known here: the gate that it is from, and its tag.
pub type Name = (Arc<str>, Tag);

/// All that is known.
#[derive(Default)]
pub struct Arrivals {
    known: HashMap<Name, Known>,
    /// Those whose answers are not received, the oldest first.
    answered: BTreeMap<u64, Name>,
    next: u64,
    bytes: usize,
    /// Those whose answers are received, the oldest first.
    received: VecDeque<Name>,
    /// Those whose answers are to be sent again, since the master had no room.
    again: BTreeSet<u64>,
}

struct Known {
    /// By which link it came last.
    link: usize,
    state: State,
}

enum State {
    Runs,
    /// Its place among those that are answered, and the answer.
    Answered(u64, Bytes),
    Received,
}

/// What has come, or is asked for.
#[derive(Debug, PartialEq, Eq)]
pub enum Arrival {
    /// It is not known, and is to be run.
    New,
    /// It runs.
    Running,
    /// This is its answer.
    Answered(Bytes),
    /// Whoever has asked has its answer.
    Received,
}

impl Arrivals {
    /// One has come, by this link.
    pub fn begin(&mut self, name: &Name, link: usize) -> Arrival {
        let Some(known) = self.known.get_mut(name) else {
            self.known.insert(name.clone(), Known { link, state: State::Runs });
            return Arrival::New;
        };
        known.link = link;
        self.look(name)
    }

    /// What has become of one.
    pub fn look(&self, name: &Name) -> Arrival {
        match self.known.get(name).map(|known| &known.state) {
            None => Arrival::New,
            Some(State::Runs) => Arrival::Running,
            Some(State::Answered(_, answer)) => Arrival::Answered(answer.clone()),
            Some(State::Received) => Arrival::Received,
        }
    }

    /// One is answered. Returns the link by which it came last: the way back.
    pub fn answered(&mut self, name: Name, answer: Bytes) -> Option<usize> {
        let known = self.known.get_mut(&name)?;
        let link = known.link;
        self.bytes += answer.len();
        known.state = State::Answered(self.next, answer);
        self.answered.insert(self.next, name);
        self.next += 1;
        while self.answered.len() > MAX_ANSWERS || self.bytes > MAX_ANSWER_BYTES {
            let Some(oldest) = self.answered.first_entry().map(|oldest| oldest.get().clone()) else { break };
            self.forget_answer(&oldest);
            self.known.remove(&oldest);
        }
        Some(link)
    }

    /// Whoever has asked has the answer, or does not wait for it any more.
    pub fn received(&mut self, name: &Name) {
        if !self.forget_answer(name) {
            return;
        }
        self.received.push_back(name.clone());
        if self.received.len() > MAX_RECEIVED
            && let Some(oldest) = self.received.pop_front()
        {
            self.known.remove(&oldest);
        }
    }

    /// The master had no room for an answer.
    pub fn undelivered(&mut self, name: &Name) {
        if let Some(Known { state: State::Answered(place, _), .. }) = self.known.get(name) {
            self.again.insert(*place);
        }
    }

    /// Answers that are to be sent again now, each with the link by which its request came last.
    pub fn send_again(&mut self) -> Vec<(Arc<str>, usize, Bytes)> {
        let (mut answers, mut bytes) = (Vec::new(), 0);
        while bytes < MAX_AGAIN_BYTES
            && let Some(place) = self.again.pop_first()
        {
            let name = self.answered.get(&place);
            if let Some((name, Known { link, state: State::Answered(_, answer) })) =
                name.and_then(|name| Some((name, self.known.get(name)?)))
            {
                bytes += answer.len();
                answers.push((name.0.clone(), *link, answer.clone()));
            }
        }
        answers
    }

    /// One was given up without an answer: it may come again.
    pub fn given_up(&mut self, name: &Name) {
        self.known.remove(name);
    }

    /// Whether there was an answer that is not received.
    fn forget_answer(&mut self, name: &Name) -> bool {
        let Some(Known { state, .. }) = self.known.get_mut(name) else { return false };
        let State::Answered(place, answer) = state else { return false };
        self.bytes -= answer.len();
        self.answered.remove(place);
        self.again.remove(place);
        *state = State::Received;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(number: u64) -> Name {
        ("north".into(), Tag { instance: 1, number })
    }

    /// Arrivals of which these are answered.
    fn answered(numbers: std::ops::Range<u64>, answer: &'static [u8]) -> Arrivals {
        let mut arrivals = Arrivals::default();
        for number in numbers {
            arrivals.begin(&name(number), 0);
            arrivals.answered(name(number), Bytes::from_static(answer));
        }
        arrivals
    }

    #[test]
    fn a_request_that_comes_again_runs_once_and_has_one_answer() {
        let mut arrivals = Arrivals::default();
        assert_eq!(arrivals.begin(&name(0), 0), Arrival::New);
        assert_eq!(arrivals.begin(&name(0), 0), Arrival::Running);
        assert_eq!(arrivals.begin(&("south".into(), name(0).1), 0), Arrival::New, "of another site");
        assert_eq!(arrivals.begin(&name(0), 1), Arrival::Running, "by another link");
        assert_eq!(arrivals.answered(name(0), Bytes::from_static(b"12")), Some(1));
        assert_eq!(arrivals.begin(&name(0), 0), Arrival::Answered(Bytes::from_static(b"12")));
        assert_eq!(arrivals.begin(&name(1), 0), Arrival::New);
        arrivals.given_up(&name(1));
        assert_eq!(arrivals.begin(&name(1), 0), Arrival::New);
    }

    #[test]
    fn of_answers_that_nobody_receives_the_oldest_are_forgotten() {
        let mut arrivals = answered(0..MAX_ANSWERS as u64 + 1, b"1");
        assert_eq!(arrivals.begin(&name(0), 0), Arrival::New);
        assert_eq!(arrivals.begin(&name(1), 0), Arrival::Answered(Bytes::from_static(b"1")));
        arrivals.answered(name(0), Bytes::from(vec![0; MAX_ANSWER_BYTES]));
        assert_eq!((arrivals.answered.len(), arrivals.bytes), (1, MAX_ANSWER_BYTES));
    }

    #[test]
    fn an_answer_that_is_received_is_not_kept_and_its_request_runs_no_second_time() {
        let mut arrivals = answered(0..2, b"1");
        arrivals.received(&name(0));
        arrivals.received(&name(0));
        assert_eq!((arrivals.bytes, arrivals.answered.len(), arrivals.received.len()), (1, 1, 1));
        assert_eq!(arrivals.begin(&name(0), 0), Arrival::Received);
        arrivals.begin(&name(9), 0);
        arrivals.received(&name(9));
        assert_eq!(arrivals.look(&name(9)), Arrival::Running, "it has no answer yet");
        let mut many = answered(0..0, b"");
        for number in 0..=MAX_RECEIVED as u64 {
            many.begin(&name(number), 0);
            many.answered(name(number), Bytes::new());
            many.received(&name(number));
        }
        assert_eq!((many.known.len(), many.look(&name(0))), (MAX_RECEIVED, Arrival::New));
    }

    #[test]
    fn an_answer_that_found_no_room_is_sent_again_unless_it_is_received_meanwhile() {
        let mut arrivals = answered(0..3, b"1");
        (0..3).for_each(|number| arrivals.undelivered(&name(number)));
        arrivals.received(&name(1));
        let again = arrivals.send_again();
        assert_eq!(again, [("north".into(), 0, "1".into()), ("north".into(), 0, "1".into())]);
        assert_eq!(arrivals.send_again(), []);
        let mut large = Arrivals::default();
        for number in 0..2 {
            large.begin(&name(number), 0);
            large.answered(name(number), Bytes::from(vec![0; MAX_AGAIN_BYTES]));
            large.undelivered(&name(number));
        }
        assert_eq!([large.send_again().len(), large.send_again().len(), large.send_again().len()], [1, 1, 0]);
    }
}
