//! The gateway's status: the JSON document that is retained on `gateway/<name>/status`.

use crate::data_dir::DataDir;
use crate::ingress::{Ingress, Notice};
use crate::log_writer;
use crate::programs::Programs;
use crate::source::Native;
use crate::wasm::workers::Workers;
use offload_protocol::topic;
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

/// What the document says of a gateway that has gone.
#[derive(Serialize)]
struct Offline<'a> {
    state: &'static str,
    name: &'a str,
    instance: &'a str,
    version: &'static str,
}

/// What the document says while the gateway takes requests.
#[derive(Serialize)]
struct Online<'a> {
    #[serde(flatten)]
    who: Offline<'a>,
    capabilities: &'a Capabilities,
    load: Load,
    /// Lines of the log that could not be written since the start.
    #[serde(skip_serializing_if = "is_zero")]
    lost_log_lines: u64,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// What requests can ask for.
#[derive(Serialize)]
struct Capabilities {
    /// Kinds of WebAssembly that are run.
    wasm: [&'static str; 2],
    /// Whether source is built and run.
    native: bool,
    /// Names of the programs that the configuration offers.
    programs: Vec<String>,
}

/// How busy the gateway is. Requests that are being compiled, built or run natively count as waiting for a worker.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Load {
    /// Threads that run guests.
    pub workers: usize,
    /// Guests that have started.
    pub running: usize,
    /// Requests that were taken and have not started.
    pub waiting: usize,
}

/// Makes the documents.
pub struct Status {
    name: String,
    /// Tells it from other gateways of this name, for ever.
    instance: String,
    topic: Arc<str>,
    capabilities: Capabilities,
    workers: Arc<Workers>,
}

impl Status {
    /// Of the gateway that has this name and these parts.
    pub fn new(
        name: &str,
        data_dir: &DataDir,
        programs: &Programs,
        native: &Native,
        workers: Arc<Workers>,
    ) -> Status {
        Status {
            name: name.to_owned(),
            instance: data_dir.instance(),
            topic: topic::gateway_status(name).into(),
            capabilities: Capabilities {
                wasm: ["module", "component"],
                native: native.takes_source(),
                programs: programs.names().map(|name| name.to_string()).collect(),
            },
            workers,
        }
    }

    /// As it is with this load.
    pub fn online(&self, load: Load) -> Notice {
        self.notice(&Online {
            who: self.who("online"),
            capabilities: &self.capabilities,
            load,
            lost_log_lines: log_writer::lost_lines(),
        })
    }

    /// What is left behind.
    pub fn offline(&self) -> Notice {
        self.notice(&self.who("offline"))
    }

    /// Publishes the status when it is another than the one that was published last, looking at it each `interval`, for
    /// ever.
    pub async fn follow(self, ingress: Arc<dyn Ingress>, mut published: Notice, interval: Duration) {
        let mut ticks = interval_at(Instant::now() + interval, interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let now = self.online(self.workers.load());
            if now != published {
                published = now.clone();
                ingress.publish_notice(now);
            }
        }
    }

    fn who(&self, state: &'static str) -> Offline<'_> {
        let (name, instance) = (&self.name, &self.instance);
        Offline { state, name, instance, version: env!("CARGO_PKG_VERSION") }
    }

    fn notice(&self, document: &impl Serialize) -> Notice {
        let payload = serde_json::to_vec(document).expect("names and numbers can be written as JSON");
        Notice { topic: self.topic.clone(), payload: payload.into(), retain: true }
    }
}
