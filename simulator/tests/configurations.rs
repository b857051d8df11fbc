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
    let hall = &scenario.unwrap().gateways[0];
    assert_eq!((hall.workers, hall.slots, hall.slice, hall.shares.flow), (7, 9, 2_000_000, 25));
    assert_eq!((hall.admission.total.requests, hall.admission.per_flow.requests), (40, 30));
    assert_eq!((hall.cpu, hall.wall, hall.durable), (3_000_000_000, 4_000_000_000, false));
}

#[test]
fn files_of_the_gateways_machine_need_not_be_here() {
    let scenario = with("[access]\npasswords = \"/nonexistent/passwords\"\n");
    assert!(scenario.unwrap().gateways[0].durable, "a gateway keeps its promise unless it is told otherwise");
}

#[test]
fn a_configuration_that_no_gateway_takes_is_refused_with_its_own_line() {
    let told = with("[workers]\ncuont = 7\nslots = 0\n").unwrap_err();
    assert!(told.starts_with("fleet.toml:6:"), "{told}");
    assert!(told.contains("gateway.toml:2:1: workers.cuont"), "{told}");
    assert!(told.contains("and 1 more that `offload-rt config --check` tells"), "{told}");
}
