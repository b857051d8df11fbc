//! X-Wing for a gateway that opens many requests with one key.
//!
//! Its secret key is a seed (draft-connolly-cfrg-xwing-kem, section 5.2). The KEM of the crate hpke expands that for
//! each message, which costs more than what is done with it; [`ExpandedXWing`] expands it once. All else, and the bytes
//! of keys and messages, are those of hpke.

use hpke::hybrid_array::typenum::Unsigned;
use hpke::kem::{SharedSecret, XWing};
use hpke::rand_core::CryptoRng;
use hpke::{Deserializable, HpkeError, Kem, Serializable};
use ml_kem::kem::{Ciphertext, Decapsulate, KeyExport};
use ml_kem::{FromSeed, MlKem768, Seed};
use sha3::{Digest, Sha3_256};
use shake::{ExtendableOutput, Shake256, Update, XofReader};
use subtle::{Choice, ConstantTimeEq};
use x25519_dalek::{PublicKey as X25519Public, StaticSecret};
use zeroize::Zeroizing;

type SecretBytes = <<XWing as Kem>::PrivateKey as Serializable>::OutputSize;

/// Bytes of ML-KEM-768's ciphertext, with which that of X-Wing begins.
const ML_KEM_CIPHERTEXT: usize = 1088;

/// What X-Wing's hash ends with (section 5.3).
const LABEL: &[u8] = br"\.//^\";

/// X-Wing, whose secret keys are kept expanded.
pub enum ExpandedXWing {}

/// A secret key: its seed, and what that stands for.
#[derive(Clone)]
pub struct ExpandedKey {
    seed: Zeroizing<[u8; SecretBytes::USIZE]>,
    ml_kem: <MlKem768 as ml_kem::kem::Kem>::DecapsulationKey,
    x25519: StaticSecret,
    x25519_public: X25519Public,
    public: <XWing as Kem>::PublicKey,
}

impl Kem for ExpandedXWing {
    type PublicKey = <XWing as Kem>::PublicKey;
    type PrivateKey = ExpandedKey;
    type EncappedKey = <XWing as Kem>::EncappedKey;
    type NSecret = <XWing as Kem>::NSecret;
    const KEM_ID: u16 = XWing::KEM_ID;

    fn sk_to_pk(key: &ExpandedKey) -> Self::PublicKey {
        key.public.clone()
    }

    fn derive_keypair(ikm: &[u8]) -> (ExpandedKey, Self::PublicKey) {
        let (key, public) = XWing::derive_keypair(ikm);
        let key = ExpandedKey::from_bytes(&key.to_bytes()).expect("it is a key of X-Wing");
        (key, public)
    }

    fn decap(
        key: &ExpandedKey,
        sender: Option<&Self::PublicKey>,
        encapsulated: &Self::EncappedKey,
    ) -> Result<SharedSecret<Self>, HpkeError> {
        // As with hpke's own: X-Wing authenticates no sender.
        if sender.is_some() {
            return Err(HpkeError::DecapError);
        }
        let bytes = encapsulated.to_bytes();
        let (of_ml_kem, of_x25519) =
            bytes.split_first_chunk::<ML_KEM_CIPHERTEXT>().ok_or(HpkeError::DecapError)?;
        let of_x25519: [u8; 32] = of_x25519.try_into().map_err(|_| HpkeError::DecapError)?;
        let by_ml_kem = key.ml_kem.decapsulate(&Ciphertext::<MlKem768>::from(*of_ml_kem));
        let by_x25519 = key.x25519.diffie_hellman(&X25519Public::from(of_x25519));
        let hash = Sha3_256::new().chain_update(by_ml_kem).chain_update(by_x25519.as_bytes());
        let hash = hash.chain_update(of_x25519).chain_update(key.x25519_public.as_bytes());
        Ok(SharedSecret(hash.chain_update(LABEL).finalize()))
    }

    fn encap_with_rng(
        public: &Self::PublicKey,
        sender: Option<(&ExpandedKey, &Self::PublicKey)>,
        rng: &mut impl CryptoRng,
    ) -> Result<(SharedSecret<Self>, Self::EncappedKey), HpkeError> {
        if sender.is_some() {
            return Err(HpkeError::EncapError);
        }
        let (secret, encapsulated) = XWing::encap_with_rng(public, None, rng)?;
        Ok((SharedSecret(secret.0), encapsulated))
    }
}

impl Serializable for ExpandedKey {
    type OutputSize = SecretBytes;

    fn write_exact(&self, bytes: &mut [u8]) {
        bytes.copy_from_slice(&self.seed[..]);
    }
}

impl Deserializable for ExpandedKey {
    fn from_bytes(bytes: &[u8]) -> Result<ExpandedKey, HpkeError> {
        let wrong = || HpkeError::IncorrectInputLength(SecretBytes::USIZE, bytes.len());
        let seed = Zeroizing::new(<[u8; SecretBytes::USIZE]>::try_from(bytes).map_err(|_| wrong())?);
        let mut expanded = Shake256::default().chain(&seed[..]).finalize_xof();
        let (mut ml_kem_seed, mut x25519) = (Zeroizing::new([0; 64]), Zeroizing::new([0; 32]));
        expanded.read(&mut ml_kem_seed[..]);
        expanded.read(&mut x25519[..]);
        let (ml_kem, ml_kem_public) = MlKem768::from_seed(&Seed::from(*ml_kem_seed));
        let x25519 = StaticSecret::from(*x25519);
        let x25519_public = X25519Public::from(&x25519);
        let public = [&ml_kem_public.to_bytes()[..], x25519_public.as_bytes()].concat();
        let public = <XWing as Kem>::PublicKey::from_bytes(&public)?;
        Ok(ExpandedKey { seed, ml_kem, x25519, x25519_public, public })
    }
}

impl ConstantTimeEq for ExpandedKey {
    fn ct_eq(&self, other: &ExpandedKey) -> Choice {
        self.seed[..].ct_eq(&other.seed[..])
    }
}
