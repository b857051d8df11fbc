//! Random worlds: small, odd and busy.
//!
//! Each world has some features and is without others, which a coin decides for each feature (A. Groce, C. Zhang, E.
//! Eide, Y. Chen and J. Regehr, "Swarm Testing", ISSTA 2012): a world that has a little of everything never comes to
//! the states that one feature keeps the others from. A world is TOML, so that what was run is what is written down.

use std::fmt::Write as _;

use clap::ValueEnum as _;

use crate::clock::{MICROSECOND, MILLISECOND, Nanos, SECOND};
use crate::random::Stream;
use crate::scenario::units::Time;

/// Requests that the devices of one table make in a run, about, at the most.
const MAX_REQUESTS: u64 = 600;

macro_rules! features {
    ($($(#[$about:meta])* $name:ident,)*) => {
        /// What a world can have.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
        pub enum Feature {
            $($(#[$about])* $name,)*
        }

        impl Feature {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name),*];
        }
    };
}

// What worlds come to have is added here, and where its tables are made: routers, queues with losses, clocks, caches.
features! {
    /// Several devices are one account.
    SharedAccounts,
    /// Five devices of a kind and more.
    ManyDevices,
    /// Some ask with QoS 0.
    Qos0,
    /// There is something between devices and gateways.
    Links,
    /// Which loses packets, where there is anything.
    Loss,
    /// Which all share, and which is slow.
    Narrow,
    /// Devices ask again with the same `id`.
    Timeouts,
    /// Requests have a `timeout_ms`.
    Deadlines,
    /// Devices hear answers when they wake.
    SleepyDevices,
    /// Devices ask for much at once.
    Bursts,
    /// Devices ask for more for a time.
    Surges,
    /// Devices ask when they have an answer.
    Thinking,
    /// Guests sleep in their slots.
    SleepyGuests,
    /// Guests whose slices cannot be ended.
    Unyielding,
    /// Guests that take longer than a slice by far.
    LongGuests,
    /// Fewer slots than guests.
    FewSlots,
    /// Other shares than the default ones.
    Shares,
    /// Fewer requests may wait than come.
    ShortQueue,
    /// Fewer bytes may wait than come.
    FewBytes,
    /// Guests have little time.
    Limits,
    /// Slices are shorter or longer.
    Slices,
    /// Requests cost something beside their guests.
    Overheads,
    /// Gateways have three workers and more.
    ManyWorkers,
    /// What was taken outlives a crash.
    Durable,
    /// Up to three gateways of a kind.
    SeveralGateways,
    /// Two kinds of gateways.
    SeveralKinds,
    /// Gateways of a kind have a broker together.
    Brokers,
    /// Devices ask for more than there is.
    Overload,
    /// Processes end.
    Crashes,
    /// Processes stand still.
    Pauses,
    /// Processes become slow.
    Slowness,
    /// Devices cannot reach their gateways.
    Partitions,
}

impl Feature {
    /// What reports call it, and the command line.
    pub fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

/// A world, and what it has.
#[derive(Clone, Debug)]
pub struct RandomWorld {
    /// Its features.
    pub features: Vec<Feature>,
    /// Its scenario.
    pub text: String,
}

/// The world of this seed, without these features.
pub fn random(seed: u64, without: &[Feature]) -> RandomWorld {
    let mut random = Stream::new(seed, "world", 0);
    let mut features: Vec<Feature> = Feature::ALL.iter().copied().filter(|_| random.chance(0.5)).collect();
    features.retain(|feature| !without.contains(feature));
    let mut maker = Maker { random, features, text: String::new(), kinds: 1, programs: 1 };
    maker.make(seed);
    RandomWorld { features: maker.features, text: maker.text }
}

struct Maker {
    random: Stream,
    features: Vec<Feature>,
    text: String,
    /// Tables of gateways, and of programs.
    kinds: u64,
    programs: u64,
}

impl Maker {
    fn make(&mut self, seed: u64) {
        let duration = self.one_of(&[200 * MILLISECOND, SECOND, 5 * SECOND, 20 * SECOND]);
        self.line(&format!("seed = {}", seed >> 1));
        self.line(&format!("duration = \"{}\"", Time(duration)));
        self.line("replicas = 1");
        self.line("warm_up = \"0s\"");
        self.programs = 1 + self.random.below(3);
        let means: Vec<Nanos> = (0..self.programs).map(|number| self.program(number)).collect();
        if self.has(Feature::Links) {
            self.link();
        }
        self.kinds = if self.has(Feature::SeveralKinds) { 2 } else { 1 };
        let workers: Vec<u64> = (0..self.kinds).map(|number| self.gateways(number)).collect();
        for number in 0..1 + self.random.below(4) {
            self.devices(number, duration, &means, &workers);
        }
        for (feature, kind) in [
            (Feature::Crashes, "crash"),
            (Feature::Pauses, "pause"),
            (Feature::Slowness, "slow"),
            (Feature::Partitions, "partition"),
        ] {
            if self.has(feature) {
                (0..1 + self.random.below(2)).for_each(|_| self.failure(kind, duration));
            }
        }
    }

    /// A program, and the time that a guest of it takes in the mean, about.
    fn program(&mut self, number: u64) -> Nanos {
        self.line(&format!("\n[program.p{number}]"));
        let longest = if self.has(Feature::LongGuests) { 6 } else { 4 };
        let times = [20 * MICROSECOND, 200 * MICROSECOND, MILLISECOND, 5 * MILLISECOND, 30 * MILLISECOND];
        let times = [&times[..], &[300 * MILLISECOND]].concat();
        let mean = self.one_of(&times[..longest]);
        let time = Time(mean);
        let (least, most) = (Time(mean / 2), Time(mean * 3 / 2));
        let distribution = match self.random.below(5) {
            0 => format!("{{ exponential = \"{time}\" }}"),
            1 => format!("{{ uniform = [\"{least}\", \"{most}\"] }}"),
            2 => format!(
                "{{ mix = [{{ weight = 9, time = \"{least}\" }}, {{ weight = 1, time = \"{most}\" }}] }}"
            ),
            _ => format!("\"{time}\""),
        };
        self.line(&format!("time = {distribution}"));
        if self.has(Feature::SleepyGuests) && self.random.chance(0.6) {
            let sleep = Time(self.one_of(&[MILLISECOND, 20 * MILLISECOND, 500 * MILLISECOND]));
            let sleep = self.either(&format!("\"{sleep}\""), &format!("{{ exponential = \"{sleep}\" }}"));
            self.line(&format!("sleep = {sleep}"));
        }
        if self.has(Feature::Unyielding) && self.random.chance(0.5) {
            self.line("yields = false");
        }
        if self.has(Feature::FewBytes) {
            let bytes = self.one_of(&[0, 1, 100, 1_000]);
            self.line(&format!("request = \"{bytes}B\""));
        }
        mean
    }

    fn link(&mut self) {
        self.line("\n[link.l]");
        let latency = self.one_of(&[0, MICROSECOND, MILLISECOND, 50 * MILLISECOND]);
        self.line(&format!("latency = \"{}\"", Time(latency)));
        let jitter = self.one_of(&[0, MILLISECOND, 20 * MILLISECOND]);
        self.line(&format!("jitter = \"{}\"", Time(jitter)));
        if self.has(Feature::Loss) {
            self.line("loss = 0.2");
        }
        if self.has(Feature::Narrow) {
            self.line("bandwidth = \"200kbit/s\"");
            self.line("shared = true");
        }
    }

    /// Gateways of one kind, and the number of their workers.
    fn gateways(&mut self, number: u64) -> u64 {
        self.line(&format!("\n[gateway.g{number}]"));
        let several = self.has(Feature::SeveralGateways);
        let count = if several { 1 + self.random.below(3) } else { 1 };
        let many = self.has(Feature::ManyWorkers);
        let workers = if many { self.one_of(&[3, 4, 8]) } else { self.one_of(&[1, 2]) };
        self.line(&format!("count = {count}\nworkers = {workers}"));
        let slots = if self.has(Feature::FewSlots) { self.one_of(&[1, 2, 3, 4, 8]) } else { 64 };
        self.line(&format!("slots = {slots}"));
        if self.has(Feature::Shares) {
            for key in ["slot_share", "account_share", "queue_share"] {
                let share = self.one_of(&[1, 10, 34, 50, 75, 99, 100]);
                self.line(&format!("{key} = {}", share as f64 / 100.0));
            }
        }
        if self.has(Feature::ShortQueue) {
            let flow = self.one_of(&[1, 2, 5, 20]);
            let total = flow * self.one_of(&[1, 2, 4]);
            self.line(&format!("per_principal = {flow}\ntotal = {total}"));
        }
        if self.has(Feature::FewBytes) {
            let flow = self.one_of(&[150, 1_000, 5_000]);
            let total = flow * self.one_of(&[1, 2, 4]);
            self.line(&format!("bytes_per_principal = \"{flow}B\"\nbytes_total = \"{total}B\""));
        }
        if self.has(Feature::Limits) {
            let cpu = Time(self.one_of(&[100 * MICROSECOND, 2 * MILLISECOND, 50 * MILLISECOND]));
            let wall = Time(self.one_of(&[MILLISECOND, 30 * MILLISECOND, 2 * SECOND]));
            self.line(&format!("cpu = \"{cpu}\"\nwall = \"{wall}\""));
        }
        if self.has(Feature::Slices) {
            let slice = Time(self.one_of(&[50 * MICROSECOND, 300 * MICROSECOND, 10 * MILLISECOND]));
            self.line(&format!("slice = \"{slice}\""));
        }
        if self.has(Feature::Overheads) {
            self.line("overhead = \"20us\"\ningress = \"10us\"");
        }
        if self.has(Feature::Durable) {
            self.line("durable = true");
        }
        if self.has(Feature::Brokers) {
            let spread = self.either("rotation", "queue");
            let window = self.one_of(&[1, 2, 8]);
            let redelivery = Time(self.one_of(&[0, 100 * MILLISECOND, 5 * SECOND]));
            self.line(&format!("spread = \"{spread}\"\nwindow = {window}\nredelivery = \"{redelivery}\""));
        }
        count * workers
    }

    fn devices(&mut self, number: u64, duration: Nanos, means: &[Nanos], workers: &[u64]) {
        let (program, gateway) = (self.random.below(self.programs), self.random.below(self.kinds));
        let count =
            if self.has(Feature::ManyDevices) { self.one_of(&[5, 20]) } else { self.one_of(&[1, 2, 3]) };
        self.line(&format!("\n[device.d{number}]\ncount = {count}"));
        self.line(&format!("program = \"p{program}\"\ngateway = \"g{gateway}\""));
        if self.has(Feature::Links) && self.random.chance(0.7) {
            self.line("link = \"l\"");
        }
        // What they ask for, in parts of what their gateways can do.
        let loads = if self.has(Feature::Overload) { [0.8, 1.5, 4.0] } else { [0.05, 0.3, 0.8] };
        let load = self.one_of(&loads);
        let rate = load * workers[gateway as usize] as f64 / means[program as usize] as f64;
        let least = (duration / MAX_REQUESTS).max(1);
        let between = ((1.0 / rate) as Nanos).max(least);
        let each = nice(between * count);
        let arrival = if self.has(Feature::Bursts) && self.random.chance(0.5) {
            let size = self.one_of(&[2, 7, 30]);
            let within = Time(self.one_of(&[0, MILLISECOND]));
            let every = Time(nice(each * size));
            format!("{{ burst = {size}, every = \"{every}\", within = \"{within}\" }}")
        } else if self.has(Feature::Thinking) && self.random.chance(0.5) {
            format!("{{ think = \"{}\" }}", Time(each))
        } else if self.random.chance(0.5) {
            let jitter = self.either(&Time(0).to_string(), &Time(each).to_string());
            format!("{{ every = \"{}\", jitter = \"{jitter}\" }}", Time(each))
        } else {
            let seconds = each as f64 / SECOND as f64;
            format!("{{ poisson = \"{}/s\" }}", 1.0 / seconds)
        };
        self.line(&format!("arrival = {arrival}"));
        if self.has(Feature::Surges) && self.random.chance(0.5) {
            let (at, lasts) = (Time(duration / 4), Time(duration / 4));
            self.line(&format!("surge = {{ at = \"{at}\", for = \"{lasts}\", factor = 4 }}"));
        }
        if self.has(Feature::Qos0) && self.random.chance(0.5) {
            self.line("qos = 0");
        }
        if self.has(Feature::Timeouts) && self.random.chance(0.7) {
            let timeout = Time(self.one_of(&[MILLISECOND, 20 * MILLISECOND, 300 * MILLISECOND, 2 * SECOND]));
            let retries = self.one_of(&[0, 1, 5]);
            self.line(&format!("timeout = \"{timeout}\"\nretries = {retries}\nbackoff = \"20ms\""));
        }
        if self.has(Feature::Deadlines) && self.random.chance(0.7) {
            let deadline = Time(self.one_of(&[MILLISECOND, 10 * MILLISECOND, 100 * MILLISECOND]));
            self.line(&format!("deadline = \"{deadline}\""));
        }
        if self.has(Feature::SleepyDevices) && self.random.chance(0.5) {
            self.line("wakes = \"150ms\"");
        }
        if self.has(Feature::SharedAccounts) {
            let together = self.one_of(&[2, 5, 20]);
            self.line(&format!("per_account = {together}"));
        }
    }

    fn failure(&mut self, kind: &str, duration: Nanos) {
        let gateway = self.random.below(self.kinds);
        self.line(&format!("\n[[failure]]\nkind = \"{kind}\"\ngateway = \"g{gateway}\""));
        if kind == "slow" {
            self.line("factor = 8");
        }
        if self.random.chance(0.5) {
            let at = Time(nice(self.random.below(duration)));
            self.line(&format!("at = \"{at}\""));
        } else {
            let mean = Time(nice(duration / (2 + self.random.below(8))));
            self.line(&format!("mean_between = \"{mean}\""));
        }
        let lasts = Time(self.one_of(&[1, MILLISECOND, 50 * MILLISECOND, 700 * MILLISECOND]));
        self.line(&format!("for = \"{lasts}\""));
    }

    fn has(&self, feature: Feature) -> bool {
        self.features.contains(&feature)
    }

    fn one_of<T: Copy>(&mut self, values: &[T]) -> T {
        values[self.random.below(values.len() as u64) as usize]
    }

    fn either(&mut self, one: &str, other: &str) -> String {
        self.one_of(&[one, other]).to_owned()
    }

    fn line(&mut self, line: &str) {
        // Writing to a string does not fail.
        let _ = writeln!(self.text, "{line}");
    }
}

/// A time near it that is written with two digits.
fn nice(time: Nanos) -> Nanos {
    let mut unit = 1;
    while time / unit >= 100 {
        unit *= 10;
    }
    (time / unit * unit).max(1)
}
