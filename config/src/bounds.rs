//! Bounds of single values that the range of a key cannot express.

use super::{Refusal, TimeSpan};

/// Refuses a number that is given and not from 1 to `most`.
pub(super) fn out_of_range(key: &str, number: Option<usize>, most: usize) -> Option<Refusal> {
    let number = number.filter(|number| !(1..=most).contains(number))?;
    let refusal = Refusal::new(key, format!("{number} is out of range"));
    Some(refusal.accepting(format!("an integer, 1 to {most}")))
}

/// Refuses a time that is no whole number of seconds.
pub(super) fn fraction_of_seconds(key: &str, time: TimeSpan) -> Option<Refusal> {
    let is_fraction = time.duration().subsec_nanos() != 0;
    let refusal = || Refusal::new(key, format!("{time} is a fraction of seconds")).accepting("whole seconds");
    is_fraction.then(refusal)
}
