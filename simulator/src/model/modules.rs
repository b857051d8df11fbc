//! The modules of a gateway: what is compiled and kept, and what each worker has loaded. Which go when there is no room
//! is decided by the runtime's own [`FairCache`], who compiles by its permits ([`Pool`]).

use std::collections::{BTreeMap, HashMap};

use offload_policy::{FairCache, PermitLimits};

use super::order::{ModuleNeed, Order};
use super::pool::{Pool, SHARES, Work};
use crate::clock::{Nanos, SECOND, policy_time};
use crate::scenario::ModuleLimits;

/// How long a compiler that was stopped runs until another one has its round, as in the runtime.
const ROUND: Nanos = SECOND;

/// Bytes that an engine keeps for a module beside what it has mapped, as in the runtime.
const ENGINE_DATA: usize = 32 << 10;

/// What has become of modules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ModuleCounters {
    /// Requests whose module was there, compiled.
    pub hits: u64,
    /// Requests that had to wait until it was.
    pub misses: u64,
    /// Modules that were compiled, and programs that were built.
    pub made: u64,
    /// Starts of a guest whose worker had its module loaded.
    pub loaded: u64,
    /// Starts for which it was loaded.
    pub loads: u64,
    /// Modules that went since there was no room.
    pub evicted: u64,
}

impl ModuleCounters {
    /// Both together.
    pub fn plus(self, other: Self) -> Self {
        Self {
            hits: self.hits + other.hits,
            misses: self.misses + other.misses,
            made: self.made + other.made,
            loaded: self.loaded + other.loaded,
            loads: self.loads + other.loads,
            evicted: self.evicted + other.evicted,
        }
    }
}

/// See the [module](self).
#[derive(Debug)]
pub struct Modules {
    limits: ModuleLimits,
    kept: FairCache<(), u32, (), Nanos>,
    /// By worker: modules by the account that had them loaded, and how many guests run them.
    loaded: Vec<FairCache<u32, u32, usize, Nanos>>,
    compilers: Pool,
    sandboxes: Pool,
    /// By module: requests that wait until it is made. One makes it for all.
    waiting: BTreeMap<u32, Vec<Order>>,
    /// What requests need that are queued or run, and on whose account, by their numbers in the world.
    needs: HashMap<u32, (u32, ModuleNeed)>,
    /// What has become of them.
    pub counters: ModuleCounters,
}

/// What follows from a look at compilers and sandboxes.
#[derive(Debug, Default)]
pub struct Turn {
    /// Requests that can be run by workers now.
    pub ready: Vec<Order>,
    /// Requests whose native program has begun.
    pub begun: Vec<Order>,
    /// Requests whose native program has ended.
    pub ended: Vec<Order>,
}

impl Modules {
    /// Nothing is compiled.
    pub fn new(limits: ModuleLimits, workers: usize) -> Self {
        let permits = |concurrency: usize, quantum, round| PermitLimits {
            concurrency,
            quantum: policy_time(quantum),
            slots: 4 * concurrency,
            shares: SHARES,
            round,
        };
        Self {
            limits,
            kept: FairCache::new(),
            loaded: std::iter::repeat_with(FairCache::new).take(workers).collect(),
            compilers: Pool::new(permits(limits.compilers, limits.compiler_hold, Some(policy_time(ROUND)))),
            sandboxes: Pool::new(permits(limits.sandboxes, limits.sandbox_hold, None)),
            waiting: BTreeMap::new(),
            needs: HashMap::new(),
            counters: ModuleCounters::default(),
        }
    }

    /// A request needs its module. True where it can be run by a worker at once.
    pub fn want(&mut self, order: Order, need: ModuleNeed, now: Nanos) -> bool {
        let is_there = need.compile == 0 || self.kept.get(&need.module, now).is_some();
        if is_there {
            self.counters.hits += 1;
            if need.native.is_some() {
                self.sandboxes.request(run(order, need));
            }
            return need.native.is_none();
        }
        self.counters.misses += 1;
        let waiting = self.waiting.entry(need.module).or_default();
        waiting.push(order);
        if waiting.len() == 1 {
            let work = Work { order, makes: true, length: need.compile };
            let pool = if need.native.is_some() { &mut self.sandboxes } else { &mut self.compilers };
            pool.request(work);
        }
        false
    }

    /// What compilers and sandboxes have done by now.
    pub fn turn(&mut self, now: Nanos) -> Turn {
        let mut turn = Turn::default();
        loop {
            let (compiled, ran) = (self.compilers.advance(now), self.sandboxes.advance(now));
            turn.begun.extend(ran.begun.iter().filter(|work| !work.makes).map(|work| work.order));
            let ended: Vec<Work> = compiled.ended.into_iter().chain(ran.ended).collect();
            if ended.is_empty() {
                return turn;
            }
            for work in ended {
                let Some(need) = work.order.need else { continue };
                if !work.makes {
                    turn.ended.push(work.order);
                    continue;
                }
                self.keep(need, now);
                for order in self.waiting.remove(&need.module).unwrap_or_default() {
                    match order.need.filter(|need| need.native.is_some()) {
                        Some(need) => self.sandboxes.request(run(order, need)),
                        None => turn.ready.push(order),
                    }
                }
            }
        }
    }

    /// When compilers or sandboxes have something to do next.
    pub fn due(&self, now: Nanos) -> Option<Nanos> {
        self.compilers.due(now).into_iter().chain(self.sandboxes.due(now)).min()
    }

    /// A request that can be run by a worker is queued.
    pub fn submitted(&mut self, order: &Order) {
        if let Some(need) = order.need {
            self.needs.insert(order.job.request, (order.key.0, need));
        }
    }

    /// A queued request will not start.
    pub fn expired(&mut self, request: u32) {
        self.needs.remove(&request);
    }

    /// The guest of a request starts: what its worker takes to load its module.
    pub fn start(&mut self, worker: usize, request: u32, now: Nanos) -> Nanos {
        let Some(&(account, need)) = self.needs.get(&request) else { return 0 };
        let loaded = &mut self.loaded[worker];
        if let Some(running) = loaded.get(&need.module, now) {
            *running += 1;
            self.counters.loaded += 1;
            return 0;
        }
        let bytes = need.size + ENGINE_DATA;
        let room = self.limits.loaded_bytes / self.loaded.len().max(1);
        let loaded = &mut self.loaded[worker];
        while (loaded.weight() + bytes > room || loaded.len() >= self.limits.loaded_modules)
            && loaded.evict_for(&account, bytes, |running| *running == 0).is_some()
        {
            self.counters.evicted += 1;
        }
        loaded.insert(need.module, 1, account, bytes, now);
        self.counters.loads += 1;
        need.load
    }

    /// The guest of a request has ended.
    pub fn end(&mut self, worker: usize, request: u32) {
        let Some((_, need)) = self.needs.remove(&request) else { return };
        if let Some(running) = self.loaded[worker].peek_mut(&need.module) {
            *running = running.saturating_sub(1);
        }
    }

    /// The process ends: requests that waited for a module or ran natively. What is compiled is on the disk.
    pub fn crash(&mut self) -> Vec<u32> {
        let works = self.compilers.drain().into_iter().chain(self.sandboxes.drain());
        let runs = works.filter(|work| !work.makes).map(|work| work.order.job.request);
        let waiting = std::mem::take(&mut self.waiting).into_values().flatten();
        let lost = runs.chain(waiting.map(|order| order.job.request)).collect();
        let (kept, counters) = (std::mem::take(&mut self.kept), self.counters);
        *self = Self { kept, counters, ..Self::new(self.limits, self.loaded.len()) };
        lost
    }

    fn keep(&mut self, need: ModuleNeed, now: Nanos) {
        self.counters.made += 1;
        while self.kept.weight() + need.size > self.limits.disk_cache
            && self.kept.evict_for(&(), need.size, |()| true).is_some()
        {
            self.counters.evicted += 1;
        }
        if need.size <= self.limits.disk_cache {
            self.kept.insert(need.module, (), (), need.size, now);
        }
    }
}

/// The run of a native program.
fn run(order: Order, need: ModuleNeed) -> Work {
    Work { order, makes: false, length: need.native.unwrap_or(0) + order.job.demand + order.job.sleep }
}
