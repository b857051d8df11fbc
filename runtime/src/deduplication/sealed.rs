//! The ids of sealed requests: each is remembered until its time has passed, and none is forgotten earlier, since what
//! was sealed is never run twice. So a store that is full takes no more.
//!
//! An account may have as many ids as are free beside them (dynamic thresholds, A. K. Choudhury and E. L. Hahne, 1998):
//! one that takes all it can leaves half to the others.

use super::ENTRY_COST;
use crate::config;
use offload_protocol::answer::Answer;
use offload_protocol::error::{ErrorKind, WireError};
use offload_protocol::request::RequestId;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The shortest time after which a client is told to try again.
const LEAST_WAIT: Duration = Duration::from_secs(1);

/// Until when a sealed request is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Until {
    /// In this process.
    pub at: Instant,
    /// For the next one: in milliseconds since 1970.
    pub wall_ms: u64,
}

impl Until {
    /// Until this time, both in milliseconds since 1970.
    pub fn new(wall_ms: u64, now_ms: u64) -> Until {
        let (now, left) = (Instant::now(), Duration::from_millis(wall_ms.saturating_sub(now_ms)));
        Until { at: now.checked_add(left).unwrap_or(now), wall_ms }
    }
}

/// The ids of sealed requests, in the order in which they are forgotten.
#[derive(Default)]
pub(super) struct SealedIds {
    /// Of those that are done, with who pays for them, and bytes.
    done: BTreeMap<(Instant, RequestId), (Arc<str>, usize)>,
    bytes: usize,
    /// All of them, by account.
    accounts: HashMap<Arc<str>, usize>,
    all: usize,
}

impl SealedIds {
    /// How long one of this account has to wait, if there is no room for one more.
    pub fn is_full(
        &self,
        account: &Arc<str>,
        config: &config::Idempotency,
        now: Instant,
    ) -> Option<Duration> {
        let (own, free) =
            (self.accounts.get(account).copied().unwrap_or(0), config.sealed.saturating_sub(self.all));
        if own < free && self.has_room(ENTRY_COST, config) {
            return None;
        }
        let next = self.done.first_key_value().map(|((at, _), _)| at.saturating_duration_since(now));
        Some(next.unwrap_or_default().max(LEAST_WAIT))
    }

    /// Whether there is room for an outcome of this many bytes.
    pub fn has_room(&self, bytes: usize, config: &config::Idempotency) -> bool {
        self.bytes + bytes <= config.bytes.as_usize()
    }

    /// One begins.
    pub fn enter(&mut self, account: &Arc<str>) {
        *self.accounts.entry(account.clone()).or_default() += 1;
        self.all += 1;
    }

    /// One that has begun was not run, or is forgotten.
    pub fn leave(&mut self, account: &Arc<str>) {
        self.all -= 1;
        if let Some(number) = self.accounts.get_mut(account) {
            *number -= 1;
            if *number == 0 {
                self.accounts.remove(account);
            }
        }
    }

    /// One that has begun is remembered until then.
    pub fn done(&mut self, until: Until, id: &RequestId, account: &Arc<str>, bytes: usize) {
        self.bytes += bytes;
        self.done.insert((until.at, id.clone()), (account.clone(), bytes));
    }

    /// One that is done is remembered longer.
    pub fn prolong(&mut self, id: &RequestId, earlier: Until, later: Until) {
        if let Some(entry) = self.done.remove(&(earlier.at, id.clone())) {
            self.done.insert((later.at, id.clone()), entry);
        }
    }

    /// Takes one whose time has passed.
    pub fn pop_before(&mut self, now: Instant) -> Option<RequestId> {
        let first = self.done.first_entry().filter(|first| first.key().0 <= now)?;
        let ((_, id), (account, bytes)) = first.remove_entry();
        self.bytes -= bytes;
        self.leave(&account);
        Some(id)
    }
}

/// What is remembered of a run whose outcome is too large to be kept.
pub fn forgotten(id: &RequestId) -> Answer {
    let message =
        "the answer was too large to be kept (idempotency.bytes), and what was sealed is not run twice";
    Answer::failed(Some(id.clone()), WireError::new(ErrorKind::Output, message))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{answer, print};
    use super::super::{Deduplicator, Key, Registration, ReplyTo};
    use super::*;
    use crate::config::{ByteSize, TimeSpan};
    use offload_journal::RecordId;

    fn deduplicator(sealed: usize) -> Deduplicator<u32> {
        let (retention, bytes) = (TimeSpan::secs(600), ByteSize::kib(64));
        let config = config::Idempotency { retention, outcomes: 1, bytes, sealed };
        Deduplicator::new(config, Box::new(|_| {}))
    }

    fn key(id: &str) -> Key {
        Key { principal: None, reply_to: ReplyTo::Sealed, id: RequestId::try_from(id).unwrap() }
    }

    fn until(seconds: u64, now: Instant) -> Until {
        Until { at: now + Duration::from_secs(seconds), wall_ms: 1000 * seconds }
    }

    #[test]
    fn none_is_forgotten_before_its_time_and_a_full_store_takes_no_more() {
        let (deduplicator, now) = (deduplicator(5), Instant::now());
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        let begin = |id: &str, account: &Arc<str>, at: u64| {
            let now = now + Duration::from_secs(at);
            deduplicator.begin_sealed(&key(id), print(id), (until(600, now), account), 1, None, now)
        };
        for id in ["1", "2", "3"] {
            assert_eq!(begin(id, &a, 0), Registration::First(1));
            deduplicator.end(&key(id), &a, Some((&answer(1), None)), now);
        }
        assert_eq!(begin("4", &a, 0), Registration::Full(1, Duration::from_secs(600)), "half is for others");
        assert_eq!(begin("5", &b, 0), Registration::First(1));
        assert_eq!(begin("6", &b, 0), Registration::Full(1, Duration::from_secs(600)));
        for id in ["1", "2", "3"] {
            assert_eq!(begin(id, &b, 0), Registration::Done(1, answer(1)), "whoever delivers it");
        }
        assert_eq!(begin("5", &b, 1), Registration::InFlight);
        deduplicator.end(&key("5"), &b, None, now);
        assert_eq!(begin("6", &b, 1), Registration::First(1), "what was not run is not remembered");
        assert_eq!(begin("1", &a, 600), Registration::First(1), "its time has passed");
    }

    #[test]
    fn one_that_is_sealed_again_later_is_remembered_longer() {
        let (deduplicator, now) = (deduplicator(10), Instant::now());
        let account: Arc<str> = "a".into();
        let begin = |seconds: u64, at: u64| {
            let at = now + Duration::from_secs(at);
            deduplicator.begin_sealed(&key("1"), print("1"), (until(seconds, now), &account), 1, None, at)
        };
        assert_eq!(begin(600, 0), Registration::First(1));
        assert_eq!(deduplicator.sealed_until(&key("1")), Some(until(600, now)));
        deduplicator.end(&key("1"), &account, Some((&answer(1), Some(RecordId(1)))), now);
        assert_eq!(begin(700, 10), Registration::Prolonged(1, answer(1), Some(RecordId(1))));
        deduplicator.recorded_again(&key("1"), Some(RecordId(2)));
        assert_eq!(begin(650, 650), Registration::Done(1, answer(1)));
        assert_eq!(begin(1400, 700), Registration::First(1));
    }

    #[test]
    fn that_it_was_run_is_remembered_of_one_whose_answer_is_too_large() {
        let deduplicator = deduplicator(10);
        let large = answer(64 << 10);
        let kept = deduplicator.kept(&key("1"), &large).unwrap();
        assert_eq!(kept, forgotten(&key("1").id));
        let clear = Key { reply_to: ReplyTo::Id("d".into()), ..key("1") };
        assert_eq!(deduplicator.kept(&clear, &large), None);
    }
}
