//! The requests that have come from other sites. A router sends one again when its answer may be lost: then it runs no
//! second time, and gets the same answer. State without I/O.

use super::message::Tag;
use bytes::Bytes;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// Answers that are kept in case that they are asked for again, and bytes of them.
const MAX_ANSWERS: usize = 4_096;
const MAX_ANSWER_BYTES: usize = 32 << 20;

/// A request as it is known here: the gate that it is from, and its tag.
pub type Name = (Arc<str>, Tag);

/// All that is known.
#[derive(Default)]
pub struct Arrivals {
    known: HashMap<Name, Known>,
    /// Those with an answer, the oldest first.
    answered: VecDeque<Name>,
    bytes: usize,
}

struct Known {
    /// By which link it came last.
    link: usize,
    answer: Option<Bytes>,
}

/// What has come.
#[derive(Debug, PartialEq, Eq)]
pub enum Arrival {
    /// It is new, and is to be run.
    New,
    /// It runs.
    Running,
    /// This is its answer.
    Answered(Bytes),
}

impl Arrivals {
    /// One has come, by this link.
    pub fn begin(&mut self, name: &Name, link: usize) -> Arrival {
        let Some(known) = self.known.get_mut(name) else {
            self.known.insert(name.clone(), Known { link, answer: None });
            return Arrival::New;
        };
        known.link = link;
        known.answer.clone().map_or(Arrival::Running, Arrival::Answered)
    }

    /// The link by which one came last: the way back.
    pub fn link(&self, name: &Name) -> Option<usize> {
        self.known.get(name).map(|known| known.link)
    }

    /// One is answered. Returns the link by which it came last: the way back.
    pub fn answered(&mut self, name: Name, answer: Bytes) -> Option<usize> {
        let known = self.known.get_mut(&name)?;
        let link = known.link;
        self.bytes += answer.len();
        known.answer = Some(answer);
        self.answered.push_back(name);
        while self.answered.len() > MAX_ANSWERS || self.bytes > MAX_ANSWER_BYTES {
            let Some(oldest) = self.answered.pop_front() else { break };
            let answer = self.known.remove(&oldest).and_then(|known| known.answer);
            self.bytes -= answer.map_or(0, |answer| answer.len());
        }
        Some(link)
    }

    /// One was given up without an answer: it may come again.
    pub fn given_up(&mut self, name: &Name) {
        self.known.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(number: u64) -> Name {
        ("north".into(), Tag { instance: 1, number })
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
    fn the_oldest_answers_are_forgotten() {
        let mut arrivals = Arrivals::default();
        for number in 0..=MAX_ANSWERS as u64 {
            arrivals.begin(&name(number), 0);
            arrivals.answered(name(number), Bytes::from_static(b"1"));
        }
        assert_eq!(arrivals.begin(&name(0), 0), Arrival::New);
        assert_eq!(arrivals.begin(&name(1), 0), Arrival::Answered(Bytes::from_static(b"1")));
        arrivals.answered(name(0), Bytes::from(vec![0; MAX_ANSWER_BYTES]));
        assert_eq!((arrivals.answered.len(), arrivals.bytes), (1, MAX_ANSWER_BYTES));
    }
}
