//! `config = "gateway.toml"`: what a gateway's own configuration says of what is simulated.

use offload_policy::{
    AdmissionLimits, DEFAULT_ACCOUNT_SHARE, DEFAULT_SLOTS, DEFAULT_WAITING_PER_FLOW, DEFAULT_WAITING_TOTAL,
    Load, Shares,
};

use super::reader::Section;
use crate::clock::{MICROSECOND, Nanos, SECOND};

/// What a configuration says of how requests are scheduled.
pub struct Configuration {
    /// Worker threads.
    pub workers: usize,
    /// Guests that one worker holds.
    pub slots: usize,
    /// Longest time that a guest runs before another one runs.
    pub slice: Nanos,
    /// Parts of all slots.
    pub shares: Shares,
    /// What may wait.
    pub admission: AdmissionLimits,
    /// Time on a core that one guest may take.
    pub cpu: Nanos,
    /// Time from its start in which a guest must have ended.
    pub wall: Nanos,
    /// Whether requests that were taken outlive a crash.
    pub durable: bool,
}

impl Default for Configuration {
    /// A gateway of two cores that nothing is said of.
    fn default() -> Self {
        Self {
            workers: 2,
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
        }
    }
}

impl Configuration {
    /// What the file says that the section names, or what holds without one.
    pub fn read(section: &Section<'_>) -> Self {
        let Some(file) = section.optional::<String>("config") else { return Self::default() };
        file::read(&section.folder().join(file)).unwrap_or_else(|problem| {
            section.refuse("config", problem, "a gateway's configuration, as `offload-rt config` prints it");
            Self::default()
        })
    }
}

/// Pages in a browser have no files.
#[cfg(not(feature = "cli"))]
mod file {
    use super::Configuration;
    use std::path::Path;

    pub fn read(_: &Path) -> Result<Configuration, String> {
        Err("there are no files here".to_owned())
    }
}

#[cfg(feature = "cli")]
mod file {
    use super::Configuration;
    use crate::clock::Nanos;
    use offload_config::{ConfigError, Draft, Durability, TimeSpan, capacity};
    use std::path::Path;

    /// The gateway runs on another machine: its files are not here, and what follows from the number of cores or from
    /// the memory is not known unless it was given.
    pub fn read(path: &Path) -> Result<Configuration, String> {
        let finished = Draft::read(path).and_then(Draft::finish_elsewhere).map_err(first)?;
        let (config, given) = (finished.config, finished.given);
        let unknown = Configuration::default();
        let has_slots = given.has("workers.slots") || given.has("workers.memory");
        Ok(Configuration {
            workers: if given.has("workers.count") { config.workers.count } else { unknown.workers },
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
