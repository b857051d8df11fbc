//! When a device sends its requests.

use super::program::table_text;
use super::reader::Section;
use super::units::{Rate, Time};
use crate::clock::Nanos;

/// Lines of a trace at the most.
const MAX_TRACE: usize = 10_000_000;

/// When a device sends its requests.
#[derive(Clone, Debug, PartialEq)]
pub enum Arrival {
    /// Each `every`, from a random moment of the first one on, later by up to `jitter`.
    Periodic {
        /// The period.
        every: Nanos,
        /// What each is late by at the most.
        jitter: Nanos,
    },
    /// Independent of each other, at this mean time between.
    Poisson {
        /// The mean time between two.
        between: Nanos,
    },
    /// A number at once, each `every` in the mean.
    Burst {
        /// The mean time between two bursts.
        every: Nanos,
        /// Requests of a burst.
        size: u32,
        /// The time in which a burst is sent.
        within: Nanos,
    },
    /// The next one this long after the answer to the last one, exponentially distributed.
    Think {
        /// The mean time.
        mean: Nanos,
    },
    /// At these times, in ascending order.
    Trace(Vec<Nanos>),
}

/// A time in which devices send more often.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Surge {
    /// When it begins.
    pub at: Nanos,
    /// How long it lasts.
    pub lasts: Nanos,
    /// How many times as often.
    pub factor: f64,
}

/// How an arrival process is written.
const FORMS: &str = "{ every = \"10s\", jitter = \"1s\" }, { poisson = \"10/s\" }, { burst = 20, every = \"1min\", \
                     within = \"2s\" }, { think = \"1s\" } or { trace = \"FILE\" }";

impl Arrival {
    pub(super) fn read(device: &Section<'_>) -> Self {
        let unknown = Self::Poisson { between: 1 };
        let Some(table) = device.table("arrival", FORMS) else {
            if !device.has("arrival") {
                device.refuse("arrival", "it is missing".to_owned(), FORMS);
            }
            return unknown;
        };
        let least = Time(1)..=Time::MAX;
        let kinds = ["poisson", "burst", "think", "trace"].iter().filter(|kind| table.has(kind)).count();
        let is_periodic = table.has("every") && !table.has("burst");
        if kinds + usize::from(is_periodic) > 1 {
            table.refuse_all("it is more than one arrival process".to_owned(), FORMS);
            return unknown;
        }
        let arrival = if table.has("poisson") {
            Self::Poisson { between: table.required::<Rate>("poisson").0 }
        } else if table.has("burst") {
            Self::Burst {
                size: table.required_within("burst", 1..=1_000_000),
                every: table.required_within("every", least).0,
                within: table.or("within", Time(0)).0,
            }
        } else if table.has("every") {
            let every = table.required_within("every", least).0;
            Self::Periodic { every, jitter: table.or_within("jitter", Time(0), Time(0)..=Time(every)).0 }
        } else if table.has("think") {
            Self::Think { mean: table.required::<Time>("think").0 }
        } else if table.has("trace") {
            Self::trace(&table)
        } else {
            table.refuse_all("it is no arrival process".to_owned(), FORMS);
            return unknown;
        };
        table.finish();
        arrival
    }

    /// A file with a time on each line, from the start of the run.
    fn trace(table: &Section<'_>) -> Self {
        let path = table.folder().join(table.required::<String>("trace"));
        let times = table_text(&path).and_then(|text| {
            let lines = text.lines().map(str::trim).enumerate().filter(|(_, line)| !line.is_empty());
            let mut times = lines
                .take(MAX_TRACE)
                .map(|(index, line)| {
                    Time::parse(line)
                        .map(|time| time.0)
                        .map_err(|problem| format!("line {}: {problem}", index + 1))
                })
                .collect::<Result<Vec<_>, _>>()?;
            times.sort_unstable();
            if times.is_empty() { Err("there is no time in it".to_owned()) } else { Ok(times) }
        });
        Self::Trace(times.unwrap_or_else(|problem| {
            table.refuse(
                "trace",
                format!("{}: {problem}", path.display()),
                "a file with a time on each line, such as 1.5s",
            );
            Vec::new()
        }))
    }
}

impl Surge {
    pub(super) fn read(section: &Section<'_>) -> Self {
        let surge = Self {
            at: section.required::<Time>("at").0,
            lasts: section.required_within("for", Time(1)..=Time::MAX).0,
            factor: section.required_within("factor", 1e-3..=1e6),
        };
        section.finish();
        surge
    }
}
