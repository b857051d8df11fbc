//! What devices see of a gateway to which something happens. One device asks for ten milliseconds of work once a
//! second, on a wire without length, unless a test says otherwise.

use std::path::Path;

use offload_simulator::model::Outcome;
use offload_simulator::replicas::{self, Unwatched};
use offload_simulator::report::{GroupReport, Report};
use offload_simulator::scenario::Scenario;

/// What comes of a world whose device and gateway have these keys, and in which this fails.
fn simulate(device: &str, gateway: &str, failure: &str) -> Report {
    let arrival = if device.contains("arrival") { "" } else { "arrival = { every = \"1s\" }\n" };
    let failure = if failure.is_empty() { String::new() } else { format!("[[failure]]\n{failure}\n") };
    let text = format!(
        "duration = \"200s\"\nreplicas = 1\nwarm_up = \"0s\"\n[program.p]\ntime = \"10ms\"\n[link.l]\nlatency = \
         \"20ms\"\n[gateway.g]\n{gateway}\n[device.d]\n{arrival}{device}\n{failure}"
    );
    let scenario = Scenario::parse(&text, Path::new("world.toml")).unwrap_or_else(|error| panic!("{error}"));
    Report::new(&scenario, 1, &replicas::run(&scenario, 1, 1, None, &Unwatched))
}

/// How many requests a second came to this.
fn part(group: &GroupReport, outcome: Outcome) -> f64 {
    group.outcomes.iter().find(|(of, _)| *of == outcome).map_or(0.0, |(_, part)| part.mean)
}

/// In milliseconds.
fn longest(report: &Report) -> f64 {
    report.all().quantile("max").unwrap().mean * 1e3
}

fn milliseconds(report: &Report) -> f64 {
    report.all().mean.mean * 1e3
}

#[test]
fn where_nothing_happens_a_request_takes_its_program_and_its_way() {
    let report = simulate("", "overhead = \"1ms\"\ningress = \"2ms\"", "");
    assert!((milliseconds(&report) - 13.0).abs() < 0.01, "{report:?}");
    let report = simulate("link = \"l\"", "", "");
    assert!((milliseconds(&report) - 50.0).abs() < 0.01, "{report:?}");
    assert_eq!(report.all().ok(), 1.0);
    // Ten milliseconds of each second, of one of two workers.
    assert!((report.gateways[0].utilisation.mean - 0.005).abs() < 0.000_1, "{report:?}");
}

#[test]
fn in_a_partition_qos_0_is_lost_and_qos_1_comes_later() {
    let partition = "kind = \"partition\"\nat = \"50s\"\nfor = \"20s\"";
    let lost = simulate("qos = 0", "", partition);
    assert!((part(lost.all(), Outcome::Unanswered) - 0.1).abs() < 0.01, "{lost:?}");
    let late = simulate("qos = 1", "", partition);
    assert_eq!(late.all().ok(), 1.0);
    // The first one waits for all of it, and then for the next try of its device.
    assert!((19_000.0..90_000.0).contains(&longest(&late)), "{late:?}");
}

#[test]
fn a_crash_loses_what_waits_unless_it_is_durable_or_sent_again() {
    // Half of the time a request waits or runs, so that some of twenty crashes meet one.
    let burst = "count = 50\narrival = { every = \"1s\" }\n";
    let crash = "kind = \"crash\"\nmean_between = \"10s\"\nfor = \"200ms\"";
    let lost = simulate(&format!("{burst}qos = 1"), "", crash);
    assert!(part(lost.all(), Outcome::Unanswered) > 0.0, "{lost:?}");
    for (device, gateway) in
        [("timeout = \"1s\"\nretries = 20\nbackoff = \"1s\"", ""), ("", "durable = true")]
    {
        let report = simulate(&format!("{burst}{device}"), gateway, crash);
        assert_eq!(part(report.all(), Outcome::Unanswered), 0.0, "{report:?}");
        assert!(report.all().ok() == 1.0, "{report:?}");
    }
}

#[test]
fn a_pause_delays_and_slowness_stretches() {
    let pause = simulate("", "", "kind = \"pause\"\nat = \"50s\"\nfor = \"3s\"");
    assert_eq!(pause.all().ok(), 1.0);
    assert!((2_000.0..3_020.0).contains(&longest(&pause)), "{pause:?}");
    let slow = simulate("", "", "kind = \"slow\"\nfactor = 5.0\nat = \"0s\"\nfor = \"1h\"");
    assert!((milliseconds(&slow) - 50.0).abs() < 0.5, "{slow:?}");
}

#[test]
fn a_request_that_cannot_start_in_time_expires_and_one_too_many_is_refused() {
    let flood = "count = 1\narrival = { burst = 100, every = \"10s\" }\n";
    let report = simulate(&format!("{flood}deadline = \"50ms\""), "workers = 1\nslots = 1", "");
    assert!(part(report.all(), Outcome::Expired) > 0.8 && report.all().ok() > 0.0, "{report:?}");
    let report = simulate(flood, "workers = 1\nslots = 1\nper_principal = 10", "");
    assert!(part(report.all(), Outcome::BusyFlow) > 0.7, "{report:?}");
    let report = simulate(&format!("{flood}retries = 20\nbackoff = \"500ms\""), "per_principal = 40", "");
    assert!(report.all().again.mean > 0.0 && report.all().ok() > 0.95, "{report:?}");
}

#[test]
fn limits_end_guests_and_sleep_costs_no_worker() {
    let report = simulate("", "cpu = \"5ms\"", "");
    assert_eq!(part(report.all(), Outcome::CpuLimit), 1.0, "{report:?}");
    // The worker has work for half of its time, so that some guests are not done in twelve milliseconds.
    let crowd = "count = 200\narrival = { every = \"4s\" }\n";
    let report = simulate(crowd, "workers = 1\nwall = \"12ms\"", "");
    assert!(part(report.all(), Outcome::WallLimit) > 0.0, "{report:?}");
}

#[test]
fn a_device_that_sleeps_hears_its_answer_when_it_wakes() {
    let report = simulate("wakes = \"800ms\"", "", "");
    assert!(longest(&report) <= 811.0 && milliseconds(&report) > 100.0, "{report:?}");
}

#[test]
fn a_surge_multiplies_what_devices_send_and_thinking_waits_for_answers() {
    let poisson = "count = 20\narrival = { poisson = \"1/s\" }\n";
    let calm = simulate(poisson, "", "").all().made.mean;
    let report =
        simulate(&format!("{poisson}surge = {{ at = \"50s\", for = \"50s\", factor = 3.0 }}"), "", "");
    assert!((report.all().made.mean / calm - 1.5).abs() < 0.15, "{calm} {report:?}");
    // Each device has one request under way at the most: 1 / (100 ms + 10 ms) a second.
    let report = simulate("count = 2\narrival = { think = \"100ms\" }", "", "");
    assert!((report.all().made.mean / (2.0 / 0.11) - 1.0).abs() < 0.1, "{report:?}");
}

#[test]
fn a_link_of_devices_that_is_cut_delays_qos_1_and_loses_qos_0() {
    let cut = "kind = \"link\"\nat = \"50s\"\nfor = \"20s\"";
    let late = simulate("qos = 1\nlink = \"l\"", "", cut);
    assert_eq!(late.all().ok(), 1.0);
    assert!((19_000.0..90_000.0).contains(&longest(&late)), "{late:?}");
    let lost = simulate("qos = 0", "", cut);
    assert!((part(lost.all(), Outcome::Unanswered) - 0.1).abs() < 0.01, "{lost:?}");
}

#[test]
fn a_clock_that_is_wrong_makes_sealed_requests_expire_and_others_not() {
    let skew = |of: &str, device: &str, more: &str| {
        let failure = format!("kind = \"clock\"\n{of}\nat = \"50s\"\nfor = \"100s\"");
        part(simulate(device, more, &failure).all(), Outcome::Expired)
    };
    assert_eq!(skew("device = \"d\"\nahead = \"2min\"", "", ""), 0.0);
    let half = 0.45..0.55;
    assert!(half.contains(&skew("device = \"d\"\nahead = \"2min\"", "sealed = true", "")));
    assert!(half.contains(&skew("gateway = \"g\"\nbehind = \"2min\"", "sealed = true", "")));
    assert!(half.contains(&skew(
        "device = \"d\"\nbehind = \"2min\"",
        "sealed = true",
        "retention = \"1min\""
    )));
    assert_eq!(skew("device = \"d\"\nbehind = \"2min\"", "sealed = true", ""), 0.0);
    assert_eq!(skew("device = \"d\"\nahead = \"50s\"", "sealed = true", ""), 0.0);
}

#[test]
fn sealed_requests_are_too_old_for_a_minute_after_a_start_without_a_journal() {
    let crash = "kind = \"crash\"\nat = \"50s\"\nfor = \"1s\"";
    let forgetful = simulate("sealed = true", "", crash);
    assert!((part(forgetful.all(), Outcome::Expired) - 0.3).abs() < 0.02, "{forgetful:?}");
    assert_eq!(part(simulate("sealed = true", "durable = true", crash).all(), Outcome::Expired), 0.0);
}

#[test]
fn a_disk_delays_answers_and_what_it_has_not_kept_comes_again() {
    let report = simulate("", "durable = true\ndisk = \"4ms\"", "");
    // The outcome is written when the run has ended; the request was meanwhile.
    assert!((milliseconds(&report) - 14.0).abs() < 0.01, "{report:?}");
    let slow = "kind = \"disk\"\nfactor = 100\nat = \"50s\"\nfor = \"100s\"";
    let report = simulate("", "durable = true\ndisk = \"4ms\"", slow);
    assert!((longest(&report) - 800.0).abs() < 20.0, "{report:?}");
    // A disk of ten seconds never keeps in time what a crash each five destroys: devices send it again.
    let crash = "kind = \"crash\"\nat = \"50.995s\"\nfor = \"100ms\"";
    let arrival = "arrival = { every = \"50ms\" }";
    let report = simulate(arrival, "durable = true\ndisk = \"1s\"", crash);
    assert_eq!(report.all().ok(), 1.0, "{report:?}");
    let report = simulate(&format!("{arrival}\nqos = 0"), "durable = true\ndisk = \"1s\"", crash);
    assert!(part(report.all(), Outcome::Unanswered) > 0.0, "{report:?}");
}

/// What the longest request of `[device.calm]` takes in milliseconds, beside 64 devices of one account that ask for
/// `flood` all the time.
fn longest_beside(flood: &str, calm: &str) -> f64 {
    let text = format!(
        "duration = \"20s\"\nreplicas = 1\nwarm_up = \"1s\"\n[program.flood]\ntime = \"{flood}\"\n[program.medium]\n\
         time = \"6ms\"\n[program.short]\ntime = \"100us\"\n[gateway.g]\nworkers = 1\n[device.flood]\ncount = 64\n\
         per_account = 64\nprogram = \"flood\"\narrival = {{ think = \"0s\" }}\n[device.calm]\n{calm}\n\
         arrival = {{ every = \"50ms\" }}\n"
    );
    let scenario = Scenario::parse(&text, Path::new("world.toml")).unwrap_or_else(|error| panic!("{error}"));
    let report = Report::new(&scenario, 1, &replicas::run(&scenario, 1, 1, None, &Unwatched));
    let calm = report.groups.iter().find(|group| group.name == "calm").unwrap();
    calm.quantile("max").unwrap().mean * 1e3
}

#[test]
fn one_account_keeps_no_other_one_waiting_and_its_own_short_requests_neither() {
    for flood in ["1ms", "6ms", "1min"] {
        // Half a millisecond of whoever runs, and a fifth for what is overdue.
        let longest = longest_beside(flood, "program = \"medium\"");
        assert!(longest < 9.5, "{longest} ms beside requests of {flood}");
    }
    let own = longest_beside("1min", "program = \"short\"\naccount = \"flood\"");
    assert!(own < 1.2, "{own} ms");
}
