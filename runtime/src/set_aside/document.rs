//! What is known of a request that is set aside: `request.json`, and its README.

use crate::client::Client;
use crate::wasm::guest::Budget;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A request that is set aside, but for its payload and its module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Document {
    /// When it was set aside, in UTC.
    pub set_aside: String,
    /// Crashes of the gateway while it ran and nothing else did.
    pub crashes: u8,
    /// Its reference in the log and in its answer.
    pub reference: String,
    /// What the gateway knows it again by.
    pub fingerprints: Vec<String>,
    /// The version of the gateway that it has crashed.
    pub gateway: String,
    /// Who sent it.
    pub client: Asker,
    /// On which topic.
    pub topic: String,
    /// The form of its payload.
    pub form: String,
    /// Its own name.
    pub id: Option<String>,
    /// What it runs, in words.
    pub code: String,
    /// MQTT 5: where its answer goes, if that is not its own result topic.
    pub response_topic: Option<String>,
    /// MQTT 5: what is returned with its answer.
    #[serde(serialize_with = "to_base64", deserialize_with = "from_base64")]
    pub correlation_data: Option<Vec<u8>>,
    /// MQTT 5: its user properties.
    pub user_properties: Vec<(String, String)>,
    /// What it was held to.
    pub limits: Limits,
    /// Bytes of its payload.
    pub payload_bytes: u64,
}

/// Who sent it: a [`Client`] in a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asker {
    /// The user, or the name of the certificate.
    pub principal: Option<String>,
    /// The client id, or the reply id where an external broker hides it.
    pub flow: String,
    /// Whom it is counted for.
    pub account: String,
    /// Whether it came over WebSocket.
    pub web: bool,
}

/// What the request was held to, by the gateway's limits and its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Units.
    pub fuel: u64,
    /// CPU time in milliseconds.
    pub cpu_ms: u64,
    /// Wall-clock time in milliseconds.
    pub wall_ms: u64,
    /// Bytes.
    pub memory: u64,
    /// Bytes of stdout.
    pub stdout: u64,
}

impl Document {
    /// As the file has it.
    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("texts and numbers can be written as JSON");
        text.push('\n');
        text
    }

    /// How to run it again. `number` names it.
    pub fn readme(&self, number: u64) -> String {
        format!(
            "The gateway crashed {} times while it ran this request and nothing else.\n\
             \n\
             request.json  who sent it, when, on which topic, within which limits\n\
             payload       the MQTT message\n\
             module.wasm   the module, where the gateway has it\n\
             \n\
             offload-rt jobs show {number}   what is known of it (--config or --data-dir as for the gateway)\n\
             offload-rt jobs retry {number}  the gateway runs it once more, and publishes its answer\n\
             offload-rt jobs drop {number}   it is removed\n\
             \n\
             On another gateway: publish the file payload on the topic that request.json names, as by\n\
             mosquitto_pub -V 5 -t TOPIC -f payload -D publish user-property NAME VALUE\n",
            self.crashes
        )
    }
}

impl Asker {
    /// This client.
    pub fn of(client: &Client) -> Asker {
        Asker {
            principal: client.principal.as_deref().map(str::to_owned),
            flow: client.flow.to_string(),
            account: client.account.to_string(),
            web: client.web,
        }
    }

    /// The client again.
    pub fn to_client(&self) -> Client {
        Client {
            principal: self.principal.as_deref().map(Into::into),
            flow: self.flow.as_str().into(),
            account: self.account.as_str().into(),
            web: self.web,
        }
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        self.principal.as_deref().unwrap_or(&self.flow)
    }
}

impl Limits {
    /// What a run may use.
    pub fn of(budget: &Budget) -> Limits {
        let milliseconds = |time: std::time::Duration| time.as_millis().try_into().unwrap_or(u64::MAX);
        Limits {
            fuel: budget.fuel,
            cpu_ms: milliseconds(budget.cpu),
            wall_ms: milliseconds(budget.wall),
            memory: budget.memory as u64,
            stdout: budget.stdout as u64,
        }
    }
}

fn to_base64<S: Serializer>(bytes: &Option<Vec<u8>>, serializer: S) -> Result<S::Ok, S::Error> {
    bytes.as_ref().map(|bytes| STANDARD.encode(bytes)).serialize(serializer)
}

fn from_base64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<u8>>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    text.map(|text| STANDARD.decode(text).map_err(serde::de::Error::custom)).transpose()
}
