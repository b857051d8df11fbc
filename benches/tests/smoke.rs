//! Whole suites, so short that their figures mean nothing: every contender answers rightly and is counted.
//!
//! All but `peers` and `first-contact`, which compile for longer than a test should.

use serde_json::Value;
use std::process::Command;

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
