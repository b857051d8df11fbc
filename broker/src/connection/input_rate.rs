//! The rate at which a packet comes that has begun, against the least: memory is not held for ever for a packet that
//! does not come.

use std::time::Duration;

use tokio::time::Instant;

use crate::config::Config;

/// How the bytes of an unfinished packet come.
pub(crate) struct InputRate {
    /// Since when they are counted; `None` while the client is not read from, which is not its fault.
    since: Option<Instant>,
    bytes: usize,
}

impl InputRate {
    pub fn new(now: Instant) -> Self {
        Self { since: Some(now), bytes: 0 }
    }

    pub fn received(&mut self, bytes: usize) {
        self.bytes += bytes;
    }

    /// The client is not read from for the moment.
    pub fn pause(&mut self) {
        self.since = None;
    }

    /// The client is read from: if it was not before, it has all of its time again.
    pub fn resume(&mut self, now: Instant) {
        if self.since.is_none() {
            *self = Self::new(now);
        }
    }

    /// When to look whether enough has come; `None` while it is not looked at.
    pub fn due(&self, config: &Config) -> Option<Instant> {
        let watched = config.min_input_rate > 0;
        self.since.filter(|_| watched).map(|since| since + config.input_rate_window)
    }

    /// False if a window is over in which too little came; one in which enough did is followed by the next.
    pub fn is_enough(&mut self, config: &Config, now: Instant) -> bool {
        if self.due(config).is_none_or(|due| now < due) {
            return true;
        }
        let enough = least(config.min_input_rate, config.input_rate_window) <= self.bytes as u128;
        *self = Self::new(now);
        enough
    }
}

/// Bytes that make up this rate in a window.
fn least(per_second: u64, window: Duration) -> u128 {
    u128::from(per_second) * window.as_millis() / 1_000
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn config() -> Config {
        Config { min_input_rate: 256, input_rate_window: 30 * SECOND, ..Config::default() }
    }

    #[test]
    fn each_window_must_bring_enough() {
        let (config, start) = (config(), Instant::now());
        let mut progress = InputRate::new(start);
        assert_eq!(progress.due(&config), Some(start + 30 * SECOND));
        assert!(progress.is_enough(&config, start + 29 * SECOND));
        progress.received(256 * 30);
        assert!(progress.is_enough(&config, start + 30 * SECOND));
        // What came before does not count again.
        progress.received(256 * 30 - 1);
        assert!(progress.is_enough(&config, start + 59 * SECOND));
        assert!(!progress.is_enough(&config, start + 60 * SECOND));
    }

    #[test]
    fn time_in_which_the_client_is_not_read_from_does_not_count() {
        let (config, start) = (config(), Instant::now());
        let mut progress = InputRate::new(start);
        progress.resume(start + 20 * SECOND);
        assert_eq!(progress.due(&config), Some(start + 30 * SECOND), "it was not paused");
        progress.pause();
        assert_eq!(progress.due(&config), None);
        assert!(progress.is_enough(&config, start + 500 * SECOND));
        progress.resume(start + 500 * SECOND);
        assert_eq!(progress.due(&config), Some(start + 530 * SECOND));
    }

    #[test]
    fn a_rate_of_0_asks_for_nothing() {
        let config = Config { min_input_rate: 0, ..config() };
        let start = Instant::now();
        let mut progress = InputRate::new(start);
        assert_eq!(progress.due(&config), None);
        assert!(progress.is_enough(&config, start + 500 * SECOND));
    }
}
