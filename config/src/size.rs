//! Sizes in bytes, as people write them.

use super::quantity::Quantity;
use super::table::{Setting, quoted};
use serde::de::{self, Deserialize, Deserializer, Visitor};
use std::fmt;
use std::str::FromStr;

const SIZE: Quantity = Quantity {
    name: "size",
    units: &[
        ("GiB", 1 << 30),
        ("GB", 1_000_000_000),
        ("MiB", 1 << 20),
        ("MB", 1_000_000),
        ("KiB", 1 << 10),
        ("KB", 1000),
        ("B", 1),
    ],
};

/// A number of bytes: `"64MiB"`, `"64KB"`, `"10B"`, or a plain integer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(u64);

impl ByteSize {
    /// Number of bytes.
    pub const fn new(bytes: u64) -> ByteSize {
        ByteSize(bytes)
    }

    /// Times 1024 bytes.
    pub const fn kib(count: u64) -> ByteSize {
        ByteSize(count << 10)
    }

    /// Times 1024² bytes.
    pub const fn mib(count: u64) -> ByteSize {
        ByteSize(count << 20)
    }

    /// Times 1024³ bytes.
    pub const fn gib(count: u64) -> ByteSize {
        ByteSize(count << 30)
    }

    /// Number of bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// Number of bytes as an index; the largest one where it does not fit.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        SIZE.write(self.0, "B", f)
    }
}

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        SIZE.parse(text).map(ByteSize)
    }
}

impl Setting for ByteSize {
    const FORM: &'static str = "a size (a whole number of B, KB, KiB, MB, MiB, GB or GiB)";
    fn to_toml(&self) -> Option<String> {
        Some(quoted(self))
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Written;
        impl Visitor<'_> for Written {
            type Value = ByteSize;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size")
            }

            fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<ByteSize, E> {
                u64::try_from(bytes).map(ByteSize).map_err(|_| E::custom(format!("{bytes} is no size")))
            }

            fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<ByteSize, E> {
                Ok(ByteSize(bytes))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<ByteSize, E> {
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
    fn sizes_are_read_and_printed() {
        for (text, bytes, printed) in [
            ("64MiB", 64 << 20, "64MiB"),
            ("64KB", 64_000, "64KB"),
            ("1024 KiB", 1 << 20, "1MiB"),
            ("0B", 0, "0B"),
            ("1500B", 1500, "1500B"),
            ("4GiB", 4 << 30, "4GiB"),
        ] {
            let size: ByteSize = text.parse().unwrap();
            assert_eq!((size.bytes(), size.to_string().as_str()), (bytes, printed), "{text}");
            assert_eq!(size.to_string().parse(), Ok(size));
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in ["", "MiB", "-1MiB", "1.5MiB", "1", "1mib", "1Mi", "10s", "1MiB2", "99999999999GiB"] {
            assert!(text.parse::<ByteSize>().is_err(), "{text:?}");
        }
    }
}
