//! Which of several brokers is next.

use crate::config::{BrokerUrl, BrokerUrls};
use arc_swap::ArcSwap;
use std::sync::Arc;

/// A list of brokers that stand in for each other, and where in it the connection is.
pub(super) struct Brokers {
    all: Vec<BrokerUrl>,
    at: usize,
    /// The one that was last connected to.
    last: Option<usize>,
    /// Its URL, or that of the first one before there is a connection, for whoever asks.
    url: Arc<ArcSwap<String>>,
}

impl Brokers {
    pub fn new(urls: &BrokerUrls) -> Brokers {
        let url = Arc::new(ArcSwap::from_pointee(urls.first().to_string()));
        Brokers { all: urls.all().to_vec(), at: 0, last: None, url }
    }

    /// Shows the URL of the broker that is connected to, or was last.
    pub fn url(&self) -> Arc<ArcSwap<String>> {
        self.url.clone()
    }

    /// The one to connect to, or that is connected to.
    pub fn current(&self) -> &BrokerUrl {
        &self.all[self.at]
    }

    /// The current one has accepted the connection.
    pub fn connected(&mut self) {
        self.last = Some(self.at);
        self.url.store(Arc::new(self.current().to_string()));
    }

    /// Whether the last connection was to the current one.
    pub fn is_the_last_one(&self) -> bool {
        self.last == Some(self.at)
    }

    /// The attempt has failed, or its connection has ended, which was a good one (`was_good`) or not: goes on to the
    /// next one. True when that is to be tried at once: it was not tried since the list was begun. After a good
    /// connection the list is begun anew.
    pub fn advance(&mut self, was_good: bool) -> bool {
        if was_good {
            self.at = 0;
            return self.all.len() > 1;
        }
        self.at = (self.at + 1) % self.all.len();
        self.at > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn brokers(urls: &str) -> Brokers {
        Brokers::new(&urls.parse().unwrap())
    }

    #[test]
    fn the_list_is_tried_in_its_order_and_begun_anew_after_a_connection() {
        let mut brokers = brokers("mqtt://a,mqtt://b,mqtt://c");
        let host = |brokers: &Brokers| brokers.current().address.host.clone();
        assert_eq!(host(&brokers), "a");
        assert!(brokers.advance(false));
        assert_eq!(host(&brokers), "b");
        assert!(!brokers.is_the_last_one());
        brokers.connected();
        assert!(brokers.is_the_last_one());
        assert_eq!(**brokers.url().load(), "mqtt://b:1883");
        assert!(brokers.advance(true));
        assert_eq!(host(&brokers), "a");
        assert!(brokers.advance(false) && brokers.advance(false));
        assert_eq!(host(&brokers), "c");
        assert!(!brokers.advance(false), "all were tried: there is a wait");
        assert_eq!(host(&brokers), "a");
    }

    #[test]
    fn one_broker_alone_is_waited_for() {
        let mut brokers = brokers("mqtt://a");
        assert!(!brokers.advance(true) && !brokers.advance(false));
    }
}
