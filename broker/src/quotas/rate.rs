//! How fast one identity may send, over all of its connections together; what comes faster is read later.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use crate::config::Config;

/// Two token buckets, of messages and of bytes. `now` is the time since a fixed moment, at which both were full.
#[derive(Debug, Default)]
pub(crate) struct Rates {
    messages: Bucket,
    bytes: Bucket,
}

impl Rates {
    pub fn message(&self, config: &Config, now: Duration) {
        self.messages.take(1, config.max_message_rate, now);
    }

    pub fn bytes(&self, bytes: usize, config: &Config, now: Duration) {
        self.bytes.take(bytes, config.max_byte_rate, now);
    }

    /// Until when nothing of this identity is read, if it sent faster than it may.
    pub fn held_until(&self, config: &Config, now: Duration) -> Option<Duration> {
        let full = Duration::from_nanos(self.messages.0.load(Relaxed).max(self.bytes.0.load(Relaxed)));
        (full > now.saturating_add(config.rate_burst)).then(|| full - config.rate_burst)
    }
}

/// A token bucket is known by when it will be full again, in nanoseconds.
#[derive(Debug, Default)]
struct Bucket(AtomicU64);

impl Bucket {
    /// Takes what has come, which may be more than is there. A rate of 0 is no limit: nothing is taken.
    fn take(&self, amount: usize, per_second: u64, now: Duration) {
        if let Some(nanos) = (amount as u64).saturating_mul(1_000_000_000).checked_div(per_second) {
            let full = |full: u64| Some(full.max(nanos_of(now)).saturating_add(nanos));
            let _ = self.0.fetch_update(Relaxed, Relaxed, full);
        }
    }
}

fn nanos_of(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_burst_is_taken_at_once_and_the_rest_at_the_rate() {
        let config = Config { max_message_rate: 10, rate_burst: SECOND, ..Config::default() };
        let start = 5 * SECOND;
        let rates = Rates::default();
        for _ in 0..10 {
            rates.message(&config, start);
            assert_eq!(rates.held_until(&config, start), None);
        }
        // One that is more begins a wait that ends when a tenth of a second has made up for it.
        rates.message(&config, start);
        assert_eq!(rates.held_until(&config, start), Some(start + SECOND / 10));
        assert_eq!(rates.held_until(&config, start + SECOND / 10), None);
        // However long nothing came, there is no more than the burst.
        let later = start + 1000 * SECOND;
        for at in 0..=10 {
            rates.message(&config, later);
            assert_eq!(rates.held_until(&config, later).is_some(), at == 10);
        }
    }

    #[test]
    fn the_scarcer_of_messages_and_bytes_counts() {
        let config =
            Config { max_message_rate: 10, max_byte_rate: 1_000, rate_burst: SECOND, ..Config::default() };
        let start = SECOND;
        let rates = Rates::default();
        rates.message(&config, start);
        rates.bytes(3_000, &config, start);
        assert_eq!(rates.held_until(&config, start), Some(start + 2 * SECOND));
    }

    #[test]
    fn without_a_limit_nothing_is_kept() {
        let config = Config { max_byte_rate: 1, rate_burst: SECOND, ..Config::default() };
        let rates = Rates::default();
        for _ in 0..1_000 {
            rates.message(&config, SECOND);
        }
        assert_eq!(rates.held_until(&config, SECOND), None);
    }
}
