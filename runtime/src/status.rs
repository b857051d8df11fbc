//! The gateway's status: the JSON document that is retained on `gateway/<name>/status`.

use crate::data_dir::DataDir;
use crate::durability::Failure;
use crate::ingress::{Ingress, Notice};
use crate::keys::{Keys, PublishedKey};
use crate::log_writer;
use crate::request::Settings;
use crate::source::SourceBackend;
use crate::wasm::occupancy::Occupancy;
use crate::wasm::workers::Workers;
use arc_swap::ArcSwap;
use offload_protocol::topic;
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
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
    capabilities: Capabilities<'a>,
    /// To which requests can be sealed, the newest first.
    keys: Vec<PublishedKey>,
    load: Load,
    /// Why the gateway accepts nothing more, and ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
    /// Lines of the log that could not be written since the start.
    #[serde(skip_serializing_if = "is_zero")]
    lost_log_lines: u64,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// What requests can ask for.
#[derive(Serialize)]
struct Capabilities<'a> {
    /// Kinds of WebAssembly that are run.
    wasm: [&'static str; 2],
    /// Whether source is built and run.
    native: bool,
    /// Names of the programs that the configuration offers.
    programs: Vec<&'a str>,
}

/// How busy the gateway is. Requests that are being compiled or built count as waiting.
#[derive(Serialize)]
struct Load {
    /// Threads that run guests.
    workers: usize,
    /// Guests and native programs that have started.
    running: usize,
    /// Requests that were taken and have not started.
    waiting: usize,
    /// Workers that have panicked since the start, and were restarted.
    #[serde(skip_serializing_if = "is_zero")]
    workers_restarted: u64,
}

/// Makes the documents.
pub struct Status {
    name: String,
    /// Id of the data directory: tells the gateway from others of its name.
    instance: String,
    topic: Arc<str>,
    settings: Arc<ArcSwap<Settings>>,
    source: Arc<SourceBackend>,
    workers: Arc<Workers>,
    /// None where sealed requests are not taken.
    keys: Option<Arc<Keys>>,
    failure: Failure,
}

impl Status {
    /// The status of the gateway that has this name and these parts.
    pub fn new(
        name: &str,
        data_dir: &DataDir,
        settings: Arc<ArcSwap<Settings>>,
        source: Arc<SourceBackend>,
        workers: Arc<Workers>,
        keys: Option<Arc<Keys>>,
        failure: Failure,
    ) -> Status {
        Status {
            name: name.to_owned(),
            instance: data_dir.instance(),
            topic: topic::gateway_status(name).into(),
            settings,
            source,
            workers,
            keys,
            failure,
        }
    }

    /// The document as it is now.
    pub fn online(&self) -> Notice {
        let settings = self.settings.load();
        self.notice(&Online {
            who: self.who("online"),
            capabilities: Capabilities {
                wasm: ["module", "component"],
                native: self.source.takes_source(),
                programs: settings.programs.names().map(|name| &**name).collect(),
            },
            keys: self.keys.as_ref().map(|keys| keys.set().published()).unwrap_or_default(),
            load: self.load(),
            problem: self.failure.cause().map(|cause| format!("the journal has failed: {cause}")),
            lost_log_lines: log_writer::lost_lines(),
        })
    }

    /// The document that is left behind when the gateway goes.
    pub fn offline(&self) -> Notice {
        self.notice(&self.who("offline"))
    }

    /// Publishes the document when it is another than the one that was published last, looking at it each `interval`,
    /// when there is a problem or other keys, and again where the ingress may have lost it. Never returns.
    pub async fn follow(
        self: Arc<Status>,
        ingress: Arc<dyn Ingress>,
        mut published: Notice,
        interval: Duration,
    ) {
        let mut tells_problem = false;
        let mut other_keys = self.keys.as_ref().map(|keys| keys.changes());
        let (lasts, mut since) = (ingress.notices_last(), Instant::now());
        let mut ticks = interval_at(Instant::now() + interval, interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = self.failure.failed(), if !tells_problem => tells_problem = true,
                // Whoever renews them has clients take the new ones next.
                () = changed(&mut other_keys) => {}
            }
            let now = self.online();
            if now != published || lasts.is_some_and(|lasts| since.elapsed() >= lasts) {
                since = Instant::now();
                published = now.clone();
                ingress.publish_notice(now);
            }
        }
    }

    /// A native program is with no worker, so the workers count its request as waiting.
    fn load(&self) -> Load {
        let Occupancy { workers, running, waiting, restarted, .. } = self.workers.load();
        let natively = self.source.running();
        Load {
            workers,
            running: running + natively,
            waiting: waiting.saturating_sub(natively),
            workers_restarted: restarted,
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

/// Returns when there is something new; never where nothing can be.
async fn changed(receiver: &mut Option<watch::Receiver<()>>) {
    if let Some(changes) = receiver
        && changes.changed().await.is_ok()
    {
        return;
    }
    std::future::pending().await
}
