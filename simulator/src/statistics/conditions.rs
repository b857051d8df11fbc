//! What is up, beside gateways, interval by interval.

/// What is up at the end of an interval, beside gateways, and what has passed in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conditions {
    /// By site: whether its link is not cut.
    pub sites: Vec<bool>,
    /// By site: requests that it has sent to others and taken from them.
    pub passed: Vec<u64>,
    /// By master: whether it is there.
    pub masters: Vec<bool>,
    /// By kind of devices: whether their link is not cut.
    pub devices: Vec<bool>,
}

impl Conditions {
    /// Adds those of another shard at the same time: sites and masters are all in one, and each kind of devices knows
    /// its own link.
    pub fn merge(&mut self, other: &Self) {
        self.devices.iter_mut().zip(&other.devices).for_each(|(all, of)| *all &= of);
    }
}
