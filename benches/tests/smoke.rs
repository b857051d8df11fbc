//! Whole suites, so short that their figures mean nothing: every contender answers rightly and is counted.
//!
//! All but `peers` and `first-contact`, which compile for longer than a test should.

use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

/// Runs one suite; the report, and the names of the plots.
fn run(suite: &str) -> (Value, Vec<String>) {
    let plots = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_offload-benches"))
        .args(["--only", suite, "--rounds", "1", "--seconds", "0.05", "--idle-clients", "20", "--json"])
        .arg("--plots")
        .arg(plots.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let names = std::fs::read_dir(plots.path()).unwrap();
    let names = names.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    (serde_json::from_slice(&output.stdout).unwrap(), names)
}

/// The suite has these tables, with a sample of each contender in each setting, and plots of them.
fn is_measured(suite: &str, tables: &[(&str, usize)]) {
    let (report, plots) = run(suite);
    let found = report["tables"].as_array().unwrap();
    assert_eq!(found.len(), tables.len());
    for (table, (name, samples)) in found.iter().zip(tables) {
        assert_eq!(table["name"], *name);
        assert_eq!(table["samples"].as_array().unwrap().len(), *samples, "{name}");
        assert!(plots.iter().any(|plot| plot.starts_with(name) && plot.ends_with(".svg")), "{plots:?}");
        for sample in table["samples"].as_array().unwrap() {
            assert!(sample["values"][0].as_f64().unwrap() > 0.0, "{sample}");
        }
        for ratio in table["ratios"].as_array().unwrap() {
            let median = ratio["spreads"][0]["median"].as_f64();
            assert!(median.is_some_and(|median| median > 0.0), "{ratio}");
        }
    }
}

#[test]
fn throughput_is_measured() {
    // Seven settings, two of them with a crowd, of seven contenders.
    is_measured("throughput", &[("throughput", 7 * 7)]);
}

#[test]
fn durability_is_measured() {
    // With an id and without, one in flight and many, each value and fdatasync.
    is_measured("durability", &[("durability", 2 * 2 * 4)]);
}

#[test]
fn execution_is_measured() {
    is_measured("execution", &[("execution", 3 * 3)]);
}

#[test]
fn networks_are_measured() {
    // Two sites and two numbers in flight, and two ways alone, with one; in clear and by two suites.
    is_measured("networks", &[("networks", 2 * 2 + 2), ("sealed", 3)]);
}

#[test]
fn gateways_are_measured() {
    is_measured("gateways", &[("gateways", 3)]);
}

#[test]
fn preemption_is_measured() {
    // Three loads, three slices, four numbers of endless guests.
    is_measured("preemption", &[("endless", 3 * 3 * 4), ("flood", 2)]);
}

/// A real gateway and a simulated one, so briefly that they may differ by anything.
#[test]
fn a_gateway_is_simulated_beside_a_real_one() {
    let folder = tempfile::tempdir().unwrap();
    let (json, page) = (folder.path().join("validation.json"), folder.path().join("page.md"));
    std::fs::write(&page, "before\n<!-- validation -->\n<!-- /validation -->\nafter\n").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_offload-benches"))
        .args(["validate-sim", "--quick", "--only", "beside four hogs", "--scenarios"])
        .arg(folder.path())
        .arg("--json")
        .arg(&json)
        .arg("--page")
        .arg(&page)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let outcome: Value = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
    let cases = outcome["cases"].as_array().unwrap();
    let names: Vec<_> = cases.iter().map(|case| case["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["beside four hogs", "the hogs (beside four hogs)"]);
    for side in ["real", "simulated"] {
        assert!(cases[0][side]["mean_us"][0].as_f64().unwrap() > 0.0, "{outcome}");
    }
    let page = std::fs::read_to_string(page).unwrap();
    assert!(page.starts_with("before\n<!-- validation -->\nVersion "), "{page}");
    assert!(
        page.contains("| beside four hogs |") && page.ends_with("<!-- /validation -->\nafter\n"),
        "{page}"
    );
    assert!(folder.path().join("beside-four-hogs-0/scenario.toml").is_file());
}

/// Ctrl-C leaves no process and no folder.
#[test]
fn a_validation_can_be_interrupted() {
    let folder = tempfile::tempdir().unwrap();
    let temporary = folder.path().join("temporary");
    std::fs::create_dir(&temporary).unwrap();
    let mut validation = Command::new(env!("CARGO_BIN_EXE_offload-benches"))
        .args(["validate-sim", "--only", "beside four hogs", "--scenarios"])
        .arg(folder.path().join("scenarios"))
        .env("TMPDIR", &temporary)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(validation.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.next().unwrap().contains("1 of 5: beside four hogs"));
    let gateways = || {
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        let lines = processes.filter_map(|process| std::fs::read(process.path().join("cmdline")).ok());
        let ours = temporary.to_str().unwrap().to_owned();
        lines.filter(|line| String::from_utf8_lossy(line).contains(&ours)).count()
    };
    // It starts one at once. A process that is about to become it counts too.
    while gateways() == 0 {
        assert!(validation.try_wait().unwrap().is_none(), "it has ended by itself");
        std::thread::yield_now();
    }
    let pid = rustix::process::Pid::from_child(&validation);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let said: Vec<String> = lines.collect();
    assert!(!validation.wait().unwrap().success());
    assert_eq!(said.last().map(String::as_str), Some("error: interrupted"), "{said:?}");
    assert_eq!(gateways(), 0);
    let left: Vec<_> = std::fs::read_dir(&temporary).unwrap().flatten().collect();
    assert!(left.is_empty(), "{left:?}");
}
