//! Values with units: times, rates, bytes, bandwidths.

use std::fmt;

use crate::clock::{MICROSECOND, MILLISECOND, Nanos, SECOND};

const TIME: &[(&str, u64)] = &[
    ("d", 86_400 * SECOND),
    ("h", 3_600 * SECOND),
    ("min", 60 * SECOND),
    ("s", SECOND),
    ("ms", MILLISECOND),
    ("us", MICROSECOND),
    ("ns", 1),
];
const BYTES: &[(&str, u64)] = &[("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];
const BANDWIDTH: &[(&str, u64)] =
    &[("Gbit/s", 1_000_000_000), ("Mbit/s", 1_000_000), ("kbit/s", 1_000), ("bit/s", 1)];

/// A length of time: `"10s"`, `"1.5ms"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(pub Nanos);

/// A number of bytes: `"64B"`, `"2MiB"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub u64);

/// Bits a second: `"10Mbit/s"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bandwidth(pub u64);

/// How often something happens, as the mean time between: `"10/s"`, `"4/h"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rate(pub Nanos);

impl Time {
    /// A century, which nothing here needs: sums of times have room in 64 bits.
    pub const MAX: Self = Self(100 * 366 * 86_400 * SECOND);

    /// What is accepted.
    pub const FORM: &'static str = "a time: a number of ns, us, ms, s, min, h or d";

    /// Reads it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let time = Self(amount(text, "time", TIME)?);
        if time > Self::MAX { Err(format!("{text:?} is longer than a century")) } else { Ok(time) }
    }
}

impl Bytes {
    /// What is accepted.
    pub const FORM: &'static str = "a number of B, KiB, MiB or GiB";

    /// Reads it.
    pub fn parse(text: &str) -> Result<Self, String> {
        amount(text, "number of bytes", BYTES).map(Self)
    }
}

impl Bandwidth {
    /// What is accepted.
    pub const FORM: &'static str = "a bandwidth: a number of bit/s, kbit/s, Mbit/s or Gbit/s";

    /// Reads it.
    pub fn parse(text: &str) -> Result<Self, String> {
        match amount(text, "bandwidth", BANDWIDTH)? {
            0 => Err(format!("{text:?} is no bandwidth")),
            bits => Ok(Self(bits)),
        }
    }
}

impl Rate {
    /// What is accepted.
    pub const FORM: &'static str = "a rate: a number and /s, /min, /h or /d";

    /// Reads it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no rate");
        let (number, unit) = text.split_once('/').ok_or_else(wrong)?;
        let number: f64 = number.trim().parse().map_err(|_| wrong())?;
        let (_, worth) = TIME.iter().find(|(name, _)| *name == unit.trim()).ok_or_else(wrong)?;
        let between = *worth as f64 / number;
        if between >= 1.0 && between <= Time::MAX.0 as f64 {
            Ok(Self(between.round() as Nanos))
        } else {
            Err(format!("{text:?} is out of range"))
        }
    }
}

/// Reads a number, whole or with a point, and its unit, which is required.
fn amount(text: &str, name: &str, units: &[(&str, u64)]) -> Result<u64, String> {
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, unit) = (&text[..end], text[end..].trim_start());
    let known = units.iter().find(|(known, _)| *known == unit);
    let worth = match known {
        _ if number.is_empty() => return Err(format!("{text:?} is no {name}")),
        Some((_, worth)) => *worth,
        None if unit.is_empty() => return Err(format!("{text:?} has no unit")),
        None => return Err(format!("{text:?} has a wrong unit: {unit:?} is no unit of a {name}")),
    };
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(worth).ok_or_else(|| format!("{text:?} is too large"));
    }
    let amount = number.parse::<f64>().map_err(|_| format!("{text:?} is no {name}"))? * worth as f64;
    if amount < u64::MAX as f64 { Ok(amount.round() as u64) } else { Err(format!("{text:?} is too large")) }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_amount(self.0, TIME, "s", f)
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_amount(self.0, BYTES, "B", f)
    }
}

impl fmt::Display for Bandwidth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_amount(self.0, BANDWIDTH, "bit/s", f)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "one in {}", Time(self.0))
    }
}

/// Writes it in the largest unit that divides it, zero in `base`.
fn write_amount(amount: u64, units: &[(&str, u64)], base: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let divides = |(_, worth): &&(&str, u64)| amount >= *worth && amount.is_multiple_of(*worth);
    match units.iter().find(divides) {
        Some((unit, worth)) => write!(f, "{}{unit}", amount / worth),
        None => write!(f, "{amount}{base}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_and_printed() {
        let time = |text: &str| Time::parse(text).unwrap();
        assert_eq!(
            [time("10s"), time("1.5ms"), time("250 us")].map(|time| time.0),
            [10 * SECOND, 1_500_000, 250_000]
        );
        assert_eq!([time("90s"), time("2h"), time("0ms")].map(|time| time.to_string()), ["90s", "2h", "0s"]);
        assert_eq!(Bytes::parse("2KiB").unwrap().0, 2048);
        assert_eq!(Bandwidth::parse("10Mbit/s").unwrap().0, 10_000_000);
        assert_eq!(
            [Rate::parse("10/s").unwrap().0, Rate::parse("0.5/min").unwrap().0],
            [SECOND / 10, 120 * SECOND]
        );
    }

    #[test]
    fn what_is_no_amount_is_refused() {
        for text in ["", "s", "10", "-1s", "10 parsecs", "1.2.3s", "300000d", "99999999999999h"] {
            assert!(Time::parse(text).is_err(), "{text:?}");
        }
        for text in ["10", "0/s", "-1/s", "1/fortnight", "1e30/s", "x/s"] {
            assert!(Rate::parse(text).is_err(), "{text:?}");
        }
        assert!(Bandwidth::parse("0bit/s").is_err() && Bytes::parse("1kB").is_err());
    }
}
