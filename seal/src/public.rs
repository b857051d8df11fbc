//! A gateway's public key, to which requests are sealed.

use std::fmt;

use hpke::kem::XWing;
use hpke::rand_core::CryptoRng;
use hpke::{Deserializable, Kem, OpModeS, Serializable, setup_sender_with_rng};
use offload_protocol::digest::Digest;
use zeroize::Zeroizing;

use crate::suite::{Aead, Kdf, X25519};
use crate::{ANSWER_CONTEXT, ANSWER_KEY_BYTES, AnswerKey, INFO, SealError, Suite, random};

/// A public key of a gateway.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey {
    suite: Suite,
    bytes: Box<[u8]>,
}

/// A request that was sealed.
pub struct Sealed {
    /// HPKE's `enc`.
    pub encapsulated: Vec<u8>,
    /// Ciphertext and tag.
    pub ciphertext: Vec<u8>,
    /// Opens its answer.
    pub answer_key: AnswerKey,
}

impl PublicKey {
    /// A key of this suite, as RFC 9180 serialises it.
    ///
    /// # Errors
    /// If the bytes are no such key.
    pub fn new(suite: Suite, bytes: &[u8]) -> Result<PublicKey, SealError> {
        let is_key = match suite {
            Suite::X25519 => <X25519 as Kem>::PublicKey::from_bytes(bytes).is_ok(),
            Suite::XWing => <XWing as Kem>::PublicKey::from_bytes(bytes).is_ok(),
        };
        if is_key { Ok(PublicKey { suite, bytes: bytes.into() }) } else { Err(SealError::NoKey) }
    }

    /// Its suite.
    pub fn suite(&self) -> Suite {
        self.suite
    }

    /// As RFC 9180 serialises it.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The SHA-256 of it, by which requests and people name it.
    pub fn fingerprint(&self) -> Digest {
        Digest::of(&self.bytes)
    }

    /// Seals a request that is published on `topic`.
    ///
    /// # Errors
    /// If the system gives no random bytes.
    pub fn seal(&self, plaintext: &[u8], topic: &str) -> Result<Sealed, SealError> {
        // 64 bytes: what X-Wing takes; X25519 takes the first 32.
        let seed = Zeroizing::new(random::<64>()?);
        self.seal_with_rng(plaintext, topic.as_bytes(), INFO, ANSWER_CONTEXT, &mut Seed(&seed[..]))
    }

    /// The same with other contexts and a random generator of the caller's: for test vectors and simulations alone.
    #[doc(hidden)]
    pub fn seal_with_rng(
        &self,
        plaintext: &[u8],
        aad: &[u8],
        info: &[u8],
        exporter_context: &[u8],
        rng: &mut impl CryptoRng,
    ) -> Result<Sealed, SealError> {
        match self.suite {
            Suite::X25519 => seal::<X25519>(&self.bytes, plaintext, aad, info, exporter_context, rng),
            Suite::XWing => seal::<XWing>(&self.bytes, plaintext, aad, info, exporter_context, rng),
        }
    }
}

fn seal<K: Kem>(
    key: &[u8],
    plaintext: &[u8],
    aad: &[u8],
    info: &[u8],
    exporter_context: &[u8],
    rng: &mut impl CryptoRng,
) -> Result<Sealed, SealError> {
    let key = K::PublicKey::from_bytes(key).map_err(|_| SealError::NoKey)?;
    let (encapsulated, mut context) = setup_sender_with_rng::<Aead, Kdf, K>(&OpModeS::Base, &key, info, rng)
        .map_err(|_| SealError::NoKey)?;
    let ciphertext = context.seal(plaintext, aad).map_err(|_| SealError::NoKey)?;
    let mut answer_key = Zeroizing::new([0; ANSWER_KEY_BYTES]);
    context.export(exporter_context, &mut answer_key[..]).map_err(|_| SealError::NoKey)?;
    Ok(Sealed {
        encapsulated: encapsulated.to_bytes().to_vec(),
        ciphertext,
        answer_key: AnswerKey::new(&answer_key),
    })
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.suite, self.fingerprint())
    }
}

/// Random bytes that were drawn before, so that a system without any is an error and no panic.
struct Seed<'a>(&'a [u8]);

impl hpke::rand_core::TryRng for Seed<'_> {
    type Error = std::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        let mut bytes = [0; 4];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        let mut bytes = [0; 8];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Self::Error> {
        let (taken, left) = self.0.split_at_checked(bytes.len()).expect("no KEM takes more than 64 bytes");
        bytes.copy_from_slice(taken);
        self.0 = left;
        Ok(())
    }
}

impl hpke::rand_core::TryCryptoRng for Seed<'_> {}
