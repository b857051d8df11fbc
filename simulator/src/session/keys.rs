//! Keys of sessions and connections: X25519 and ChaCha20-Poly1305, by the code that seals real requests.
//!
//! All that is random comes from a seed, so that a run can be repeated. Whoever knows the seed knows all keys: they are
//! for teaching, and for nothing else.

use std::convert::Infallible;

use offload_protocol::digest::Digest;
use offload_seal::{AnswerKey, NONCE_BYTES, PublicKey, SecretKey, Suite};
use rand_core::{TryCryptoRng, TryRng};

use crate::random::stream::Stream;

/// HPKE's `info`: what is sealed here is no request to a gateway.
const INFO: &[u8] = b"offload-sim session 1";

/// HPKE's exporter context of a connection's key.
const CONTEXT: &[u8] = b"offload-sim connection 1";

/// Why a packet does not open. A real server says no more either.
pub const UNOPENED: &str =
    "it does not open: its payload or its header was altered, or the key is another one";

/// Random bytes that the seed repeats.
pub struct TeachingRandom(Stream);

/// A server's key pair.
pub struct ServerKey(SecretKey);

/// The key of one connection, which its two ends have.
#[derive(Clone)]
pub struct ConnectionKey(AnswerKey);

impl TeachingRandom {
    /// Those of a network.
    pub fn new(seed: u64) -> Self {
        Self(Stream::new(seed, "session", 0))
    }

    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.fill(&mut bytes);
        bytes
    }

    fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.0.bits().to_le_bytes()[..chunk.len()]);
        }
    }
}

impl TryRng for TeachingRandom {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(u32::from_le_bytes(self.bytes()))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(u64::from_le_bytes(self.bytes()))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        self.fill(bytes);
        Ok(())
    }
}

/// By its interface, not by its strength: see the file's first lines.
impl TryCryptoRng for TeachingRandom {}

impl ServerKey {
    /// A new one.
    pub fn new(random: &mut TeachingRandom) -> Self {
        let bytes: [u8; 32] = random.bytes();
        Self(SecretKey::from_bytes(Suite::X25519, &bytes).expect("any 32 bytes are a key of X25519"))
    }

    /// Its public half.
    pub fn public(&self) -> &PublicKey {
        self.0.public()
    }

    /// Opens a connection request: what it says, and the key that its sender has computed, too. `None` where it is not
    /// as it was sealed.
    pub fn open(
        &self,
        encapsulated: &[u8],
        ciphertext: &[u8],
        header: &str,
    ) -> Option<(Vec<u8>, ConnectionKey)> {
        let opened =
            self.0.open_in_context(encapsulated, ciphertext, header.as_bytes(), INFO, CONTEXT).ok()?;
        Some((opened.plaintext, ConnectionKey(opened.answer_key)))
    }
}

/// Seals a connection request to a server's public key: the public half of a key pair made for it, the ciphertext, and
/// the key of the connection. `None` where the bytes that were told as its public key give no secret to share.
pub fn seal_request(
    server: &PublicKey,
    clear: &[u8],
    header: &str,
    random: &mut TeachingRandom,
) -> Option<(Vec<u8>, Vec<u8>, ConnectionKey)> {
    let sealed = server.seal_with_rng(clear, header.as_bytes(), INFO, CONTEXT, random).ok()?;
    Some((sealed.encapsulated, sealed.ciphertext, ConnectionKey(sealed.answer_key)))
}

impl ConnectionKey {
    /// Nonce, ciphertext and tag of what is sent with this header.
    pub fn seal(&self, clear: &[u8], header: &str, random: &mut TeachingRandom) -> Vec<u8> {
        let nonce = random.bytes::<NONCE_BYTES>();
        self.0.seal_with_nonce(clear, header, nonce).expect("a packet is shorter than 256 GiB")
    }

    /// What was sealed with this key and this header, or `None`.
    pub fn open(&self, sealed: &[u8], header: &str) -> Option<Vec<u8>> {
        self.0.open(sealed, header).ok()
    }

    /// By which people compare it.
    pub fn fingerprint(&self) -> String {
        fingerprint(self.0.as_bytes())
    }
}

/// The first bytes of the SHA-256 of a key, in hexadecimal.
pub fn fingerprint(key: &[u8]) -> String {
    Digest::of(key).hex()[..12].to_owned()
}

/// Bytes in hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes from hexadecimal.
pub fn from_hex(text: &str) -> Option<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_of_a_connection_have_one_key_and_no_other_opens() {
        let mut random = TeachingRandom::new(1);
        let (server, other) = (ServerKey::new(&mut random), ServerKey::new(&mut random));
        let (encapsulated, ciphertext, key) =
            seal_request(server.public(), b"hello", "header", &mut random).unwrap();
        let (clear, same) = server.open(&encapsulated, &ciphertext, "header").unwrap();
        assert_eq!((&clear[..], same.fingerprint()), (&b"hello"[..], key.fingerprint()));
        assert!(server.open(&encapsulated, &ciphertext, "another header").is_none());
        assert!(other.open(&encapsulated, &ciphertext, "header").is_none());
        let mut sealed = key.seal(b"value", "header", &mut random);
        assert_eq!(same.open(&sealed, "header").as_deref(), Some(&b"value"[..]));
        assert!(same.open(&sealed, "another header").is_none());
        sealed[14] ^= 1;
        assert!(same.open(&sealed, "header").is_none());
    }

    #[test]
    fn a_seed_repeats_its_keys() {
        let public = |seed| ServerKey::new(&mut TeachingRandom::new(seed)).public().as_bytes().to_vec();
        assert_eq!(public(1), public(1));
        assert_ne!(public(1), public(2));
    }

    #[test]
    fn hexadecimal_is_read_as_it_is_written() {
        assert_eq!(from_hex(&hex(&[0, 171, 255])), Some(vec![0, 171, 255]));
        assert_eq!((from_hex("0g"), from_hex("é")), (None, None));
    }
}
