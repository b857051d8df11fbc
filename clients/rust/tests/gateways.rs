//! `offload-client gateways` against a real broker, on which documents are retained.

mod side;

use std::process::Stdio;

use side::{DEADLINE, Mosquitto, command, output};
use tokio::process::Command;
use tokio::time::timeout;

const JETSON: &str = r#"{"state":"online","name":"jetson-1","version":"0.1.0","capabilities":{"wasm":["module","component"],"native":false,"programs":["add","primes"]},"load":{"workers":2,"running":3,"waiting":3}}"#;

const NUC: &str = r#"{"state":"offline","name":"nuc","version":"0.1.0"}"#;

/// Has a document retained, as any client can.
async fn retain(broker: &Mosquitto, topic: &str, document: &str) {
    let port = broker.port.to_string();
    let mut publish = Command::new("mosquitto_pub");
    publish.args(["-p", &port, "-q", "1", "-r", "-t", topic, "-m", document]);
    assert!(timeout(DEADLINE, publish.status()).await.expect("it ends").unwrap().success());
}

async fn broker_with_two() -> Mosquitto {
    let broker = Mosquitto::start().await;
    retain(&broker, "gateway/nuc/status", NUC).await;
    retain(&broker, "gateway/jetson-1/status", JETSON).await;
    retain(&broker, "gateway/jetson-1/other", "{}").await;
    broker
}

#[tokio::test]
async fn whoever_is_there_is_listed_in_either_version_of_mqtt() {
    let broker = broker_with_two().await;
    let table = "\
NAME      STATE    VERSION  WORKERS  RUNNING  WAITING  TAKES             PROGRAMS
jetson-1  online   0.1.0    2        3        3        module,component  add,primes
nuc       offline  0.1.0    -        -        -        -                 -
";
    for version in ["5", "3.1.1"] {
        let list = ["-V", version, "gateways", "--wait", "2s"];
        let [listed, json] = [&list[..], &[&list[..], &["--json"]].concat()]
            .map(|args| output(command(&broker.url(), args).spawn().unwrap()));
        let (listed, json) = tokio::join!(listed, json);
        assert_eq!(listed, (0, table.to_owned(), String::new()), "{version}");
        assert_eq!(json, (0, format!("[{JETSON},{NUC}]\n"), String::new()), "{version}");
    }
}

#[tokio::test]
async fn what_is_no_document_is_said_on_stderr() {
    let broker = broker_with_two().await;
    retain(&broker, "gateway/jetson-1/status", "online").await;
    let list = command(&broker.url(), &["gateways", "--wait", "2s", "--json"]).spawn().unwrap();
    let ignored = "warning: gateway/jetson-1/status: expected a JSON object of at most 65536 bytes with its topic; it is ignored\n";
    assert_eq!(output(list).await, (0, format!("[{NUC}]\n"), ignored.to_owned()));
}

#[tokio::test]
async fn nobody_is_an_exit_code_of_its_own() {
    let broker = Mosquitto::start().await;
    let expected = format!(
        "error: not-found: no gateway has said anything at 127.0.0.1:{} within 200 ms: is it running? `offload-rt serve` starts one\n",
        broker.port
    );
    for (flags, stdout) in [(&[][..], ""), (&["--json"], "[]\n")] {
        let list =
            command(&broker.url(), &[&["gateways", "--wait", "200ms"], flags].concat()).spawn().unwrap();
        assert_eq!(output(list).await, (1, stdout.to_owned(), expected.clone()));
    }
}

#[tokio::test]
async fn a_broker_that_does_not_help_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let users = folder.path().join("users");
    std::fs::write(&users, "").unwrap();
    let closed =
        Mosquitto::start_with(&format!("allow_anonymous false\npassword_file {}", users.display())).await;
    for (url, version, expected) in [
        (
            "mqtt://127.0.0.1:1",
            "5",
            "error: connection: cannot ask 127.0.0.1:1: connection refused: is the broker running?\n",
        ),
        (
            &closed.url(),
            "5",
            "error: unauthorized: the broker does not let this client in: 0x87 NotAuthorized\n",
        ),
        (
            &closed.url(),
            "3.1.1",
            "error: unauthorized: the broker does not let this client in: 0x05 NotAuthorized\n",
        ),
    ] {
        let list = command(url, &["-V", version, "gateways"]).spawn().unwrap();
        assert_eq!(output(list).await, (125, String::new(), expected.to_owned()));
    }
}

#[tokio::test]
async fn on_a_terminal_programs_are_cut_to_its_width() {
    let broker = broker_with_two().await;
    let list = format!(
        "stty cols 82 rows 24; {} --broker {} gateways --wait 2s",
        env!("CARGO_BIN_EXE_offload-client"),
        broker.url()
    );
    let mut script = Command::new("script");
    script
        .args(["--quiet", "--return", "--command", &list, "/dev/null"])
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let listed = timeout(DEADLINE, script.output()).await.expect("it ends").unwrap();
    let stdout = String::from_utf8(listed.stdout).unwrap();
    assert!(listed.status.success(), "{stdout}");
    assert!(stdout.contains("  module,component  add,prim…\r\n"), "{stdout:?}");
    assert!(stdout.contains("  TAKES             PROGRAMS\r\n"), "{stdout:?}");
}
