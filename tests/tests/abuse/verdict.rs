//! What is asked of the gateway while it is attacked, and where it fell short.

use std::time::Duration;

use crate::trial::{GIVES_BACK_IN, Trial};

/// The bystander's 99th percentile is at most the larger of this...
const P99: Duration = Duration::from_millis(20);
/// ...and this many times its own without the attack.
const P99_TIMES: u32 = 10;

/// A visitor is served within the larger of this and as many times what one waits without the attack.
const VISIT: Duration = Duration::from_secs(1);
const VISIT_TIMES: u32 = 10;

/// Resident memory may grow by so much...
const MEMORY: u64 = 512 << 20;
/// ...and has to come back to this much over what it was: caches that are bounded may have filled meanwhile.
const MEMORY_KEPT: u64 = 64 << 20;

/// The log may grow by so much, whatever happens, and by this much a second.
const LOG: u64 = 256 << 10;
const LOG_A_SECOND: u64 = 8 << 10;

/// Where a trial falls short; empty for one that passes.
pub fn shortfalls(trial: &Trial) -> Vec<String> {
    let mut short = no_harm(trial);
    let Trial { alone, during, memory, visits, visits_alone, .. } = trial;
    let bound = P99.max(alone.percentile(99) * P99_TIMES);
    if during.percentile(99) > bound {
        short.push(format!("p99 {:.0?} over {bound:.0?}", during.percentile(99)));
    }
    let bound = VISIT.max(visits_alone.longest * VISIT_TIMES);
    if visits.longest > bound {
        short.push(format!("a visitor waited {:.1?}, over {bound:.1?}", visits.longest));
    }
    if let Some(why) = &visits.first_failure {
        short.push(format!("{} of {} visitors failed: {why}", visits.failed, visits.count));
    }
    let grown = memory.peak.saturating_sub(memory.before);
    if grown > MEMORY {
        let halted = if memory.halted { ", where the attack was ended" } else { "" };
        short.push(format!("memory +{} MB{halted}", grown >> 20));
    }
    let kept = memory.given_back_to.saturating_sub(memory.before);
    if kept > MEMORY_KEPT {
        short.push(format!("{} MB kept after {GIVES_BACK_IN:?}", kept >> 20));
    }
    let log = LOG + LOG_A_SECOND * trial.took.as_secs();
    if trial.log_bytes > log {
        short.push(format!("{} KB logged, over {} KB", trial.log_bytes >> 10, log >> 10));
    }
    short
}

/// The part of it that no busy machine excuses: the gateway lives, and all that the bystander asks is answered `ok`.
pub fn no_harm(trial: &Trial) -> Vec<String> {
    let mut short = trial.findings.clone();
    if let Some(end) = &trial.ended {
        short.push(format!("the gateway ended: {end}"));
    }
    for (part, latencies) in [("alone", &trial.alone), ("during", &trial.during), ("after", &trial.after)] {
        let (lost, count) = (latencies.unanswered, latencies.count());
        if lost > 0 {
            short.push(format!("{lost} of {count} unanswered {part}"));
        }
        if let Some(why) = &latencies.first_wrong {
            short.push(format!("{} of {count} not ok {part}: {why}", latencies.wrong));
        }
    }
    short
}
