//! Service times that were measured: by `offload-client bench --json`, in an audit log, or by whatever writes a time on
//! each line.

use offload_simulator::clock::MICROSECOND;
use offload_simulator::random::{Distribution, Stream};
use offload_simulator::scenario::Scenario;

/// The service time of a program whose table has this text.
fn read(table: &str) -> Result<Distribution, String> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("table"), table).unwrap();
    let text = "duration = \"1s\"\n[program.p]\ntime = { table = \"table\" }\n[gateway.g]\n[device.d]\narrival = { \
                think = \"1s\" }\n";
    let scenario = Scenario::parse(text, &folder.path().join("scenario.toml"));
    scenario.map(|scenario| scenario.programs[0].time.clone()).map_err(|error| error.to_string())
}

#[test]
fn quantiles_of_a_benchmark_come_out_as_they_went_in() {
    let bench = r#"{"answered":10,"run_us":{"mean":30.0,"p50":20.0,"p90":40.0,"p99":100.0,"p99_9":300.0,"max":900.5}}"#;
    let time = read(bench).unwrap();
    let mut random = Stream::new(1, "test", 0);
    let mut draws: Vec<u64> = (0..100_000).map(|_| time.draw(&mut random)).collect();
    draws.sort_unstable();
    for (part, micros) in [(0.5, 20.0), (0.9, 40.0), (0.99, 100.0)] {
        let found = draws[(part * draws.len() as f64) as usize] as f64 / MICROSECOND as f64;
        assert!((found - micros).abs() < 0.05 * micros, "{part}: {found}");
    }
    assert!(*draws.last().unwrap() <= 900_500, "{:?}", draws.last());
}

#[test]
fn answers_of_an_audit_log_are_its_times() {
    let log = concat!(
        r#"{"event":"request","job":1,"client":"a","topic":"localCode/a"}"#,
        "\n",
        r#"{"event":"answer","job":1,"answer":{"status":"ok","run_us":34,"queue_us":5}}"#,
        "\n",
        r#"{"event":"answer","job":2,"answer":{"status":"ok","run_us":12,"queue_us":5}}"#,
        "\n"
    );
    assert_eq!(read(log), Ok(Distribution::Measured(vec![12 * MICROSECOND, 34 * MICROSECOND])));
}

#[test]
fn what_other_tools_make_of_both_is_read_too() {
    let bench = "{\n  \"run_us\": {\n    \"p50\": 20\n  }\n}\n";
    assert!(matches!(read(bench), Ok(Distribution::Quantiles(_))), "`jq`");
    let log = "gateway/hall/jobs {\"event\":\"answer\",\"answer\":{\"run_us\":34}}\n";
    assert_eq!(read(log), Ok(Distribution::Measured(vec![34 * MICROSECOND])), "`mosquitto_sub -v`");
}

#[test]
fn lines_of_times_are_read_and_what_is_no_time_is_refused_with_its_line() {
    assert_eq!(read("2us\n1us\n"), Ok(Distribution::Measured(vec![MICROSECOND, 2 * MICROSECOND])));
    assert!(read("2us\nsoon\n").unwrap_err().contains("line 2: \"soon\" is no time"));
    assert!(read("").unwrap_err().contains("there is no time in it"));
}
