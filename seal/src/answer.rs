//! The key of one request's answers: its asker and its gateway alone have it.

use std::fmt;

use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{ChaCha20Poly1305, KeyInit, Nonce};
use zeroize::Zeroizing;

use crate::{ANSWER_KEY_BYTES, NONCE_BYTES, SealError, TAG_BYTES, random};

/// Seals and opens the answers to one request.
#[derive(Clone, PartialEq, Eq)]
pub struct AnswerKey(Zeroizing<[u8; ANSWER_KEY_BYTES]>);

impl AnswerKey {
    /// How many bytes longer a sealed answer is than the answer.
    pub const OVERHEAD: usize = NONCE_BYTES + TAG_BYTES;

    /// This key.
    pub fn new(bytes: &[u8; ANSWER_KEY_BYTES]) -> AnswerKey {
        AnswerKey(Zeroizing::new(*bytes))
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8; ANSWER_KEY_BYTES] {
        &self.0
    }

    /// Seals an answer that is delivered on `topic`: a fresh nonce, the ciphertext, the tag.
    ///
    /// # Errors
    /// If the system gives no random bytes.
    pub fn seal(&self, plaintext: &[u8], topic: &str) -> Result<Vec<u8>, SealError> {
        self.seal_with_nonce(plaintext, topic, random::<NONCE_BYTES>()?)
    }

    /// The same with a nonce of the caller's, which no other answer has: for simulations alone, which a seed repeats.
    ///
    /// # Errors
    /// Never, unless the answer is longer than 256 GiB.
    #[doc(hidden)]
    pub fn seal_with_nonce(
        &self,
        plaintext: &[u8],
        topic: &str,
        nonce: [u8; NONCE_BYTES],
    ) -> Result<Vec<u8>, SealError> {
        let payload = Payload { msg: plaintext, aad: topic.as_bytes() };
        let ciphertext = self.cipher().encrypt(&Nonce::from(nonce), payload).map_err(|_| SealError::NoKey)?;
        Ok([&nonce[..], &ciphertext].concat())
    }

    /// Opens an answer that was delivered on `topic`.
    ///
    /// # Errors
    /// If it is none to this request, came on another topic, or is not whole.
    pub fn open(&self, sealed: &[u8], topic: &str) -> Result<Vec<u8>, SealError> {
        let (nonce, msg) = sealed.split_first_chunk::<NONCE_BYTES>().ok_or(SealError::Unopened)?;
        let payload = Payload { msg, aad: topic.as_bytes() };
        self.cipher().decrypt(&Nonce::from(*nonce), payload).map_err(|_| SealError::Unopened)
    }

    fn cipher(&self) -> ChaCha20Poly1305 {
        ChaCha20Poly1305::new((&*self.0).into())
    }
}

/// Without the key.
impl fmt::Debug for AnswerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AnswerKey")
    }
}
