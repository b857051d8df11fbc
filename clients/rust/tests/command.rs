//! The command against a real broker.

mod side;

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use offload_client::{
    Answer, Build, Code, Digest, ErrorKind, Files, ReplyForm, Request, RequestLimits, Source, WireError,
    answer,
};
use side::{Answering, ENVELOPE, Gateway, Mosquitto, Road, command, exited, output};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// Runs the command while the gateway answers its one request; returns that and what the command said.
async fn run(
    gateway: &mut Gateway,
    mut command: Command,
    answer: Answer,
) -> (Request, (i32, String, String)) {
    let child = command.spawn().unwrap();
    let (delivery, output) = tokio::join!(
        async {
            let delivery = gateway.next().await;
            gateway.answer(&delivery, answer).await;
            delivery
        },
        output(child)
    );
    (delivery.request, output)
}

#[tokio::test]
async fn a_program_is_run_by_name_and_its_streams_and_exit_code_are_the_commands() {
    let broker = Mosquitto::start().await;
    let mut gateway = Gateway::start(&broker).await;
    let send = command(&broker.url(), &["send", "add", "--args", "5", "--json", "--", "-h"]);
    let (request, output) = run(&mut gateway, send, exited(0, "12\n", "")).await;
    assert_eq!(request.code, Code::Program("add".into()));
    assert_eq!(request.args, ["5", "--json", "--", "-h"]);
    assert_eq!((request.reply, request.limits), (ReplyForm::Envelope, RequestLimits::default()));
    assert_eq!(output, (0, "12\n".into(), String::new()));
    let send = command(&broker.url(), &["send", "add"]);
    let (_, output) = run(&mut gateway, send, exited(7, "half", "what?\n")).await;
    assert_eq!(output, (7, "half".into(), "what?\n".into()));
    // 256 must not become 0.
    let send = command(&broker.url(), &["send", "add"]);
    let (_, output) = run(&mut gateway, send, exited(256, "", "")).await;
    assert_eq!(output.0, 255);
}

/// Words after the program are the guest's: the command's own flags are read up to the first of them, or to `--`.
#[tokio::test]
async fn words_after_the_program_are_the_guests() {
    let broker = Mosquitto::start().await;
    let mut gateway = Gateway::start(&broker).await;
    for (line, args, fuel) in [
        ("send add 5 7", &["5", "7"][..], None),
        ("send add -7 -2.5 --fuel 1", &["-7", "-2.5", "--fuel", "1"], None),
        ("send add --fuel 9 5 --json", &["5", "--json"], Some(9)),
        ("send add -- --fuel 9 --args", &["--fuel", "9", "--args"], None),
        ("send add 5 -- -h", &["5", "--", "-h"], None),
        ("send add 5 --args 7", &["5", "--args", "7"], None),
        ("send add --fuel 9 --args -- 7", &["--", "7"], Some(9)),
    ] {
        let send = command(&broker.url(), &line.split(' ').collect::<Vec<_>>());
        let (request, output) = run(&mut gateway, send, exited(0, "12\n", "")).await;
        assert_eq!(request.args, args, "{line}");
        assert_eq!(request.limits.fuel, fuel, "{line}");
        assert_eq!(output, (0, "12\n".into(), String::new()), "{line}");
    }
}

#[tokio::test]
async fn a_module_can_come_on_stdin() {
    let broker = Mosquitto::start().await;
    let mut gateway = Gateway::start(&broker).await;
    for code in [&b"\0asm\x01\0\0\0"[..], b"\n(module)"] {
        let mut child =
            command(&broker.url(), &["-V", "5", "send", "-", "5"]).stdin(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(code).await.unwrap();
        drop(stdin);
        let (request, output) = tokio::join!(
            async {
                let delivery = gateway.next().await;
                gateway.answer(&delivery, exited(0, "ran", "")).await;
                delivery.request
            },
            output(child)
        );
        let module = Digest::of(b"\0asm\x01\0\0\0");
        assert_eq!((request.code, request.args), (Code::Digest(module), vec!["5".to_owned()]));
        assert_eq!(output, (0, "ran".into(), String::new()));
    }
}

#[tokio::test]
async fn a_file_is_sent_with_all_that_the_flags_say() {
    let broker = Mosquitto::start().await;
    let mut gateway = Gateway::start(&broker).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.wat");
    fs::write(&file, "(module)").unwrap();
    let mut send = command(
        "mqtt://nowhere.invalid",
        &[
            "--port",
            &broker.port.to_string(),
            "send",
            "--stdin",
            "-",
            "--env",
            "A=1=2",
            "--env",
            "B=",
            "--fuel",
            "9007199254740993",
            "--memory",
            "64MiB",
            "--timeout",
            "1500ms",
            file.to_str().unwrap(),
        ],
    );
    let mut child = send.stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"\xff\0in").await.unwrap();
    drop(stdin);
    let (deliveries, output) = tokio::join!(
        async {
            let digest = gateway.next().await;
            let unknown = WireError::new(ErrorKind::NotFound, "no such module");
            gateway.answer(&digest, Answer::failed(None, unknown)).await;
            let module = gateway.next().await;
            gateway.answer(&module, exited(0, "ran", "")).await;
            [digest.request, module.request]
        },
        output(child)
    );
    assert_eq!(output, (0, "ran".into(), String::new()));
    let [digest, module] = deliveries;
    let expected = Request {
        id: module.id.clone(),
        env: vec![("A".into(), "1=2".into()), ("B".into(), String::new())],
        stdin: b"\xff\0in"[..].into(),
        limits: RequestLimits {
            fuel: Some(9_007_199_254_740_993),
            memory: Some(64 << 20),
            timeout: Some(Duration::from_millis(1500)),
        },
        ..Request::new(Code::Module(b"\0asm\x01\0\0\0"[..].into()))
    };
    assert_eq!(module, expected);
    assert_eq!(digest, Request { code: digest.code.clone(), ..expected });
    assert!(matches!(digest.code, Code::Digest(_)));
}

#[tokio::test]
async fn either_version_of_mqtt_is_spoken() {
    let broker = Mosquitto::start().await;
    let mut gateway = Gateway::start(&broker).await;
    for version in ["3.1.1", "311", "mqttv311", "5", "mqttv5"] {
        let send = command(&broker.url(), &["-V", version, "send", "--json", "add"]);
        let (request, (code, stdout, _)) = run(&mut gateway, send, exited(3, "x", "y")).await;
        // By which ctrl-c would cancel it; nobody hears of it.
        assert!(request.id.is_some(), "{version}");
        let answer = answer::decode(ENVELOPE, stdout.into(), &[]).unwrap();
        assert_eq!((code, answer), (3, exited(3, "x", "y")));
    }
}

#[tokio::test]
async fn source_is_sent_with_its_build_part_and_a_digest_as_it_stands() {
    let broker = Mosquitto::start().await;
    let mut gateway = Gateway::start(&broker).await;
    let folder = tempfile::tempdir().unwrap();
    let [file, makefile] = ["sum.c", "rules.mk"].map(|name| folder.path().join(name));
    fs::write(&file, "int main(void) {}").unwrap();
    fs::write(&makefile, "all:\n\tgcc sum.c\n").unwrap();
    let [file, makefile] = [&file, &makefile].map(|path| path.to_str().unwrap());
    for (args, build) in [
        (&["send", file, "--makefile", makefile][..], Build::Makefile("all:\n\tgcc sum.c\n".into())),
        (&["send", "--build", "cc <name>.c", file], Build::Command("cc <name>.c".into())),
        (&["send", file, "--args", "--build"], Build::Command("gcc <name>.c -o <name>".into())),
    ] {
        let (request, output) = run(&mut gateway, command(&broker.url(), args), exited(0, "", "")).await;
        let source = Source { name: "sum".into(), text: "int main(void) {}".into(), build };
        assert_eq!(request.code, Code::Source(source));
        assert_eq!(output.0, 0);
    }
    let digest = Digest([7; 32]);
    let send = command(&broker.url(), &["send", &digest.to_string()]);
    let (request, _) = run(&mut gateway, send, exited(0, "", "")).await;
    assert_eq!(request.code, Code::Digest(digest));
}

#[tokio::test]
async fn a_folder_is_sent_with_its_paths_and_its_target() {
    let broker = Mosquitto::start().await;
    let mut gateway = Gateway::start(&broker).await;
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("src")).unwrap();
    for (path, contents) in
        [("Makefile", "all: app\n"), ("src/main.c", "int main;"), ("app", "\x7fELF"), ("other.mk", "app:\n")]
    {
        fs::write(folder.path().join(path), contents).unwrap();
    }
    let [path, other] = [folder.path().to_owned(), folder.path().join("other.mk")];
    let [path, other] = [path.to_str().unwrap(), other.to_str().unwrap()];
    let file = |path: &str, contents: &'static str| (path.to_owned(), contents.into());
    let files =
        vec![file("Makefile", "all: app\n"), file("other.mk", "app:\n"), file("src/main.c", "int main;")];
    for (args, makefile, target) in [
        (&["send", path, "--args", "--target"][..], None, None),
        (&["send", path, "--target", "bin/app"], None, Some("bin/app")),
        (&["-V", "3.1.1", "send", "--makefile", other, path], Some("app:\n"), None),
    ] {
        let (request, output) =
            run(&mut gateway, command(&broker.url(), args), exited(4, "out", "err")).await;
        let (makefile, target) = (makefile.map(str::to_owned), target.map(str::to_owned));
        assert_eq!(request.code, Code::Files(Files { files: files.clone(), makefile, target }));
        assert_eq!(output, (4, "out".into(), "err".into()));
    }
    // Without a gateway or a broker.
    let list = output(command("mqtt://nowhere.invalid", &["send", "--list", path]).spawn().unwrap()).await;
    let listed = "         9 Makefile\n         5 other.mk\n         9 src/main.c\n        23 in 3 files\n";
    assert_eq!(list, (0, listed.to_owned(), String::new()));
}

#[tokio::test]
async fn what_the_compiler_said_is_printed_as_it_said_it() {
    let broker = Mosquitto::start().await;
    let mut gateway = Gateway::start(&broker).await;
    let said = "gcc -Werror -c src/a.c\nsrc/a.c: In function 'f':\nsrc/a.c:2:5: error: no\n    2 |     x\n";
    let failed = Answer::failed(None, WireError::new(ErrorKind::Build, said));
    let (_, output) = run(&mut gateway, command(&broker.url(), &["send", "add"]), failed).await;
    let printed = format!("error: build: src/a.c:2:5: error: no\n{said}");
    assert_eq!(output, (125, String::new(), printed));
}

#[tokio::test]
async fn errors_of_the_gateway_are_one_line_and_an_exit_code() {
    let broker = Mosquitto::start().await;
    let mut gateway = Gateway::start(&broker).await;
    for (kind, exit_code) in
        [(ErrorKind::Trap, 125), (ErrorKind::Busy, 125), (ErrorKind::Timeout, 124), (ErrorKind::Expired, 124)]
    {
        let failed = Answer::failed(None, WireError::new(kind, "so it is"));
        let send = command(&broker.url(), &["send", "add"]);
        let (_, output) = run(&mut gateway, send, failed.clone()).await;
        assert_eq!(output, (exit_code, String::new(), format!("error: {kind}: so it is\n")));
        let send = command(&broker.url(), &["send", "--json", "add"]);
        let (_, (code, stdout, stderr)) = run(&mut gateway, send, failed.clone()).await;
        assert_eq!((code, stderr.as_str()), (exit_code, ""));
        assert_eq!(answer::decode(ENVELOPE, stdout.into(), &[]), Ok(failed));
    }
    let printed = exited(3, "out", "err");
    let send = command(&broker.url(), &["send", "--json", "add"]);
    let (_, (code, stdout, stderr)) = run(&mut gateway, send, printed.clone()).await;
    assert_eq!((code, stderr.as_str()), (3, ""));
    assert_eq!(stdout.lines().count(), 1);
    assert_eq!(answer::decode(ENVELOPE, stdout.into(), &[]), Ok(printed));
}

#[tokio::test]
async fn errors_of_our_own_exit_125() {
    let broker = Mosquitto::start().await;
    let url = broker.url();
    for (args, stderr) in [
        (&["send", "none.wasm"][..], "error: not-found: none.wasm: no such file\n"),
        (&["send", "./"], "error: not-found: ./: no Makefile in this folder that is sent; --makefile names"),
        (&["send", "a", "--target", "b"], "error: malformed: --target: expected with a folder, a is none\n"),
        (&["send", "a", "--list"], "error: malformed: --list: expected with a folder\n"),
        (&["send", "none/", "--list"], "error: not-found: none/: no such file\n"),
        (&["send", "a.c", "--makefile", "none"], "error: not-found: none: no such file\n"),
        (&["send", "a.c", "--build", "make"], "error: malformed: --build: expected commands of a compiler"),
        (&["send", "sha256:0"], "error: malformed: digest: expected `sha256:` and 64"),
        (&["send", "add", "--stdin", "none.txt"], "error: not-found: none.txt: no such file\n"),
        (&["-i", "a+b", "send", "add"], "error: malformed: client id: expected text without"),
        (&["send", "add"], "error: connection: no gateway takes requests at this broker"),
        (
            &["-P", "x", "send", "add"],
            "error: malformed: --pw: expected together with a user name (--username)\n",
        ),
        (&["--broker", "http://h", "send", "add"], "error: malformed: --broker: expected mqtt[s]://"),
        (
            &["-p", "1", "send", "add"],
            "error: connection: cannot connect to 127.0.0.1:1: connection refused: is the gateway",
        ),
        (&["send", "add", "--timeout", "2"], "error: malformed: invalid value '2' for '--timeout <T>'"),
        (&["send"], "error: malformed: the following required arguments were not provided"),
        (
            &["send", "add", "-x"],
            "error: malformed: unexpected argument '-x' found\n\n  tip: to pass '-x' as a value, use '-- -x'",
        ),
        (
            &["send", "--args", "5", "7", "add"],
            "error: malformed: --args takes everything that follows it: FILE|PROGRAM goes before it, as in `send add 5 7`\n",
        ),
        (&["send", "-"], "error: malformed: stdin: neither a wasm module nor its text (.wat); --build CMD"),
        (&["send", "-", "--stdin", "-"], "error: malformed: `-` and `--stdin -`: stdin can be the code or"),
        (&["fetch"], "error: malformed: unrecognized subcommand 'fetch'"),
    ] {
        let (code, said, message) = output(command(&url, args).spawn().unwrap()).await;
        assert_eq!((code, said.as_str()), (125, ""), "{args:?}");
        assert!(message.starts_with(stderr), "{args:?}: {message}");
    }
    let folder = tempfile::tempdir().unwrap();
    for (name, remedy) in [
        ("hello.rs", "rustc --target wasm32-wasip1 -O"),
        ("hello.go", "GOOS=wasip1 GOARCH=wasm go build"),
        ("hello.py", "componentize-py"),
        ("hello.js", "jco"),
        ("hello.txt", "--build CMD or --makefile FILE"),
    ] {
        let file = folder.path().join(name);
        fs::write(&file, "text").unwrap();
        let (code, _, message) =
            output(command(&url, &["send", file.to_str().unwrap()]).spawn().unwrap()).await;
        assert_eq!(code, 125);
        assert!(message.contains("not a wasm module; ") && message.contains(remedy), "{message}");
    }
    for args in [
        &["send", "add", "--json"][..],
        &["-p", "1", "bench", "add", "--json"],
        &["-p", "1", "gateways", "--json"],
    ] {
        let (code, stdout, stderr) = output(command(&url, args).spawn().unwrap()).await;
        assert_eq!((code, stderr.as_str()), (125, ""), "{args:?}");
        let object: serde_json::Value = serde_json::from_str(&stdout).unwrap();
        assert_eq!(object["status"], "error", "{args:?}");
        assert_eq!(object["error"]["kind"], "connection", "{args:?}");
    }
}

#[tokio::test]
async fn who_is_not_let_in_is_told_what_to_check() {
    let folder = tempfile::tempdir().unwrap();
    let users = folder.path().join("users");
    fs::write(&users, "").unwrap();
    let closed =
        Mosquitto::start_with(&format!("allow_anonymous false\npassword_file {}", users.display())).await;
    for version in ["5", "3.1.1"] {
        let send = ["-u", "alice", "-P", "wrong", "-V", version, "send", "add"];
        let (code, stdout, stderr) = output(command(&closed.url(), &send).spawn().unwrap()).await;
        assert_eq!((code, stdout.as_str()), (125, ""), "{version}");
        let expected = "error: unauthorized: the broker does not let this client in: are user name and password right?\n";
        assert_eq!(stderr, expected, "{version}");
    }
}

#[tokio::test]
async fn help_and_version_are_no_errors() {
    for (args, stdout) in [
        (&["--help"][..], "send add 5 7"),
        (&["send", "--help"], "-h, --host <HOST>"),
        (&["--version"], concat!("offload-client ", env!("CARGO_PKG_VERSION"))),
    ] {
        let (code, said, stderr) = output(command("", args).spawn().unwrap()).await;
        assert_eq!((code, stderr.as_str()), (0, ""), "{args:?}");
        assert!(said.contains(stdout), "{args:?}: {said}");
    }
}

#[tokio::test]
async fn a_reader_that_has_had_enough_is_no_error() {
    let broker = Mosquitto::start().await;
    let mut gateway = Gateway::start(&broker).await;
    let mut child = command(&broker.url(), &["send", "add"]).spawn().unwrap();
    drop(child.stdout.take());
    let (output, ()) = tokio::join!(output(child), async {
        let delivery = gateway.next().await;
        gateway.answer(&delivery, exited(3, vec![b'x'; 1 << 20], "")).await;
    });
    assert_eq!(output, (3, String::new(), String::new()));
}

async fn interrupt(child: &tokio::process::Child) {
    let pid = child.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().await.unwrap().success());
}

/// What is said of a first ctrl-c.
const CANCELLING: &str = "cancelling; ctrl-c once more gives up\n";

#[tokio::test]
async fn ctrl_c_cancels_the_request() {
    let broker = Mosquitto::start().await;
    let mut gateway = Gateway::start(&broker).await;
    let cancelled = || Answer::failed(None, WireError::new(ErrorKind::Cancelled, "by its client"));
    let not_found = || Answer::failed(None, WireError::new(ErrorKind::NotFound, "no such request"));
    let said = format!("{CANCELLING}error: interrupted: the request was cancelled\n");
    // Its own answer stands where that came first.
    for (own, confirmation, expected) in [
        (cancelled(), exited(0, "", ""), (130, String::new(), said)),
        (exited(3, "x", ""), not_found(), (3, "x".to_owned(), CANCELLING.to_owned())),
    ] {
        let child = command(&broker.url(), &["send", "--id", "job", "add"]).spawn().unwrap();
        let request = gateway.next().await;
        assert_eq!(request.request.id, Some("job".try_into().unwrap()));
        interrupt(&child).await;
        let cancelling = gateway.next().await;
        assert_eq!(cancelling.request.code, Code::Cancel("job".try_into().unwrap()));
        gateway.answer(&cancelling, confirmation).await;
        gateway.answer(&request, own).await;
        assert_eq!(output(child).await, expected);
    }
}

#[tokio::test]
async fn a_second_ctrl_c_gives_up_at_once() {
    let broker = Mosquitto::start().await;
    let mut gateway = Gateway::start(&broker).await;
    let child = command(&broker.url(), &["send", "add"]).spawn().unwrap();
    gateway.next().await;
    interrupt(&child).await;
    gateway.next().await;
    interrupt(&child).await;
    let said = format!("{CANCELLING}error: interrupted: the gateway may still run the request\n");
    assert_eq!(output(child).await, (130, String::new(), said));
}

#[tokio::test]
async fn a_lost_connection_is_said_once_and_made_again() {
    let broker = Mosquitto::start().await;
    let mut gateway = Gateway::start(&broker).await;
    let road = Road::to(&broker).await;
    let child = command("", &["-p", &road.port.to_string(), "send", "add"]).spawn().unwrap();
    gateway.next().await;
    road.cut();
    let (output, ()) = tokio::join!(output(child), async {
        // Its session went with the connection: it is sent again.
        let again = gateway.next().await;
        gateway.answer(&again, exited(0, "12\n", "")).await;
    });
    let (code, stdout, stderr) = output;
    assert_eq!((code, stdout.as_str()), (0, "12\n"), "{stderr}");
    let lines: Vec<&str> = stderr.lines().collect();
    let [lost, again] = lines[..] else { panic!("{stderr}") };
    assert!(lost.starts_with("warning: the connection is lost: "), "{lost}");
    assert_eq!(again, "warning: connected again");
}

/// Whatever answers in a broker's place is named by each command that connects, with what to try.
#[tokio::test]
async fn what_answers_in_place_of_a_broker_is_named() {
    let http = Answering::with(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await;
    let ssh = Answering::with(b"SSH-2.0-OpenSSH_9.2p1\r\n").await;
    // An alert, as rustls sends it.
    let tls = Answering::with(b"\x15\x03\x03\x00\x02\x02\x46").await;
    for (port, version, expected) in [
        (http.port, "5", "HTTP answers on this port, not MQTT"),
        (http.port, "3.1.1", "HTTP answers on this port, not MQTT"),
        (ssh.port, "5", "`SSH-2.0-OpenSSH_9.2p1` answers on this port, not MQTT"),
        (tls.port, "5", "TLS answers on this port: try mqtts://"),
        (tls.port, "3.1.1", "TLS answers on this port: try mqtts://"),
    ] {
        let port = port.to_string();
        for rest in [&["send", "add"][..], &["bench", "add"], &["gateways"]] {
            let args = [&["-p", &port, "-V", version], rest].concat();
            let (code, stdout, stderr) = output(command("", &args).spawn().unwrap()).await;
            assert_eq!((code, stdout.as_str()), (125, ""), "{args:?}");
            assert!(
                stderr.starts_with("error: connection: cannot ") && stderr.contains(expected),
                "{stderr}"
            );
        }
    }
}

#[tokio::test]
async fn a_reason_that_the_broker_gives_is_passed_on() {
    let refusing = Answering::with(b"\x20\x0f\x00\x87\x0c\x1f\x00\x09not\ntoday").await;
    let port = refusing.port.to_string();
    for (args, expected) in [
        (&["send", "add"][..], "are user name and password right?; it says: not today\n"),
        (&["gateways"], "0x87 NotAuthorized (not\\ntoday)\n"),
    ] {
        let args = [&["-p", &port], args].concat();
        let (code, _, stderr) = output(command("", &args).spawn().unwrap()).await;
        assert_eq!(code, 125);
        assert!(stderr.starts_with("error: unauthorized: ") && stderr.ends_with(expected), "{stderr}");
    }
}

/// With MQTT 3.1.1 a broker can only close the connection on a packet that is too large.
#[tokio::test]
async fn a_packet_that_ends_each_connection_is_not_taken_for_another_client() {
    let broker = Mosquitto::start_with("allow_anonymous true\nmax_packet_size 20000").await;
    let large = "x".repeat(30_000);
    let send = command(&broker.url(), &["-V", "3.1.1", "-i", "me", "send", "add", &large]);
    let (code, _, stderr) = output({ send }.spawn().unwrap()).await;
    assert_eq!(code, 125);
    let last = stderr.lines().last().unwrap();
    assert!(
        last.contains("each time that a request of 30") && last.contains("larger than the broker takes?"),
        "{stderr}"
    );
    assert!(!stderr.contains("another client"), "{stderr}");
}

#[tokio::test]
async fn a_broker_without_qos_1_carries_requests_all_the_same() {
    let broker = Mosquitto::start_with("allow_anonymous true\nmax_qos 0").await;
    let mut gateway = Gateway::start(&broker).await;
    let (request, output) =
        run(&mut gateway, command(&broker.url(), &["send", "add", "5"]), exited(0, "12\n", "")).await;
    assert_eq!((request.args, output), (vec!["5".to_owned()], (0, "12\n".to_owned(), String::new())));
}
