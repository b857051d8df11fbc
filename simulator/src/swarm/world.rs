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

/// The same where sites hand requests on: it takes more to saturate them.
const MAX_REQUESTS_OF_SITES: u64 = 2_000;

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

// What worlds come to have is added here, and where its tables are made.
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
    /// Which a few packets take much longer by.
    Tails,
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
    /// And has to be written down for that, which takes a while.
    Disks,
    /// Programs have modules, which are compiled and loaded.
    Modules,
    /// Up to three gateways of a kind.
    SeveralGateways,
    /// Two kinds of gateways.
    SeveralKinds,
    /// Gateways of a kind have a broker together.
    Brokers,
    /// Which has claims and outcomes in a bucket, where it is a work queue.
    Buckets,
    /// Gateways are routers of sites, which a master joins.
    Sites,
    /// Up to six of them.
    ManySites,
    /// Two masters, of which a site joins one, or both in either order.
    TwoMasters,
    /// Sites hand on what they have too much of.
    Overflow,
    /// Devices ask for other sites' gateways.
    Elsewhere,
    /// There is something between sites and masters.
    SiteLinks,
    /// Little may be on its way to other sites, or not for long.
    SmallBuffers,
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
    /// Nothing passes by the link of devices.
    CutDevices,
    /// Nothing passes by the link of a site.
    CutSites,
    /// Masters' processes end.
    MasterCrashes,
    /// Requests are sealed, and clocks are wrong.
    Clocks,
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
    let mut maker = Maker {
        random,
        features,
        text: String::new(),
        kinds: 1,
        programs: 1,
        groups: 1,
        sites: 0,
        masters: 0,
    };
    maker.make(seed);
    RandomWorld { features: maker.features, text: maker.text }
}

struct Maker {
    random: Stream,
    features: Vec<Feature>,
    text: String,
    /// Tables of gateways, of programs, and of devices.
    kinds: u64,
    programs: u64,
    groups: u64,
    /// Tables of sites, whose gateways are the first ones, and of masters.
    sites: u64,
    masters: u64,
}

impl Maker {
    fn make(&mut self, seed: u64) {
        if self.has(Feature::Sites) {
            self.sites = if self.has(Feature::ManySites) {
                3 + self.random.below(4)
            } else {
                1 + self.random.below(3)
            };
            self.masters = if self.has(Feature::TwoMasters) { 2 } else { 1 };
        }
        // Nothing is handed on before sites have heard of each other's load, a second after the start.
        let durations = [200 * MILLISECOND, SECOND, 5 * SECOND, 20 * SECOND];
        let duration = self.one_of(if self.overflows() { &durations[2..3] } else { &durations });
        self.line(&format!("seed = {}", seed >> 1));
        self.line(&format!("duration = \"{}\"", Time(duration)));
        self.line("replicas = 1");
        self.line("warm_up = \"0s\"");
        self.programs = 1 + self.random.below(3);
        let means: Vec<Nanos> = (0..self.programs).map(|number| self.program(number)).collect();
        if self.has(Feature::Links) {
            self.link("l");
        }
        let beside = u64::from(self.has(Feature::SeveralKinds));
        self.kinds = if self.sites > 0 { self.sites + beside } else { 1 + beside };
        let workers: Vec<u64> = (0..self.kinds).map(|number| self.gateways(number)).collect();
        if self.sites > 0 {
            self.network();
        }
        self.groups = 1 + self.random.below(4);
        for number in 0..self.groups {
            self.devices(number, duration, &means, &workers);
        }
        let has_sites = self.sites > 0;
        for (feature, kind, target) in [
            (Feature::Crashes, "crash", "gateway"),
            (Feature::Pauses, "pause", "gateway"),
            (Feature::Slowness, "slow", "gateway"),
            (Feature::Partitions, "partition", "gateway"),
            (Feature::Disks, "disk", "gateway"),
            (Feature::Clocks, "clock", "gateway"),
            (Feature::Clocks, "clock", "device"),
            (Feature::CutDevices, "link", "device"),
            (Feature::CutSites, "link", "site"),
            (Feature::MasterCrashes, "crash", "master"),
        ] {
            if self.has(feature) && (has_sites || !["site", "master"].contains(&target)) {
                (0..1 + self.random.below(2)).for_each(|_| self.failure(kind, target, duration));
            }
        }
    }

    /// Whether sites hand requests on.
    fn overflows(&self) -> bool {
        self.sites > 0 && self.has(Feature::Overflow)
    }

    /// A program, and the time that a guest of it takes in the mean, about.
    fn program(&mut self, number: u64) -> Nanos {
        self.line(&format!("\n[program.p{number}]"));
        let longest = if self.has(Feature::LongGuests) { 6 } else { 4 };
        // Gateways of short guests are not saturated by as few requests.
        let shortest = if self.overflows() { 3 } else { 0 };
        let times = [20 * MICROSECOND, 200 * MICROSECOND, MILLISECOND, 5 * MILLISECOND, 30 * MILLISECOND];
        let times = [&times[..], &[300 * MILLISECOND]].concat();
        let mean = self.one_of(&times[shortest..longest]);
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
        if self.has(Feature::Modules) && self.random.chance(0.6) {
            self.modules();
        }
        mean
    }

    fn modules(&mut self) {
        let count = self.one_of(&[1, 3, 20]);
        let compile = Time(self.one_of(&[MILLISECOND, 20 * MILLISECOND, 300 * MILLISECOND]));
        self.line(&format!("modules = {count}\nsize = \"40KiB\"\ncompile = \"{compile}\""));
        if self.random.chance(0.3) {
            self.line("kind = \"native\"\nstart = \"3ms\"");
        } else {
            self.line("load = \"200us\"");
        }
    }

    fn link(&mut self, name: &str) {
        self.line(&format!("\n[link.{name}]"));
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
        if self.has(Feature::Tails) {
            self.line("tail = { part = 0.1, delay = \"30ms\", most = \"3s\" }");
        }
    }

    /// Masters, and the sites that they join.
    fn network(&mut self) {
        for number in 0..self.masters {
            let forward = Time(self.one_of(&[0, 20 * MICROSECOND, 5 * MILLISECOND]));
            self.line(&format!("\n[master.m{number}]\nforward = \"{forward}\""));
        }
        if self.has(Feature::SiteLinks) {
            self.link("wan");
        }
        for number in 0..self.sites {
            self.site(number);
        }
    }

    fn site(&mut self, number: u64) {
        self.line(&format!("\n[site.s{number}]\ngateway = \"g{number}\""));
        if self.masters == 2 {
            let masters = self.one_of(&["\"m0\", \"m1\"", "\"m1\", \"m0\"", "\"m0\"", "\"m1\""]);
            self.line(&format!("master = [{masters}]"));
        }
        if self.has(Feature::SiteLinks) && self.random.chance(0.8) {
            self.line("link = \"wan\"");
        }
        if self.has(Feature::Overflow) {
            let others = (0..self.sites).filter(|other| *other != number);
            let some: Vec<_> =
                others.filter(|_| self.random.chance(0.8)).map(|of| format!("\"s{of}\"")).collect();
            if !some.is_empty() {
                self.line(&format!("overflow = [{}]", some.join(", ")));
            }
        }
        if self.has(Feature::SmallBuffers) {
            let requests = self.one_of(&[1, 2, 5, 50]);
            let age = Time(self.one_of(&[100 * MILLISECOND, SECOND, 30 * SECOND]));
            self.line(&format!("buffer_requests = {requests}\nbuffer_age = \"{age}\""));
        }
        let longest = Time(self.one_of(&[100 * MILLISECOND, 2 * SECOND]));
        self.line(&format!("reconnect_max = \"{longest}\""));
    }

    /// Gateways of one kind, and the number of their workers.
    fn gateways(&mut self, number: u64) -> u64 {
        self.line(&format!("\n[gateway.g{number}]"));
        let is_site = number < self.sites;
        let several = self.has(Feature::SeveralGateways) && !is_site;
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
            if self.has(Feature::Disks) {
                let sync = self.either("\"2ms\"", "{ exponential = \"10ms\" }");
                self.line(&format!("disk = {sync}"));
            }
        }
        if self.has(Feature::Modules) {
            let bytes = self.one_of(&[50, 100, 10_000]);
            self.line(&format!("disk_cache = \"{bytes}KiB\"\nloaded_bytes = \"{bytes}KiB\"\ncompilers = 1"));
        }
        if self.has(Feature::Clocks) {
            let retention = Time(self.one_of(&[100 * MILLISECOND, 5 * SECOND, 600 * SECOND]));
            self.line(&format!("retention = \"{retention}\""));
        }
        if self.has(Feature::Brokers) && !is_site {
            let spread = self.either("rotation", "queue");
            let window = self.one_of(&[1, 2, 8]);
            let redelivery = Time(self.one_of(&[0, 100 * MILLISECOND, 5 * SECOND]));
            self.line(&format!("spread = \"{spread}\"\nwindow = {window}\nredelivery = \"{redelivery}\""));
            if spread == "queue" && self.has(Feature::Buckets) {
                self.line("outcomes = { exponential = \"1ms\" }");
            }
        }
        count * workers
    }

    fn devices(&mut self, number: u64, duration: Nanos, means: &[Nanos], workers: &[u64]) {
        let (program, gateway) = (self.random.below(self.programs), self.random.below(self.kinds));
        let count =
            if self.has(Feature::ManyDevices) { self.one_of(&[5, 20]) } else { self.one_of(&[1, 2, 3]) };
        self.line(&format!("\n[device.d{number}]\ncount = {count}"));
        self.line(&format!("program = \"p{program}\"\ngateway = \"g{gateway}\""));
        if gateway < self.sites && self.has(Feature::Elsewhere) && self.random.chance(0.7) {
            let site = self.random.below(self.sites);
            self.line(&format!("to = \"s{site}\""));
        }
        if self.has(Feature::Links) && self.random.chance(0.7) {
            self.line("link = \"l\"");
        }
        if self.has(Feature::Clocks) && self.random.chance(0.7) {
            self.line("sealed = true");
        }
        // What they ask for, in parts of what their gateways can do.
        let loads = if self.has(Feature::Overload) { [0.8, 1.5, 4.0] } else { [0.05, 0.3, 0.8] };
        let load = self.one_of(&loads);
        let rate = load * workers[gateway as usize] as f64 / means[program as usize] as f64;
        let most = if self.overflows() { MAX_REQUESTS_OF_SITES } else { MAX_REQUESTS };
        let least = (duration / most).max(1);
        let between = ((1.0 / rate) as Nanos).max(least);
        let each = nice(between * count);
        let arrival = if self.has(Feature::Bursts) && self.random.chance(0.5) {
            let size = self.one_of(if self.overflows() { &[7, 30, 100] } else { &[2, 7, 30] });
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

    fn failure(&mut self, kind: &str, target: &str, duration: Nanos) {
        let (letter, count) = match target {
            "device" => ('d', self.groups),
            "site" => ('s', self.sites),
            "master" => ('m', self.masters),
            _ => ('g', self.kinds),
        };
        let number = self.random.below(count);
        self.line(&format!("\n[[failure]]\nkind = \"{kind}\"\n{target} = \"{letter}{number}\""));
        match kind {
            "slow" | "disk" => self.line("factor = 8"),
            "clock" => {
                let (side, by) =
                    (self.either("ahead", "behind"), self.one_of(&[SECOND, 50 * SECOND, 700 * SECOND]));
                self.line(&format!("{side} = \"{}\"", Time(by)));
            }
            _ => {}
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
