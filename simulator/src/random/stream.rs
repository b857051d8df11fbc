//! A stream of random numbers for each entity. What one device draws changes nothing of what another one draws, so two
//! scenarios with one seed differ by what differs between them (common random numbers: A. M. Law, Simulation Modeling
//! and Analysis, 5th edition, 2015, section 11.2).
//!
//! The generator is PCG XSL 128/64 (M. E. O'Neill, "PCG: A Family of Simple Fast Space-Efficient Statistically Good
//! Algorithms for Random Number Generation", HMC-CS-2014-0905). Logarithms are Rust's own, not the system's: a seed
//! gives the same numbers on each machine.

use rand_core::Rng;
use rand_pcg::Pcg64Mcg;

use super::exponential;
use crate::clock::Nanos;

/// The random numbers of one entity.
#[derive(Clone, Debug)]
pub struct Stream(Pcg64Mcg);

impl Stream {
    /// The stream of the entity that has this number among those of a kind.
    pub fn new(seed: u64, kind: &str, number: u64) -> Self {
        let kind = kind.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let high = mixed(mixed(mixed(seed) ^ kind) ^ number);
        let low = mixed(high ^ mixed(number).rotate_left(17));
        Self(Pcg64Mcg::new(u128::from(high) << 64 | u128::from(low)))
    }

    /// A stream of its own for something that this entity has made: what that draws changes nothing of what the entity
    /// draws next.
    pub fn branch(&mut self) -> Self {
        Self(Pcg64Mcg::new(u128::from(self.bits()) << 64 | u128::from(self.bits())))
    }

    /// 64 random bits.
    #[inline]
    pub fn bits(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// From zero up to, and without, one.
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// From zero up to, and without, `end`; zero where that is zero.
    pub fn below(&mut self, end: u64) -> u64 {
        ((u128::from(self.bits()) * u128::from(end)) >> 64) as u64
    }

    /// True in this part of cases.
    pub fn chance(&mut self, probability: f64) -> bool {
        probability > 0.0 && self.unit() < probability
    }

    /// Exponentially distributed with mean one.
    pub fn exponential(&mut self) -> f64 {
        exponential::floating(exponential::draw(self))
    }

    /// An exponentially distributed time.
    #[inline(always)]
    pub fn exponential_time(&mut self, mean: Nanos) -> Nanos {
        let time = (u128::from(exponential::draw(self)) * u128::from(mean)) >> exponential::FRACTION_BITS;
        Nanos::try_from(time).unwrap_or(Nanos::MAX)
    }

    /// Normally distributed with mean zero and variance one (G. E. P. Box and M. E. Muller, "A Note on the Generation
    /// of Random Normal Deviates", Annals of Mathematical Statistics 29(2), 1958).
    pub fn normal(&mut self) -> f64 {
        let (radius, angle) = (libm::sqrt(2.0 * self.exponential()), std::f64::consts::TAU * self.unit());
        radius * libm::cos(angle)
    }
}

/// SplitMix64's finalizer: each bit of the result depends on each of the argument's (G. L. Steele Jr., D. Lea and C. H.
/// Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014).
fn mixed(of: u64) -> u64 {
    let mut bits = of.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_the_same_for_a_seed_and_differ_otherwise() {
        let bits = |seed, kind, number| Stream::new(seed, kind, number).bits();
        assert_eq!(bits(1, "device", 2), bits(1, "device", 2));
        let all = [bits(1, "device", 2), bits(2, "device", 2), bits(1, "link", 2), bits(1, "device", 3)];
        assert!((1..4).all(|at| !all[..at].contains(&all[at])), "{all:?}");
    }

    #[test]
    fn streams_of_neighbours_do_not_go_together() {
        let mut correlation = 0.0;
        for number in 0..10_000 {
            let unit = |number| Stream::new(5, "device", number).unit() - 0.5;
            correlation += unit(number) * unit(number + 1) * 12.0 / 10_000.0;
        }
        assert!(correlation.abs() < 0.05, "{correlation}");
    }

    #[test]
    fn means_and_variances_are_those_that_are_named() {
        let mut random = Stream::new(3, "test", 0);
        let count = 200_000;
        let mut moments = |draw: fn(&mut Stream) -> f64| {
            let draws: Vec<f64> = (0..count).map(|_| draw(&mut random)).collect();
            let mean = draws.iter().sum::<f64>() / f64::from(count);
            (mean, draws.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / f64::from(count))
        };
        for (draw, mean, variance) in [
            (Stream::unit as fn(&mut Stream) -> f64, 0.5, 1.0 / 12.0),
            (Stream::exponential, 1.0, 1.0),
            (Stream::normal, 0.0, 1.0),
        ] {
            let (found_mean, found_variance) = moments(draw);
            assert!((found_mean - mean).abs() < 0.01, "{found_mean}");
            assert!((found_variance - variance).abs() < 0.03, "{found_variance}");
        }
    }
}
