//! A power cut and a kill at every call that the journal makes of its storage.

use offload_journal::{Config, Durability, Journal};
use std::sync::Arc;
use std::time::Duration;

use crate::faulty_disk::{Faults, FaultyDisk};
use crate::ledger::{Ledger, User, live, open, small};
use crate::random::Random;

/// Groups of the script: each segment is used several times.
const GROUPS: usize = 110;
/// Seeds of the script, by which the crash points differ.
const SCRIPTS: u64 = 2;
/// What a power cut leaves of the unsynced: nothing, all, the first of it, or any sectors.
const LEFTOVERS: u64 = 5;

/// Runs the script; with a power cut, as far as it comes.
fn run(script: u64, config: &Config, faults: Faults) -> (FaultyDisk, Ledger) {
    let disk = FaultyDisk::with(faults);
    let mut ledger = Ledger::default();
    if let Ok((journal, _)) = Journal::open_on(Arc::new(disk.clone()), config) {
        User { journal: &journal, disk: &disk, ledger: &mut ledger, random: Random::new(script) }.run(GROUPS);
    }
    (disk, ledger)
}

/// Opens what a crash has left, and judges it; then goes on, and judges that.
fn recover(disk: &FaultyDisk, ledger: &Ledger, seed: u64) -> Result<(), String> {
    let mut ledger = ledger.clone();
    let (journal, recovery) = open(disk);
    if !recovery.damage.is_empty() {
        return Err(format!("a crash is no damage: {:?}", recovery.damage));
    }
    ledger.judge(&live(&journal, &recovery))?;
    let random = Random::new(seed);
    User { journal: &journal, disk, ledger: &mut ledger, random }.run(6);
    drop(journal);
    let (journal, recovery) = open(disk);
    if !recovery.damage.is_empty() || recovery.torn_bytes > 0 {
        return Err(format!("it was closed: {} torn bytes, {:?}", recovery.torn_bytes, recovery.damage));
    }
    ledger.judge(&live(&journal, &recovery))
}

#[test]
fn nothing_completed_is_lost_by_a_power_cut_or_a_kill_at_any_call() {
    let mut torn = 0;
    for script in 0..SCRIPTS {
        let (whole, ledger) = run(script, &small(), Faults::default());
        assert_eq!(ledger.completed, ledger.batches());
        let calls = whole.calls();
        for call in 0..calls {
            let (disk, ledger) =
                run(script, &small(), Faults { power_cut_at: Some(call), ..Faults::default() });
            for seed in 0..LEFTOVERS {
                let left = disk.after_power_cut(seed + call * 4 * LEFTOVERS);
                torn += u64::from(offload_journal::check_on(&left).expect("readable").torn_bytes > 0);
                if let Err(contradiction) = recover(&left, &ledger, seed) {
                    panic!("script {script}, power cut at call {call}, seed {seed}: {contradiction}");
                }
            }
            if let Err(contradiction) = recover(&disk.after_kill(), &ledger, call) {
                panic!("script {script}, kill at call {call}: {contradiction}");
            }
        }
    }
    assert!(torn > 0, "some writes are torn");
}

#[test]
fn a_crash_of_the_recovery_loses_nothing_either() {
    let script = 3;
    let calls = run(script, &small(), Faults::default()).0.calls();
    for call in (0..calls).step_by(11) {
        let (disk, ledger) = run(script, &small(), Faults { power_cut_at: Some(call), ..Faults::default() });
        for seed in 0..LEFTOVERS {
            for second in 0.. {
                // Killed at first, so that what the recovery builds on is not durable yet.
                let again = if seed == 0 { disk.after_kill() } else { disk.after_power_cut(seed + call * 4) };
                again.set(Faults { power_cut_at: Some(second), ..Faults::default() });
                let opened = Journal::open_on(Arc::new(again.clone()), &small()).is_ok();
                let left = again.after_power_cut(seed + second * 3);
                if let Err(contradiction) = recover(&left, &ledger, seed) {
                    panic!("power cut at call {call}, then at call {second}, seed {seed}: {contradiction}");
                }
                if opened {
                    break;
                }
            }
        }
    }
}

#[test]
fn many_crashes_in_a_row_take_no_more_room() {
    let mut disk = FaultyDisk::default();
    let mut ledger = Ledger::default();
    for round in 0..60 {
        let (journal, recovery) = open(&disk);
        assert!(recovery.damage.is_empty());
        ledger.judge(&live(&journal, &recovery)).unwrap();
        User { journal: &journal, disk: &disk, ledger: &mut ledger, random: Random::new(round) }.run(2);
        disk = disk.after_power_cut(round);
    }
    let segments = disk.files().into_iter().filter(|file| file.starts_with("segment-")).count();
    assert!(segments <= 8, "{segments} segments");
}

#[test]
fn without_a_sync_for_each_a_kill_loses_nothing_and_a_power_cut_the_last_batches_alone() {
    let sync_interval = Duration::from_secs(3600);
    let config = Config { durability: Durability::Batch { sync_interval }, ..small() };
    let run = |faults: Faults| {
        let disk = FaultyDisk::with(faults);
        let mut ledger = Ledger::default();
        if let Ok((journal, _)) = Journal::open_on(Arc::new(disk.clone()), &config) {
            let random = Random::new(8);
            User { journal: &journal, disk: &disk, ledger: &mut ledger, random }.run_single(150);
        }
        (disk, ledger)
    };
    let mut lost = 0;
    for call in 0..run(Faults::default()).0.calls() {
        let (disk, ledger) = run(Faults { power_cut_at: Some(call), ..Faults::default() });
        let (journal, recovery) = open(&disk.after_kill());
        let killed = ledger.clone().judge(&live(&journal, &recovery));
        killed.unwrap_or_else(|contradiction| panic!("kill at call {call}: {contradiction}"));
        for seed in 0..LEFTOVERS {
            let (journal, recovery) = open(&disk.after_power_cut(seed + call * 4 * LEFTOVERS));
            assert!(recovery.damage.is_empty(), "call {call}, seed {seed}: {:?}", recovery.damage);
            let mut left = ledger.clone();
            left.judge_after(&live(&journal, &recovery), 0)
                .unwrap_or_else(|contradiction| panic!("call {call}, seed {seed}: {contradiction}"));
            lost += ledger.batches() - left.batches();
        }
    }
    assert!(lost > 0, "a power cut loses what was not synced");
}

/// The judge can find a journal guilty.
#[test]
fn a_disk_that_lies_about_its_syncs_is_found_out() {
    let mut found = 0;
    for call in 0..200 {
        let faults = Faults { power_cut_at: Some(call), lies_about_sync: true, ..Faults::default() };
        let (disk, ledger) = run(1, &small(), faults);
        let left = disk.after_power_cut(4 * call);
        let (journal, recovery) = open(&left);
        found += u64::from(ledger.clone().judge(&live(&journal, &recovery)).is_err());
    }
    assert!(found > 100, "{found} losses were found");
}
