//! The suites: which algorithms a request is sealed with.

use std::fmt;
use std::str::FromStr;

use hpke::aead::ChaCha20Poly1305;
use hpke::kdf::HkdfSha256;
use hpke::kem::{X25519HkdfSha256, XWing};
use hpke::{Kem, Serializable};

/// The AEAD of both suites.
pub(crate) type Aead = ChaCha20Poly1305;
/// The KDF of both suites.
pub(crate) type Kdf = HkdfSha256;
/// The KEM for small devices.
pub(crate) type X25519 = X25519HkdfSha256;

/// The algorithms of a key, and of what is sealed to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Suite {
    /// DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20-Poly1305.
    X25519,
    /// X-Wing (X25519 with ML-KEM-768), HKDF-SHA256, ChaCha20-Poly1305: for whom a future quantum computer matters.
    XWing,
}

impl Suite {
    /// All of them, the one that every client has first.
    pub const ALL: [Suite; 2] = [Suite::X25519, Suite::XWing];

    /// Its name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Suite::X25519 => "x25519-sha256-chacha20poly1305",
            Suite::XWing => "xwing-sha256-chacha20poly1305",
        }
    }

    /// Bytes of what is encapsulated with each request.
    pub fn encapsulated_bytes(self) -> usize {
        match self {
            Suite::X25519 => <X25519 as Kem>::EncappedKey::size(),
            Suite::XWing => <XWing as Kem>::EncappedKey::size(),
        }
    }
}

impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that names no suite.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no suite of this name")]
pub struct NoSuite;

impl FromStr for Suite {
    type Err = NoSuite;

    fn from_str(name: &str) -> Result<Suite, NoSuite> {
        Suite::ALL.into_iter().find(|suite| suite.as_str() == name).ok_or(NoSuite)
    }
}
