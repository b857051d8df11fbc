//! A gateway's secret key, which opens requests.

use std::fmt;

use hpke::{Deserializable, Kem, OpModeR, Serializable, setup_receiver};
use zeroize::Zeroizing;

use crate::suite::{Aead, Kdf, X25519};
use crate::x_wing::ExpandedXWing;
use crate::{ANSWER_CONTEXT, ANSWER_KEY_BYTES, AnswerKey, INFO, PublicKey, SealError, Suite, random};

/// Bytes of a secret key, in both suites.
const SECRET_BYTES: usize = 32;

/// A secret key of a gateway, with its public key.
pub struct SecretKey {
    secret: Secret,
    public: PublicKey,
}

/// Parsed once: X-Wing's is expanded from its seed.
enum Secret {
    X25519(<X25519 as Kem>::PrivateKey),
    XWing(Box<<ExpandedXWing as Kem>::PrivateKey>),
}

/// A request that was opened.
pub struct Opened {
    /// What was sealed.
    pub plaintext: Vec<u8>,
    /// Seals its answer.
    pub answer_key: AnswerKey,
}

impl SecretKey {
    /// A new key.
    ///
    /// # Errors
    /// If the system gives no random bytes.
    pub fn generate(suite: Suite) -> Result<SecretKey, SealError> {
        SecretKey::from_bytes(suite, &*Zeroizing::new(random::<SECRET_BYTES>()?))
    }

    /// The key that [`to_bytes`](Self::to_bytes) has given, or that RFC 9180 serialises so.
    ///
    /// # Errors
    /// If the bytes are no key of this suite.
    pub fn from_bytes(suite: Suite, bytes: &[u8]) -> Result<SecretKey, SealError> {
        let (secret, public) = match suite {
            Suite::X25519 => {
                let key = <X25519 as Kem>::PrivateKey::from_bytes(bytes).map_err(|_| SealError::NoKey)?;
                let public = X25519::sk_to_pk(&key).to_bytes().to_vec();
                (Secret::X25519(key), public)
            }
            Suite::XWing => {
                let key =
                    <ExpandedXWing as Kem>::PrivateKey::from_bytes(bytes).map_err(|_| SealError::NoKey)?;
                let public = ExpandedXWing::sk_to_pk(&key).to_bytes().to_vec();
                (Secret::XWing(Box::new(key)), public)
            }
        };
        Ok(SecretKey { secret, public: PublicKey::new(suite, &public)? })
    }

    /// The key itself, for a file that only its owner can read.
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(match &self.secret {
            Secret::X25519(key) => key.to_bytes().to_vec(),
            Secret::XWing(key) => key.to_bytes().to_vec(),
        })
    }

    /// Its public key.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Opens a request that was published on `topic`.
    ///
    /// # Errors
    /// If it was not sealed so, or is not whole.
    pub fn open(&self, encapsulated: &[u8], ciphertext: &[u8], topic: &str) -> Result<Opened, SealError> {
        self.open_in_context(encapsulated, ciphertext, topic.as_bytes(), INFO, ANSWER_CONTEXT)
    }

    /// The same with other contexts: for test vectors and simulations alone.
    #[doc(hidden)]
    pub fn open_in_context(
        &self,
        encapsulated: &[u8],
        ciphertext: &[u8],
        aad: &[u8],
        info: &[u8],
        exporter_context: &[u8],
    ) -> Result<Opened, SealError> {
        match &self.secret {
            Secret::X25519(key) => open::<X25519>(key, encapsulated, ciphertext, aad, info, exporter_context),
            Secret::XWing(key) => {
                open::<ExpandedXWing>(key, encapsulated, ciphertext, aad, info, exporter_context)
            }
        }
    }
}

fn open<K: Kem>(
    key: &K::PrivateKey,
    encapsulated: &[u8],
    ciphertext: &[u8],
    aad: &[u8],
    info: &[u8],
    exporter_context: &[u8],
) -> Result<Opened, SealError> {
    let unopened = |_| SealError::Unopened;
    let encapsulated = K::EncappedKey::from_bytes(encapsulated).map_err(unopened)?;
    let mut context =
        setup_receiver::<Aead, Kdf, K>(&OpModeR::Base, key, &encapsulated, info).map_err(unopened)?;
    let plaintext = context.open(ciphertext, aad).map_err(unopened)?;
    let mut answer_key = Zeroizing::new([0; ANSWER_KEY_BYTES]);
    context.export(exporter_context, &mut answer_key[..]).map_err(unopened)?;
    Ok(Opened { plaintext, answer_key: AnswerKey::new(&answer_key) })
}

/// Without the secret.
impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.public.fmt(f)
    }
}
