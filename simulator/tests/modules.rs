//! Modules that are compiled, kept and loaded, and native programs in their sandboxes. Devices ask for ten milliseconds
//! of work once a second.

use std::path::Path;

use offload_simulator::model::Outcome;
use offload_simulator::replicas::{self, Unwatched};
use offload_simulator::report::Report;
use offload_simulator::scenario::Scenario;

/// What comes of programs and devices, on a gateway with these keys.
fn simulate(program: &str, gateway: &str, device: &str) -> Report {
    let text = format!(
        "duration = \"100s\"\nreplicas = 1\nwarm_up = \"0s\"\n[program.p]\ntime = \"10ms\"\n{program}\n[gateway.g]\n\
         {gateway}\n[device.d]\narrival = {{ every = \"1s\" }}\n{device}\n"
    );
    let scenario =
        Scenario::parse(&text, Path::new("modules.toml")).unwrap_or_else(|error| panic!("{error}"));
    Report::new(&scenario, 1, &replicas::run(&scenario, 1, 1, None, &Unwatched))
}

fn longest(report: &Report) -> f64 {
    report.all().quantile("max").unwrap().mean
}

#[test]
fn a_module_is_compiled_once_for_all_who_wait_and_loaded_once_by_a_worker() {
    let report = simulate("compile = \"2s\"\nload = \"5ms\"\nsize = \"1MiB\"", "workers = 1", "count = 20");
    let modules = &report.modules[0];
    assert!((modules.made.mean - 0.01).abs() < 1e-9, "{report:?}");
    assert_eq!(report.all().ok(), 1.0);
    assert!((1.9..2.6).contains(&longest(&report)), "{report:?}");
    assert!(modules.loaded.mean > 0.999 && modules.hits.mean > 0.97, "{report:?}");
    // Nothing else costs anything: the median is the program's time.
    assert!((report.all().quantile("p50").unwrap().mean - 0.010).abs() < 0.003, "{report:?}");
}

#[test]
fn what_has_no_room_is_compiled_and_loaded_again_and_again() {
    let program = "modules = 20\nsize = \"1MiB\"\ncompile = \"1ms\"\nload = \"1ms\"";
    let roomy = simulate(program, "workers = 1", "count = 20");
    assert!((roomy.modules[0].made.mean - 0.2).abs() < 1e-9, "{roomy:?}");
    assert!(roomy.modules[0].loaded.mean > 0.98, "{roomy:?}");
    // Twenty modules that are used in rotation, and room for ten: the least recently used is always the next.
    let narrow =
        simulate(program, "workers = 1\ndisk_cache = \"10MiB\"\nloaded_bytes = \"10MiB\"", "count = 20");
    assert!(narrow.modules[0].hits.mean < 0.01 && narrow.modules[0].loaded.mean < 0.01, "{narrow:?}");
    assert!(narrow.modules[0].evicted.mean > 30.0, "{narrow:?}");
}

#[test]
fn one_account_with_many_modules_does_not_put_out_those_of_others() {
    let text = "duration = \"100s\"\nreplicas = 1\nwarm_up = \"10s\"\n[program.many]\ntime = \"1ms\"\nmodules = 50\n\
                size = \"1MiB\"\nload = \"50ms\"\n[program.one]\ntime = \"1ms\"\nsize = \"1MiB\"\nload = \"50ms\"\n\
                [gateway.g]\nworkers = 1\nloaded_bytes = \"8MiB\"\n[device.hog]\nprogram = \"many\"\ncount = 50\n\
                per_account = 50\narrival = { every = \"5s\" }\n[device.other]\nprogram = \"one\"\n\
                arrival = { every = \"10s\" }\n";
    let scenario = Scenario::parse(text, Path::new("modules.toml")).unwrap_or_else(|error| panic!("{error}"));
    let report = Report::new(&scenario, 1, &replicas::run(&scenario, 1, 1, None, &Unwatched));
    let [_, hog, other] = &report.groups[..] else { panic!("{report:?}") };
    let median = |of: &offload_simulator::report::GroupReport| of.quantile("p50").unwrap().mean;
    // By recency alone the other's module would be out each time: a hundred are used between two uses of it.
    assert!(median(hog) > 0.05, "{report:?}");
    assert!(median(other) < 0.05 && other.ok() == 1.0, "{report:?}");
}

#[test]
fn a_compiler_that_takes_long_makes_way_for_a_newcomer() {
    let text = |hold: &str| {
        format!(
            "duration = \"60s\"\nreplicas = 1\nwarm_up = \"0s\"\n[program.large]\ntime = \"1ms\"\nmodules = 4\ncompile \
             = \"20s\"\n[program.small]\ntime = \"1ms\"\ncompile = \"10ms\"\n[gateway.g]\ncompilers = 1\ncompiler_hold \
             = \"{hold}\"\n[device.a]\nprogram = \"large\"\ncount = 2\narrival = {{ trace = \"TRACE\" }}\n[device.b]\n\
             program = \"small\"\narrival = {{ trace = \"LATER\" }}\n"
        )
    };
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("TRACE"), "1s\n").unwrap();
    std::fs::write(folder.path().join("LATER"), "2s\n").unwrap();
    let small = |hold: &str| {
        let path = folder.path().join("modules.toml");
        let scenario = Scenario::parse(&text(hold), &path).unwrap_or_else(|error| panic!("{error}"));
        let report = Report::new(&scenario, 1, &replicas::run(&scenario, 1, 1, None, &Unwatched));
        report.groups[2].quantile("max").unwrap().mean
    };
    assert!(small("100ms") < 0.2, "{}", small("100ms"));
    assert!(small("1h") > 10.0, "{}", small("1h"));
}

#[test]
fn a_native_program_is_built_once_and_starts_a_sandbox_each_time() {
    let report = simulate("kind = \"native\"\ncompile = \"3s\"\nstart = \"30ms\"", "", "");
    assert_eq!(report.all().ok(), 1.0);
    assert!((longest(&report) - 3.04).abs() < 0.01, "{report:?}");
    assert!((report.all().quantile("p50").unwrap().mean - 0.040).abs() < 0.001, "{report:?}");
    // Workers run none of it.
    assert_eq!(report.gateways[0].utilisation.mean, 0.0);
    // Four sandboxes of which each takes forty milliseconds: a hundred a second.
    let crowd = simulate("kind = \"native\"\nstart = \"30ms\"", "sandboxes = 4", "count = 80");
    assert!((crowd.all().throughput.mean - 80.0).abs() < 2.0, "{crowd:?}");
    let limited = simulate("kind = \"native\"\nstart = \"1ms\"", "cpu = \"5ms\"", "");
    assert!(limited.all().outcomes.iter().any(|(of, part)| *of == Outcome::CpuLimit && part.mean == 1.0));
}

#[test]
fn a_crash_loses_what_compiles_and_not_what_is_compiled() {
    let text = "duration = \"60s\"\nreplicas = 1\nwarm_up = \"0s\"\n[program.p]\ntime = \"1ms\"\ncompile = \"4s\"\n\
                size = \"1MiB\"\n[gateway.g]\n[device.d]\narrival = { every = \"1s\" }\nretries = 9\ntimeout = \"6s\"\n\
                [[failure]]\nkind = \"crash\"\nat = \"2s\"\nfor = \"1s\"\n[[failure]]\nkind = \"crash\"\nat = \"30s\"\n\
                for = \"1s\"\n";
    let scenario = Scenario::parse(text, Path::new("modules.toml")).unwrap_or_else(|error| panic!("{error}"));
    let observations = replicas::run(&scenario, 1, 1, None, &Unwatched);
    let report = Report::new(&scenario, 1, &observations);
    assert_eq!(report.all().ok(), 1.0, "{report:?}");
    assert_eq!(observations[0].modules[0].unwrap().made, 1);
}

#[test]
fn keys_that_do_not_belong_together_are_refused() {
    let refused = |program: &str, gateway: &str| {
        let text = format!(
            "duration = \"1s\"\n[program.p]\ntime = \"1ms\"\n{program}\n[gateway.g]\n{gateway}\n[device.d]\narrival = \
             {{ every = \"1s\" }}\n"
        );
        Scenario::parse(&text, Path::new("modules.toml")).unwrap_err().to_string()
    };
    for (program, gateway, told) in [
        ("start = \"1ms\"", "", "modules.toml:4:9: program.p.start: a module has no sandbox"),
        (
            "kind = \"native\"\nload = \"1ms\"",
            "",
            "a native program is not loaded by a worker (accepted: start)",
        ),
        ("kind = \"java\"", "", "program.p.kind: there is no \"java\" (accepted: wasm, native)"),
        ("", "disk = \"1ms\"", "gateway.g.disk: nothing is written (accepted: durable = true)"),
        ("", "outcomes = \"1ms\"", "gateway.g.outcomes: gateways share none (accepted: spread = \"queue\")"),
    ] {
        let said = refused(program, gateway);
        assert!(said.contains(told), "{told}: {said}");
    }
}
