//! What was sealed opens for whom it was sealed to, on its topic, whole; and for nobody else.

use offload_seal::{AnswerKey, PublicKey, SealError, SecretKey, Suite};

const TOPIC: &str = "localCode/d";
const PLAINTEXT: &[u8] = br#"{"id":"0123456789012345678901","program":"add","args":["5","7"]}"#;

#[test]
fn a_request_is_opened_and_its_answer_comes_back() {
    for suite in Suite::ALL {
        let secret = SecretKey::generate(suite).unwrap();
        let public = PublicKey::new(suite, secret.public().as_bytes()).unwrap();
        let sealed = public.seal(PLAINTEXT, TOPIC).unwrap();
        assert_eq!(sealed.encapsulated.len(), suite.encapsulated_bytes());
        let opened = secret.open(&sealed.encapsulated, &sealed.ciphertext, TOPIC).unwrap();
        assert_eq!(opened.plaintext, PLAINTEXT);
        let answer = opened.answer_key.seal(b"12\n", "result/d").unwrap();
        assert_eq!(answer.len(), 3 + AnswerKey::OVERHEAD);
        assert_eq!(sealed.answer_key.open(&answer, "result/d").unwrap(), b"12\n");
        let again = opened.answer_key.seal(b"12\n", "result/d").unwrap();
        assert_ne!(answer[..12], again[..12], "a nonce is used once");
    }
}

/// Each byte changed, each length, another topic and another key.
#[test]
fn nothing_else_opens() {
    for suite in Suite::ALL {
        let secret = SecretKey::generate(suite).unwrap();
        let sealed = secret.public().seal(PLAINTEXT, TOPIC).unwrap();
        let refused = |secret: &SecretKey, encapsulated: &[u8], ciphertext: &[u8], topic: &str| {
            secret.open(encapsulated, ciphertext, topic).err() == Some(SealError::Unopened)
        };
        let (encapsulated, ciphertext) = (&sealed.encapsulated[..], &sealed.ciphertext[..]);
        assert!(refused(&SecretKey::generate(suite).unwrap(), encapsulated, ciphertext, TOPIC));
        for topic in ["", "localCode/", "localCode/e", "inputCode/d", "localCode/d/", "net/a/localCode/d"] {
            assert!(refused(&secret, encapsulated, ciphertext, topic), "{topic}");
        }
        for end in 0..ciphertext.len() {
            assert!(refused(&secret, encapsulated, &ciphertext[..end], TOPIC), "{end}");
        }
        for at in 0..ciphertext.len() {
            let mut other = ciphertext.to_vec();
            other[at] ^= 1;
            assert!(refused(&secret, encapsulated, &other, TOPIC), "{at}");
        }
        assert!(refused(&secret, encapsulated, &[ciphertext, &[0]].concat(), TOPIC));
        for end in 0..encapsulated.len() {
            assert!(refused(&secret, &encapsulated[..end], ciphertext, TOPIC), "{end}");
        }
        // The last bit of X25519's is ignored (RFC 7748), and is in the key schedule all the same (RFC 9180).
        for at in 0..encapsulated.len() {
            let mut other = encapsulated.to_vec();
            other[at] ^= 0x80;
            assert!(refused(&secret, &other, ciphertext, TOPIC), "{at}");
        }
        assert!(
            refused(&secret, &vec![0; encapsulated.len()], ciphertext, TOPIC),
            "no key agreement with zero"
        );
    }
}

#[test]
fn an_answer_opens_on_its_topic_whole() {
    let key = AnswerKey::new(&[7; 32]);
    let sealed = key.seal(b"12\n", "result/d").unwrap();
    for end in 0..sealed.len() {
        assert_eq!(key.open(&sealed[..end], "result/d"), Err(SealError::Unopened), "{end}");
    }
    for at in 0..sealed.len() {
        let mut other = sealed.clone();
        other[at] ^= 1;
        assert_eq!(key.open(&other, "result/d"), Err(SealError::Unopened), "{at}");
    }
    assert_eq!(key.open(&sealed, "result/e"), Err(SealError::Unopened));
    assert_eq!(AnswerKey::new(&[8; 32]).open(&sealed, "result/d"), Err(SealError::Unopened));
    assert_eq!(key.open(&sealed, "result/d").unwrap(), b"12\n");
}

#[test]
fn keys_are_read_back_and_nothing_else_is_one() {
    for suite in Suite::ALL {
        let key = SecretKey::generate(suite).unwrap();
        let bytes = key.to_bytes();
        assert_eq!(SecretKey::from_bytes(suite, &bytes).unwrap().public(), key.public());
        for other in [&bytes[..31], &[&bytes[..], &[0]].concat()] {
            assert_eq!(SecretKey::from_bytes(suite, other).err(), Some(SealError::NoKey));
        }
        let public = key.public().as_bytes();
        for other in [&public[..public.len() - 1], &[public, &[0]].concat()] {
            assert_eq!(PublicKey::new(suite, other), Err(SealError::NoKey));
        }
        assert_eq!(suite.as_str().parse(), Ok(suite));
        let shown = format!("{key:?} {:?}", AnswerKey::new(&[7; 32]));
        assert_eq!(shown, format!("{suite} {} AnswerKey", key.public().fingerprint()));
    }
    assert!("x25519".parse::<Suite>().is_err());
}
