//! Whether a request is handed on to another gateway, and to which: sender-initiated load sharing by a threshold, to
//! the least loaded of those that are known (D. L. Eager, E. D. Lazowska and J. Zahorjan, "Adaptive Load Sharing in
//! Homogeneous Distributed Systems", IEEE Transactions on Software Engineering 12(5), 1986).

/// Requests that wait for each worker beyond which a gateway hands on: enough that its workers do not fall idle.
const THRESHOLD: usize = 4;

/// How much busier a gateway is than the one it hands on to, at least: loads are known late, and what is handed on pays
/// for the way.
const ADVANTAGE: usize = 2;

/// How busy a gateway is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GatewayLoad {
    /// Threads that run guests.
    pub workers: usize,
    /// Requests that run or wait.
    pub requests: usize,
    /// Those of them that wait: for a worker, or for their next slice. A gateway with many slots has started all that
    /// it has, and is as late with each of them.
    pub waiting: usize,
}

impl GatewayLoad {
    /// Requests for each worker, as a fraction of two integers that are compared crosswise.
    fn is_busier_than(&self, factor: usize, other: &GatewayLoad) -> bool {
        let (ours, theirs) = (self.requests * other.workers.max(1), other.requests * self.workers.max(1));
        ours > theirs.saturating_mul(factor)
    }
}

/// The gateway to hand a request on to, of those that it may go to; of equally loaded ones the first.
pub fn overflow<G>(own: GatewayLoad, others: impl IntoIterator<Item = (G, GatewayLoad)>) -> Option<G> {
    if own.waiting <= own.workers.max(1) * THRESHOLD {
        return None;
    }
    let mut least: Option<(G, GatewayLoad)> = None;
    for (gateway, load) in others {
        if least.as_ref().is_none_or(|(_, best)| best.is_busier_than(1, &load)) {
            least = Some((gateway, load));
        }
    }
    least
        .filter(|(_, load)| load.workers > 0 && own.is_busier_than(ADVANTAGE, load))
        .map(|(gateway, _)| gateway)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(workers: usize, running: usize, waiting: usize) -> GatewayLoad {
        GatewayLoad { workers, requests: running + waiting, waiting }
    }

    #[test]
    fn a_saturated_gateway_hands_on_to_the_least_loaded() {
        for (own, others, expected) in [
            // Not saturated: its own workers take it.
            (load(2, 2, 8), &[("cloud", load(16, 0, 0))][..], None),
            (load(2, 2, 9), &[("cloud", load(16, 0, 0))], Some("cloud")),
            // By worker, not in all.
            (load(2, 2, 9), &[("fog", load(2, 3, 0)), ("cloud", load(16, 16, 0))], Some("cloud")),
            (load(2, 2, 9), &[("fog", load(2, 1, 0)), ("cloud", load(4, 2, 0))], Some("fog")),
            // As busy, or nearly: nothing is won.
            (load(2, 2, 9), &[("fog", load(2, 2, 4))], None),
            (load(2, 2, 9), &[("fog", load(0, 0, 0))], None),
            (load(2, 2, 9), &[], None),
        ] {
            assert_eq!(overflow(own, others.iter().copied()), expected, "{own:?} {others:?}");
        }
    }
}
