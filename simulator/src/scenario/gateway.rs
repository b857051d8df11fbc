//! `[gateway.NAME]`: gateways of one kind.

use offload_policy::{AdmissionLimits, DispatcherLimits, Load, Shares};

use super::configuration::Configuration;
use super::program::distribution;
use super::reader::Section;
use super::units::{Bytes, Time};
use crate::clock::{MICROSECOND, MILLISECOND, Nanos, SECOND};
use crate::random::Distribution;

/// Gateways of one kind at the most: a report has a line of each interval for each.
pub const MAX_GATEWAYS: usize = 1_000_000;

/// Workers of one gateway at the most: threads that no machine has cores for.
pub const MAX_WORKERS: usize = 1_024;

/// Guests of one worker at the most: each keeps megabytes of memory.
pub const MAX_SLOTS: usize = 65_536;

/// Gateways of one kind. Keys that the gateway's own configuration has are called as there, and have its defaults, or
/// what the file says that `config` names.
#[derive(Clone, Debug)]
pub struct GatewayGroup {
    /// What devices and failures call it.
    pub name: String,
    /// How many there are.
    pub count: usize,
    /// Worker threads of each.
    pub workers: usize,
    /// Guests that one worker holds.
    pub slots: usize,
    /// Longest time that a guest runs before another one runs.
    pub slice: Nanos,
    /// Whether slices end when a clock ticks, and not each after its own time.
    pub ticks: bool,
    /// Parts of all slots, in percent.
    pub shares: Shares,
    /// What may wait.
    pub admission: AdmissionLimits,
    /// Time on a core that one guest may take.
    pub cpu: Nanos,
    /// Time from its start in which a guest must have ended.
    pub wall: Nanos,
    /// What the worker does for each request beside running its guest.
    pub overhead: Nanos,
    /// What the thread that receives requests takes for each of them.
    pub ingress: Nanos,
    /// Whether requests that were taken outlive a crash.
    pub durable: bool,
    /// How devices find one of several.
    pub spread: Spread,
    /// Requests that one of them may have unanswered, of a work queue.
    pub window: u32,
    /// After how long a broker hands out again what a gateway had that it has not heard of; of a work queue the
    /// acknowledgement wait, within which gateways say three times that they still run what they have.
    pub redelivery: Nanos,
    /// What modules may take.
    pub modules: ModuleLimits,
    /// What the disk takes for one sync, where requests that were taken outlive a crash.
    pub disk: Option<Distribution>,
    /// How long an outcome is kept, and how old a sealed request may be.
    pub retention: Nanos,
    /// What a call of the bucket takes in which gateways of a work queue have the outcomes of each `id`.
    pub outcomes: Option<Distribution>,
    /// Power in watts while nothing runs, and beyond that while all workers run.
    pub watts: Option<(f64, f64)>,
}

/// How the requests of devices come to one of several gateways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spread {
    /// Each device has one gateway, whose own broker it is connected to.
    Home,
    /// A broker hands them out in rotation, as a shared subscription does.
    Rotation,
    /// A work queue: a gateway that has room takes the next one.
    Queue,
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

impl GatewayGroup {
    /// What the dispatcher of each shares out.
    pub fn dispatcher_limits(&self) -> DispatcherLimits {
        let Self { workers, slots, shares, admission, .. } = *self;
        DispatcherLimits { workers, slots, shares, admission }
    }

    pub(super) fn read(section: &Section<'_>) -> Self {
        let configured = Configuration::read(section);
        let Configuration { shares, admission, .. } = configured;
        let share = |key, default: usize| {
            (section.or_within(key, default as f64 / 100.0, 0.01..=1.0) * 100.0).round() as usize
        };
        let time =
            |key, default, least, most| section.or_within(key, Time(default), Time(least)..=Time(most)).0;
        let bytes =
            |key, default: usize| section.or_within(key, Bytes(default as u64), Bytes(1)..=Bytes(1 << 40)).0;
        let workers = section.or_within("workers", configured.workers, 1..=MAX_WORKERS);
        let group = Self {
            name: section.name().to_owned(),
            count: section.or_within("count", 1, 1..=MAX_GATEWAYS),
            workers,
            slots: section.or_within("slots", configured.slots, 1..=MAX_SLOTS),
            slice: time("slice", configured.slice, MICROSECOND, 3_600 * SECOND),
            ticks: section.or("ticks", true),
            shares: Shares {
                flow: share("slot_share", shares.flow),
                account: share("account_share", shares.account),
            },
            admission: AdmissionLimits {
                per_flow: Load {
                    requests: section.or_within(
                        "per_principal",
                        admission.per_flow.requests,
                        1..=100_000_000,
                    ),
                    bytes: bytes("bytes_per_principal", admission.per_flow.bytes) as usize,
                },
                total: Load {
                    requests: section.or_within("total", admission.total.requests, 1..=100_000_000),
                    bytes: bytes("bytes_total", admission.total.bytes) as usize,
                },
                account_share: share("queue_share", admission.account_share),
            },
            cpu: time("cpu", configured.cpu, MICROSECOND, Time::MAX.0),
            wall: time("wall", configured.wall, MICROSECOND, Time::MAX.0),
            overhead: time("overhead", 0, 0, SECOND),
            ingress: time("ingress", 0, 0, SECOND),
            durable: section.or("durable", configured.durable),
            spread: match section.one_of("spread", &["home", "rotation", "queue"]) {
                None | Some(0) => Spread::Home,
                Some(1) => Spread::Rotation,
                Some(_) => Spread::Queue,
            },
            window: section.or_within("window", 256, 1..=1_000_000),
            redelivery: time("redelivery", 30 * SECOND, 0, 86_400 * SECOND),
            modules: ModuleLimits {
                disk_cache: bytes("disk_cache", 1 << 30) as usize,
                loaded_bytes: bytes("loaded_bytes", (64 << 20) * workers.max(1)) as usize,
                loaded_modules: section.or_within("loaded_modules", 256, 1..=65_536),
                compilers: section.or_within("compilers", workers.div_ceil(2).max(2), 1..=1_024),
                compiler_hold: time("compiler_hold", 100 * MILLISECOND, MILLISECOND, 3_600 * SECOND),
                sandboxes: section.or_within("sandboxes", workers.max(2), 1..=1_024),
                sandbox_hold: time("sandbox_hold", 400 * MILLISECOND, MILLISECOND, 3_600 * SECOND),
            },
            disk: distribution(section, "disk"),
            retention: time("retention", 600 * SECOND, 0, 86_400 * SECOND),
            outcomes: distribution(section, "outcomes"),
            watts: section.table("watts").map(|watts| {
                let read = (watts.or_within("idle", 0.0, 0.0..=1e6), watts.or_within("busy", 0.0, 0.0..=1e6));
                watts.finish();
                read
            }),
        };
        if group.disk.is_some() && !group.durable {
            section.refuse("disk", "nothing is written".to_owned(), "durable = true");
        }
        if group.outcomes.is_some() && group.spread != Spread::Queue {
            section.refuse("outcomes", "gateways share none".to_owned(), "spread = \"queue\"");
        }
        section.finish();
        group
    }
}
