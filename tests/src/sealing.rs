//! A device that seals its requests, as `docs/protocol.md` says, on the crates `hpke` and `chacha20poly1305` and not on
//! the project's own code.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{ChaCha20Poly1305, KeyInit};
use hpke::aead::ChaCha20Poly1305 as HpkeAead;
use hpke::kdf::HkdfSha256;
use hpke::kem::{X25519HkdfSha256, XWing};
use hpke::{Deserializable, Kem, OpModeS, Serializable, setup_sender};
use serde_json::{Value, json};

use crate::cbor;
use crate::device::{Device, Message, Version};

/// The suite of small devices.
pub const X25519: &str = "x25519-sha256-chacha20poly1305";
/// The post-quantum hybrid.
pub const XWING: &str = "xwing-sha256-chacha20poly1305";

/// A key from a gateway's status.
#[derive(Clone, Debug, PartialEq)]
pub struct Key {
    /// Its suite.
    pub suite: String,
    /// As RFC 9180 serialises it.
    pub public: Vec<u8>,
    /// `sha256:…`.
    pub fingerprint: String,
}

/// How an envelope is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// Byte strings are base64.
    Json,
    /// With the tag.
    Cbor,
}

/// A sealed request.
#[derive(Clone, Debug)]
pub struct Sealed {
    /// The outer envelope, as JSON would have it.
    pub outer: Value,
    /// The encoding of both envelopes.
    pub encoding: Encoding,
    /// The key of its answer.
    pub answer_key: [u8; 32],
}

/// The keys that a retained status lists, newest first.
pub async fn keys(watcher: &mut Device) -> Result<Vec<Key>> {
    watcher.subscribe("gateway/+/status").await?;
    loop {
        let message = watcher.message().await?;
        if message.topic.starts_with("gateway/") {
            return read_keys(&serde_json::from_slice(&message.payload)?);
        }
    }
}

/// The keys in a status document.
pub fn read_keys(status: &Value) -> Result<Vec<Key>> {
    let listed = status["keys"].as_array().with_context(|| format!("no keys: {status}"))?;
    let text = |key: &Value, field: &str| anyhow::Ok(key[field].as_str().context("no text")?.to_owned());
    let key = |listed: &Value| {
        let public = BASE64_STANDARD.decode(text(listed, "public")?)?;
        anyhow::Ok(Key { suite: text(listed, "suite")?, public, fingerprint: text(listed, "fingerprint")? })
    };
    listed.iter().map(key).collect()
}

/// The key of this suite that is listed first.
pub fn newest(keys: &[Key], suite: &str) -> Result<Key> {
    Ok(keys.iter().find(|key| key.suite == suite).with_context(|| format!("no {suite}"))?.clone())
}

/// The clock of a device, in milliseconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

/// An id that no other request has.
pub fn fresh_id() -> String {
    use std::hash::{BuildHasher, RandomState};
    let number = || RandomState::new().hash_one(now());
    format!("{:016x}{:016x}", number(), number())
}

/// These fields with an `id` and the time.
pub fn inner(fields: Value) -> Value {
    let mut inner = json!({ "id": fresh_id(), "sealed_at": now() });
    for (name, value) in fields.as_object().into_iter().flatten() {
        inner[name] = value.clone();
    }
    inner
}

/// Seals an envelope for this topic.
pub fn seal(key: &Key, inner: &Value, topic: &str, encoding: Encoding) -> Result<Sealed> {
    let plaintext = match encoding {
        Encoding::Json => inner.to_string().into_bytes(),
        Encoding::Cbor => cbor::write(inner)?,
    };
    let (encapsulated, ciphertext, answer_key) = match key.suite.as_str() {
        X25519 => seal_with::<X25519HkdfSha256>(&key.public, &plaintext, topic)?,
        _ => seal_with::<XWing>(&key.public, &plaintext, topic)?,
    };
    let outer = json!({
        "sealed": BASE64_STANDARD.encode(ciphertext), "encapsulated": BASE64_STANDARD.encode(encapsulated),
        "key": key.fingerprint, "suite": key.suite,
    });
    Ok(Sealed { outer, encoding, answer_key })
}

fn seal_with<K: Kem>(key: &[u8], plaintext: &[u8], topic: &str) -> Result<(Vec<u8>, Vec<u8>, [u8; 32])> {
    let error = |error| anyhow::anyhow!("{error}");
    let key = K::PublicKey::from_bytes(key).map_err(error)?;
    let (encapsulated, mut context) =
        setup_sender::<HpkeAead, HkdfSha256, K>(&OpModeS::Base, &key, b"offload-rt request 1")
            .map_err(error)?;
    let ciphertext = context.seal(plaintext, topic.as_bytes()).map_err(error)?;
    let mut answer_key = [0; 32];
    context.export(b"offload-rt answer 1", &mut answer_key).map_err(error)?;
    Ok((encapsulated.to_bytes().to_vec(), ciphertext, answer_key))
}

impl Sealed {
    /// As payload.
    pub fn payload(&self) -> Result<Bytes> {
        Ok(match self.encoding {
            Encoding::Json => self.outer.to_string().into(),
            Encoding::Cbor => cbor::write(&self.outer)?.into(),
        })
    }

    /// What the sealed answer says. It has one field, no user property, and is in the encoding of the request.
    pub fn open(&self, message: &Message) -> Result<Value> {
        ensure!(message.user_properties.is_empty(), "user properties: {:?}", message.user_properties);
        let outer = self.read(message)?;
        let fields: Vec<&String> = outer.as_object().context("no map")?.keys().collect();
        ensure!(fields == ["sealed"], "not sealed: {outer}");
        let sealed = BASE64_STANDARD.decode(outer["sealed"].as_str().context("no bytes")?)?;
        let (nonce, msg) = sealed.split_first_chunk::<12>().context("too short")?;
        let payload = Payload { msg, aad: message.topic.as_bytes() };
        let opened = ChaCha20Poly1305::new(&self.answer_key.into())
            .decrypt(nonce.into(), payload)
            .map_err(|_| anyhow::anyhow!("it does not open: {outer}"))?;
        self.read(&Message { payload: opened.into(), ..message.clone() })
    }

    /// The envelope of an answer in clear.
    pub fn read(&self, message: &Message) -> Result<Value> {
        match self.encoding {
            Encoding::Json => serde_json::from_slice(&message.payload)
                .with_context(|| format!("no JSON: {}", message.text())),
            Encoding::Cbor => cbor::read(message),
        }
    }

    /// Publishes it, and opens the answer.
    pub async fn ask(&self, device: &mut Device, topic: &str) -> Result<Value> {
        let message = device.ask(topic, self.payload()?).await?;
        self.open(&message)
    }
}

/// A device that listens to its answers, and the gateway's keys.
pub async fn device(address: std::net::SocketAddr, version: Version, id: &str) -> Result<(Device, Vec<Key>)> {
    let mut watcher = Device::connect(address, version, &format!("{id}-watcher")).await?;
    let keys = keys(&mut watcher).await?;
    let mut device = Device::connect(address, version, id).await?;
    device.subscribe(&format!("result/{id}")).await?;
    Ok((device, keys))
}
