//! The keys that gateways list in their status documents, which anybody on the way can have written.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use offload_client::{Options, PublicKey};
use serde_json::Value;

use super::{Discovery, listen};
use crate::failure::Failure;

/// Keys of one gateway that are looked at: it lists the newest first, and few.
const MAX_KEYS: usize = 64;

/// A key that somebody says is a gateway's.
#[derive(Clone, Debug, PartialEq)]
pub struct GatewayKey {
    /// The gateway's name.
    pub gateway: String,
    pub key: PublicKey,
}

/// What the gateways of this broker list, each gateway's newest first.
pub async fn sealing_keys(options: &Options, wait: Duration) -> Result<Vec<GatewayKey>, Failure> {
    Ok(keys_of(&listen(options, wait, |_| {}).await?))
}

fn keys_of(discovery: &Discovery) -> Vec<GatewayKey> {
    let mut all = Vec::new();
    for (gateway, document) in discovery.documents() {
        let Ok(document) = serde_json::from_str::<Value>(document) else { continue };
        let listed = document["keys"].as_array().map_or(&[][..], Vec::as_slice);
        for key in listed.iter().take(MAX_KEYS).filter_map(key) {
            let key = GatewayKey { gateway: gateway.to_owned(), key };
            // A gateway has two documents where several have its name.
            if !all.contains(&key) {
                all.push(key);
            }
        }
    }
    all
}

/// One that this client has no suite for is passed over, and one that is not what its fingerprint says.
fn key(listed: &Value) -> Option<PublicKey> {
    let suite = listed["suite"].as_str()?.parse().ok()?;
    let key = PublicKey::new(suite, &STANDARD.decode(listed["public"].as_str()?).ok()?).ok()?;
    (listed["fingerprint"].as_str()? == key.fingerprint().to_string()).then_some(key)
}
