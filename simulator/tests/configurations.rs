//! A gateway of a scenario can be the operator's own configuration.

use offload_simulator::scenario::Scenario;

const SCENARIO: &str = r#"
duration = "1min"
[program.add]
time = "20us"
[gateway.hall]
config = "gateway.toml"
cpu = "3s"
[device.sensors]
arrival = { poisson = "1/s" }
"#;

/// The scenario beside a configuration of this text, or why it is none.
fn with(configuration: &str) -> Result<Scenario, String> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("gateway.toml"), configuration).unwrap();
    let refused = Scenario::parse(SCENARIO, &folder.path().join("fleet.toml"));
    refused.map_err(|error| error.to_string().replace(&format!("{}/", folder.path().display()), ""))
}

#[test]
fn what_a_configuration_says_is_simulated_and_the_scenario_goes_before_it() {
    let scenario = with(
        "durability = \"off\"\n[workers]\ncount = 7\nslots = 9\nslice = \"2ms\"\nslot_share = 0.25\n\
         [queue]\ntotal = 40\nper_principal = 30\n[limits]\ncpu = \"2s\"\nwall = \"4s\"\n",
    );
    let hall = &scenario.unwrap().gateways[0].config;
    assert_eq!((hall.workers, hall.slots, hall.slice, hall.shares.flow), (7, 9, 2_000_000, 25));
    assert_eq!((hall.admission.total.requests, hall.admission.per_flow.requests), (40, 30));
    assert_eq!((hall.cpu, hall.wall, hall.durable), (3_000_000_000, 4_000_000_000, false));
}

#[test]
fn what_follows_from_the_number_of_workers_follows_from_the_one_that_is_simulated() {
    let compilers = |configuration: &str| with(configuration).unwrap().gateways[0].config.modules.compilers;
    assert_eq!((compilers(""), compilers("[workers]\ncount = 12\n")), (2, 6));
    assert_eq!(compilers("[workers]\ncount = 12\n[compiler]\nconcurrency = 3\n"), 3);
}

#[test]
fn what_modules_and_work_queues_may_take_is_simulated_and_the_rest_is_told() {
    let scenario = with(
        "[compiler]\ndisk_cache = \"5MiB\"\nloaded_bytes = \"2MiB\"\nloaded_modules = 7\nhold = \"30ms\"\n[sandbox]\n\
         concurrency = 5\n[idempotency]\nretention = \"1min\"\n[nats]\nack_wait = \"9s\"\nin_flight = 17\n[limits]\n\
         fuel = 1000\nmemory = \"1MiB\"\n",
    );
    let hall = scenario.unwrap().gateways.remove(0).config;
    let modules = hall.modules;
    assert_eq!((modules.disk_cache, modules.loaded_bytes, modules.loaded_modules), (5 << 20, 2 << 20, 7));
    assert_eq!((modules.compiler_hold, modules.sandboxes), (30_000_000, 5));
    assert_eq!((hall.retention, hall.redelivery, hall.window), (60_000_000_000, 9_000_000_000, 17));
    assert_eq!(hall.not_taken, ["limits.fuel", "limits.memory"]);
}

#[test]
fn files_of_the_gateways_machine_need_not_be_here() {
    let scenario = with("[access]\npasswords = \"/nonexistent/passwords\"\n");
    assert!(
        scenario.unwrap().gateways[0].config.durable,
        "a gateway keeps its promise unless it is told otherwise"
    );
}

#[test]
fn a_configuration_that_no_gateway_takes_is_refused_with_its_own_line() {
    let told = with("[workers]\ncuont = 7\nslots = 0\n").unwrap_err();
    assert!(told.starts_with("fleet.toml:6:"), "{told}");
    assert!(told.contains("gateway.toml:2:1: workers.cuont"), "{told}");
    assert!(told.contains("and 1 more that `offload-rt config --check` tells"), "{told}");
}
