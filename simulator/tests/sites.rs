//! Requests between sites: what routers and masters do to them when nothing happens, and when something does. A device
//! of the north asks once a second for ten milliseconds of work in the south, unless a test says otherwise.

use std::path::Path;

use offload_simulator::model::{Outcome, RouterCounters};
use offload_simulator::replicas::{self, Unwatched};
use offload_simulator::report::{GroupReport, Report, html, json, table};
use offload_simulator::scenario::Scenario;
use offload_simulator::world::Observation;

/// Two sites, ten milliseconds from their masters each.
const TWO: &str = r#"
duration = "200s"
replicas = 1
warm_up = "0s"
[program.p]
time = "10ms"
[link.wan]
latency = "10ms"
[master.hub]
[gateway.north]
[gateway.south]
[site.north]
link = "wan"
[site.south]
link = "wan"
[device.d]
gateway = "north"
to = "south"
arrival = { every = "1s" }
"#;

/// What comes of a text, each replaced by the other.
fn simulate(text: &str, changes: &[(&str, &str)], more: &str) -> (Report, Observation) {
    let mut text = text.to_owned();
    for (line, other) in changes {
        assert!(text.contains(line), "{line}");
        text = text.replace(line, other);
    }
    let text = format!("{text}\n{more}");
    let scenario = Scenario::parse(&text, Path::new("sites.toml")).unwrap_or_else(|error| panic!("{error}"));
    let mut observations = replicas::run(&scenario, 1, 1, None, &Unwatched);
    let report = Report::new(&scenario, 1, &observations);
    (report, observations.remove(0))
}

fn failure(of: &str, kind: &str, at: &str, lasts: &str) -> String {
    format!("[[failure]]\nkind = \"{kind}\"\n{of}\nat = \"{at}\"\nfor = \"{lasts}\"\n")
}

fn part(group: &GroupReport, outcome: Outcome) -> f64 {
    group.outcomes.iter().find(|(of, _)| *of == outcome).map_or(0.0, |(_, part)| part.mean)
}

fn longest(report: &Report) -> f64 {
    report.all().quantile("max").unwrap().mean
}

/// Every request has ended once, or is on its way.
fn none_is_lost(of: &Observation) {
    let (mut made, mut ended) = (0, 0);
    for sample in of.recorder.groups().iter().flatten() {
        made += sample.made;
        ended += sample.outcomes.iter().sum::<u64>();
    }
    assert!(made > 0);
    assert_eq!(made, ended + of.unfinished);
}

fn sum(of: &Observation, what: impl Fn(&RouterCounters) -> u64) -> u64 {
    of.sites.iter().map(what).sum()
}

#[test]
fn a_request_to_another_site_takes_the_way_there_and_back_and_runs_there() {
    let (report, of) = simulate(TWO, &[], "");
    // Ten milliseconds of work, four ways of ten, and twenty microseconds of the master's each time.
    assert!((report.all().mean.mean - 0.05004).abs() < 1e-5, "{report:?}");
    assert_eq!(report.all().ok(), 1.0);
    let [north, south] = &report.gateways[..] else { panic!("{report:?}") };
    assert!(north.utilisation.mean == 0.0 && (south.utilisation.mean - 0.005).abs() < 0.000_1, "{report:?}");
    assert_eq!((of.sites[0].departed, of.sites[1].visited, of.sites[0].most_hops), (200, 200, 1));
    none_is_lost(&of);
}

#[test]
fn a_link_that_is_cut_for_a_moment_delays_and_for_long_is_told() {
    let cut = |lasts: &str| simulate(TWO, &[], &failure("site = \"south\"", "link", "50s", lasts));
    let (report, of) = cut("3s");
    assert_eq!(report.all().ok(), 1.0, "{report:?}");
    assert!((3.0..8.0).contains(&longest(&report)), "{report:?}");
    none_is_lost(&of);
    // Both ends notice after seven and a half seconds; from then on requests wait for half a minute.
    let (report, of) = cut("100s");
    let unreachable = part(report.all(), Outcome::Unreachable);
    assert!((0.25..0.4).contains(&unreachable), "{report:?}");
    assert!(report.all().ok() > 0.6 && of.sites[0].given_up > 50, "{report:?}");
    none_is_lost(&of);
}

#[test]
fn a_second_master_takes_over_and_one_alone_is_waited_for() {
    let crash = failure("master = \"hub\"", "crash", "50s", "5s");
    let (alone, of) = simulate(TWO, &[], &crash);
    assert_eq!(alone.all().ok(), 1.0, "{alone:?}");
    assert!((4.0..9.0).contains(&longest(&alone)), "{alone:?}");
    none_is_lost(&of);
    let changes = [
        ("[master.hub]", "[master.hub]\n[master.spare]"),
        ("link = \"wan\"", "link = \"wan\"\nmaster = [\"hub\", \"spare\"]"),
    ];
    let (two, of) = simulate(TWO, &changes, &crash);
    assert_eq!(two.all().ok(), 1.0, "{two:?}");
    assert!(longest(&two) < 0.2, "{two:?}");
    none_is_lost(&of);
}

#[test]
fn a_site_that_crashes_is_asked_again_and_one_that_asked_loses_what_it_had() {
    let slow = ("time = \"10ms\"", "time = \"900ms\"");
    let (report, of) = simulate(TWO, &[slow], &failure("gateway = \"south\"", "crash", "50s", "5s"));
    assert_eq!(report.all().ok(), 1.0, "{report:?}");
    assert!((5.0..12.0).contains(&longest(&report)), "{report:?}");
    none_is_lost(&of);
    let crash = failure("gateway = \"north\"", "crash", "50s", "5s");
    let (report, of) = simulate(TWO, &[slow], &crash);
    assert!(part(report.all(), Outcome::Unanswered) > 0.0, "{report:?}");
    none_is_lost(&of);
    let (report, of) = simulate(TWO, &[slow, ("[gateway.north]", "[gateway.north]\ndurable = true")], &crash);
    assert_eq!(report.all().ok(), 1.0, "{report:?}");
    none_is_lost(&of);
}

#[test]
fn a_site_that_is_away_takes_no_more_of_the_buffer_than_is_left_for_others() {
    let more = "[gateway.east]\n[site.east]\nlink = \"wan\"\n[device.others]\ngateway = \"north\"\nto = \"east\"\n\
                arrival = { every = \"1s\" }\n[[failure]]\nkind = \"link\"\nsite = \"south\"\nat = \"20s\"\n\
                for = \"170s\"\n";
    let changes = [
        ("[site.north]", "[site.north]\nbuffer_requests = 16"),
        ("arrival = { every = \"1s\" }", "count = 10\narrival = { every = \"1s\" }"),
    ];
    let (report, of) = simulate(TWO, &changes, more);
    let [_, south, east] = &report.groups[..] else { panic!("{report:?}") };
    assert!(part(south, Outcome::BusySites) > 0.5, "{report:?}");
    assert_eq!(east.ok(), 1.0, "{report:?}");
    assert!(of.sites[0].most <= 16 && of.sites[0].refused > 0, "{of:?}");
    none_is_lost(&of);
}

/// Three sites, each of which hands on to the other two; the north has three times what its worker can do.
fn three(overflow: &str, rates: [&str; 3]) -> (Report, Observation) {
    let site = |name: &str, others: &str| {
        let overflow = if overflow.is_empty() { String::new() } else { format!("overflow = [{others}]\n") };
        format!("[gateway.{name}]\nworkers = 1\ntotal = 50\n[site.{name}]\nlink = \"wan\"\n{overflow}")
    };
    let device = |name: &str, rate: &str| {
        format!("[device.{name}]\ngateway = \"{name}\"\ncount = 10\narrival = {{ poisson = \"{rate}\" }}\n")
    };
    let text = format!(
        "duration = \"60s\"\nreplicas = 1\nwarm_up = \"5s\"\n[program.p]\ntime = \"10ms\"\n[link.wan]\nlatency = \
         \"5ms\"\n[master.hub]\n{}{}{}{}{}{}",
        site("north", "\"south\", \"east\""),
        site("south", "\"north\", \"east\""),
        site("east", "\"north\", \"south\""),
        device("north", rates[0]),
        device("south", rates[1]),
        device("east", rates[2]),
    );
    simulate(&text, &[], "")
}

#[test]
fn a_saturated_site_hands_on_to_those_that_are_less_busy() {
    let rates = ["20/s", "1/s", "1/s"];
    let (alone, _) = three("", rates);
    // One worker does a hundred a second of the two hundred.
    assert!((alone.groups[1].throughput.mean - 100.0).abs() < 5.0, "{alone:?}");
    let (together, of) = three("overflow", rates);
    assert!(together.groups[1].throughput.mean > 190.0, "{together:?}");
    // The others have more than they can do at times, too.
    assert!(
        of.sites[0].handed_on > 1_000 && of.sites[1].handed_on < of.sites[0].handed_on / 10,
        "{:?}",
        of.sites
    );
    none_is_lost(&of);
}

#[test]
fn what_is_handed_on_goes_in_no_circle() {
    let (report, of) = three("overflow", ["20/s", "20/s", "20/s"]);
    let most = of.sites.iter().map(|site| site.most_hops).max().unwrap();
    assert!(most <= 3, "{:?}", of.sites);
    // All are saturated: what is refused elsewhere comes back, and what does not fit here is told.
    assert!(report.all().throughput.mean > 280.0, "{report:?}");
    assert!(sum(&of, |site| site.handed_on) < 20_000, "{:?}", of.sites);
    none_is_lost(&of);
}

#[test]
fn reports_tell_of_sites_and_the_map_shows_them() {
    let (report, _) = simulate(TWO, &[], &failure("site = \"south\"", "link", "50s", "20s"));
    let text = table::of(&report);
    assert!(text.contains("handed on/s") && text.contains("\nsouth "), "{text}");
    assert_eq!(json::of(&report)["sites"][0]["name"], "north");
    let page = html::of(&report);
    for drawn in ["class=\"line\"", "<title>hub</title>", "<title>d (1)</title>", "id=\"failures\"", "-1.00"]
    {
        assert!(page.contains(drawn), "{drawn}");
    }
}

#[test]
fn what_no_network_can_be_is_refused_with_its_place() {
    let refused = |line: &str, other: &str| {
        assert!(TWO.contains(line), "{line}");
        let error = Scenario::parse(&TWO.replace(line, other), Path::new("sites.toml")).err();
        error.unwrap_or_else(|| panic!("accepted: {other}")).to_string()
    };
    for (line, other, told) in [
        ("to = \"south\"", "to = \"sooth\"", "device.d.to: there is no \"sooth\"; did you mean \"south\"?"),
        ("[gateway.south]", "[gateway.south]\ncount = 2", "site.south.gateway: south has 2 gateways"),
        ("[site.south]", "[site.south]\ngateway = \"north\"", "it is the router of another site already"),
        ("[site.south]", "[site.south]\nmaster = \"hob\"", "site.south.master: there is no \"hob\""),
        ("[site.south]", "[site.south]\noverflow = [\"south\"]", "a site hands nothing on to itself"),
        ("[site.south]", "[site.south]\nbuffer_age = \"1ms\"", "site.south.buffer_age: 1ms is out of range"),
        (
            "[site.north]\nlink = \"wan\"\n",
            "",
            "device.d.to: the gateway that these devices ask is no site's",
        ),
        ("[master.hub]", "", "site.north.master: it joins no master"),
    ] {
        let said = refused(line, other);
        assert!(said.contains(told) && said.starts_with("sites.toml:"), "{other}: {said}");
    }
    for (failure, told) in [
        ("kind = \"link\"\nsite = \"west\"", "failure[0].site: there is no \"west\""),
        ("kind = \"link\"\nsite = \"north\"\ndevice = \"d\"", "failure[0]: it is with one of them"),
        ("kind = \"crash\"", "it is missing (accepted: gateway or master"),
        ("kind = \"clock\"\ngateway = \"north\"", "failure[0]: it is how wrong the clock is"),
    ] {
        let text = format!("{TWO}[[failure]]\n{failure}\nat = \"1s\"\nfor = \"1s\"\n");
        let said = Scenario::parse(&text, Path::new("sites.toml")).unwrap_err().to_string();
        assert!(said.contains(told), "{failure}: {said}");
    }
}
