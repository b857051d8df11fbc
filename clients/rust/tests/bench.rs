//! `offload-client bench` against a real broker and a gateway whose answers the test decides.

mod side;

use std::collections::HashSet;
use std::fs;

use offload_client::{Answer, Client, Code, Digest, ErrorKind, Form, Options, Request, WireError};
use serde_json::{Value, json};
use side::{DEADLINE, Delivery, Gateway, Mosquitto, command, exited, output};
use tokio::process::{Child, Command};
use tokio::time::timeout;

fn failed(kind: ErrorKind) -> Answer {
    Answer::failed(None, WireError::new(kind, "so it is"))
}

/// `offload-client bench` with these flags, a program and no warm-up.
fn bench(broker: &Mosquitto, flags: &[&str]) -> Child {
    let args = [&["bench", "add", "--warm-up", "0s"], flags].concat();
    command(&broker.url(), &args).spawn().unwrap()
}

/// Has the gateway answer each request, or not, as told by its number; returns them and what the command said.
async fn run(
    gateway: &mut Gateway,
    child: Child,
    mut answer: impl FnMut(usize, &Request) -> Option<Answer>,
) -> (Vec<Delivery>, (i32, String, String)) {
    let mut deliveries = Vec::new();
    let mut output = std::pin::pin!(output(child));
    loop {
        let delivery = tokio::select! {
            output = &mut output => return (deliveries, output),
            delivery = gateway.next() => delivery,
        };
        if let Some(answer) = answer(deliveries.len(), &delivery.request) {
            gateway.answer(&delivery, answer).await;
        }
        deliveries.push(delivery);
    }
}

fn right(_: usize, _: &Request) -> Option<Answer> {
    Some(exited(0, "12\n", ""))
}

async fn interrupt(child: &Child) {
    let pid = child.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().await.unwrap().success());
}

fn parse(stdout: &str) -> Value {
    serde_json::from_str(stdout).unwrap_or_else(|error| panic!("{error}: {stdout}"))
}

#[tokio::test]
async fn a_closed_loop_sends_so_many_requests_over_its_connections() {
    let broker = Mosquitto::start().await;
    let mut gateway = Gateway::start(&broker).await;
    for version in ["5", "3.1.1"] {
        let flags = [
            "-V",
            version,
            "-i",
            "me",
            "--requests",
            "50",
            "--concurrency",
            "8",
            "--connections",
            "2",
            "--json",
            "--env",
            "A=1",
            "--args",
            "5",
            "--json",
        ];
        let (deliveries, (code, stdout, stderr)) = run(&mut gateway, bench(&broker, &flags), right).await;
        assert_eq!((code, stderr.as_str()), (0, ""), "{version}: {stdout}");
        assert_eq!(deliveries.len(), 2 + 50, "each connection has a request before");
        let topics: HashSet<_> = deliveries.iter().map(Delivery::topic).collect();
        assert_eq!(topics, HashSet::from(["localCode/me", "localCode/me-2"]), "{version}");
        for Delivery { request, .. } in &deliveries {
            assert_eq!(request.code, Code::Program("add".into()));
            assert_eq!(
                (&request.args[..], &request.env[..]),
                (&["5".to_owned(), "--json".to_owned()][..], &[("A".to_owned(), "1".to_owned())][..],)
            );
            assert_eq!(request.limits.timeout, None);
        }
        let ids: HashSet<_> = deliveries.iter().filter_map(|delivery| delivery.request.id.clone()).collect();
        assert_eq!(ids.len(), if version == "5" { 0 } else { 52 }, "no request is joined to another");
        let summary = parse(&stdout);
        let count = |name: &str| summary[name].as_u64().unwrap();
        assert_eq!(["requests", "answered", "lost", "not_sent", "in_flight"].map(count), [50, 50, 0, 0, 0]);
        assert_eq!((&summary["errors"], &summary["interrupted"]), (&json!({}), &json!(false)));
        assert_eq!((&summary["rate"], &summary["late_us"]), (&Value::Null, &Value::Null));
        // What the side answers.
        assert_eq!(
            (summary["queued_us"]["max"].as_f64(), summary["run_us"]["p50"].as_f64()),
            (Some(3.0), Some(2.0))
        );
        let latency = |name: &str| summary["latency_us"][name].as_f64().unwrap();
        let rising = ["p50", "p90", "p99", "p99_9", "max"].map(latency);
        assert!(rising.is_sorted() && rising[0] > 0.0 && latency("mean") <= latency("max"), "{stdout}");
    }
}

#[tokio::test]
async fn wrong_answers_are_counted_by_kind_and_are_no_fast_answers() {
    let broker = Mosquitto::start().await;
    let mut gateway = Gateway::start(&broker).await;
    let answers = |number, _: &Request| match number % 5 {
        1 => Some(failed(ErrorKind::Busy)),
        2 => Some(failed(ErrorKind::Timeout)),
        3 => Some(exited(3, "half", "\nwhat?\nmore")),
        _ => Some(exited(0, "12\n", "")),
    };
    let child = bench(&broker, &["--requests", "40", "--json"]);
    let (_, (code, stdout, stderr)) = run(&mut gateway, child, answers).await;
    assert_eq!((code, stderr.as_str()), (1, "error: failed: 8 busy, 8 exit, 8 timeout\n"));
    let summary = parse(&stdout);
    assert_eq!(summary["errors"], json!({ "busy": 8, "exit": 8, "timeout": 8 }));
    assert_eq!((&summary["requests"], &summary["answered"]), (&json!(40), &json!(16)));
    let child = bench(&broker, &["--requests", "4"]);
    let (_, (code, stdout, stderr)) = run(&mut gateway, child, answers).await;
    assert_eq!((code, stderr.as_str()), (1, "error: failed: 1 busy, 1 exit, 1 timeout\n"));
    for line in [
        "answered             1  ",
        "busy                 1  so it is\n",
        "exit                 1  program exited with code 3: what?\n",
        "timeout              1  so it is\n",
    ] {
        assert!(stdout.contains(line), "{line}: {stdout}");
    }
    // Nothing but wrong answers.
    let child = bench(&broker, &["--requests", "2", "--json"]);
    let answers = |number, _: &Request| match number {
        0 => Some(exited(0, "12\n", "")),
        _ => Some(failed(ErrorKind::Busy)),
    };
    let (_, (code, stdout, _)) = run(&mut gateway, child, answers).await;
    let summary = parse(&stdout);
    assert_eq!((code, &summary["answered"], &summary["latency_us"]), (1, &json!(0), &Value::Null));
}

#[tokio::test]
async fn a_request_without_an_answer_is_lost() {
    let broker = Mosquitto::start().await;
    let mut gateway = Gateway::start(&broker).await;
    let child = bench(&broker, &["--requests", "3", "--concurrency", "3", "--timeout", "3s"]);
    let answers = |number, request: &Request| (number != 2).then(|| right(number, request)).flatten();
    let (_, (code, stdout, stderr)) = run(&mut gateway, child, answers).await;
    assert_eq!((code, stderr.as_str()), (1, "error: failed: 1 lost\n"));
    assert!(stdout.contains("answered             2  "), "{stdout}");
    assert!(stdout.contains("lost                 1  no answer within 3000 ms\n"), "{stdout}");
}

#[tokio::test]
async fn latency_in_an_open_loop_counts_from_when_a_request_was_due() {
    let broker = Mosquitto::start().await;
    let mut gateway = Gateway::start(&broker).await;
    // All are due at once and sent one after the other: the last one has waited for all others.
    let flags = ["--rate", "1000000", "--requests", "100", "--concurrency", "1", "--json"];
    let (deliveries, (code, stdout, stderr)) = run(&mut gateway, bench(&broker, &flags), right).await;
    assert_eq!((code, stderr.as_str(), deliveries.len()), (0, "", 101));
    let summary = parse(&stdout);
    let elapsed = summary["seconds"].as_f64().unwrap() * 1e6;
    let most = |times: &str| summary[times]["max"].as_f64().unwrap();
    assert!(most("latency_us") > 0.9 * elapsed, "{stdout}");
    assert!(most("late_us") <= most("latency_us"), "{stdout}");
    assert_eq!((&summary["rate"], &summary["answered"]), (&json!(1_000_000), &json!(100)));
}

#[tokio::test]
async fn an_open_loop_lasts_as_long_as_it_should() {
    let broker = Mosquitto::start().await;
    let mut gateway = Gateway::start(&broker).await;
    let flags = ["bench", "add", "--rate", "200", "--warm-up", "100ms", "--duration", "500ms", "--json"];
    let child = command(&broker.url(), &flags).spawn().unwrap();
    let (deliveries, (code, stdout, stderr)) = run(&mut gateway, child, right).await;
    assert_eq!((code, stderr.as_str()), (0, ""), "{stdout}");
    assert_eq!(deliveries.len(), 1 + 20 + 100);
    let summary = parse(&stdout);
    assert_eq!(summary["requests"], 100, "without those of the warm-up");
    assert!(summary["seconds"].as_f64().unwrap() >= 0.5, "{stdout}");
}

#[tokio::test]
async fn what_cannot_be_sent_is_no_silence() {
    let broker = Mosquitto::start().await;
    let mut gateway = Gateway::start(&broker).await;
    let flags = ["--rate", "1000", "--requests", "20", "--concurrency", "2", "--timeout", "1s", "--json"];
    let answers = |number, request: &Request| if number == 0 { right(number, request) } else { None };
    let (deliveries, (code, stdout, stderr)) = run(&mut gateway, bench(&broker, &flags), answers).await;
    let summary = parse(&stdout);
    let count = |name: &str| summary[name].as_u64().unwrap();
    assert_eq!(count("requests"), deliveries.len() as u64 - 1);
    assert_eq!(count("lost"), count("requests"), "{stdout}");
    assert_eq!(count("lost") + count("not_sent"), 20, "{stdout}");
    assert!(count("not_sent") > 0, "{stdout}");
    let expected = format!("error: failed: {} lost, {} not sent\n", count("lost"), count("not_sent"));
    assert_eq!((code, stderr), (1, expected));
}

#[tokio::test]
async fn what_is_wrong_with_the_first_request_is_said_at_once() {
    let broker = Mosquitto::start().await;
    let child = bench(&broker, &[]);
    let (code, stdout, stderr) = output(child).await;
    assert_eq!((code, stdout.as_str()), (125, ""));
    assert!(stderr.starts_with("error: connection: no gateway takes requests at this broker"), "{stderr}");
    let mut gateway = Gateway::start(&broker).await;
    for (answer, exit_code, expected) in [
        (failed(ErrorKind::NotFound), 125, "error: not-found: so it is\n"),
        (failed(ErrorKind::Timeout), 124, "error: timeout: so it is\n"),
        (exited(2, "", "usage: add A B\n"), 125, "error: exit: program exited with code 2: usage: add A B\n"),
    ] {
        let child = bench(&broker, &["--connections", "3"]);
        let (deliveries, output) = run(&mut gateway, child, |_, _| Some(answer.clone())).await;
        assert_eq!(output, (exit_code, String::new(), expected.to_owned()));
        assert_eq!(deliveries.len(), 1);
        let child = bench(&broker, &["--json"]);
        let (_, (code, stdout, stderr)) = run(&mut gateway, child, |_, _| Some(answer.clone())).await;
        assert_eq!((code, stderr.as_str()), (exit_code, ""));
        let error = &parse(&stdout)["error"];
        let line =
            format!("error: {}: {}\n", error["kind"].as_str().unwrap(), error["message"].as_str().unwrap());
        assert_eq!(line, expected);
    }
    let child = bench(&broker, &["--timeout", "200ms"]);
    let (_, output) = run(&mut gateway, child, |_, _| None).await;
    assert_eq!(output, (124, String::new(), "error: timeout: no answer within 200 ms\n".to_owned()));
}

#[tokio::test]
async fn without_a_program_the_default_one_is_asked_for_as_devices_do() {
    let broker = Mosquitto::start().await;
    let mut gateway = Gateway::start(&broker).await;
    let bench = |version: &str| {
        let args =
            ["-V", version, "bench", "--requests", "2", "--warm-up", "0s", "--json", "--args", "5", "7"];
        command(&broker.url(), &args).spawn().unwrap()
    };
    let (deliveries, (code, stdout, stderr)) = run(&mut gateway, bench("5"), right).await;
    assert_eq!((code, stderr.as_str(), deliveries.len()), (0, "", 3));
    for Delivery { request, .. } in &deliveries {
        assert_eq!((&request.code, request.form), (&Code::DefaultProgram, Form::LegacyArgs));
        assert_eq!(request.args, ["5", "7"]);
    }
    let summary = parse(&stdout);
    assert_eq!((summary["run_us"]["max"].as_f64(), &summary["queued_us"]), (Some(2.0), &Value::Null));
    let (code, stdout, stderr) = output(bench("3.1.1")).await;
    assert_eq!((code, stderr.as_str()), (125, ""));
    let error = &parse(&stdout)["error"];
    assert_eq!(error["kind"], "malformed");
    assert!(
        error["message"].as_str().unwrap().starts_with("program: expected a name; MQTT 3.1.1"),
        "{stdout}"
    );
}

#[tokio::test]
async fn a_module_is_sent_once_and_then_its_digest() {
    let broker = Mosquitto::start().await;
    let mut gateway = Gateway::start(&broker).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.wat");
    fs::write(&file, "(module)").unwrap();
    let module = &b"\0asm\x01\0\0\0"[..];
    let args = ["bench", file.to_str().unwrap(), "--requests", "20", "--concurrency", "4", "--warm-up", "0s"];
    let child = command(&broker.url(), &args).spawn().unwrap();
    let answers = |number, _: &Request| match number {
        0 => Some(failed(ErrorKind::NotFound)),
        _ => Some(exited(0, "", "")),
    };
    let (deliveries, (code, _, stderr)) = run(&mut gateway, child, answers).await;
    assert_eq!((code, stderr.as_str(), deliveries.len()), (0, "", 22));
    let digest = Code::Digest(Digest::of(module));
    for (number, delivery) in deliveries.iter().enumerate() {
        let expected = if number == 1 { &Code::Module(module.into()) } else { &digest };
        assert_eq!(&delivery.request.code, expected, "{number}");
    }
}

#[tokio::test]
async fn ctrl_c_ends_it_with_what_there_was() {
    let broker = Mosquitto::start().await;
    let mut gateway = Gateway::start(&broker).await;
    let child = bench(&broker, &["--duration", "1h", "--concurrency", "4", "--json"]);
    for number in 0..1 + 10 + 4 {
        let delivery = gateway.next().await;
        // The last four stay in flight.
        if number < 11 {
            gateway.answer(&delivery, exited(0, "", "")).await;
        }
    }
    interrupt(&child).await;
    let (code, stdout, stderr) = output(child).await;
    assert_eq!((code, stderr.as_str()), (0, ""));
    let summary = parse(&stdout);
    let counts = ["requests", "answered", "lost", "in_flight"].map(|name| summary[name].as_u64().unwrap());
    assert_eq!((counts, &summary["interrupted"]), ([14, 10, 0, 4], &json!(true)));
    let flags = ["bench", "add", "--warm-up", "1h"];
    let child = command(&broker.url(), &flags).spawn().unwrap();
    for _ in 0..2 {
        let delivery = gateway.next().await;
        gateway.answer(&delivery, exited(0, "", "")).await;
    }
    gateway.next().await;
    interrupt(&child).await;
    let interrupted = (130, String::new(), "error: interrupted: nothing was measured\n".to_owned());
    assert_eq!(output(child).await, interrupted);
}

#[tokio::test]
async fn ctrl_c_before_any_answer_that_counts_is_no_success() {
    let broker = Mosquitto::start().await;
    let mut gateway = Gateway::start(&broker).await;
    let child = bench(&broker, &["--duration", "1h"]);
    let first = gateway.next().await;
    gateway.answer(&first, exited(0, "", "")).await;
    // It counts, and stays in flight.
    gateway.next().await;
    interrupt(&child).await;
    let interrupted = (130, String::new(), "error: interrupted: nothing was measured\n".to_owned());
    assert_eq!(output(child).await, interrupted);
}

#[tokio::test]
async fn a_connection_that_ends_for_good_ends_it() {
    let broker = Mosquitto::start().await;
    let mut gateway = Gateway::start(&broker).await;
    let child = bench(&broker, &["-i", "me", "--duration", "1h", "--json"]);
    for _ in 0..5 {
        let delivery = gateway.next().await;
        gateway.answer(&delivery, exited(0, "", "")).await;
    }
    gateway.next().await;
    let other = Client::connect(Options { client_id: "me".into(), ..broker.options() }).await.unwrap();
    let (code, stdout, stderr) = output(child).await;
    assert_eq!(code, 125);
    assert!(stderr.ends_with("is another client connected with the id `me`?\n"), "{stderr}");
    let summary = parse(&stdout);
    assert_eq!((&summary["answered"], &summary["errors"]), (&json!(4), &json!({ "connection": 1 })));
    other.disconnect().await;
}

#[tokio::test]
async fn progress_is_shown_on_a_terminal() {
    let broker = Mosquitto::start().await;
    let mut gateway = Gateway::start(&broker).await;
    let bench = format!(
        "stty cols 80 rows 24; {} --broker {} bench add --warm-up 0s --requests 50",
        env!("CARGO_BIN_EXE_offload-client"),
        broker.url()
    );
    let mut script = Command::new("script");
    script.args(["--quiet", "--return", "--command", &bench, "/dev/null"]);
    script.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::piped()).kill_on_drop(true);
    let child = script.spawn().unwrap();
    let (_, (code, stdout, _)) = timeout(DEADLINE, run(&mut gateway, child, right)).await.expect("it ends");
    assert_eq!(code, 0, "{stdout}");
    assert!(stdout.contains("/s  p99 "), "{stdout:?}");
    assert!(stdout.contains("answered            50  "), "{stdout:?}");
}

#[tokio::test]
async fn a_wrong_command_line_says_what_is_wrong() {
    for (args, expected) in [
        (&["add", "--rate", "0"][..], "invalid value '0' for '--rate <R>'"),
        (&["add", "--rate", "1000001"], "invalid value '1000001' for '--rate <R>'"),
        (&["add", "--concurrency", "0"], "invalid value '0' for '--concurrency <N>'"),
        (&["add", "--connections", "1001"], "invalid value '1001' for '--connections <C>'"),
        (&["add", "--duration", "10"], "invalid value '10' for '--duration <T>'"),
        (&["add", "--duration", "0s"], "invalid value '0s' for '--duration <T>': expected more than 0"),
        (&["add", "--warm-up", "25h"], "invalid value '25h' for '--warm-up <T>': expected at most 24 h"),
        (
            &["add", "--requests", "5", "--duration", "1s"],
            "the argument '--requests <N>' cannot be used with",
        ),
        (
            &["add", "--concurrency", "1", "--connections", "2"],
            "--concurrency: expected at least one for each of --connections\n",
        ),
        (
            &["--build", "gcc a.c"],
            "--build, --makefile and --target: expected with the file or folder to build\n",
        ),
    ] {
        let args = [&["bench"], args].concat();
        let (code, stdout, stderr) = output(command("", &args).spawn().unwrap()).await;
        assert_eq!((code, stdout.as_str()), (125, ""), "{args:?}");
        assert!(stderr.starts_with(&format!("error: malformed: {expected}")), "{args:?}: {stderr}");
    }
}
