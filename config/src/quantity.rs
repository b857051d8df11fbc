//! A whole number and its unit.

use std::fmt;

/// A kind of quantity: its name, and its units with what they are worth, the largest first.
pub(super) struct Quantity {
    pub name: &'static str,
    pub units: &'static [(&'static str, u64)],
}

impl Quantity {
    /// Reads `64MiB`: the unit is required.
    pub fn parse(&self, text: &str) -> Result<u64, String> {
        let name = self.name;
        let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = (&text[..end], text[end..].trim_start());
        let number = number.parse::<u64>().map_err(|_| format!("{text:?} is no {name}"))?;
        let known = self.units.iter().find(|(known, _)| *known == unit);
        match known {
            Some((_, worth)) => number.checked_mul(*worth).ok_or_else(|| format!("{text:?} is too large")),
            None if unit.is_empty() => Err(format!("{text:?} has no unit")),
            None => Err(format!("{text:?} has a wrong unit: {unit:?} is no unit of {name}")),
        }
    }

    /// Writes `amount` in the largest unit that divides it, zero in `base`.
    pub fn write(&self, amount: u64, base: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let divides = |(_, worth): &&(&str, u64)| amount >= *worth && amount.is_multiple_of(*worth);
        match self.units.iter().find(divides) {
            Some((unit, worth)) => write!(f, "{}{unit}", amount / worth),
            None => write!(f, "{amount}{base}"),
        }
    }
}
