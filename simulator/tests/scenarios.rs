//! Every scenario that ships is read, simulated for a bounded time, and says the same each time.

use std::path::{Path, PathBuf};

use offload_simulator::replicas::{self, Unwatched};
use offload_simulator::report::{Report, html, json, table};
use offload_simulator::scenario::Scenario;
use offload_simulator::scenario::units::Time;
use offload_simulator::world::World;
use offload_simulator::world::trace::Trace;

fn shipped() -> Vec<PathBuf> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios");
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() >= 7, "{paths:?}");
    paths
}

/// At most this much virtual time, in which each does something and none takes long: a minute, of a city some seconds.
fn bounded(path: &Path) -> Scenario {
    let mut scenario = Scenario::load(path).unwrap_or_else(|error| panic!("{error}"));
    let is_large = scenario.devices.iter().map(|group| group.count).sum::<usize>() > 100_000;
    let most = if is_large { "4s" } else { "70s" };
    scenario.duration = scenario.duration.min(Time::parse(most).unwrap().0);
    scenario.replicas = 2;
    scenario.warm_up = Some(0);
    scenario
}

#[test]
fn every_scenario_answers_requests_and_loses_none_without_a_word() {
    for path in shipped() {
        let scenario = bounded(&path);
        let observations = replicas::run(&scenario, 1, scenario.replicas, None, &Unwatched);
        for of in &observations {
            let (mut made, mut ended) = (0, 0);
            for sample in of.recorder.groups().iter().flatten() {
                made += sample.made;
                ended += sample.outcomes.iter().sum::<u64>();
            }
            assert!(made > 0 && ended > 0, "{path:?}");
            assert_eq!(made, ended + of.unfinished, "{path:?}");
        }
        let report = Report::new(&scenario, 1, &observations);
        assert!(report.all().throughput.mean > 0.0, "{path:?}");
    }
}

#[test]
fn a_seed_gives_the_same_bytes_and_another_one_gives_others() {
    for path in shipped() {
        let scenario = bounded(&path);
        if scenario.devices.iter().map(|group| group.count).sum::<usize>() > 100_000 {
            continue;
        }
        let told = |seed: u64| {
            let report = Report::new(&scenario, seed, &replicas::run(&scenario, seed, 2, None, &Unwatched));
            [table::of(&report), json::of(&report).to_string(), html::of(&report)]
        };
        let first = told(7);
        assert_eq!(first, told(7), "{path:?}");
        assert_ne!(first[1], told(8)[1], "{path:?}");
    }
}

/// What the calendar's work for an event is, and how many events there are, in a city of this many gateways with a
/// thousand devices each, in one world.
fn work_in_a_city(gateways: usize) -> (f64, u64) {
    let mut scenario = Scenario::load(&shipped()[1]).unwrap();
    assert_eq!(scenario.name, "city");
    scenario.gateways[0].count = gateways;
    scenario.devices[0].count = 1_000 * gateways;
    scenario.duration = Time::parse("2min").unwrap().0;
    let mut world = World::new(&scenario, 1);
    world.run(scenario.duration, 1 << 17, |_| true);
    let work = world.work();
    let events = world.observe().events;
    (work as f64 / events as f64, events)
}

#[test]
fn an_event_costs_the_same_in_a_city_of_any_size() {
    let [(small, few), (large, many)] = [3, 300].map(work_in_a_city);
    assert!(many > 80 * few, "{few} {many}");
    assert!(large < 1.5 * small && large < 20.0, "{small} {large}");
}

#[test]
fn threads_shards_and_a_trace_change_nothing() {
    for path in shipped() {
        let scenario = bounded(&path);
        let told = |threads, trace| {
            let observations = replicas::run_on(threads, &scenario, 3, 2, trace, &Unwatched);
            let report = Report::new(&scenario, 3, &observations);
            [table::of(&report), json::of(&report).to_string(), html::of(&report)]
        };
        let alone = told(1, None);
        assert_eq!(alone, told(3, None), "{path:?}");
        // With a trace the first replica is one world, and else it is in shards where it can be.
        assert_eq!(alone, told(2, Some(Trace::new(std::io::sink()))), "{path:?}");
    }
}

/// Three gateways, of which one is down for good, or not, from ten seconds on.
fn three(spread: &str, crashes: bool) -> Report {
    let failure = "[[failure]]\nkind = \"crash\"\ngateway = \"g\"\nnumber = 1\nat = \"10s\"\nfor = \"1d\"\n";
    let text = format!(
        "duration = \"1min\"\nreplicas = 2\nwarm_up = \"0s\"\n[program.p]\ntime = \"10ms\"\n[gateway.g]\ncount = 3\n\
         workers = 1\nspread = \"{spread}\"\nwindow = 2\nredelivery = \"1s\"\n[device.d]\ncount = 30\narrival = {{ \
         every = \"500ms\", jitter = \"100ms\" }}\n{}",
        if crashes { failure } else { "" }
    );
    let scenario = Scenario::parse(&text, Path::new("three.toml")).unwrap_or_else(|error| panic!("{error}"));
    let observations = replicas::run(&scenario, 1, scenario.replicas, None, &Unwatched);
    Report::new(&scenario, 1, &observations)
}

#[test]
fn who_has_one_gateway_is_lost_with_it_and_a_broker_asks_the_others() {
    for spread in ["rotation", "queue"] {
        let report = three(spread, true);
        assert_eq!(report.all().ok(), 1.0, "{spread}");
        assert!(report.unfinished.mean < 30.0, "{spread} {:?}", report.unfinished);
        assert!((report.all().throughput.mean - 60.0).abs() < 2.0, "{spread}");
        let each = &report.gateways[0].each;
        assert!(each[1] < each[0] / 2.0 && each[1] < each[2] / 2.0, "{spread} {each:?}");
    }
    let report = three("home", true);
    // A third of the devices send for fifty seconds to nobody.
    assert!((report.unfinished.mean - 1_000.0).abs() < 30.0, "{:?}", report.unfinished);
    // They are no part of those that ended, and are counted all the same.
    assert!((report.all().ok() - 2_600.0 / 3_600.0).abs() < 0.01, "{report:?}");
    assert!(three("home", false).unfinished.mean < 30.0);
}

/// Two gateways of a work queue and one request of a second of work each two seconds, of which one gateway has
/// something happen to it.
fn queue(gateway: &str, failure: &str) -> (Report, u64) {
    let failure = if failure.is_empty() {
        String::new()
    } else {
        format!("[[failure]]\n{failure}\ngateway = \"g\"\nnumber = 0\n")
    };
    let text = format!(
        "duration = \"200s\"\nreplicas = 1\nwarm_up = \"0s\"\n[program.p]\ntime = \"1s\"\n[gateway.g]\ncount = 2\nworkers \
         = 1\nspread = \"queue\"\nredelivery = \"9s\"\n{gateway}\n[device.d]\narrival = {{ every = \"2s\" }}\n{failure}"
    );
    let scenario = Scenario::parse(&text, Path::new("queue.toml")).unwrap_or_else(|error| panic!("{error}"));
    let observations = replicas::run(&scenario, 1, 1, None, &Unwatched);
    let slices = observations[0].slices;
    (Report::new(&scenario, 1, &observations), slices)
}

#[test]
fn a_work_queue_hands_out_again_what_it_does_not_hear_of_within_the_acknowledgement_wait() {
    let longest = |(report, _): &(Report, u64)| report.all().quantile("max").unwrap().mean;
    assert!((longest(&queue("", "")) - 1.0).abs() < 0.01);
    // Crashes come often enough that one of them hits a run: its request waits for six to nine seconds.
    let crashes = "kind = \"crash\"\nmean_between = \"10s\"\nfor = \"1s\"";
    let crashed = queue("", crashes);
    assert_eq!(crashed.0.all().ok(), 1.0, "{crashed:?}");
    assert!((6.0..11.5).contains(&longest(&crashed)), "{crashed:?}");
    // What has a claim waits for as long again, until another gateway takes it over.
    let claimed = queue("outcomes = \"2ms\"", crashes);
    assert_eq!(claimed.0.all().ok(), 1.0, "{claimed:?}");
    assert!((15.0..29.0).contains(&longest(&claimed)), "{claimed:?}");
}

#[test]
fn a_gateway_of_a_work_queue_that_is_paused_for_long_runs_for_nothing_and_no_request_waits_for_it() {
    // From an even second on it is in the middle of a run, or gets the next one.
    let paused = queue("", "kind = \"pause\"\nat = \"50s\"\nfor = \"60s\"");
    assert_eq!(paused.0.all().ok(), 1.0, "{paused:?}");
    assert!(paused.0.all().quantile("max").unwrap().mean < 11.5, "{paused:?}");
    // A short one is waited for.
    let short = queue("", "kind = \"pause\"\nat = \"50s\"\nfor = \"3s\"");
    assert!(short.0.all().quantile("max").unwrap().mean < 4.5, "{short:?}");
}

#[test]
fn claims_and_outcomes_cost_a_call_each() {
    let mean = |gateway: &str| queue(gateway, "").0.all().mean.mean;
    assert!((mean("outcomes = \"5ms\"") - mean("") - 0.010).abs() < 1e-6);
}
