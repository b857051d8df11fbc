//! What became of the requests.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use offload_client::{Answer, Error, Outcome};

use crate::message::text;

/// The longest time that is told from longer ones; no request waits longer for being sent and answered.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// Significant decimal digits of a time.
const DIGITS: u8 = 3;

/// Times in nanoseconds, of a bounded size in memory (300 KiB).
pub type Times = Histogram<u64>;

fn times() -> Times {
    Times::new_with_bounds(1, nanoseconds(LONGEST), DIGITS).expect("the bounds are in order")
}

/// As many as fit.
pub fn nanoseconds(time: Duration) -> u64 {
    time.as_nanos().try_into().unwrap_or(u64::MAX)
}

/// What became of one request.
pub enum Verdict {
    /// The program ran and exited with 0.
    Right(Answer),
    /// No answer came in time.
    Lost(String),
    /// The answer, or the broker, says that it went wrong.
    Wrong { kind: &'static str, message: String },
    /// Nor will another one be answered.
    Over(Error),
}

impl From<Result<Answer, Error>> for Verdict {
    fn from(result: Result<Answer, Error>) -> Self {
        match result {
            Ok(answer) => match &answer.outcome {
                Outcome::Exited(0) => Verdict::Right(answer),
                Outcome::Exited(code) => {
                    let stderr = String::from_utf8_lossy(&answer.stderr);
                    let said = stderr.lines().find(|line| !line.is_empty());
                    let said = said.map(|line| format!(": {}", text(line))).unwrap_or_default();
                    Verdict::Wrong { kind: "exit", message: format!("program exited with code {code}{said}") }
                }
                Outcome::Failed(error) => {
                    Verdict::Wrong { kind: error.kind.as_str(), message: text(&error.message) }
                }
            },
            Err(error @ Error::NoAnswer { .. }) => Verdict::Lost(text(&error.to_string())),
            Err(
                error @ (Error::NoGateway | Error::Unauthorized(_) | Error::Refused(_) | Error::Answer(_)),
            ) => Verdict::Wrong { kind: error.kind(), message: text(&error.to_string()) },
            // It did not reach the broker, and neither would the next one.
            Err(error) => Verdict::Over(error),
        }
    }
}

/// How often something happened, and what was said the first time.
#[derive(Default)]
pub struct Count {
    pub count: u64,
    pub first: String,
}

impl Count {
    fn add(&mut self, message: String) {
        if self.count == 0 {
            self.first = message;
        }
        self.count += 1;
    }
}

/// The requests that count.
pub struct Tally {
    /// Sent, or handed to the client to send.
    pub sent: u64,
    pub right: u64,
    pub lost: Count,
    /// By kind.
    pub wrong: BTreeMap<&'static str, Count>,
    /// From when a request was due to its right answer.
    pub latency: Times,
    /// From when a request was due to when it was sent, of all requests of an open loop.
    pub late: Times,
    /// What the gateway says of right answers: from arrival to start, and from start to end.
    pub queued: Times,
    pub run: Times,
    /// When the last answer came, right or wrong.
    pub last_answer: Option<Instant>,
}

impl Tally {
    pub fn new() -> Self {
        Self {
            sent: 0,
            right: 0,
            lost: Count::default(),
            wrong: BTreeMap::new(),
            latency: times(),
            late: times(),
            queued: times(),
            run: times(),
            last_answer: None,
        }
    }

    /// Whether it is known of any request what became of it.
    pub fn has_ended(&self) -> bool {
        self.right > 0 || self.lost.count > 0 || !self.wrong.is_empty()
    }

    pub fn sent(&mut self, due: Instant, now: Instant) {
        self.sent += 1;
        self.late.saturating_record(nanoseconds(now - due));
    }

    /// Takes in what became of a request; fails when it was the last one.
    pub fn ended(&mut self, due: Instant, now: Instant, verdict: Verdict) -> Result<(), Error> {
        match verdict {
            Verdict::Right(answer) => {
                self.right += 1;
                self.latency.saturating_record(nanoseconds(now - due));
                self.queued.saturating_record(answer.queue_us.saturating_mul(1000));
                self.run.saturating_record(answer.run_us.saturating_mul(1000));
                self.last_answer = Some(now);
            }
            Verdict::Wrong { kind, message } => {
                self.wrong.entry(kind).or_default().add(message);
                self.last_answer = Some(now);
            }
            Verdict::Lost(message) => self.lost.add(message),
            Verdict::Over(error) => {
                self.wrong.entry(error.kind()).or_default().add(text(&error.to_string()));
                return Err(error);
            }
        }
        Ok(())
    }

    /// Answered, but wrongly.
    pub fn failed(&self) -> u64 {
        self.wrong.values().map(|wrong| wrong.count).sum()
    }

    /// Sent, and neither answered nor lost.
    pub fn in_flight(&self) -> u64 {
        self.sent - self.right - self.lost.count - self.failed()
    }
}

#[cfg(test)]
mod tests {
    use offload_client::{ErrorKind, WireError};

    use super::*;

    fn answer(outcome: Outcome) -> Result<Answer, Error> {
        let unset = Answer::failed(None, WireError::new(ErrorKind::Internal, ""));
        Ok(Answer { outcome, queue_us: 10, run_us: 20, ..unset })
    }

    #[test]
    fn everything_that_can_happen_is_counted_as_what_it_is() {
        let mut tally = Tally::new();
        let due = Instant::now();
        let later = due + Duration::from_millis(7);
        let busy = |message: &str| answer(Outcome::Failed(WireError::new(ErrorKind::Busy, message)));
        let no_answer = Error::NoAnswer { waited: Duration::from_secs(1), lost: None };
        for result in [
            answer(Outcome::Exited(0)),
            answer(Outcome::Exited(-3)),
            busy("full\x1b"),
            busy("still full"),
            Err(no_answer),
            Err(Error::NoGateway),
        ] {
            tally.sent(due, due);
            tally.ended(due, later, result.into()).unwrap();
        }
        tally.sent(due, due);
        assert_eq!((tally.sent, tally.right, tally.lost.count, tally.in_flight()), (7, 1, 1, 1));
        let wrong: Vec<_> = tally.wrong.iter().map(|(kind, wrong)| (*kind, wrong.count)).collect();
        assert_eq!(wrong, [("busy", 2), ("connection", 1), ("exit", 1)]);
        assert_eq!(tally.wrong["busy"].first, "full\\u{1b}");
        assert_eq!(tally.lost.first, "no answer within 1000 ms");
        assert_eq!(tally.latency.len(), 1, "a wrong answer is no fast answer");
        let microseconds = |times: &Times| (times.max() as f64 / 1000.0).round();
        assert_eq!([&tally.latency, &tally.queued, &tally.run].map(microseconds), [7000.0, 10.0, 20.0]);
        let closed = Err(Error::Closed("gone".into()));
        assert!(matches!(tally.ended(due, later, Verdict::from(closed)), Err(Error::Closed(_))));
        assert_eq!(tally.in_flight(), 0);
    }
}
