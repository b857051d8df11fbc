//! What is wrong in a scenario is refused with file, line and what is accepted.

use std::path::Path;

use offload_simulator::scenario::Scenario;

const GOOD: &str = r#"
duration = "1min"
[program.add]
time = "20us"
[link.wifi]
latency = "2ms"
[gateway.hall]
workers = 2
[device.sensors]
count = 10
link = "wifi"
arrival = { poisson = "1/s" }
"#;

/// What is said of a scenario in which this line is another one.
fn refused(line: &str, other: &str) -> String {
    assert!(GOOD.contains(line), "{line}");
    let error = Scenario::parse(&GOOD.replace(line, other), Path::new("fleet.toml"));
    error.err().unwrap_or_else(|| panic!("accepted: {other}")).to_string()
}

#[test]
fn what_is_right_is_accepted() {
    let scenario = Scenario::parse(GOOD, Path::new("fleet.toml")).unwrap();
    assert_eq!((scenario.devices[0].count, scenario.devices[0].link), (10, Some(0)));
}

#[test]
fn file_line_and_what_is_accepted_are_told() {
    for (line, other, told) in [
        (
            "workers = 2",
            "worker = 2",
            "fleet.toml:8:1: gateway.hall.worker: unknown key; did you mean `workers`? (accepted: ",
        ),
        (
            "latency = \"2ms\"",
            "latency = \"2m\"",
            "fleet.toml:6:11: link.wifi.latency: \"2m\" has a wrong unit",
        ),
        (
            "latency = \"2ms\"",
            "latency = 2",
            "link.wifi.latency: it is an integer (accepted: a time: a number of ns,",
        ),
        (
            "latency = \"2ms\"",
            "latency = \"2ms\"\nloss = 1.5",
            "fleet.toml:7:8: link.wifi.loss: 1.5 is out of range (accepted: a number, 0 to 0.9)",
        ),
        (
            "workers = 2",
            "workers = 0",
            "gateway.hall.workers: 0 is out of range (accepted: a whole number, 1 to 1024)",
        ),
        (
            "link = \"wifi\"",
            "link = \"wify\"",
            "device.sensors.link: there is no \"wify\"; did you mean \"wifi\"? (accepted: wifi)",
        ),
        (
            "poisson = \"1/s\"",
            "poisson = \"1\"",
            "device.sensors.arrival.poisson: \"1\" is no rate (accepted: a rate:",
        ),
        (
            "poisson = \"1/s\"",
            "weekly = true",
            "device.sensors.arrival: it is no arrival process (accepted: { every =",
        ),
        (
            "time = \"20us\"",
            "time = { gaussian = \"1s\" }",
            "program.add.time: it is no distribution (accepted: ",
        ),
        ("time = \"20us\"", "time = { table = \"none.json\" }", "program.add.time.table: none.json: "),
        ("time = \"20us\"", "", "program.add.time: it is missing (accepted: "),
        (
            "time = \"20us\"",
            "time = { exponential = \"1s\", lognormal = \"1s\" }",
            "program.add.time: it is more than one distribution (accepted: ",
        ),
        (
            "poisson = \"1/s\"",
            "poisson = \"1/s\", every = \"1s\"",
            "device.sensors.arrival: it is more than one arrival process (accepted: { every =",
        ),
        (
            "poisson = \"1/s\"",
            "trace = \"/dev/null\"",
            "device.sensors.arrival.trace: /dev/null: there is no time in it (accepted: a file with a time on each line",
        ),
        (
            "latency = \"2ms\"",
            "tail = 5",
            "fleet.toml:6:8: link.wifi.tail: it is no table (accepted: { part = 0.001, delay = \"50ms\", most",
        ),
        (
            "latency = \"2ms\"",
            "tail = { delay = \"1ms\" }",
            "fleet.toml:6:8: link.wifi.tail.part: it is missing (accepted: a number, 0 to 1)",
        ),
        (
            "workers = 2",
            "watts = 5",
            "gateway.hall.watts: it is no table (accepted: { idle = 6.0, busy = 9.0 })",
        ),
        ("duration = \"1min\"", "", "duration: it is missing (accepted: a time"),
        (
            "duration = \"1min\"",
            "duration = \"1min\"\nwarm_up = \"2min\"",
            "warm_up: 2min is not shorter than the duration",
        ),
        ("duration = \"1min\"", "duration = ", "fleet.toml:2:"),
        (
            "count = 10",
            "count = 10\nqos = 2",
            "device.sensors.qos: 2 is out of range (accepted: a whole number, 0 to 1)",
        ),
    ] {
        let said = refused(line, other);
        assert!(said.contains(told), "{other}: {said}");
        assert!(said.starts_with("fleet.toml:"), "{said}");
    }
}

#[test]
fn everything_that_is_wrong_is_told_at_once_in_the_order_of_lines() {
    let text = GOOD.replace("workers = 2", "workers = 0").replace("count = 10", "count = \"many\"");
    let said = Scenario::parse(&text, Path::new("fleet.toml")).unwrap_err().to_string();
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines.len(), 2, "{said}");
    assert!(lines[0].starts_with("fleet.toml:8:") && lines[1].starts_with("fleet.toml:10:"), "{said}");
}

#[test]
fn a_failure_without_a_moment_or_a_gateway_is_refused() {
    let with = |failure: &str| {
        let text = format!("{GOOD}[gateway.other]\n[[failure]]\n{failure}\n")
            .replace("count = 10", "count = 10\ngateway = \"hall\"");
        Scenario::parse(&text, Path::new("fleet.toml"))
            .err()
            .map(|error| error.to_string())
            .unwrap_or_default()
    };
    assert_eq!(with("kind = \"crash\"\ngateway = \"hall\"\nat = \"1s\"\nfor = \"1s\""), "");
    let second = with("kind = \"crash\"\ngateway = \"hall\"\nnumber = 1\nat = \"1s\"\nfor = \"1s\"");
    assert!(second.contains("failure[0].number: hall has no gateway 1 (accepted: 0 to 0)"), "{second}");
    assert!(
        with("kind = \"crash\"\nat = \"1s\"\nfor = \"1s\"").contains("failure[0].gateway: it is missing")
    );
    assert!(with("kind = \"crash\"\ngateway = \"hall\"\nfor = \"1s\"").contains("one of at, mean_between"));
    let lava = with("kind = \"lava\"\ngateway = \"hall\"\nat = \"1s\"\nfor = \"1s\"");
    assert!(lava.contains("there is no \"lava\""), "{lava}");
}
