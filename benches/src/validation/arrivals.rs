//! When requests are due: a Poisson process, the same for a seed.

use offload_simulator::random::Stream;
use std::time::Duration;

/// Times in ascending order, at this many a second in the mean.
pub fn poisson(per_second: f64, length: Duration, seed: u64) -> Vec<Duration> {
    let mut random = Stream::new(seed, "validation", 0);
    let mut at = 0.0;
    let times = std::iter::from_fn(|| {
        at += random.exponential() / per_second;
        Some(Duration::from_secs_f64(at))
    });
    times.take_while(|at| *at < length).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrivals_are_as_many_as_they_should_be_and_the_same_for_a_seed() {
        let of = |seed| poisson(1_000.0, Duration::from_secs(10), seed);
        let times = of(1);
        assert!((9_700..10_300).contains(&times.len()), "{}", times.len());
        assert!(times.is_sorted());
        assert_eq!(times, of(1));
        assert_ne!(times, of(2));
    }
}
