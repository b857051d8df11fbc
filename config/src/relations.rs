//! What holds between values: one that was not given follows those that were, and two that were given have to fit.

use super::listen::{MAX_PACKET, MAX_SESSION_QUEUE};
use super::{ByteSize, Config, Given, Refusal, capacity, defaults};
use std::collections::HashSet;
use std::fmt::Display;

/// Bytes of an outcome beside its outputs, and some to spare.
const OUTCOME_OVERHEAD: u64 = 4 << 10;

/// Completes `config`, of which these keys were given.
pub(super) fn settle(config: &mut Config, given: &Given, refusals: &mut Vec<Refusal>) {
    let mut relations = Relations { given, derived: HashSet::new(), refusals };
    relations.settle(config);
}

struct Relations<'a> {
    given: &'a Given,
    /// Keys whose values follow from others that were given.
    derived: HashSet<String>,
    refusals: &'a mut Vec<Refusal>,
}

/// Where a value comes from; what counts more is last.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    Default,
    Derived,
    Given,
}

/// `at_most!(relations, config, a.b <= c.d)`: the first of the two values is no more than the second.
macro_rules! at_most {
    ($relations:ident, $config:ident, $low_table:ident.$low:ident <= $high_table:ident.$high:ident) => {
        $relations.at_most(
            (concat!(stringify!($low_table), ".", stringify!($low)), &mut $config.$low_table.$low),
            (concat!(stringify!($high_table), ".", stringify!($high)), &mut $config.$high_table.$high),
        )
    };
}

impl Relations<'_> {
    /// A chain `a <= b <= c` is told with `a <= c` first, so that what `b` is derived from fits to both.
    fn settle(&mut self, config: &mut Config) {
        // A request waits as a whole.
        at_most!(self, config, queue.per_principal <= queue.total);
        at_most!(self, config, limits.module <= queue.bytes_total);
        at_most!(self, config, limits.source <= queue.bytes_total);
        at_most!(self, config, limits.stdin <= queue.bytes_total);
        at_most!(self, config, limits.module <= queue.bytes_per_principal);
        at_most!(self, config, limits.source <= queue.bytes_per_principal);
        at_most!(self, config, limits.stdin <= queue.bytes_per_principal);
        at_most!(self, config, queue.bytes_per_principal <= queue.bytes_total);
        self.someone_gets_in(config);

        // A message comes and goes in one packet. The broker wants the same of its own limits.
        // (Each of these may still be out of its range.)
        let code = config.limits.module.max(config.limits.source);
        let request = code.bytes().saturating_add(config.limits.stdin.bytes());
        let answer = config.limits.stdout.bytes().saturating_add(config.limits.stderr.bytes());
        let message = ByteSize::new(request.max(answer)).min(MAX_PACKET);
        self.at_least("listen.max_packet", &mut config.listen.max_packet, message);
        at_most!(self, config, listen.max_packet <= listen.session_queue_bytes);
        at_most!(self, config, listen.max_packet <= listen.max_input);
        at_most!(self, config, listen.max_input_per_user <= listen.max_input);
        let answers = config.queue.per_principal.saturating_mul(2).min(MAX_SESSION_QUEUE);
        self.at_least("listen.session_queue", &mut config.listen.session_queue, answers);
        if let Some(broker) = &mut config.broker {
            self.at_least("broker.max_packet", &mut broker.max_packet, message);
            self.at_most(
                ("broker.reconnect_min", &mut broker.reconnect_min),
                ("broker.reconnect_max", &mut broker.reconnect_max),
            );
        }

        // What is to be kept has room where it is kept.
        let in_all =
            if self.given.has("modules.total") { config.modules.total } else { config.limits.module };
        let module = config.limits.module.min(in_all);
        self.at_least("modules.per_principal", &mut config.modules.per_principal, module);
        at_most!(self, config, modules.per_principal <= modules.total);
        let outcome = ByteSize::new(answer.saturating_add(OUTCOME_OVERHEAD));
        self.at_least("idempotency.bytes", &mut config.idempotency.bytes, outcome);
        at_most!(self, config, compiler.max_artifact <= compiler.memory);
        at_most!(self, config, sandbox.work_dir <= sandbox.memory);

        // A part is no more than what it is a part of.
        at_most!(self, config, workers.slot_share <= workers.account_share);
        self.at_most_some(
            ("compiler.concurrency", &mut config.compiler.concurrency),
            ("compiler.children", config.compiler.children),
        );
        self.at_most_some(
            ("sandbox.concurrency", &mut config.sandbox.concurrency),
            ("sandbox.places", config.sandbox.places),
        );

        // A guest is looked at after each slice.
        at_most!(self, config, workers.slice <= limits.cpu);
        self.workers_have_memory(config);
        self.a_guest_has_memory(config);
    }

    /// The value of `low` is no more than that of `high`. The one that counts less follows the other; of two defaults
    /// the first.
    fn at_most<T: Copy + PartialOrd + Display>(&mut self, low: (&str, &mut T), high: (&str, &mut T)) {
        if *low.1 <= *high.1 {
            return;
        }
        match (self.source(low.0), self.source(high.0)) {
            (Source::Given, Source::Given) => self.refuse_pair(low.0, *low.1, high.0, *high.1),
            (of_low, of_high) if of_low > of_high => {
                *high.1 = *low.1;
                self.derived.insert(high.0.to_owned());
            }
            (_, of_high) => {
                *low.1 = *high.1;
                if of_high > Source::Default {
                    self.derived.insert(low.0.to_owned());
                }
            }
        }
    }

    fn source(&self, key: &str) -> Source {
        match () {
            () if self.given.has(key) => Source::Given,
            () if self.derived.contains(key) => Source::Derived,
            () => Source::Default,
        }
    }

    /// As [`Relations::at_most`], where `high` has no value unless it was given.
    fn at_most_some(&mut self, low: (&str, &mut usize), (high, most): (&str, Option<usize>)) {
        if let Some(mut most) = most {
            self.at_most(low, (high, &mut most));
        }
    }

    /// A value that was not given is no less than `least`.
    fn at_least<T: Copy + PartialOrd>(&mut self, key: &str, value: &mut T, least: T) {
        if !self.given.has(key) && *value < least {
            *value = least;
            self.derived.insert(key.to_owned());
        }
    }

    fn refuse_pair<T: Display>(&mut self, low_key: &str, low: T, high_key: &str, high: T) {
        let refusal = Refusal::new(low_key, format!("{low} is more than `{high_key}`, {high}"));
        let accepted = format!("at most {high}, or `{high_key}` of {low} or more");
        self.refusals.push(refusal.accepting(accepted).beside(high_key));
    }

    /// Of an empty queue an account may take at least one request, which the share of a small total rounds down to
    /// none.
    fn someone_gets_in(&mut self, config: &Config) {
        let (share, total) = (config.queue.account_share, config.queue.total);
        if total > 0
            && config.queue.per_principal > 0
            && config.queue.admission_limits().largest().requests == 0
        {
            let problem = format!("{share} of `queue.total`, {total}, is less than one request");
            let accepted = "a larger share, or a larger `queue.total`";
            self.refusals
                .push(Refusal::new("queue.account_share", problem).accepting(accepted).beside("queue.total"));
        }
    }

    /// Each worker has memory for one slot.
    fn workers_have_memory(&mut self, config: &mut Config) {
        let each = capacity::least_memory(&config.compiler);
        let (count, memory) = (config.workers.count, config.workers.memory);
        let least = ByteSize::new(each.bytes().saturating_mul(count as u64));
        if memory >= least {
            return;
        }
        let most = (memory.bytes() / each.bytes()).max(1);
        let given = |key| self.given.has(key);
        if !given("workers.count") {
            config.workers.count = most as usize;
        } else if !given("workers.memory") && least <= defaults::memory() {
            config.workers.memory = least;
        } else {
            let problem = format!("{count} workers need more than `workers.memory`, {memory}");
            let accepted = format!("at most {most}, or `workers.memory` of {least} or more");
            self.refusals
                .push(Refusal::new("workers.count", problem).accepting(accepted).beside("workers.memory"));
        }
    }

    /// One guest can have all the memory that it may have while nobody else needs any.
    fn a_guest_has_memory(&mut self, config: &mut Config) {
        let most = capacity::most_of_one_guest(&config.workers, &config.compiler);
        let wanted = config.limits.memory;
        if wanted <= most {
            return;
        }
        let given = |key| self.given.has(key);
        let needed = capacity::memory_for_one_guest(wanted, &config.workers, &config.compiler);
        if !given("limits.memory") {
            config.limits.memory = most;
        } else if !given("workers.memory") && needed <= defaults::memory() {
            config.workers.memory = config.workers.memory.max(needed);
        } else {
            let memory = config.workers.memory;
            let problem = format!("{wanted} is more than one guest gets of `workers.memory`, {memory}");
            let accepted = format!("at most {most}, or `workers.memory` of {needed} or more");
            self.refusals
                .push(Refusal::new("limits.memory", problem).accepting(accepted).beside("workers.memory"));
        }
    }
}
