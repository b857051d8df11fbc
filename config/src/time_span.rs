//! Lengths of time, as people write them.

use super::quantity::Quantity;
use super::table::{Setting, quoted};
use serde::{Deserialize, Deserializer, de};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Units in nanoseconds.
const TIME: Quantity = Quantity {
    name: "time",
    units: &[
        ("h", 3_600_000_000_000),
        ("min", 60_000_000_000),
        ("s", 1_000_000_000),
        ("ms", 1_000_000),
        ("us", 1000),
        ("ns", 1),
    ],
};

/// A length of time: `"10s"`, `"500ms"`, `"250us"`. At most 584 years, exact to the nanosecond.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TimeSpan {
    nanos: u64,
}

impl TimeSpan {
    /// No time at all.
    pub const ZERO: TimeSpan = TimeSpan { nanos: 0 };

    /// Whole seconds.
    pub const fn secs(count: u64) -> TimeSpan {
        TimeSpan { nanos: count * 1_000_000_000 }
    }

    /// Whole milliseconds.
    pub const fn millis(count: u64) -> TimeSpan {
        TimeSpan { nanos: count * 1_000_000 }
    }

    /// Whole microseconds.
    pub const fn micros(count: u64) -> TimeSpan {
        TimeSpan { nanos: count * 1000 }
    }

    /// The same time as the standard library has it.
    pub const fn duration(self) -> Duration {
        Duration::from_nanos(self.nanos)
    }
}

impl From<TimeSpan> for Duration {
    fn from(span: TimeSpan) -> Duration {
        span.duration()
    }
}

impl fmt::Display for TimeSpan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        TIME.write(self.nanos, "s", f)
    }
}

impl FromStr for TimeSpan {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        TIME.parse(text).map(|nanos| TimeSpan { nanos })
    }
}

impl Setting for TimeSpan {
    const FORM: &'static str = "a time (a whole number of ns, us, ms, s, min or h)";
    fn to_toml(&self) -> Option<String> {
        Some(quoted(self))
    }
}

impl<'de> Deserialize<'de> for TimeSpan {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Written;
        impl de::Visitor<'_> for Written {
            type Value = TimeSpan;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a time")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<TimeSpan, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_and_printed() {
        for (text, micros, printed) in [
            ("10s", 10_000_000, "10s"),
            ("500ms", 500_000, "500ms"),
            ("250us", 250, "250us"),
            ("1000 ms", 1_000_000, "1s"),
            ("90s", 90_000_000, "90s"),
            ("2min", 120_000_000, "2min"),
            ("0s", 0, "0s"),
            ("0ms", 0, "0s"),
        ] {
            let span: TimeSpan = text.parse().unwrap();
            assert_eq!((span.duration().as_micros(), span.to_string().as_str()), (micros, printed), "{text}");
            assert_eq!(span.to_string().parse(), Ok(span));
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in ["", "s", "-1s", "1.5s", "10", "10S", "64MiB", "10s5", "99999999999999h"] {
            assert!(text.parse::<TimeSpan>().is_err(), "{text:?}");
        }
    }
}
