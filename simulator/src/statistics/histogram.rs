//! A histogram of times, whose buckets are at most a 128th of their time wide (log-linear, as G. Tene's HdrHistogram).
//! It is as long as what is in it is wide: an interval of a run has one, and there are many.

use crate::clock::Nanos;

/// Buckets are this much finer than powers of two.
const SUB_BITS: u32 = 7;

/// A histogram of times; see the [module](self).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histogram {
    /// The bucket that is counted first.
    first: usize,
    counts: Vec<u64>,
    count: u64,
    sum: u128,
    max: Nanos,
}

impl Histogram {
    /// Counts a time.
    pub fn record(&mut self, time: Nanos) {
        let bucket = bucket(time);
        match self.counts.get_mut(bucket.wrapping_sub(self.first)) {
            Some(count) => *count += 1,
            None => self.add(bucket, 1),
        }
        self.count += 1;
        self.sum += u128::from(time);
        self.max = self.max.max(time);
    }

    /// Counts all that the other one has counted.
    pub fn merge(&mut self, other: &Self) {
        if let Some(last) = other.counts.len().checked_sub(1) {
            // Both ends first, so that it grows no more than twice.
            self.add(other.first, 0);
            self.add(other.first + last, 0);
        }
        for (at, count) in other.counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            self.add(other.first + at, *count);
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
        let mut seen = 0;
        for (at, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return middle(self.first + at).min(self.max);
            }
        }
        self.max
    }

    /// Each time that was counted, to half a bucket's width, with how many were not longer.
    pub fn cumulative(&self) -> Vec<(Nanos, u64)> {
        let mut seen = 0;
        let counted = self.counts.iter().enumerate().filter(|(_, count)| **count > 0);
        counted
            .map(|(at, count)| {
                seen += count;
                (middle(self.first + at).min(self.max), seen)
            })
            .collect()
    }

    /// Times that were longer than this one, to a bucket's width.
    pub fn longer_than(&self, time: Nanos) -> u64 {
        let first = (bucket(time) + 1).saturating_sub(self.first);
        self.counts.iter().skip(first).sum()
    }

    fn add(&mut self, bucket: usize, count: u64) {
        if self.counts.is_empty() {
            self.first = bucket;
        }
        if bucket < self.first {
            let more = self.first - bucket;
            self.counts.splice(0..0, std::iter::repeat_n(0, more));
            self.first = bucket;
        }
        let at = bucket - self.first;
        if at >= self.counts.len() {
            self.counts.resize(at + 1, 0);
        }
        self.counts[at] += count;
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
