//! How many connections there may be, in all and for one source address.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use parking_lot::Mutex;

use crate::{config::Config, quotas::account};

/// Connections over a limit that are heard until they can be told so; more are closed at once.
const REFUSED_AT_A_TIME: usize = 64;

/// The limits, and what is taken. It holds memory for the addresses that are connected, and no others.
pub(crate) struct ConnectionLimits {
    max_connections: usize,
    max_connections_per_address: usize,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    admitted: usize,
    /// Over a limit, to be told so.
    refused: usize,
    by_source: HashMap<IpAddr, usize>,
}

impl ConnectionLimits {
    pub fn new(config: &Config) -> Self {
        Self {
            max_connections: config.max_connections,
            max_connections_per_address: config.max_connections_per_address,
            taken: Mutex::default(),
        }
    }

    /// Connections that hold a permit.
    pub fn open(&self) -> usize {
        let taken = &*self.taken.lock();
        taken.admitted + taken.refused
    }

    /// The permit of a connection from this address; `None` if it is to be closed at once.
    pub fn permit(self: &Arc<Self>, peer: IpAddr) -> Option<ConnectionPermit> {
        let admittance = self.take(source(peer))?;
        Some(ConnectionPermit { limits: self.clone(), admittance })
    }

    /// How a connection from this address may go on; `None` if not at all.
    fn take(&self, source: Option<IpAddr>) -> Option<Admittance> {
        let taken = &mut *self.taken.lock();
        let from_source = source.and_then(|source| taken.by_source.get(&source)).copied().unwrap_or(0);
        if taken.admitted < self.max_connections && from_source < self.max_connections_per_address {
            taken.admitted += 1;
            if let Some(source) = source {
                taken.by_source.insert(source, from_source + 1);
            }
            Some(Admittance::Admitted(source))
        } else if taken.refused < REFUSED_AT_A_TIME {
            taken.refused += 1;
            Some(Admittance::Refused)
        } else {
            None
        }
    }

    fn give_back(&self, admittance: Admittance) {
        let taken = &mut *self.taken.lock();
        let source = match admittance {
            Admittance::Refused => {
                taken.refused -= 1;
                return;
            }
            Admittance::Admitted(source) => source,
        };
        taken.admitted -= 1;
        if let Some(source) = source
            && let Some(count) = taken.by_source.get_mut(&source)
        {
            *count -= 1;
            if *count == 0 {
                taken.by_source.remove(&source);
                if taken.by_source.capacity() > 4 * taken.by_source.len().max(64) {
                    taken.by_source.shrink_to_fit();
                }
            }
        }
    }
}

/// How a connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Admittance {
    /// Counted for this source, if for any.
    Admitted(Option<IpAddr>),
    /// Over a limit: only to be told so.
    Refused,
}

/// A connection's permit, given back when dropped.
pub(crate) struct ConnectionPermit {
    limits: Arc<ConnectionLimits>,
    admittance: Admittance,
}

impl ConnectionPermit {
    /// Whether the connection is over a limit, and only to be told so.
    pub fn over_limit(&self) -> bool {
        self.admittance == Admittance::Refused
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.limits.give_back(self.admittance);
    }
}

/// Whose share a connection counts for. What comes from this machine, where a proxy or a whole fleet under test may be,
/// counts for no address.
fn source(peer: IpAddr) -> Option<IpAddr> {
    (!peer.to_canonical().is_loopback()).then(|| account::source(peer))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn loopback_is_nobody() {
        assert!(source(address("::ffff:192.0.2.1")).is_some());
        for loopback in ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"] {
            assert_eq!(source(address(loopback)), None);
        }
    }

    #[test]
    fn a_source_has_its_share_and_leaves_nothing_behind() {
        let config = Config { max_connections: 5, max_connections_per_address: 2, ..Config::default() };
        let connection_limits = ConnectionLimits::new(&config);
        let (one, other) = (source(address("192.0.2.1")), source(address("192.0.2.2")));
        let take = |source| connection_limits.take(source);
        assert_eq!([take(one), take(one)], [Some(Admittance::Admitted(one)); 2]);
        for _ in 0..REFUSED_AT_A_TIME {
            assert_eq!(take(one), Some(Admittance::Refused));
        }
        assert_eq!(take(one), None);
        // Others have theirs as long as there are permits at all.
        assert_eq!(take(other), Some(Admittance::Admitted(other)));
        assert_eq!([take(None), take(None)], [Some(Admittance::Admitted(None)); 2]);
        assert_eq!(take(None), None);
        connection_limits.give_back(Admittance::Refused);
        assert_eq!(take(other), Some(Admittance::Refused));
        // What is given back can be taken again.
        connection_limits.give_back(Admittance::Admitted(one));
        assert_eq!(take(one), Some(Admittance::Admitted(one)));

        for admittance in [one, one, other, None, None].map(Admittance::Admitted) {
            connection_limits.give_back(admittance);
        }
        for _ in 0..REFUSED_AT_A_TIME {
            connection_limits.give_back(Admittance::Refused);
        }
        let taken = connection_limits.taken.lock();
        assert_eq!((taken.admitted, taken.refused, taken.by_source.len()), (0, 0, 0));
    }

    #[test]
    fn a_permit_is_counted_until_it_is_dropped() {
        let config = Config { max_connections_per_address: 1, ..Config::default() };
        let connection_limits = Arc::new(ConnectionLimits::new(&config));
        let take = || connection_limits.permit(address("192.0.2.1")).unwrap();
        let (first, second) = (take(), take());
        assert_eq!([first.over_limit(), second.over_limit()], [false, true]);
        assert_eq!(connection_limits.open(), 2);
        drop(first);
        assert!(!take().over_limit());
        drop(second);
        assert_eq!(connection_limits.open(), 0);
        let loopback: Vec<_> = (0..100).map(|_| connection_limits.permit(address("::1")).unwrap()).collect();
        assert!(!loopback.iter().any(ConnectionPermit::over_limit));
    }

    #[test]
    fn many_sources_that_came_and_went_give_their_memory_back() {
        let config = Config::default();
        let connection_limits = ConnectionLimits::new(&config);
        let sources: Vec<_> = (0..10_000u32).map(|at| Some(IpAddr::from(at.to_be_bytes()))).collect();
        let admittances: Vec<_> =
            sources.iter().map(|source| connection_limits.take(*source).unwrap()).collect();
        for admittance in admittances {
            connection_limits.give_back(admittance);
        }
        assert!(connection_limits.taken.lock().by_source.capacity() < 1_000);
    }
}
