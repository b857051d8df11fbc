//! ConnectionLimits for connections: how many there are, in all and for one source address.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use parking_lot::Mutex;

use crate::{config::Config, core::Core, quotas::account};

/// Connections over a limit that are heard until they can be told so; more are closed at once.
const REFUSED_AT_A_TIME: usize = 64;

/// What is taken. It holds memory for the addresses that are connected, and no others.
#[derive(Default)]
pub(crate) struct ConnectionLimits(Mutex<Taken>);

#[derive(Default)]
struct Taken {
    admitted: usize,
    /// Over a limit, to be told so.
    refused: usize,
    by_source: HashMap<IpAddr, usize>,
}

impl ConnectionLimits {
    /// How a connection from this address may go on; `None` if not at all.
    fn take(&self, source: Option<IpAddr>, config: &Config) -> Option<Admittance> {
        let taken = &mut *self.0.lock();
        let from_source = source.and_then(|source| taken.by_source.get(&source)).copied().unwrap_or(0);
        if taken.admitted < config.max_connections && from_source < config.max_connections_per_address {
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
        let taken = &mut *self.0.lock();
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
    core: Arc<Core>,
    admittance: Admittance,
}

impl ConnectionPermit {
    pub fn take(core: &Arc<Core>, peer: IpAddr) -> Option<Self> {
        let admittance = core.connection_limits.take(source(peer), &core.config)?;
        core.counters.connections.fetch_add(1, Relaxed);
        Some(Self { core: core.clone(), admittance })
    }

    pub fn over_limit(&self) -> bool {
        self.admittance == Admittance::Refused
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.core.counters.connections.fetch_sub(1, Relaxed);
        self.core.connection_limits.give_back(self.admittance);
    }
}

/// Whose share a connection counts for. What comes from this machine, where a proxy or a whole fleet under test may be,
/// counts for nobody.
fn source(peer: IpAddr) -> Option<IpAddr> {
    (!peer.to_canonical().is_loopback()).then(|| account::source(peer))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::application::NoApplication;

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
        let connection_limits = ConnectionLimits::default();
        let (one, other) = (source(address("192.0.2.1")), source(address("192.0.2.2")));
        let take = |source| connection_limits.take(source, &config);
        assert_eq!([take(one), take(one)], [Some(Admittance::Admitted(one)); 2]);
        for _ in 0..REFUSED_AT_A_TIME {
            assert_eq!(take(one), Some(Admittance::Refused));
        }
        assert_eq!(take(one), None);
        // Others have theirs as long as there are places at all.
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
        let taken = connection_limits.0.lock();
        assert_eq!((taken.admitted, taken.refused, taken.by_source.len()), (0, 0, 0));
    }

    #[test]
    fn a_place_is_counted_until_it_is_dropped() {
        let config = Config { max_connections_per_address: 1, ..Config::default() };
        let core = Arc::new(Core::new(config, Arc::new(NoApplication)));
        let take = || ConnectionPermit::take(&core, address("192.0.2.1")).unwrap();
        let (first, second) = (take(), take());
        assert_eq!([first.over_limit(), second.over_limit()], [false, true]);
        assert_eq!(core.stats().connections, 2);
        drop(first);
        assert!(!take().over_limit());
        drop(second);
        assert_eq!(core.stats().connections, 0);
        let loopback: Vec<_> =
            (0..100).map(|_| ConnectionPermit::take(&core, address("::1")).unwrap()).collect();
        assert!(!loopback.iter().any(ConnectionPermit::over_limit));
    }

    #[test]
    fn many_sources_that_came_and_went_give_their_memory_back() {
        let config = Config::default();
        let connection_limits = ConnectionLimits::default();
        let sources: Vec<_> = (0..10_000u32).map(|at| Some(IpAddr::from(at.to_be_bytes()))).collect();
        let standings: Vec<_> =
            sources.iter().map(|source| connection_limits.take(*source, &config).unwrap()).collect();
        for admittance in standings {
            connection_limits.give_back(admittance);
        }
        assert!(connection_limits.0.lock().by_source.capacity() < 1_000);
    }
}
