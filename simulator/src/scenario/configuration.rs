//! What a gateway's own configuration says that is simulated. Keys are called as there, and have its defaults; a
//! scenario gives them itself, or takes them from the operator's file by `config = "gateway.toml"`.

use offload_policy::{
    AdmissionLimits, DEFAULT_ACCOUNT_SHARE, DEFAULT_SLOTS, DEFAULT_WAITING_PER_FLOW, DEFAULT_WAITING_TOTAL,
    DispatcherLimits, Load, Shares,
};

use super::reader::Section;
use super::units::{Bytes, Time};
use crate::clock::{MICROSECOND, MILLISECOND, Nanos, SECOND};

/// Workers of one gateway at the most: threads that no machine has cores for.
pub const MAX_WORKERS: usize = 1_024;

/// Guests of one worker at the most: each keeps megabytes of memory.
pub const MAX_SLOTS: usize = 65_536;

/// Requests that may wait, at the most.
const MAX_WAITING: usize = 100_000_000;

/// Workers of a gateway that nothing is said of: one of two cores.
const DEFAULT_WORKERS: usize = 2;

/// What a gateway's configuration says that is simulated.
#[derive(Clone, Debug)]
pub struct Configuration {
    /// Worker threads.
    pub workers: usize,
    /// Guests that one worker holds.
    pub slots: usize,
    /// Longest time that a guest runs before another one runs.
    pub slice: Nanos,
    /// Parts of all slots, in percent.
    pub shares: Shares,
    /// What may wait.
    pub admission: AdmissionLimits,
    /// Time on a core that one guest may take.
    pub cpu: Nanos,
    /// Time from its start in which a guest must have ended.
    pub wall: Nanos,
    /// Whether requests that were taken outlive a crash.
    pub durable: bool,
    /// How long an outcome is kept, and how old a sealed request may be.
    pub retention: Nanos,
    /// Requests that a gateway of a work queue may have unanswered.
    pub window: u32,
    /// After how long a broker hands out again what a gateway had that it has not heard of; of a work queue the
    /// acknowledgement wait, within which gateways say three times that they still run what they have.
    pub redelivery: Nanos,
    /// What modules may take.
    pub modules: ModuleLimits,
    /// Keys that the operator's file gives and that nothing is taken from.
    pub not_taken: Vec<String>,
}

/// What modules may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModuleLimits {
    /// Bytes of compiled modules, and of built programs, that are kept.
    pub disk_cache: usize,
    /// Bytes of what all workers have loaded.
    pub loaded_bytes: usize,
    /// Modules that a worker has loaded.
    pub loaded_modules: usize,
    /// Compilers at full speed at once.
    pub compilers: usize,
    /// How long one runs at full speed while others wait.
    pub compiler_hold: Nanos,
    /// Sandboxes at full speed at once.
    pub sandboxes: usize,
    /// How long one counts as one of these while others wait.
    pub sandbox_hold: Nanos,
}

impl Configuration {
    /// Of a gateway that nothing else is said of than the number of its workers.
    fn of(workers: usize) -> Self {
        Self {
            workers,
            slots: DEFAULT_SLOTS,
            slice: 500 * MICROSECOND,
            shares: Shares { flow: 50, account: DEFAULT_ACCOUNT_SHARE },
            admission: AdmissionLimits {
                per_flow: Load { requests: DEFAULT_WAITING_PER_FLOW, bytes: 64 << 20 },
                total: Load { requests: DEFAULT_WAITING_TOTAL, bytes: 256 << 20 },
                account_share: DEFAULT_ACCOUNT_SHARE,
            },
            cpu: 10 * SECOND,
            wall: 30 * SECOND,
            durable: false,
            retention: 600 * SECOND,
            window: 256,
            redelivery: 30 * SECOND,
            modules: ModuleLimits {
                disk_cache: 1 << 30,
                loaded_bytes: (64 << 20) * workers,
                loaded_modules: 256,
                compilers: workers.div_ceil(2).max(2),
                compiler_hold: 100 * MILLISECOND,
                sandboxes: workers.max(2),
                sandbox_hold: 400 * MILLISECOND,
            },
            not_taken: Vec::new(),
        }
    }

    /// What the section says, else the file that it names, else what holds without either.
    pub(super) fn read(section: &Section<'_>) -> Self {
        // What follows from the number of workers follows from the section's, where that says it.
        let workers = section.get("workers").map(|_| section.required_within("workers", 1..=MAX_WORKERS));
        let of = || Self::of(workers.unwrap_or(DEFAULT_WORKERS));
        let told = match section.optional::<String>("config") {
            None => of(),
            Some(file) => file::read(&section.folder().join(file), workers).unwrap_or_else(|problem| {
                let accepted = "a gateway's configuration, as `offload-rt config` prints it";
                section.refuse("config", problem, accepted);
                of()
            }),
        };
        told.overridden(section)
    }

    /// The same, with what the section says instead; the number of workers is the section's already.
    fn overridden(self, section: &Section<'_>) -> Self {
        let Self { shares, admission, modules, .. } = self;
        let share = |key, default: usize| {
            (section.or_within(key, default as f64 / 100.0, 0.01..=1.0) * 100.0).round() as usize
        };
        let time =
            |key, default, least, most| section.or_within(key, Time(default), Time(least)..=Time(most)).0;
        let bytes =
            |key, default: usize| section.or_within(key, Bytes(default as u64), Bytes(1)..=Bytes(1 << 40)).0;
        Self {
            workers: self.workers,
            slots: section.or_within("slots", self.slots, 1..=MAX_SLOTS),
            slice: time("slice", self.slice, MICROSECOND, 3_600 * SECOND),
            shares: Shares {
                flow: share("slot_share", shares.flow),
                account: share("account_share", shares.account),
            },
            admission: AdmissionLimits {
                per_flow: Load {
                    requests: section.or_within(
                        "per_principal",
                        admission.per_flow.requests,
                        1..=MAX_WAITING,
                    ),
                    bytes: bytes("bytes_per_principal", admission.per_flow.bytes) as usize,
                },
                total: Load {
                    requests: section.or_within("total", admission.total.requests, 1..=MAX_WAITING),
                    bytes: bytes("bytes_total", admission.total.bytes) as usize,
                },
                account_share: share("queue_share", admission.account_share),
            },
            cpu: time("cpu", self.cpu, MICROSECOND, Time::MAX.0),
            wall: time("wall", self.wall, MICROSECOND, Time::MAX.0),
            durable: section.or("durable", self.durable),
            retention: time("retention", self.retention, 0, 86_400 * SECOND),
            window: section.or_within("window", self.window, 1..=1_000_000),
            redelivery: time("redelivery", self.redelivery, 0, 86_400 * SECOND),
            modules: ModuleLimits {
                disk_cache: bytes("disk_cache", modules.disk_cache) as usize,
                loaded_bytes: bytes("loaded_bytes", modules.loaded_bytes) as usize,
                loaded_modules: section.or_within("loaded_modules", modules.loaded_modules, 1..=65_536),
                compilers: section.or_within("compilers", modules.compilers, 1..=1_024),
                compiler_hold: time("compiler_hold", modules.compiler_hold, MILLISECOND, 3_600 * SECOND),
                sandboxes: section.or_within("sandboxes", modules.sandboxes, 1..=1_024),
                sandbox_hold: time("sandbox_hold", modules.sandbox_hold, MILLISECOND, 3_600 * SECOND),
            },
            not_taken: self.not_taken,
        }
    }

    /// What the dispatcher shares out.
    pub fn dispatcher_limits(&self) -> DispatcherLimits {
        let Self { workers, slots, shares, admission, .. } = *self;
        DispatcherLimits { workers, slots, shares, admission }
    }
}

/// Pages in a browser have no files.
#[cfg(not(feature = "cli"))]
mod file {
    use super::Configuration;
    use std::path::Path;

    pub fn read(_: &Path, _: Option<usize>) -> Result<Configuration, String> {
        Err("there are no files here".to_owned())
    }
}

#[cfg(feature = "cli")]
mod file {
    use super::{Configuration, DEFAULT_WORKERS, ModuleLimits};
    use crate::clock::Nanos;
    use offload_config::{ConfigError, Draft, Durability, TimeSpan, capacity};
    use std::path::Path;

    /// Keys that something is taken from.
    const TAKEN: [&str; 24] = [
        "durability",
        "workers.count",
        "workers.memory",
        "workers.slots",
        "workers.slice",
        "workers.slot_share",
        "workers.account_share",
        "queue.per_principal",
        "queue.total",
        "queue.bytes_per_principal",
        "queue.bytes_total",
        "queue.account_share",
        "limits.cpu",
        "limits.wall",
        "compiler.concurrency",
        "compiler.hold",
        "compiler.disk_cache",
        "compiler.loaded_modules",
        "compiler.loaded_bytes",
        "sandbox.concurrency",
        "sandbox.hold",
        "idempotency.retention",
        "nats.ack_wait",
        "nats.in_flight",
    ];

    /// The gateway runs on another machine: its files are not here, and what follows from the number of cores or from
    /// the memory is not known unless it was given. `workers` goes before what the file says.
    pub fn read(path: &Path, workers: Option<usize>) -> Result<Configuration, String> {
        let finished = Draft::read(path).and_then(Draft::finish_elsewhere).map_err(first)?;
        let (mut config, given) = (finished.config, finished.given);
        let told = given.has("workers.count").then_some(config.workers.count);
        config.workers.count = workers.or(told).unwrap_or(DEFAULT_WORKERS);
        let unknown = Configuration::of(config.workers.count);
        let has_slots = given.has("workers.slots") || given.has("workers.memory");
        let if_given = |key, value, otherwise| if given.has(key) { value } else { otherwise };
        let modules = unknown.modules;
        Ok(Configuration {
            slots: match has_slots {
                true => capacity::wanted_slots(&config.workers, &config.compiler),
                false => unknown.slots,
            },
            slice: nanos(config.workers.slice),
            shares: config.workers.shares(),
            admission: config.queue.admission_limits(),
            cpu: nanos(config.limits.cpu),
            wall: nanos(config.limits.wall),
            durable: config.durability != Durability::Off,
            retention: nanos(config.idempotency.retention),
            window: config.nats.in_flight.try_into().unwrap_or(u32::MAX),
            redelivery: nanos(config.nats.ack_wait),
            modules: ModuleLimits {
                disk_cache: config.compiler.disk_cache.as_usize(),
                loaded_bytes: config.compiler.loaded_bytes.map_or(modules.loaded_bytes, |of| of.as_usize()),
                loaded_modules: config.compiler.loaded_modules,
                compilers: if_given("compiler.concurrency", config.compiler.concurrency, modules.compilers),
                compiler_hold: nanos(config.compiler.hold),
                sandboxes: if_given("sandbox.concurrency", config.sandbox.concurrency, modules.sandboxes),
                sandbox_hold: nanos(config.sandbox.hold),
            },
            not_taken: given.keys().filter(|key| !TAKEN.contains(key)).map(str::to_owned).collect(),
            ..unknown
        })
    }

    fn nanos(time: TimeSpan) -> Nanos {
        Nanos::try_from(time.duration().as_nanos()).unwrap_or(Nanos::MAX)
    }

    /// One line of what is wrong: the gateway's own command tells all.
    fn first(error: ConfigError) -> String {
        let told = error.to_string();
        let mut lines = told.lines();
        let line = lines.next().unwrap_or_default();
        match lines.count() {
            0 => line.to_owned(),
            more => format!("{line}; and {more} more that `offload-rt config --check` tells"),
        }
    }
}
