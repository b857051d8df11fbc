//! How fast one connection may send; what comes faster is read later.

use std::time::Duration;

use tokio::time::Instant;

use crate::config::Config;

/// Two token buckets, of messages and of bytes.
pub(crate) struct Rates {
    messages: Bucket,
    bytes: Bucket,
    /// Until when the connection is not read from.
    held_until: Option<Instant>,
}

/// A token bucket is known by when it will be full again.
struct Bucket {
    full: Instant,
}

impl Bucket {
    /// Takes what has come, which may be more than is there. A rate of 0 is no limit: nothing is taken.
    fn take(&mut self, amount: usize, per_second: u64, now: Instant) {
        if let Some(nanos) = (amount as u64).saturating_mul(1_000_000_000).checked_div(per_second) {
            self.full = self.full.max(now) + Duration::from_nanos(nanos);
        }
    }
}

impl Rates {
    /// For a new connection, whose buckets are full; `None` if there is no limit.
    pub fn new(config: &Config, now: Instant) -> Option<Self> {
        if config.max_message_rate == 0 && config.max_byte_rate == 0 {
            return None;
        }
        Some(Self { messages: Bucket { full: now }, bytes: Bucket { full: now }, held_until: None })
    }

    pub fn message(&mut self, config: &Config, now: Instant) {
        self.messages.take(1, config.max_message_rate, now);
    }

    pub fn bytes(&mut self, bytes: usize, config: &Config, now: Instant) {
        self.bytes.take(bytes, config.max_byte_rate, now);
    }

    /// Looks whether the connection is to be read from later; true when that begins.
    pub fn hold(&mut self, config: &Config, now: Instant) -> bool {
        let until = self.messages.full.max(self.bytes.full);
        let held = until > now + config.rate_burst;
        let begins = held && self.held_until.is_none();
        self.held_until = held.then(|| until - config.rate_burst);
        begins
    }

    /// Until when the connection is not read from, as of the last look.
    pub fn held_until(&self) -> Option<Instant> {
        self.held_until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_burst_is_taken_at_once_and_the_rest_at_the_rate() {
        let config = Config { max_message_rate: 10, rate_burst: SECOND, ..Config::default() };
        let start = Instant::now();
        let mut rates = Rates::new(&config, start).unwrap();
        for _ in 0..10 {
            rates.message(&config, start);
            assert!(!rates.hold(&config, start));
        }
        // One that is more begins a wait that ends when a tenth of a second has made up for it.
        rates.message(&config, start);
        assert!(rates.hold(&config, start));
        assert!(!rates.hold(&config, start), "it has begun before");
        assert_eq!(rates.held_until(), Some(start + SECOND / 10));
        assert!(!rates.hold(&config, start + SECOND / 10));
        assert_eq!(rates.held_until(), None);
        // However long nothing came, there is no more than the burst.
        let later = start + 1000 * SECOND;
        for at in 0..=10 {
            rates.message(&config, later);
            assert_eq!(rates.hold(&config, later), at == 10);
        }
    }

    #[test]
    fn the_scarcer_of_messages_and_bytes_counts() {
        let config =
            Config { max_message_rate: 10, max_byte_rate: 1_000, rate_burst: SECOND, ..Config::default() };
        let start = Instant::now();
        let mut rates = Rates::new(&config, start).unwrap();
        rates.message(&config, start);
        rates.bytes(3_000, &config, start);
        assert!(rates.hold(&config, start));
        assert_eq!(rates.held_until(), Some(start + 2 * SECOND));
    }

    #[test]
    fn without_limits_nothing_is_kept() {
        assert!(Rates::new(&Config::default(), Instant::now()).is_none());
        let config = Config { max_byte_rate: 1, rate_burst: SECOND, ..Config::default() };
        let now = Instant::now();
        let mut rates = Rates::new(&config, now).unwrap();
        for _ in 0..1_000 {
            rates.message(&config, now);
        }
        assert!(!rates.hold(&config, now));
    }
}
