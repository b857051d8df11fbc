//! The published test vectors of the two suites; the files beside name their sources.

use std::convert::Infallible;

use hpke::Kem;
use hpke::kem::XWing;
use hpke::rand_core::{TryCryptoRng, TryRng};
use hpke::{Deserializable, Serializable};
use offload_seal::{PublicKey, SecretKey, Suite};
use serde::Deserialize;

/// Gives the bytes that the vector was made with.
struct Fixed(Vec<u8>);

impl TryRng for Fixed {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        panic!("no KEM asks for it")
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        panic!("no KEM asks for it")
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        bytes.copy_from_slice(&self.0.drain(..bytes.len()).collect::<Vec<_>>());
        Ok(())
    }
}

impl TryCryptoRng for Fixed {}

fn hex(text: &str) -> Vec<u8> {
    let pairs = text.as_bytes().chunks_exact(2);
    pairs.map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

#[derive(Deserialize)]
#[allow(non_snake_case, reason = "the names of the RFC")]
struct Rfc9180 {
    info: String,
    ikmE: String,
    skRm: String,
    pkRm: String,
    enc: String,
    pt: String,
    aad: String,
    ct: String,
    exports: Vec<(String, String)>,
}

/// RFC 9180, A.2.1: what is sealed with its randomness is its ciphertext, which opens; both ends export its secrets.
#[test]
fn x25519_is_that_of_rfc_9180() {
    let vector: Rfc9180 = serde_json::from_str(include_str!("vectors/rfc9180-a.2.1.json")).unwrap();
    let secret = SecretKey::from_bytes(Suite::X25519, &hex(&vector.skRm)).unwrap();
    assert_eq!(secret.public().as_bytes(), hex(&vector.pkRm));
    let public = PublicKey::new(Suite::X25519, &hex(&vector.pkRm)).unwrap();
    let (info, aad, plaintext) = (hex(&vector.info), hex(&vector.aad), hex(&vector.pt));
    for (context, exported) in &vector.exports {
        let (context, exported) = (hex(context), hex(exported));
        let mut rng = Fixed(hex(&vector.ikmE));
        let sealed = public.seal_with_rng(&plaintext, &aad, &info, &context, &mut rng).unwrap();
        assert_eq!(sealed.encapsulated, hex(&vector.enc));
        assert_eq!(sealed.ciphertext, hex(&vector.ct));
        assert_eq!(sealed.answer_key.as_bytes()[..], exported);
        let opened =
            secret.open_in_context(&sealed.encapsulated, &sealed.ciphertext, &aad, &info, &context).unwrap();
        assert_eq!(opened.plaintext, plaintext);
        assert_eq!(opened.answer_key.as_bytes()[..], exported);
    }
}

#[derive(Deserialize)]
struct XWingVector {
    eseed: String,
    ss: String,
    sk: String,
    pk: String,
    ct: String,
}

/// draft-connolly-cfrg-xwing-kem, appendix C: keys, what is encapsulated and the shared secret are the draft's.
#[test]
fn x_wing_is_that_of_its_draft() {
    let vectors: Vec<XWingVector> = serde_json::from_str(include_str!("vectors/x-wing.json")).unwrap();
    assert_eq!(vectors.len(), 3);
    for XWingVector { eseed, ss, sk, pk, ct } in vectors {
        let secret = SecretKey::from_bytes(Suite::XWing, &hex(&sk)).unwrap();
        assert_eq!(secret.public().as_bytes(), hex(&pk));
        let public = PublicKey::new(Suite::XWing, &hex(&pk)).unwrap();
        let sealed = public.seal_with_rng(b"x", b"", b"", b"", &mut Fixed(hex(&eseed))).unwrap();
        assert_eq!(sealed.encapsulated, hex(&ct));
        secret.open_in_context(&sealed.encapsulated, &sealed.ciphertext, b"", b"", b"").unwrap();
        let key = <XWing as Kem>::PrivateKey::from_bytes(&hex(&sk)).unwrap();
        let encapsulated = <XWing as Kem>::EncappedKey::from_bytes(&hex(&ct)).unwrap();
        assert_eq!(encapsulated.to_bytes()[..], hex(&ct));
        assert_eq!(XWing::decap(&key, None, &encapsulated).unwrap().0[..], hex(&ss));
    }
}
