//! A run: round after round of load, kills, restarts and checks, on servers that live on.

mod disturbance;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use anyhow::Result;
use clap::ValueEnum;
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::client::{Client, Phase, Role, Shared, read_retained};
use crate::deployment::{Deployment, Settings, Target, gate};
use crate::ledger::{Contradiction, Counts, Fault, Ledger, Promise};
use crate::load::Mix;
use crate::mqtt::Version;
use crate::random::Random;
use crate::request::Guest;
use crate::resources::{Resources, children};

/// Devices that share what is in flight.
const DEVICES: u16 = 8;

/// Of these, how many have an empty reply id: on the embedded broker alone, which knows who asks.
const NAMELESS: u16 = 2;

/// Of the devices of a network of sites, every how manieth asks its own site.
const ASKS_AT_HOME: u16 = 4;

/// When the first kill of a round comes, in milliseconds of load.
const KILL_MS: Range<u64> = 20..450;

/// How often it is looked whether all has come.
const POLL: Duration = Duration::from_millis(5);

/// Files, and descriptors, that a process may have more than after the first round.
const MORE_FILES: usize = 64;
const MORE_DESCRIPTORS: usize = 32;

/// The stream of the seed that says what is killed; the others are the clients'.
const KILLS: u64 = u64::MAX;

/// What is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kill {
    /// Nothing: load alone
    None,
    /// The gateway
    Gateway,
    /// Mosquitto
    Broker,
    /// The one or the other, as the seed says; of a network, servers of all kinds, and links are cut
    Either,
}

/// What a run consists of.
#[derive(Clone, Debug)]
pub struct Options {
    /// All choices follow from it; when what happens does not.
    pub seed: u64,
    /// How many rounds, unless one fails.
    pub rounds: u32,
    /// What is started.
    pub settings: Settings,
    /// What is killed.
    pub kill: Kill,
    /// What is promised.
    pub promise: Promise,
    /// Requests that are not answered, of all devices together, at the most.
    pub in_flight: usize,
    /// How long nothing has to come before what is owed is given up.
    pub patience: Duration,
    /// Whether the folder of the servers stays.
    pub keep: bool,
}

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Report {
    /// Rounds that were begun.
    pub rounds: u32,
    /// Kills, and cuts of links.
    pub kills: u32,
    /// What clients did and saw.
    pub counts: Counts,
    /// What was found.
    pub contradictions: Vec<Contradiction>,
    /// What the gateways took after the first round and after the last one.
    pub resources: Option<(Resources, Resources)>,
    /// How long it took.
    pub took: Duration,
    /// The last of all logs, if something was found.
    pub logs: String,
    /// Where the servers' folder is, if it stays.
    pub folder: Option<PathBuf>,
}

/// Runs all rounds, or as many as hold; tells of each.
///
/// # Errors
///
/// The servers do not start at all, or the system does not let us kill them.
pub async fn run(options: &Options, told: impl FnMut(u32, &Counts)) -> Result<Report> {
    // Orphans of what is killed become our children, which shows those that do not end.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    let deployment = Deployment::start(&options.settings).await?;
    let target = options.settings.target;
    let all = options.promise == Promise::Acknowledged;
    let mix = Mix {
        requests: target != Target::MosquittoPlain,
        anonymous: all,
        messages: all && target.has_messages(),
        // At PUBREL a NATS server deletes what it stored before it stores it as a message to be delivered, and answers
        // PUBCOMP as well if it does not find it (`mqttProcessPubRel`, 2.15): when it dies in between, it is lost.
        exactly_once: target != Target::Nats,
    };
    let mut ledger = Ledger::new(options.promise);
    if target == Target::Nats {
        // It delivers a request again that it takes for not acknowledged.
        ledger.allow_runs();
    }
    let shared = Rc::new(Shared {
        ledger: RefCell::new(ledger),
        statuses: RefCell::new(BTreeMap::new()),
        promise: options.promise,
        mix,
        guest: Guest::assemble()?,
        doors: deployment.doors(),
        roams: target == Target::Nats,
        window: options.in_flight.div_ceil(usize::from(DEVICES)),
        began: Instant::now(),
        phase: watch::Sender::new(Phase::Collect),
    });
    let clients = start_clients(options, &shared);
    let random = Random::new(options.seed, KILLS);
    let mut run = Run { options, shared, deployment, random, kills: 0, first: None, last: None };
    let rounds = run.rounds(told).await;
    drop(clients);
    let rounds = rounds?;
    let ledger = run.shared.ledger.borrow();
    let contradictions = ledger.contradictions().to_vec();
    let logs = if contradictions.is_empty() { String::new() } else { run.deployment.logs() };
    Ok(Report {
        rounds,
        kills: run.kills,
        counts: ledger.counts().clone(),
        contradictions,
        resources: run.first.zip(run.last),
        took: run.shared.now(),
        logs,
        folder: options.keep.then(|| run.deployment.keep()),
    })
}

fn start_clients(options: &Options, shared: &Rc<Shared>) -> JoinSet<()> {
    let target = options.settings.target;
    let doors = u16::try_from(shared.doors.len()).unwrap_or(u16::MAX);
    let mut clients = JoinSet::new();
    let mut number = 0;
    let mut add = |door: u16, version, role: Role| {
        number += 1;
        let mut ledger = shared.ledger.borrow_mut();
        match &role {
            Role::Device { .. } => ledger.add_device(number, version == Version::V5),
            Role::Listener { qos, .. } => ledger.add_listener(number, *qos),
            Role::Observer => {}
        }
        let door = usize::from(door % doors);
        let client = Client::new(number, door, version, role, options.seed, shared.clone());
        clients.spawn_local(client.run());
    };
    for device in 0..DEVICES {
        // NATS servers speak 3.1.1 alone.
        let version = if device % 2 == 0 || target == Target::Nats { Version::V311 } else { Version::V5 };
        let nameless = target == Target::Embedded && device < NAMELESS && shared.mix.anonymous;
        let reply = if nameless { String::new() } else { format!("device-{device}") };
        // One of the other sites, each of them for some.
        let other = (device + 1 + device / doors % 2) % doors;
        let abroad = target == Target::Sites && device % ASKS_AT_HOME != 0;
        let gate = abroad.then(|| gate(other as u8));
        add(device, version, Role::Device { reply, gate });
    }
    if shared.mix.messages {
        for (version, qos, sleeps) in [
            (Version::V311, 1, false),
            (Version::V5, 2, false),
            (Version::V5, 1, true),
            (Version::V311, 2, true),
        ] {
            add(0, version, Role::Listener { qos, sleeps });
        }
    }
    let observers = match target {
        Target::MosquittoPlain => 0,
        Target::Sites => doors,
        Target::Embedded | Target::Mosquitto | Target::Nats => 1,
    };
    for door in 0..observers {
        add(door, Version::V311, Role::Observer);
    }
    clients
}

struct Run<'a> {
    options: &'a Options,
    shared: Rc<Shared>,
    deployment: Deployment,
    random: Random,
    kills: u32,
    /// What the gateway took after the first round and after the last one.
    first: Option<Resources>,
    last: Option<Resources>,
}

impl Run<'_> {
    /// How many rounds were begun; the last of them failed, if one did.
    async fn rounds(&mut self, mut told: impl FnMut(u32, &Counts)) -> Result<u32> {
        self.shared.phase.send_replace(Phase::Setup);
        // The first thing that a device sends waits for its subscription, and listeners have subscribed by then.
        self.until_settled(Phase::Setup).await;
        for round in 1..=self.options.rounds {
            self.shared.ledger.borrow_mut().begin_round(round);
            if self.holds() {
                self.round().await?;
            }
            told(round, self.shared.ledger.borrow().counts());
            if !self.holds() {
                return Ok(round);
            }
        }
        Ok(self.options.rounds)
    }

    fn holds(&self) -> bool {
        self.shared.ledger.borrow().contradictions().is_empty()
    }

    async fn round(&mut self) -> Result<()> {
        self.shared.phase.send_replace(Phase::Load);
        self.pause(KILL_MS).await;
        if let Err(down) = self.disturb().await? {
            self.shared.observed(Fault::Down, down);
            return Ok(());
        }
        self.shared.phase.send_replace(Phase::Collect);
        self.until_settled(Phase::Collect).await;
        if self.shared.mix.messages {
            self.check_retained().await;
        }
        self.check_leaks().await;
        Ok(())
    }

    async fn pause(&mut self, milliseconds: Range<u64>) {
        sleep(Duration::from_millis(self.random.within(milliseconds))).await;
    }

    /// Waits until nothing is owed, or until nothing has come for long enough.
    async fn until_settled(&mut self, phase: Phase) {
        let mut last = (Instant::now(), 0);
        loop {
            let (open, settled) = {
                let ledger = self.shared.ledger.borrow();
                (ledger.open(), ledger.settled())
            };
            // In the beginning not every device has connected and made the module known.
            let known = settled >= u64::from(DEVICES) || !self.shared.mix.requests;
            let begun = phase == Phase::Collect || known;
            if open == 0 && begun {
                return;
            }
            if settled != last.1 {
                last = (Instant::now(), settled);
            }
            let ended = self.deployment.ended();
            if ended.is_some() || last.0.elapsed() > self.options.patience {
                if let Some(ended) = ended {
                    self.shared.observed(Fault::Down, ended);
                }
                self.shared.ledger.borrow_mut().give_up(self.shared.now());
                return;
            }
            sleep(POLL).await;
        }
    }

    async fn check_retained(&mut self) {
        let expected = self.shared.ledger.borrow().retained();
        let found = read_retained(self.shared.doors[0], &expected, self.options.patience).await;
        let at = self.shared.now();
        match found {
            Ok(found) => self.shared.ledger.borrow_mut().found_retained(at, &found),
            Err(error) => {
                self.shared.observed(Fault::Protocol, format!("retained values cannot be read: {error:#}"));
            }
        }
    }

    /// Nothing is owed, so nothing may run, wait or be left over.
    async fn check_leaks(&mut self) {
        let deadline = Instant::now() + self.options.patience;
        loop {
            let left = self.left_over();
            let Some(what) = left else { break };
            if Instant::now() > deadline {
                return self.shared.observed(Fault::Leak, what);
            }
            sleep(POLL).await;
        }
        let gateways = self.deployment.gateways();
        if gateways.is_empty() {
            return;
        }
        let each = gateways.iter().map(|(gateway, data)| Resources::of(*gateway, data));
        let mut now = each.fold(Resources::default(), Resources::plus);
        now.files += Resources::files_below(&self.deployment.temporary());
        let first = *self.first.get_or_insert(now);
        self.last = Some(now);
        for (what, now, most) in [
            ("descriptors", now.descriptors, first.descriptors + MORE_DESCRIPTORS),
            ("files", now.files, first.files + MORE_FILES),
        ] {
            if now > most {
                let what = format!("{now} {what}, {most} are too many already");
                self.shared.observed(Fault::Leak, what);
            }
        }
    }

    /// What is there although nothing is under way.
    fn left_over(&self) -> Option<String> {
        let orphans = children(std::process::id(), &self.deployment.ids());
        if !orphans.is_empty() {
            return Some(format!("processes of a gateway that was killed: {orphans:?}"));
        }
        let gateways = self.deployment.gateways();
        let working: Vec<_> = gateways.iter().flat_map(|(gateway, _)| children(*gateway, &[])).collect();
        if !working.is_empty() {
            return Some(format!("children of idle gateways: {working:?}"));
        }
        let statuses = self.shared.statuses.borrow();
        if let Some(busy) = statuses.values().find(|status| !is_idle(status)) {
            return Some(format!("an idle gateway with the status {busy}"));
        }
        let missing = statuses.len() < gateways.len();
        missing.then(|| format!("{} gateways, and {} statuses", gateways.len(), statuses.len()))
    }
}

fn is_idle(status: &Value) -> bool {
    let load = |field: &str| status["load"][field].as_u64();
    load("running") == Some(0) && load("waiting") == Some(0) && status["state"] == "online"
}
