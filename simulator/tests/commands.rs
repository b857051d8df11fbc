//! The commands, as they are typed.

use std::path::Path;
use std::process::{Command, Output};

use offload_simulator::validation;
use serde_json::Value;

fn offload_sim(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_offload-sim")).current_dir(folder).args(arguments).output().unwrap()
}

/// What it prints, where it succeeds.
fn printed(folder: &Path, arguments: &[&str]) -> String {
    let output = offload_sim(folder, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn json(folder: &Path, arguments: &[&str]) -> Value {
    serde_json::from_str(&printed(folder, arguments)).unwrap()
}

/// A folder with what `new` writes.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    printed(folder.path(), &["new", "site.toml"]);
    folder
}

#[test]
fn what_new_writes_runs_and_is_not_overwritten() {
    let folder = folder();
    let text = printed(folder.path(), &["run", "site.toml", "--duration", "1min", "--replicas", "2"]);
    for told in [
        "one site: 1min of virtual time, 2 replicas, seed 1",
        "warm-up cut off",
        "sensors",
        "hall",
        "ok",
        "±",
    ] {
        assert!(text.contains(told), "{told}: {text}");
    }
    let again = offload_sim(folder.path(), &["new", "site.toml"]);
    assert_eq!(again.status.code(), Some(2));
    assert_eq!(
        printed(folder.path(), &["new"]),
        std::fs::read_to_string(folder.path().join("site.toml")).unwrap()
    );
}

#[test]
fn a_run_gives_the_same_bytes_json_html_and_trace() {
    let folder = folder();
    let files = |name: &str| {
        let (html, trace) = (format!("{name}.html"), format!("{name}.jsonl"));
        let arguments = ["run", "site.toml", "--seed", "9", "--duration", "20s", "--replicas", "3", "--json"];
        let arguments = [&arguments[..], &["--html", &html, "--trace", &trace]].concat();
        let read = |name| std::fs::read_to_string(folder.path().join(name)).unwrap();
        let printed = printed(folder.path(), &arguments);
        [printed, read(&html), read(&trace)]
    };
    let first = files("first");
    assert_eq!(first, files("second"));
    let report: Value = serde_json::from_str(&first[0]).unwrap();
    assert_eq!((&report["replicas"], &report["seed"]), (&3.into(), &9.into()));
    assert!(report["devices"][0]["latency_s"]["p99"]["half_width"].as_f64().unwrap() > 0.0, "{report}");
    assert!(first[1].contains("<svg") && !first[1].contains("http"), "the file needs nothing else");
    let steps: Vec<Value> = first[2].lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of_first: Vec<&str> =
        steps.iter().filter(|step| step["request"] == 0).map(|step| step["step"].as_str().unwrap()).collect();
    assert_eq!(of_first, ["sent", "arrived", "answered", "done"]);
}

#[test]
fn two_scenarios_are_compared_in_pairs() {
    let folder = folder();
    let path = folder.path().join("site.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(folder.path().join("slow.toml"), text.replace("latency = \"2ms\"", "latency = \"3ms\""))
        .unwrap();
    let short = ["--duration", "1min", "--replicas", "4", "--json"];
    let same = json(folder.path(), &[&["compare", "site.toml", "site.toml"], &short[..]].concat());
    assert!(same["measures"].as_array().unwrap().iter().all(|of| of["difference"]["mean"] == 0.0), "{same}");
    let slower = json(folder.path(), &[&["compare", "site.toml", "slow.toml"], &short[..]].concat());
    let median = &slower["measures"][3];
    // A millisecond more each way, and with one seed all else is the same.
    let difference = median["difference"]["mean"].as_f64().unwrap();
    assert!((difference - 0.002).abs() < 0.000_1 && median["sure"] == true, "{median}");
}

#[test]
fn a_plan_names_the_fewest_that_are_enough() {
    let folder = tempfile::tempdir().unwrap();
    // 300 requests of 10 ms a second: three workers' time, so three are too few, and a few more are enough. Gateways of
    // one worker each cannot help each other, so that it takes more of them.
    let text = "duration = \"1min\"\nreplicas = 3\n[program.p]\ntime = \"10ms\"\n[gateway.g]\nworkers = 1\n\
                [device.d]\ncount = 60\narrival = { poisson = \"5/s\" }\n";
    std::fs::write(folder.path().join("load.toml"), text).unwrap();
    for (vary, few) in [("workers", 4..=9), ("gateways", 8..=16)] {
        let plan = json(folder.path(), &["plan", "load.toml", "--p99", "50ms", "--vary", vary, "--json"]);
        let enough = plan["enough"].as_u64().unwrap();
        assert!(few.contains(&enough), "{plan}");
        assert_eq!(plan["with_one_lost"], enough + 1);
        let tried = plan["tried"].as_array().unwrap();
        let keeps = |count| tried.iter().find(|of| of["count"] == count).map(|of| of["enough"] == true);
        assert_eq!((keeps(enough), keeps(enough - 1)), (Some(true), Some(false)), "{plan}");
    }
    let arguments = ["plan", "load.toml", "--p99", "1ms", "--most", "4"];
    let impossible = offload_sim(folder.path(), &arguments);
    assert_eq!(impossible.status.code(), Some(1), "{impossible:?}");
}

#[test]
fn one_that_is_lost_crashes_behind_a_broker() {
    let folder = tempfile::tempdir().unwrap();
    // Two gateways have work for each other's requests, one has too little time for both: with one lost it takes three.
    let text = "duration = \"1min\"\nreplicas = 2\n[program.p]\ntime = \"10ms\"\n[gateway.g]\nworkers = 1\nspread \
                = \"queue\"\nwindow = 2\nredelivery = \"1s\"\n[device.d]\ncount = 60\narrival = { poisson = \
                \"2/s\" }\n";
    std::fs::write(folder.path().join("queue.toml"), text).unwrap();
    let plan = json(folder.path(), &["plan", "queue.toml", "--p99", "100ms", "--ok", "0.99", "--json"]);
    assert_eq!((&plan["enough"], &plan["with_one_lost"]), (&2.into(), &3.into()), "{plan}");
    let lost = plan["tried_with_one_lost"].as_array().unwrap();
    let of = |count: u64| lost.iter().find(|of| of["count"] == count).unwrap();
    assert_eq!((&of(2)["enough"], &of(3)["enough"]), (&false.into(), &true.into()), "{plan}");
    // Two thirds of the run one is left of two, and what it cannot answer is left open or late.
    assert!(of(2)["p99_s"]["mean"].as_f64().unwrap() > 1.0, "{plan}");
}

#[test]
fn what_is_printed_fits_a_terminal_and_says_what_is_not_known() {
    let folder = folder();
    // Devices that are never answered, and wait for ever.
    let text = std::fs::read_to_string(folder.path().join("site.toml")).unwrap()
        + "[program.never]\ntime = \"1d\"\n[gateway.gone]\n[device.forgotten]\nprogram = \"never\"\ngateway = \
           \"gone\"\narrival = { every = \"1s\" }\n[[failure]]\nkind = \"crash\"\ngateway = \"gone\"\nat = \
           \"0s\"\nfor = \"1d\"\n";
    std::fs::write(folder.path().join("gone.toml"), text).unwrap();
    let short = ["--duration", "30s", "--replicas", "2"];
    let run = printed(folder.path(), &[&["run", "gone.toml"], &short[..]].concat());
    let plan = printed(folder.path(), &[&["plan", "site.toml", "--p99", "1s"], &short[..]].concat());
    let compared = printed(folder.path(), &[&["compare", "site.toml", "gone.toml"], &short[..]].concat());
    for line in [&run, &plan, &compared].into_iter().flat_map(|text| text.lines()) {
        assert!(line.chars().count() <= 80, "{line}");
    }
    let row =
        |start: &str| run.lines().find(|line| line.starts_with(start)).unwrap_or_else(|| panic!("{run}"));
    assert!(row("forgotten").ends_with(" -"), "{run}");
    assert!(run.lines().any(|line| line.starts_with("forgotten") && line.contains("left open")), "{run}");
    let report = json(folder.path(), &[&["run", "gone.toml", "--json"], &short[..]].concat());
    let forgotten =
        report["devices"].as_array().unwrap().iter().find(|of| of["name"] == "forgotten").unwrap();
    assert!(forgotten["latency_s"]["p99"]["mean"].is_null(), "{forgotten}");
    assert_eq!(forgotten["outcomes"]["left open"]["mean"], 1.0, "{forgotten}");
    let all = &report["devices"][0]["outcomes"];
    assert!(all["ok"]["mean"].as_f64().unwrap() < 0.99, "what is left open is not left out: {all}");
}

#[test]
fn every_report_tells_its_error_and_what_of_a_configuration_is_not_simulated() {
    let folder = folder();
    let text = std::fs::read_to_string(folder.path().join("site.toml")).unwrap();
    let text = text.replacen("[gateway.hall]\n", "[gateway.hall]\nconfig = \"gateway.toml\"\n", 1);
    std::fs::write(folder.path().join("site.toml"), text).unwrap();
    std::fs::write(folder.path().join("gateway.toml"), "[limits]\nfuel = 9\nwall = \"9s\"\n").unwrap();
    let short = ["--duration", "20s", "--replicas", "2"];
    for command in [
        &["run", "site.toml", "--html", "report.html"][..],
        &["plan", "site.toml", "--p99", "10s"],
        &["compare", "site.toml", "site.toml"],
    ] {
        let text = printed(folder.path(), &[command, &short[..]].concat());
        let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(words.ends_with(&validation::line()), "{text}");
        assert!(words.contains("not simulated of the configuration of hall: limits.fuel"), "{text}");
        let json = json(folder.path(), &[command, &short[..], &["--json"]].concat());
        assert_eq!(json["validation"], validation::summary(), "{json}");
        assert_eq!(json["not_simulated"], serde_json::json!({ "hall": ["limits.fuel"] }), "{json}");
    }
    let html = std::fs::read_to_string(folder.path().join("report.html")).unwrap();
    assert!(html.contains("configuration of hall: limits.fuel"));
    let html = html.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(html.contains(validation::line().split(';').next().unwrap()));
}

#[test]
fn what_cannot_be_read_is_refused_with_the_remedy() {
    let folder = folder();
    let error = |arguments: &[&str]| {
        let output = offload_sim(folder.path(), arguments);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(error(&["run", "none.toml"]).contains("`offload-sim new none.toml` makes one"));
    std::fs::write(folder.path().join("wrong.toml"), "duration = \"1min\"\n[gatway.x]\n").unwrap();
    assert!(
        error(&["run", "wrong.toml"])
            .contains("wrong.toml:2:2: gatway: unknown key; did you mean `gateway`?")
    );
    assert!(
        error(&["run", "site.toml", "--duration", "5"])
            .contains("has no unit (accepted: a time: a number of ns,")
    );
    assert!(error(&["new", "site.toml"]).contains("which is there already: name another file"));
    assert!(
        error(&["run", "."])
            .contains(". is a folder, and a scenario is a file: name one, such as ./site.toml")
    );
    let plan = |rest: &[&str]| error(&[&["plan", "site.toml"], rest].concat());
    assert!(plan(&["--p99", "0s"]).contains("'--p99 <TIME>': nothing is answered in no time"));
    assert!(plan(&["--p99", "1s", "--most", "0"]).contains("'--most <COUNT>'"));
    let threads = plan(&["--p99", "1s", "--vary", "workers", "--most", "2000"]);
    assert!(threads.contains("--most 2000: a scenario has 1024 workers at the most"), "{threads}");
    let lobby = plan(&["--p99", "1s", "--gateway", "lobby"]);
    assert!(lobby.contains("has no [gateway.lobby] (accepted: hall)"), "{lobby}");
}

#[test]
fn each_command_has_examples_that_fit_a_narrow_terminal() {
    let folder = tempfile::tempdir().unwrap();
    for command in [&[][..], &["new"], &["run"], &["compare"], &["plan"], &["swarm"], &["session"]] {
        let help = printed(folder.path(), &[command, &["--help"]].concat());
        let (_, examples) = help.split_once("\nExamples").unwrap_or_else(|| panic!("{command:?}: {help}"));
        let lines = examples.lines().filter(|line| line.starts_with("  "));
        assert!(lines.clone().count() > 0 && lines.clone().all(|line| line.len() <= 80), "{examples}");
        assert!(
            lines
                .clone()
                .any(|line| line.contains(&["offload-sim", command.first().unwrap_or(&"")].join(" ")))
        );
    }
    // Short enough to be looked over.
    let commands = printed(folder.path(), &["--help"]);
    let (_, listed) = commands.split_once("Commands:\n").unwrap();
    let listed = listed.split("\n\n").next().unwrap();
    assert!(listed.lines().all(|line| line.starts_with("  ") && !line.starts_with("    ")), "{listed}");
}

/// A packet of a capture.
#[derive(Debug, PartialEq)]
struct Packet {
    nanoseconds: u64,
    from: [u8; 4],
    to: [u8; 4],
    /// What TCP carries.
    payload: Vec<u8>,
}

/// The packets of a capture, whose checksums are right.
fn packets(bytes: &[u8]) -> Vec<Packet> {
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    assert_eq!((word(0), word(20)), (0xa1b2_3c4d, 1), "nanoseconds, Ethernet");
    let (mut at, mut packets) = (24, Vec::new());
    while at < bytes.len() {
        let (nanoseconds, length) =
            (u64::from(word(at)) * 1_000_000_000 + u64::from(word(at + 4)), word(at + 8) as usize);
        let frame = etherparse::SlicedPacket::from_ethernet(&bytes[at + 16..at + 16 + length]).unwrap();
        let (Some(etherparse::NetSlice::Ipv4(ip)), Some(etherparse::TransportSlice::Tcp(tcp))) =
            (&frame.net, &frame.transport)
        else {
            panic!("{frame:?}")
        };
        let header = ip.header();
        assert_eq!(header.header_checksum(), header.to_header().calc_header_checksum());
        assert_eq!(tcp.checksum(), tcp.calc_checksum_ipv4(header.source(), header.destination()).unwrap());
        let (from, to, payload) = (header.source(), header.destination(), tcp.payload().to_vec());
        packets.push(Packet { nanoseconds, from, to, payload });
        at += 16 + length;
    }
    packets
}

#[test]
fn a_capture_holds_the_packets_of_mqtt_in_order_and_no_more_than_it_may() {
    let folder = folder();
    let capture = |most: &str| {
        let run = ["run", "site.toml", "--duration", "2s", "--replicas", "1", "--pcap", "packets.pcap"];
        printed(folder.path(), &[&run[..], &["--pcap-packets", most]].concat());
        packets(&std::fs::read(folder.path().join("packets.pcap")).unwrap())
    };
    let all = capture("1000000");
    assert!(all.iter().map(|packet| packet.nanoseconds).is_sorted());
    // One device: handshake, CONNECT, CONNACK, SUBSCRIBE, SUBACK, and then its requests.
    let Packet { from: device, to: gateway, .. } = all[0];
    let of_device = |sender: [u8; 4], receiver: [u8; 4]| {
        let sent = all.iter().filter(move |packet| (packet.from, packet.to) == (sender, receiver));
        sent.filter_map(|packet| packet.payload.first().map(|first| first >> 4)).collect::<Vec<_>>()
    };
    let (up, down) = (of_device(device, gateway), of_device(gateway, device));
    assert_eq!(&up[..3], [1, 8, 3], "CONNECT, SUBSCRIBE, PUBLISH: {up:?}");
    assert_eq!(&down[..3], [2, 9, 4], "CONNACK, SUBACK, PUBACK: {down:?}");
    assert!(down.contains(&3) && up.contains(&4), "an answer, and its PUBACK");
    let topic = b"localCode/";
    assert!(all.iter().any(|packet| packet.payload.windows(topic.len()).any(|bytes| bytes == topic)));
    let few = capture("20");
    assert_eq!(few[..], all[..20]);
    let without = offload_sim(folder.path(), &["run", "site.toml", "--pcap-packets", "9"]);
    assert_eq!(without.status.code(), Some(2), "{without:?}");
}
