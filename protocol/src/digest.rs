//! The SHA-256 of a module, as `sha256:<64 hex>`, which stands in for the module itself.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};

use crate::error::WireError;

const PREFIX: &str = "sha256:";

/// A module's SHA-256.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The digest of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// Its 64 hexadecimal digits alone, in lower case: fit for a file's name.
    pub fn hex(&self) -> String {
        self.to_string().split_off(PREFIX.len())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(PREFIX)?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl FromStr for Digest {
    type Err = WireError;

    /// Fails with `malformed` on anything but `sha256:` and 64 hexadecimal digits, of either case.
    fn from_str(text: &str) -> Result<Self, WireError> {
        let refused = || WireError::malformed("digest", "expected `sha256:` and 64 hexadecimal digits");
        let digits = text.strip_prefix(PREFIX).filter(|digits| digits.len() == 64).ok_or_else(refused)?;
        let mut digest = [0; 32];
        for (byte, pair) in digest.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
            // `from_str_radix` alone would take a leading `+`.
            let pair = str::from_utf8(pair).ok().filter(|pair| !pair.starts_with('+')).ok_or_else(refused)?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| refused())?;
        }
        Ok(Self(digest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_sha_256() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Digest::of(b"").hex(), empty);
    }

    #[test]
    fn a_digest_is_read_back_and_nothing_else_is_one() {
        let text = format!("sha256:{}", "0aF9".repeat(16));
        let digest: Digest = text.parse().unwrap();
        assert_eq!((digest.0[0], digest.0[31]), (0x0a, 0xf9));
        assert_eq!(digest.to_string(), text.to_lowercase());
        assert_eq!(digest.hex(), text[7..].to_lowercase());
        for other in [
            "",
            "sha256:",
            &text[7..],
            &text[..70],
            &format!("{text}0"),
            &text.replace("sha256", "SHA256"),
            &text.replace('a', "g"),
            &text.replace("0a", "+a"),
            &format!("sha256:0{}a", "ä".repeat(31)),
        ] {
            assert!(other.parse::<Digest>().is_err(), "{other}");
        }
    }
}
