//! The swarm finds what is put into the scheduler, and nothing in the scheduler as it is. What it has found is in
//! `found/`, a scenario for each fault that was mended.

use std::path::Path;
use std::process::{Command, Output};

use offload_simulator::scenario::Scenario;
use offload_simulator::swarm::{self, Fault, Finding, Invariant, Search, Verdict};
use serde_json::Value;

/// Worlds among which each fault is found.
const ROUNDS: u64 = 200;

/// Lines of a scenario that can be read at a glance.
const FEW_LINES: usize = 30;

fn found(fault: Fault) -> Finding {
    let search = Search { rounds: ROUNDS, seed: 1, without: Vec::new(), fault: Some(fault) };
    search.run(|_, _| {}).finding.unwrap_or_else(|| panic!("{fault:?} is not found in {ROUNDS} worlds"))
}

/// A fault is found, shrunk to a few lines, and is what breaks that scenario.
fn is_found_and_shrunk(fault: Fault, invariants: &[Invariant]) {
    let finding = found(fault);
    let Finding { first, smallest, violation, .. } = &finding;
    println!("{fault:?}: {violation}\n{smallest}");
    assert!(invariants.contains(&violation.invariant), "{violation}");
    let lines = |text: &str| text.lines().filter(|line| !line.is_empty()).count();
    assert!(lines(smallest) <= FEW_LINES && lines(smallest) < lines(first), "{smallest}");
    let scenario = Scenario::parse(smallest, Path::new("smallest.toml")).unwrap();
    let verdict = |fault| swarm::check(&scenario, scenario.seed, fault);
    assert_eq!(verdict(Some(fault)), Verdict::Breaks(violation.clone()), "again, with the same seed");
    assert_eq!(verdict(None), Verdict::Holds, "without the fault");
}

#[test]
fn a_dropped_expiry_is_found() {
    // What is dropped counts as waiting, and holds back what is behind it.
    is_found_and_shrunk(Fault::DropsExpiry, &[Invariant::Books, Invariant::Lost, Invariant::Starved]);
}

#[test]
fn a_slot_that_is_not_released_is_found() {
    is_found_and_shrunk(Fault::ForgetsRelease, &[Invariant::Books]);
}

#[test]
fn an_account_that_passes_its_share_is_found() {
    is_found_and_shrunk(Fault::PassesShare, &[Invariant::OverQuota, Invariant::Refused, Invariant::Starved]);
}

#[test]
fn a_lost_wake_is_found() {
    is_found_and_shrunk(Fault::LosesWake, &[Invariant::Starved]);
}

/// The gateway itself did so once.
#[test]
fn a_request_that_waits_while_full_workers_are_asked_is_found() {
    is_found_and_shrunk(Fault::AsksFullWorkers, &[Invariant::Starved]);
}

#[test]
fn a_request_that_comes_back_to_a_site_is_found() {
    is_found_and_shrunk(Fault::HandsBack, &[Invariant::Wandering]);
}

#[test]
fn a_search_is_the_same_each_time() {
    let once = found(Fault::ForgetsRelease);
    let again = found(Fault::ForgetsRelease);
    assert_eq!((once.round, once.smallest, once.tries), (again.round, again.smallest, again.tries));
}

#[test]
fn nothing_is_found_in_the_scheduler_as_it_is() {
    let search = Search { rounds: 300, seed: 2, without: Vec::new(), fault: None };
    let found = search.run(|_, _| {});
    assert!(found.finding.is_none(), "{:?}", found.finding);
    assert_eq!((found.rounds, found.too_long), (300, 0));
    // Each feature is on in half of the worlds, about.
    assert!(found.features.iter().all(|(_, worlds)| (100..=200).contains(worlds)), "{:?}", found.features);
}

#[test]
fn what_was_found_is_mended() {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/found"));
    let mut checked = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let scenario = Scenario::load(&path).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(swarm::check(&scenario, scenario.seed, None), Verdict::Holds, "{path:?}");
        checked += 1;
    }
    assert!(checked >= 7, "{checked}");
}

fn offload_sim(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_offload-sim")).current_dir(folder).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn the_command_writes_what_it_finds_and_the_line_that_shows_it_again() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["swarm", "--rounds", "50", "--seed", "1", "--fault", "forgets-release", "--out", "here"];
    let output = offload_sim(folder.path(), &arguments);
    let printed = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{printed}");
    let command = printed.lines().last().unwrap();
    let again: Vec<&str> = command.split(' ').collect();
    assert_eq!(again[..3], ["offload-sim", "swarm", "--check"], "{printed}");
    let output = offload_sim(folder.path(), &[&again[1..], &["--trace", "steps.jsonl"]].concat());
    assert_eq!((output.status.code(), &*text(&output.stderr)), (Some(1), ""));
    let steps = std::fs::read_to_string(folder.path().join("steps.jsonl")).unwrap();
    assert!(steps.contains("\"step\":\"answered\""), "{steps}");
    assert!(text(&output.stdout).starts_with("books at "), "{}", text(&output.stdout));
    // What it needs is the fault.
    let output = offload_sim(folder.path(), &again[1..4]);
    assert_eq!((output.status.code(), &*text(&output.stdout)), (Some(0), "all invariants hold\n"));
    let json = offload_sim(folder.path(), &[&arguments[..], &["--json"]].concat());
    let json: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["finding"]["violation"]["invariant"], "books");
    assert!(printed.contains(json["finding"]["scenario"].as_str().unwrap()), "the same finding");
}

#[test]
fn the_exit_code_tells_whether_something_was_found_and_whether_the_question_was_one() {
    let folder = tempfile::tempdir().unwrap();
    let output = offload_sim(folder.path(), &["swarm", "--rounds", "5", "--without", "brokers,crashes"]);
    assert_eq!((output.status.code(), &*text(&output.stdout)), (Some(0), "5 worlds: all invariants hold\n"));
    for wrong in [
        &["swarm", "--rounds", "0"][..],
        &["swarm", "--check", "nowhere.toml"],
        &["swarm", "--fault", "none-of-these"],
        &["swarm", "--check", "nowhere.toml", "--rounds", "3"],
    ] {
        assert_eq!(offload_sim(folder.path(), wrong).status.code(), Some(2), "{wrong:?}");
    }
}
