//! The name of all that is sent: which client has sent it, and which of its messages it is.

use std::fmt;
use std::str::FromStr;

/// Bits of the number, where both are one integer.
const NUMBER_BITS: u32 = 32;

/// Written `c3-17`: the 17th of client 3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// The client that sends it.
    pub client: u16,
    /// Counted by client.
    pub number: u32,
}

impl Key {
    /// Both as one integer.
    pub fn in_one(self) -> u64 {
        (u64::from(self.client) << NUMBER_BITS) | u64::from(self.number)
    }

    /// What [`Key::in_one`] has made.
    pub fn from_one(one: u64) -> Key {
        // The casts take the bits that the shift has put there.
        Key { client: (one >> NUMBER_BITS) as u16, number: one as u32 }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "c{}-{}", self.client, self.number)
    }
}

/// The text is no key.
#[derive(Debug)]
pub struct NoKey;

impl FromStr for Key {
    type Err = NoKey;

    fn from_str(text: &str) -> Result<Key, NoKey> {
        let (client, number) = text.strip_prefix('c').and_then(|rest| rest.split_once('-')).ok_or(NoKey)?;
        let client = client.parse().map_err(|_| NoKey)?;
        Ok(Key { client, number: number.parse().map_err(|_| NoKey)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_as_it_is_written() {
        let key = Key { client: 3, number: 17 };
        assert_eq!(key.to_string(), "c3-17");
        assert_eq!("c3-17".parse::<Key>().ok(), Some(key));
        assert_eq!(Key::from_one(key.in_one()), key);
        assert!("3-17".parse::<Key>().is_err());
    }
}
