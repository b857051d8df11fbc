//! A digest as people name one: in full, or by its first digits.

use std::str::FromStr;

use offload_client::{Digest, StoredModule};

use crate::failure::Failure;

/// What stands before the digits, or does not.
const ALGORITHM: &str = "sha256:";

/// The fewest digits that name a module, as with git.
const FEWEST: usize = 4;

/// The digits of a whole digest.
const DIGITS: usize = 64;

/// How many of those that a prefix fits are told.
const TOLD: usize = 3;

/// The first digits of a digest, in lower case.
#[derive(Clone, Debug, PartialEq)]
pub struct Prefix(String);

impl FromStr for Prefix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.strip_prefix(ALGORITHM).unwrap_or(text);
        let are_digits = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        if are_digits && (FEWEST..=DIGITS).contains(&digits.len()) {
            return Ok(Prefix(digits.to_ascii_lowercase()));
        }
        Err(format!("expected {FEWEST} to {DIGITS} hexadecimal digits of a digest, as in `sha256:5a3f09c2`"))
    }
}

impl Prefix {
    /// The digest, if all of it is here.
    pub fn in_full(&self) -> Option<Digest> {
        format!("{ALGORITHM}{}", self.0).parse().ok()
    }

    /// The one of these modules that it names.
    pub fn find(&self, modules: &[StoredModule]) -> Result<Digest, Failure> {
        let fits = |module: &&StoredModule| module.digest.hex().starts_with(&self.0);
        let found: Vec<Digest> = modules.iter().filter(fits).map(|module| module.digest).collect();
        match &found[..] {
            [digest] => Ok(*digest),
            [] => Err(Failure::new("not-found", format!("{}: no module of yours begins so", self.0))),
            several => {
                let told: Vec<String> = several.iter().take(TOLD).map(Digest::to_string).collect();
                let and_more = if several.len() > TOLD { ", …" } else { "" };
                let told = told.join(", ");
                let problem = format!("{}: {} modules begin so: {told}{and_more}", self.0, several.len());
                Err(Failure::new("malformed", problem))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_names_the_one_module_that_begins_so() {
        let module = |first: u8, second: u8| {
            let mut digest = [0; 32];
            digest[..3].copy_from_slice(&[first, second, 0xc4]);
            StoredModule { digest: Digest(digest), bytes: 1, last_used: 2 }
        };
        let there = [module(0x5a, 0x3f), module(0x5a, 0x40), module(0x5a, 0x40), module(0xab, 0xcd)];
        let find = |prefix: &str| prefix.parse::<Prefix>().unwrap().find(&there);
        for prefix in ["5a3f", "sha256:5a3fc4", "5A3F"] {
            assert_eq!(find(prefix).unwrap(), there[0].digest, "{prefix}");
        }
        assert_eq!(find("5a3e").unwrap_err().kind, "not-found");
        let ambiguous = find("5a40").unwrap_err();
        assert_eq!(ambiguous.kind, "malformed");
        assert!(ambiguous.message.starts_with("5a40: 2 modules begin so: sha256:5a40c4"), "{ambiguous:?}");
        for wrong in ["", "5a3", "xyz0", "sha256:", "sha1:5a3f", &"0".repeat(65), "5a3f ", "+5a3"] {
            assert!(wrong.parse::<Prefix>().is_err(), "{wrong}");
        }
        let whole = Digest([0xab; 32]);
        assert_eq!(whole.to_string().parse::<Prefix>().unwrap().in_full(), Some(whole));
        assert_eq!(whole.hex()[..63].parse::<Prefix>().unwrap().in_full(), None);
    }
}
