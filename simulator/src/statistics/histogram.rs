//! A histogram of times, whose buckets are at most a 128th of their time wide (log-linear, as G. Tene's HdrHistogram).
//! It has memory for the powers of two in which times were counted: an interval of a run has one, and there are many.

use crate::clock::Nanos;

/// Buckets are this much finer than powers of two.
const SUB_BITS: u32 = 7;

/// The buckets of one power of two.
const BUCKETS: usize = 1 << SUB_BITS;

/// A histogram of times; see the [module](self).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histogram {
    /// By power of two, up to the largest one in which a time was counted.
    powers: Vec<Option<Box<[u64; BUCKETS]>>>,
    count: u64,
    sum: u128,
    max: Nanos,
}

impl Histogram {
    /// Counts a time.
    #[inline(always)]
    pub fn record(&mut self, time: Nanos) {
        let bucket = bucket(time);
        let counts = match self.powers.get_mut(bucket / BUCKETS) {
            Some(Some(counts)) => counts,
            _ => self.open(bucket / BUCKETS),
        };
        counts[bucket % BUCKETS] += 1;
        self.count += 1;
        self.sum += u128::from(time);
        self.max = self.max.max(time);
    }

    /// Counts all that the other one has counted.
    pub fn merge(&mut self, other: &Self) {
        for (power, more) in other.powers.iter().enumerate() {
            if let Some(more) = more {
                self.open(power).iter_mut().zip(&**more).for_each(|(count, more)| *count += more);
            }
        }
        self.count += other.count;
        self.sum += other.sum;
        self.max = self.max.max(other.max);
    }

    /// Times that were counted.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Their mean, exactly, in nanoseconds; zero without any.
    pub fn mean(&self) -> f64 {
        if self.count == 0 { 0.0 } else { self.sum as f64 / self.count as f64 }
    }

    /// The longest, exactly.
    pub fn max(&self) -> Nanos {
        self.max
    }

    /// The time that this part of all are not longer than, to half a bucket's width; zero without any.
    pub fn quantile(&self, part: f64) -> Nanos {
        let rank = ((part * self.count as f64).ceil() as u64).clamp(1, self.count.max(1));
        let reaches = |(_, seen): &(Nanos, u64)| *seen >= rank;
        self.all_cumulative().find(reaches).map_or(self.max, |(time, _)| time)
    }

    /// Each time that was counted, to half a bucket's width, with how many were not longer.
    pub fn cumulative(&self) -> Vec<(Nanos, u64)> {
        self.all_cumulative().collect()
    }

    /// Times that were longer than this one, to a bucket's width.
    pub fn longer_than(&self, time: Nanos) -> u64 {
        let last = bucket(time);
        self.buckets().filter(|(bucket, _)| *bucket > last).map(|(_, count)| count).sum()
    }

    fn all_cumulative(&self) -> impl Iterator<Item = (Nanos, u64)> {
        self.buckets().scan(0, |seen, (bucket, count)| {
            *seen += count;
            Some((middle(bucket).min(self.max), *seen))
        })
    }

    /// In which times were counted, and how many.
    fn buckets(&self) -> impl Iterator<Item = (usize, u64)> {
        let powers = self.powers.iter().enumerate();
        let opened = powers.filter_map(|(power, counts)| Some((power * BUCKETS, counts.as_deref()?)));
        let of_power = |(first, counts): (usize, &[u64; BUCKETS])| (first..).zip(*counts);
        opened.flat_map(of_power).filter(|(_, count)| *count > 0)
    }

    /// The buckets of a power of two, which are made where there are none.
    #[cold]
    fn open(&mut self, power: usize) -> &mut [u64; BUCKETS] {
        if power >= self.powers.len() {
            self.powers.resize(power + 1, None);
        }
        self.powers[power].get_or_insert_with(|| Box::new([0; BUCKETS]))
    }
}

fn bucket(time: Nanos) -> usize {
    let shift = (64 - time.leading_zeros()).saturating_sub(SUB_BITS + 1);
    ((shift as usize) << SUB_BITS) + (time >> shift) as usize
}

fn middle(bucket: usize) -> Nanos {
    let shift = (bucket >> SUB_BITS).saturating_sub(1);
    let least = ((bucket - (shift << SUB_BITS)) as u64) << shift;
    least + ((1_u64 << shift) >> 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_is_narrow_and_buckets_are_in_order() {
        let mut last = 0;
        for time in (0..2_000)
            .chain((11..63).flat_map(|bit| [(1 << bit) - 1, 1 << bit, (1 << bit) + (1 << (bit - 1))]))
        {
            let (bucket, middle) = (bucket(time), middle(bucket(time)));
            assert!(bucket >= last, "{time}");
            last = bucket;
            assert!(middle.abs_diff(time) * 128 <= time, "{time} {middle}");
        }
    }

    #[test]
    fn quantiles_mean_and_maximum_are_those_of_what_was_counted() {
        let (mut one, mut other) = (Histogram::default(), Histogram::default());
        (1..=500).rev().for_each(|time| one.record(time * 1_000));
        (501..=1_000).for_each(|time| other.record(time * 1_000));
        one.merge(&other);
        assert_eq!((one.count(), one.mean(), one.max()), (1_000, 500_500.0, 1_000_000));
        for (part, is) in [(0.001, 1_000_u64), (0.5, 500_000), (0.99, 990_000), (1.0, 1_000_000)] {
            assert!(one.quantile(part).abs_diff(is) * 100 <= is, "{part} {}", one.quantile(part));
        }
        assert_eq!(one.longer_than(0), 1_000);
        assert!(one.longer_than(900_000).abs_diff(100) < 8 && one.longer_than(1_000_000) == 0);
        assert_eq!(one.cumulative().last().map(|(_, seen)| *seen), Some(1_000));
        assert_eq!((Histogram::default().quantile(0.5), Histogram::default().mean()), (0, 0.0));
    }
}
