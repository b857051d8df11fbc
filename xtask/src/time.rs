//! How long something runs, as one types it.

use std::str::FromStr;

/// Whole seconds: `90s`, `20m` or `1h`.
#[derive(Clone, Copy)]
pub struct Span(u64);

impl Span {
    /// How many seconds.
    pub fn seconds(self) -> u64 {
        self.0
    }
}

impl FromStr for Span {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = "expected a number with s, m or h behind it";
        let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or(wrong)?;
        let unit = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3_600,
            _ => return Err(wrong),
        };
        let number: u64 = number.parse().map_err(|_| wrong)?;
        number.checked_mul(unit).map(Self).ok_or(wrong)
    }
}
