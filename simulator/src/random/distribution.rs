//! Lengths of time that are random: how long guests compute, what a link adds.

use super::Stream;
use crate::clock::Nanos;

/// How a length of time is distributed.
#[derive(Clone, Debug, PartialEq)]
pub enum Distribution {
    /// Always the same.
    Constant(Nanos),
    /// Each length between these is as likely.
    Uniform(Nanos, Nanos),
    /// Without memory, with this mean.
    Exponential(Nanos),
    /// Its logarithm is normal: the median, and the standard deviation of the logarithm.
    Lognormal {
        /// Half are shorter.
        median: Nanos,
        /// 0.5 is a spread as of computations, 2 one with a heavy tail.
        sigma: f64,
    },
    /// With a tail that falls by a power (V. Pareto), cut at the longest.
    Pareto {
        /// The shortest.
        least: Nanos,
        /// The power: at 2 and below the variance has no bound but that of the cut.
        shape: f64,
        /// The longest.
        most: Nanos,
    },
    /// One of several, by their weights, which need not sum up to one.
    Mix(Vec<(f64, Distribution)>),
    /// As it was measured: lengths in ascending order, of which each is as likely.
    Measured(Vec<Nanos>),
    /// As it was measured: quantiles in ascending order, from 0 to 1, between which lengths are interpolated.
    Quantiles(Vec<(f64, Nanos)>),
}

impl Distribution {
    /// A length.
    #[inline(always)]
    pub fn draw(&self, random: &mut Stream) -> Nanos {
        match self {
            Self::Constant(time) => *time,
            Self::Exponential(mean) => random.exponential_time(*mean),
            _ => self.draw_other(random),
        }
    }

    /// What takes longer than a call.
    fn draw_other(&self, random: &mut Stream) -> Nanos {
        match self {
            Self::Constant(_) | Self::Exponential(_) => self.draw(random),
            Self::Uniform(least, most) => least + random.below(most - least + 1),
            Self::Lognormal { median, sigma } => {
                (*median as f64 * libm::exp(sigma * random.normal())) as Nanos
            }
            Self::Pareto { least, shape, most } => {
                let time = *least as f64 * libm::pow(1.0 - random.unit(), -1.0 / shape);
                (time as Nanos).min(*most)
            }
            Self::Mix(parts) => {
                let mut at = random.unit() * parts.iter().map(|(weight, _)| weight).sum::<f64>();
                let chosen = parts.iter().find(|(weight, _)| {
                    at -= weight;
                    at < 0.0
                });
                chosen.or(parts.last()).map_or(0, |(_, part)| part.draw(random))
            }
            Self::Measured(times) => times[random.below(times.len() as u64) as usize],
            Self::Quantiles(quantiles) => interpolated(quantiles, random.unit()),
        }
    }

    /// The mean of many.
    pub fn mean(&self) -> f64 {
        match self {
            Self::Constant(time) | Self::Exponential(time) => *time as f64,
            Self::Uniform(least, most) => (*least as f64 + *most as f64) / 2.0,
            Self::Lognormal { median, sigma } => *median as f64 * libm::exp(sigma * sigma / 2.0),
            Self::Pareto { least, shape, most } => cut_pareto_mean(*least as f64, *shape, *most as f64),
            Self::Mix(parts) => {
                let weight: f64 = parts.iter().map(|(weight, _)| weight).sum();
                parts.iter().map(|(of, part)| of * part.mean()).sum::<f64>() / weight
            }
            Self::Measured(times) => times.iter().map(|time| *time as f64).sum::<f64>() / times.len() as f64,
            Self::Quantiles(quantiles) => quantiles
                .windows(2)
                .map(|pair| (pair[1].0 - pair[0].0) * (pair[0].1 as f64 + pair[1].1 as f64) / 2.0)
                .sum(),
        }
    }
}

fn interpolated(quantiles: &[(f64, Nanos)], at: f64) -> Nanos {
    let above = quantiles.partition_point(|(quantile, _)| *quantile <= at).clamp(1, quantiles.len() - 1);
    let ((from, least), (to, most)) = (quantiles[above - 1], quantiles[above]);
    least + ((at - from) / (to - from) * (most - least) as f64) as Nanos
}

fn cut_pareto_mean(least: f64, shape: f64, most: f64) -> f64 {
    let at_the_cut = libm::pow(least / most, shape);
    let below_the_cut = if shape == 1.0 {
        least * libm::log(most / least)
    } else {
        shape / (shape - 1.0) * (least - most * at_the_cut)
    };
    below_the_cut + most * at_the_cut
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_of_many_draws_is_the_mean() {
        let mix = vec![(3.0, Distribution::Constant(10)), (1.0, Distribution::Exponential(1_000))];
        for distribution in [
            Distribution::Constant(70),
            Distribution::Uniform(100, 300),
            Distribution::Exponential(1_000_000),
            Distribution::Lognormal { median: 1_000_000, sigma: 0.5 },
            Distribution::Pareto { least: 1_000_000, shape: 2.5, most: 100_000_000 },
            Distribution::Pareto { least: 1_000_000, shape: 1.0, most: 9_000_000 },
            Distribution::Mix(mix),
            Distribution::Measured(vec![10, 20, 60]),
            Distribution::Quantiles(vec![(0.0, 100), (0.5, 200), (0.99, 400), (1.0, 2_000)]),
        ] {
            let mut random = Stream::new(1, "distribution", 0);
            let count = 300_000;
            let mean =
                (0..count).map(|_| distribution.draw(&mut random) as f64).sum::<f64>() / f64::from(count);
            let is = distribution.mean();
            assert!((mean - is).abs() < 0.02 * is, "{mean} {is} {distribution:?}");
        }
    }
}
