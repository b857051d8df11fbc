//! `--seal`: to which key a request is sealed, and the file of keys that are known.
//!
//! As `ssh` does with hosts: the key of a gateway that is met for the first time is taken as it is listed, and written
//! down; from then on no other one is. A key that its operator has told (`--fingerprint`) is taken for certain.

mod known_gateways;

use std::io::{Write, stderr};
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use offload_client::{Answer, Digest, ErrorKind, Options, Outcome, PublicKey, Suite, WireError};

use self::known_gateways::KnownGateways;
use crate::failure::Failure;
use crate::gateways::{GatewayKey, sealing_keys};

/// How long it is listened to what gateways say of themselves: what is retained comes at once.
const LISTEN: Duration = Duration::from_millis(500);

#[derive(Args, Clone)]
pub struct SealFlags {
    /// Seal the request, so that only the gateway reads it and only this command its answer, whatever broker is in
    /// between. The gateway's key is known from the first time on (`known_gateways`)
    #[arg(long)]
    seal: bool,

    /// Seal to the key with this fingerprint, which `offload-rt keys list` shows at the gateway
    #[arg(long, value_name = "sha256:HEX", requires = "seal")]
    fingerprint: Option<Digest>,

    /// Seal to this public key of the gateway behind --gate from now on: the base64 that `offload-rt keys list --json`
    /// shows there
    #[arg(long, value_name = "BASE64", requires_all = ["seal", "gate"], value_parser = public_key)]
    gateway_key: Option<PublicKey>,

    /// The file of known keys [default: offload/known_gateways in the folder of configurations]
    #[arg(long, value_name = "FILE", requires = "seal")]
    known_gateways: Option<PathBuf>,
}

/// How the gateway behind a gate is called in the file of known keys: no gateway of the broker's own site is.
const BEHIND_GATE: &str = "net/";

impl SealFlags {
    /// Whether the request is to be sealed.
    pub fn is_wanted(&self) -> bool {
        self.seal
    }

    /// Finds the key to seal to, if the request is to be sealed, and puts it into the options.
    pub async fn apply(&self, options: &mut Options) -> Result<(), Failure> {
        if self.seal {
            options.seal = Some(self.key(options).await?);
        }
        Ok(())
    }

    async fn key(&self, options: &Options) -> Result<PublicKey, Failure> {
        let broker = broker(options);
        let mut known = KnownGateways::read(self.known_gateways.clone())?;
        if let Some(gate) = &options.gate {
            return self.key_of_gate(&broker, gate, known);
        }
        let mut pinned = known.keys(&broker);
        pinned.retain(|known| !known.gateway.starts_with(BEHIND_GATE));
        if let Some(fingerprint) = &self.fingerprint {
            if let Some(key) = pinned.iter().find(|known| known.key.fingerprint() == *fingerprint) {
                return Ok(key.key.clone());
            }
            let listed = sealing_keys(options, LISTEN).await?;
            let Some(found) = listed.iter().find(|listed| listed.key.fingerprint() == *fingerprint) else {
                return Err(Failure::new(
                    "not-found",
                    format!("no gateway at {broker} lists the key {fingerprint}"),
                ));
            };
            known.replace(&broker, found)?;
            return Ok(found.key.clone());
        }
        match &pinned[..] {
            [known] => return Ok(known.key.clone()),
            [] => {}
            several => return Err(choose(&broker, several)),
        }
        let listed = newest(sealing_keys(options, LISTEN).await?);
        match &listed[..] {
            [] => Err(Failure::new("not-found", format!("no gateway at {broker} lists a key to seal to"))),
            [new] => {
                known.replace(&broker, new)?;
                let (gateway, print) = (&new.gateway, new.key.fingerprint());
                let file = known.path().display();
                // Whoever closed stderr does not want to be told.
                let _ = writeln!(
                    stderr(),
                    "warning: the key of gateway {gateway} at {broker} is taken on trust: {print}; from now on only \
                     this one is ({file}). `offload-rt keys list` at the gateway shows whether it is its own"
                );
                Ok(new.key.clone())
            }
            several => Err(choose(&broker, several)),
        }
    }
}

impl SealFlags {
    /// The key of another site's gateway, which no status here lists: its operator has told it, now or before.
    fn key_of_gate(&self, broker: &str, gate: &str, mut known: KnownGateways) -> Result<PublicKey, Failure> {
        let gateway = format!("{BEHIND_GATE}{gate}");
        if let Some(key) = &self.gateway_key {
            known.replace(broker, &GatewayKey { gateway, key: key.clone() })?;
            return Ok(key.clone());
        }
        let mut pinned = known.keys(broker).into_iter().filter(|known| known.gateway == gateway);
        let is_wanted = |known: &GatewayKey| {
            self.fingerprint.is_none_or(|fingerprint| known.key.fingerprint() == fingerprint)
        };
        let key = pinned.find(is_wanted).map(|known| known.key);
        key.ok_or_else(|| {
            let message = format!(
                "no such key of the gate {gate} is known at {broker}: `offload-rt keys list --json` at its gateway \
                 shows it (`public`); give it once by --gateway-key"
            );
            Failure::new("not-found", message)
        })
    }
}

/// A public key in base64, whose length says its suite.
fn public_key(text: &str) -> Result<PublicKey, String> {
    let bytes = STANDARD.decode(text).map_err(|error| format!("no base64: {error}"))?;
    let mut keys =
        [Suite::X25519, Suite::XWing].into_iter().filter_map(|suite| PublicKey::new(suite, &bytes).ok());
    keys.next().ok_or_else(|| "no key of a suite that this command has".to_owned())
}

/// What to do when the gateway does not open what was sealed to a key that is known.
pub fn explained(answer: Answer, options: &Options) -> Answer {
    match (&options.seal, &answer.outcome) {
        (Some(key), Outcome::Failed(WireError { kind: ErrorKind::Unauthorized, message }))
            if answer.id.is_none() =>
        {
            let print = key.fingerprint();
            let message = format!(
                "{message}: the gateway does not have {print}, or has it no more. Its keys may have been renewed, or \
                 somebody is in between: compare with `offload-rt keys list` at the gateway, then take the new one by \
                 {}",
                if options.gate.is_some() { "--gateway-key" } else { "--fingerprint" }
            );
            Answer { outcome: Outcome::Failed(WireError::new(ErrorKind::Unauthorized, message)), ..answer }
        }
        _ => answer,
    }
}

/// Of each gateway the one that is best: the newest with which a quantum computer helps nobody, or the newest.
fn newest(listed: Vec<GatewayKey>) -> Vec<GatewayKey> {
    let mut best: Vec<GatewayKey> = Vec::new();
    for new in listed {
        match best.iter_mut().find(|known| known.gateway == new.gateway) {
            Some(known) if known.key.suite() != Suite::XWing && new.key.suite() == Suite::XWing => {
                *known = new
            }
            Some(_) => {}
            None => best.push(new),
        }
    }
    best.dedup_by(|a, b| a.key == b.key);
    best
}

fn choose(broker: &str, several: &[GatewayKey]) -> Failure {
    let list: Vec<String> =
        several.iter().map(|known| format!("{} ({})", known.key.fingerprint(), known.gateway)).collect();
    Failure::usage(format!(
        "--seal: {broker} has several gateways, say which by --fingerprint: {}",
        list.join(", ")
    ))
}

fn broker(options: &Options) -> String {
    format!("{}:{}", options.host, options.port)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(gateway: &str, suite: Suite, byte: u8) -> GatewayKey {
        // Any 32 bytes are an X25519 key.
        let bytes = match suite {
            Suite::X25519 => vec![byte; 32],
            Suite::XWing => vec![0; 1216],
        };
        GatewayKey { gateway: gateway.to_owned(), key: PublicKey::new(suite, &bytes).unwrap() }
    }

    #[test]
    fn the_newest_is_taken_and_a_hybrid_one_before_others() {
        let (old, new) = (key("a", Suite::X25519, 1), key("a", Suite::X25519, 2));
        assert_eq!(newest(vec![new.clone(), old.clone()]), vec![new.clone()]);
        let hybrid = key("a", Suite::XWing, 0);
        assert_eq!(newest(vec![new.clone(), hybrid.clone(), old]), vec![hybrid]);
        // A group of gateways has one set of keys.
        assert_eq!(newest(vec![new.clone(), key("b", Suite::X25519, 2)]).len(), 1);
        assert_eq!(newest(vec![new, key("b", Suite::X25519, 3)]).len(), 2);
    }
}
