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
    /// With its answer, if it has one.
    known: HashMap<Name, Option<Bytes>>,
    /// Those with an answer, the oldest first.
    answered: VecDeque<Name>,
    bytes: usize,
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
    /// One has come.
    pub fn begin(&mut self, name: &Name) -> Arrival {
        match self.known.get(name) {
            Some(Some(answer)) => Arrival::Answered(answer.clone()),
            Some(None) => Arrival::Running,
            None => {
                self.known.insert(name.clone(), None);
                Arrival::New
            }
        }
    }

    /// One is answered.
    pub fn answered(&mut self, name: Name, answer: Bytes) {
        self.bytes += answer.len();
        self.known.insert(name.clone(), Some(answer));
        self.answered.push_back(name);
        while self.answered.len() > MAX_ANSWERS || self.bytes > MAX_ANSWER_BYTES {
            let Some(oldest) = self.answered.pop_front() else { break };
            if let Some(Some(answer)) = self.known.remove(&oldest) {
                self.bytes -= answer.len();
            }
        }
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
        assert_eq!(arrivals.begin(&name(0)), Arrival::New);
        assert_eq!(arrivals.begin(&name(0)), Arrival::Running);
        assert_eq!(arrivals.begin(&("south".into(), name(0).1)), Arrival::New, "of another site");
        arrivals.answered(name(0), Bytes::from_static(b"12"));
        assert_eq!(arrivals.begin(&name(0)), Arrival::Answered(Bytes::from_static(b"12")));
        assert_eq!(arrivals.begin(&name(1)), Arrival::New);
        arrivals.given_up(&name(1));
        assert_eq!(arrivals.begin(&name(1)), Arrival::New);
    }

    #[test]
    fn the_oldest_answers_are_forgotten() {
        let mut arrivals = Arrivals::default();
        for number in 0..=MAX_ANSWERS as u64 {
            arrivals.begin(&name(number));
            arrivals.answered(name(number), Bytes::from_static(b"1"));
        }
        assert_eq!(arrivals.begin(&name(0)), Arrival::New);
        assert_eq!(arrivals.begin(&name(1)), Arrival::Answered(Bytes::from_static(b"1")));
        arrivals.answered(name(0), Bytes::from(vec![0; MAX_ANSWER_BYTES]));
        assert_eq!((arrivals.answered.len(), arrivals.bytes), (1, MAX_ANSWER_BYTES));
    }
}
