//! The whole benchmark, so short that its figures mean nothing: every contender answers rightly and is counted.

use serde_json::Value;
use std::process::Command;

#[test]
fn every_contender_is_measured_and_compared() {
    let output = Command::new(env!("CARGO_BIN_EXE_offload-benches"))
        .args(["--rounds", "2", "--seconds", "0.1", "--in-flight", "1,16", "--json"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let rows = |part: &str| report[part].as_array().unwrap().len();
    assert_eq!((rows("turns"), rows("figures"), rows("ratios")), (16, 8, 8));
    for turn in report["turns"].as_array().unwrap() {
        assert!(turn["requests"].as_u64().unwrap() > 0, "{turn}");
    }
}
