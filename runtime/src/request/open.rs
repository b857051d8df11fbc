//! What is in a sealed request, for the gateway whose key it was sealed to.
//!
//! This takes some hundred microseconds of the ingress's thread, for a client that may publish requests. Whatever does
//! not open is answered in clear and without detail; from there on each answer is sealed.

use crate::config::Idempotency;
use crate::deduplication::Until;
use crate::ingress::{Seal, SealWith};
use crate::keys::{Keys, MAX_AHEAD, now_ms};
use offload_protocol::answer::AnswerForm;
use offload_protocol::error::{ErrorKind, WireError};
use offload_protocol::request::{self, Bounds, Rejected, Request, RequestKind};
use offload_protocol::sealed::{Inner, SealedRequest};
use offload_seal::Opened;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Opens sealed requests.
pub struct Opener {
    keys: Arc<Keys>,
    /// How long a request is remembered after it was sealed.
    retention: Duration,
    /// In milliseconds since 1970: what was sealed earlier may have been run before the start.
    accepted_after: u64,
    /// The latest time that the clock on the wall has shown, so that one that is set back lets nothing be run again.
    latest: AtomicU64,
}

/// What a sealed request was.
pub struct Unsealed {
    /// What is asked, or why it is refused.
    pub request: Result<Request, Rejected>,
    /// How the answer is sealed; none where nothing was opened.
    pub seal: Option<Seal>,
    /// Until when it is remembered, where it is to be run.
    pub until: Option<Until>,
}

impl Opener {
    /// With these keys. `accepted_after` is [`accepted_after`](crate::keys::accepted_after).
    pub fn new(keys: Arc<Keys>, config: &Idempotency, accepted_after: u64) -> Opener {
        Opener { keys, retention: config.retention.duration(), accepted_after, latest: AtomicU64::new(0) }
    }

    /// Whether another gateway of one service has the key to this request, and this one has not.
    pub fn is_anothers(&self, sealed: &SealedRequest) -> bool {
        self.keys.is_anothers(&sealed.key)
    }

    /// Opens a request that was published on `topic` and arrived then. `was_accepted`: it was accepted when it came,
    /// and its time was judged.
    pub fn open(
        &self,
        sealed: &SealedRequest,
        kind: RequestKind,
        topic: &str,
        bounds: &Bounds,
        arrived: Instant,
        was_accepted: bool,
    ) -> Unsealed {
        let now = self.latest.fetch_max(now_ms(), Ordering::Relaxed).max(now_ms());
        let arrived_ms = now.saturating_sub(millis(arrived.elapsed()));
        // A key that is retired by now was not when the request was accepted.
        let opened_at = if was_accepted { 0 } else { arrived_ms };
        let Opened { plaintext, answer_key } = match self.keys.set().open(sealed, topic, opened_at) {
            Ok(opened) => opened,
            Err(rejected) => return Unsealed { request: Err(rejected), seal: None, until: None },
        };
        let seal = Some(Seal { form: sealed.form, with: SealWith::Key(answer_key) });
        let inner = request::decode_inner(kind, plaintext.into(), bounds);
        let inner = inner.and_then(|inner| match was_accepted {
            true => Ok(inner),
            false => self.in_time(inner, arrived_ms, sealed.form),
        });
        match inner {
            Ok(Inner { request, sealed_at }) => {
                let until = Until::new(sealed_at.saturating_add(millis(self.retention)), now);
                Unsealed { request: Ok(request), seal, until: Some(until) }
            }
            Err(rejected) => Unsealed { request: Err(rejected), seal, until: None },
        }
    }

    fn in_time(&self, inner: Inner, arrived: u64, form: AnswerForm) -> Result<Inner, Rejected> {
        let expired = |message: String| {
            let error = WireError::new(ErrorKind::Expired, message);
            Err(Rejected { form, id: inner.request.id.clone(), error })
        };
        let Inner { sealed_at, .. } = inner;
        if sealed_at > arrived.saturating_add(millis(MAX_AHEAD)) {
            let ahead = (sealed_at - arrived) / 1000;
            return expired(format!("sealed_at: {ahead} s ahead of the gateway's clock, more than 60 s"));
        }
        if sealed_at.saturating_add(millis(self.retention)) < arrived {
            let (age, most) = ((arrived - sealed_at) / 1000, self.retention.as_secs());
            return expired(format!("sealed_at: {age} s ago, more than {most} s (idempotency.retention)"));
        }
        if sealed_at < self.accepted_after {
            let message = "sealed_at: the gateway has started since and cannot tell whether this was run before; seal \
                           it again when 60 s have passed since the start";
            return expired(message.to_owned());
        }
        Ok(inner)
    }
}

fn millis(duration: Duration) -> u64 {
    duration.as_millis().try_into().unwrap_or(u64::MAX)
}
