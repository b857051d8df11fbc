//! Sealed requests and answers: what only the asker and the gateway can read, whichever brokers and routers are in
//! between.
//!
//! A request is sealed to the gateway's public key ([`PublicKey::seal`]) and opened with the secret key
//! ([`SecretKey::open`]): single-shot SealBase of HPKE (RFC 9180). Both ends then have the [`AnswerKey`] of this
//! request alone, by which the answer is sealed and opened. Bytes in, bytes out: envelopes, topics' meaning, clocks and
//! files are others'.

mod answer;
mod public;
mod secret;
mod suite;
mod x_wing;

pub use answer::AnswerKey;
pub use public::{PublicKey, Sealed};
pub use secret::{Opened, SecretKey};
pub use suite::Suite;

/// The application's context of every sealed request: HPKE's `info`.
pub const INFO: &[u8] = b"offload-rt request 1";

/// The exporter context of the key of an answer.
pub const ANSWER_CONTEXT: &[u8] = b"offload-rt answer 1";

/// Bytes of the key of an answer.
pub const ANSWER_KEY_BYTES: usize = 32;

/// Bytes of the nonce that a sealed answer begins with.
pub const NONCE_BYTES: usize = 12;

/// Bytes of the tag that a sealed request and a sealed answer end with.
pub const TAG_BYTES: usize = 16;

/// What cannot be opened, sealed or read. It says no more: why a message does not open helps nobody but who forges one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The message was not sealed to this key, on this topic, or is not whole.
    #[error("it cannot be opened")]
    Unopened,
    /// The bytes are no key of this suite.
    #[error("no key of this suite")]
    NoKey,
    /// The system gives no random bytes.
    #[error("the system gives no random bytes")]
    NoRandom,
}

/// Random bytes of the system.
///
/// # Errors
/// If it gives none.
pub fn random<const N: usize>() -> Result<[u8; N], SealError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|_| SealError::NoRandom)?;
    Ok(bytes)
}
