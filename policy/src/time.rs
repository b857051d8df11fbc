//! Points in time, and lengths of it.

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Div, DivAssign, Mul, Sub};
use std::time::Duration;

/// A point in time: how long after a start that the driver chose once, for all parts. It never goes backwards. Or a
/// length of time. In nanoseconds, of which there are 584 years.
///
/// It does what a [`Duration`] does, in one number and not in two: a request's way through the
/// [`Dispatcher`](crate::Dispatcher) compares and adds some thirty times.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(u64);

impl Time {
    /// The start; no length.
    pub const ZERO: Self = Self(0);

    /// Later than all others: never.
    pub const MAX: Self = Self(u64::MAX);

    /// This many nanoseconds.
    #[inline]
    pub const fn from_nanos(nanoseconds: u64) -> Self {
        Self(nanoseconds)
    }

    /// This many microseconds; [`MAX`](Self::MAX) where that is more than there are.
    pub const fn from_micros(microseconds: u64) -> Self {
        Self(microseconds.saturating_mul(1_000))
    }

    /// This many milliseconds; [`MAX`](Self::MAX) where that is more than there are.
    pub const fn from_millis(milliseconds: u64) -> Self {
        Self(milliseconds.saturating_mul(1_000_000))
    }

    /// This many seconds; [`MAX`](Self::MAX) where that is more than there are.
    pub const fn from_secs(seconds: u64) -> Self {
        Self(seconds.saturating_mul(1_000_000_000))
    }

    /// In nanoseconds.
    #[inline]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// In whole microseconds.
    #[inline]
    pub const fn as_micros(self) -> u64 {
        self.0 / 1_000
    }

    /// In whole milliseconds.
    #[inline]
    pub const fn as_millis(self) -> u64 {
        self.0 / 1_000_000
    }

    /// In seconds.
    pub fn as_secs_f64(self) -> f64 {
        self.0 as f64 / 1e9
    }

    /// Whether it is the start, or no length.
    #[inline]
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// Both together; [`MAX`](Self::MAX) where that is more than there is.
    #[inline]
    pub const fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// This many times as long; [`MAX`](Self::MAX) where that is more than there is.
    pub const fn saturating_mul(self, times: u32) -> Self {
        Self(self.0.saturating_mul(times as u64))
    }

    /// The length from `earlier` on; none where that is later.
    #[inline]
    pub const fn saturating_sub(self, earlier: Self) -> Self {
        Self(self.0.saturating_sub(earlier.0))
    }

    /// How far apart both are.
    pub const fn abs_diff(self, other: Self) -> Self {
        Self(self.0.abs_diff(other.0))
    }
}

impl Add for Time {
    type Output = Self;

    /// # Panics
    /// If there is not so much time.
    #[inline]
    fn add(self, other: Self) -> Self {
        Self(self.0.checked_add(other.0).expect("a time within 584 years"))
    }
}

impl AddAssign for Time {
    #[inline]
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sub for Time {
    type Output = Self;

    /// # Panics
    /// If the other one is later.
    #[inline]
    fn sub(self, other: Self) -> Self {
        Self(self.0.checked_sub(other.0).expect("a time that is not before the start"))
    }
}

impl Mul<u32> for Time {
    type Output = Self;

    /// # Panics
    /// If there is not so much time.
    #[inline]
    fn mul(self, times: u32) -> Self {
        Self(self.0.checked_mul(times.into()).expect("a time within 584 years"))
    }
}

impl Sum for Time {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::ZERO, Add::add)
    }
}

impl Div<u32> for Time {
    type Output = Self;

    #[inline]
    fn div(self, parts: u32) -> Self {
        Self(self.0 / u64::from(parts))
    }
}

impl DivAssign<u32> for Time {
    #[inline]
    fn div_assign(&mut self, parts: u32) {
        *self = *self / parts;
    }
}

/// [`Time::MAX`] where it is longer than there is time.
impl From<Duration> for Time {
    #[inline]
    fn from(duration: Duration) -> Self {
        let seconds = duration.as_secs().saturating_mul(1_000_000_000);
        Self(seconds.saturating_add(duration.subsec_nanos().into()))
    }
}

impl From<Time> for Duration {
    #[inline]
    fn from(time: Time) -> Self {
        Duration::from_nanos(time.0)
    }
}

impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Duration::from(*self).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_longer_than_time_is_never() {
        for never in
            [Duration::MAX.into(), Time::from_secs(u64::MAX), Time::from_nanos(1).saturating_add(Time::MAX)]
        {
            assert_eq!(never, Time::MAX);
        }
        assert_eq!(Time::ZERO.saturating_sub(Time::MAX), Time::ZERO);
    }

    proptest! {
        /// It calculates as a `Duration` does, and looks like one.
        #[test]
        fn it_is_a_duration(one in 0..u64::MAX / 8, other in 0..u64::MAX / 8, parts in 1..8_u32) {
            let (one, other) = (one.max(other), one.min(other));
            let times = [one, other].map(Time::from_nanos);
            let durations = times.map(Duration::from);
            prop_assert_eq!(durations.map(Time::from), times);
            let ([time, less], [duration, shorter]) = (times, durations);
            let calculated = [time + less, time - less, less.saturating_sub(time), time * parts, time / parts];
            let expected =
                [duration + shorter, duration - shorter, Duration::ZERO, duration * parts, duration / parts];
            prop_assert_eq!(calculated.map(Duration::from), expected);
            prop_assert_eq!(u128::from(time.as_millis()), duration.as_millis());
            prop_assert_eq!(u128::from(time.as_micros()), duration.as_micros());
            prop_assert_eq!(format!("{time:?}"), format!("{duration:?}"));
            prop_assert!((time.as_secs_f64() - duration.as_secs_f64()).abs() <= duration.as_secs_f64() * 1e-9);
        }
    }
}
