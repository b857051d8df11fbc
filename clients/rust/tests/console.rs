//! The console against a real broker, from a pipe and on a terminal.

mod side;

use std::process::Stdio;

use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::{AsyncClient, MqttOptions};
use side::{DEADLINE, Mosquitto};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

/// A console with somebody who reads along.
struct Console {
    process: Child,
    input: Option<ChildStdin>,
    output: ChildStdout,
    /// All that it has printed on stdout.
    printed: String,
    /// Where it is understood up to.
    read: usize,
    home: TempDir,
}

impl Console {
    fn piped(flags: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_offload-client"));
        command.args(flags).arg("console");
        Self::spawn(command, tempfile::tempdir().unwrap())
    }

    /// On a pseudo-terminal, which util-linux's `script` makes, with these variables of a shell.
    fn on_terminal(home: TempDir, variables: &str, flags: &str) -> Self {
        let console = format!("{variables} {} console {flags}", env!("CARGO_BIN_EXE_offload-client"));
        let mut command = Command::new("script");
        command.args(["--quiet", "--return", "--command", &console, "/dev/null"]);
        command.env("TERM", "xterm");
        Self::spawn(command, home)
    }

    fn spawn(mut command: Command, home: TempDir) -> Self {
        command.env("XDG_STATE_HOME", home.path()).env_remove("OFFLOAD_BROKER").env_remove("NO_COLOR");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut process = command.spawn().expect("the command starts");
        let (input, output) = (process.stdin.take(), process.stdout.take().unwrap());
        Self { process, input, output, printed: String::new(), read: 0, home }
    }

    async fn enter(&mut self, text: &str) {
        self.input.as_mut().unwrap().write_all(text.as_bytes()).await.unwrap();
    }

    /// Waits until it has printed this, behind what was waited for before.
    async fn until(&mut self, expected: &str) {
        let read = async {
            loop {
                if let Some(at) = self.printed[self.read..].find(expected) {
                    self.read += at + expected.len();
                    return;
                }
                let mut bytes = [0; 4096];
                let count = self.output.read(&mut bytes).await.unwrap();
                assert!(count > 0, "it ended without {expected:?}");
                self.printed.push_str(&String::from_utf8_lossy(&bytes[..count]));
            }
        };
        let found = timeout(DEADLINE, read).await;
        assert!(found.is_ok(), "no {expected:?} behind byte {} of\n{:?}", self.read, self.printed);
    }

    /// Closes its input; returns exit code, stdout and stderr.
    async fn end(mut self) -> (i32, String, String) {
        drop(self.input.take());
        let end = async {
            let mut rest = String::new();
            self.output.read_to_string(&mut rest).await.unwrap();
            self.printed.push_str(&rest);
            self.process.wait_with_output().await.unwrap()
        };
        let output = timeout(DEADLINE, end).await.expect("it ends");
        (output.status.code().expect("it exits"), self.printed, String::from_utf8(output.stderr).unwrap())
    }
}

/// Carries out a script to its end.
async fn script(flags: &[&str], lines: &str) -> (i32, String, String) {
    let mut console = Console::piped(flags);
    console.enter(lines).await;
    console.end().await
}

/// Another client of the broker, which publishes.
async fn publish(broker: &Mosquitto, topic: &str, payload: &[u8]) {
    let (client, mut events) = AsyncClient::new(MqttOptions::new("other", "127.0.0.1", broker.port), 10);
    client.publish(topic, QoS::AtLeastOnce, false, payload.to_vec()).await.unwrap();
    client.disconnect().await.unwrap();
    timeout(DEADLINE, async { while events.poll().await.is_ok() {} }).await.unwrap();
}

#[tokio::test]
async fn every_command_shows_its_acknowledgement() {
    let broker = Mosquitto::start().await;
    let lines = format!(
        "# what a newcomer tries\n\
         CONNECT 127.0.0.1:{}\n\
         Subscribe -q 2 a/#\n\
         subs b -q 0\n\
         publ -q 0 x none\n\
         PUBLISH x one\n\
         publ -q 2 x two\n\
         unsubscribe a/#\n\
         UNSUBSCRIBE never\n\
         disc\n\
         exit\n\
         not reached\n",
        broker.port
    );
    let (code, stdout, stderr) = script(&[], &lines).await;
    assert_eq!((code, stderr.as_str()), (0, ""), "{stdout}");
    let (connack, rest) = stdout.split_once('\n').unwrap();
    assert!(connack.starts_with("CONNACK: 0x00 Success (session present: no"), "{connack}");
    assert!(connack.contains("receive maximum: 20"), "{connack}");
    // A packet id is for the one who sends: it only has to be the same in all packets of an exchange.
    let expected = "\
        SUBACK id 1: 0x02 granted QoS 2\n\
        SUBACK id 2: 0x00 granted QoS 0\n\
        PUBLISH sent: nobody acknowledges QoS 0\n\
        PUBACK id 3: 0x10 NoMatchingSubscribers\n\
        PUBREC id 4: 0x00 Success\n\
        PUBCOMP id 4: 0x00 Success\n\
        UNSUBACK id 5: 0x00 Success\n\
        UNSUBACK id 6: 0x11 NoSubscriptionExisted\n\
        DISCONNECT sent\n";
    assert_eq!(rest, expected);
}

#[tokio::test]
async fn mqtt_3_1_1_is_spoken_too() {
    let broker = Mosquitto::start().await;
    let lines = "conn -V 3.1.1\nsubs -q 1 a\npubl x y\npubl -q 2 x y\nunsubscribe a\ndisc\nconn -V 5\nexit\n";
    let (code, stdout, stderr) = script(&["-p", &broker.port.to_string()], lines).await;
    assert_eq!((code, stderr.as_str()), (0, ""), "{stdout}");
    let expected = "\
        CONNACK: 0x00 Success (session present: no)\n\
        SUBACK id 1: 0x01 granted QoS 1\n\
        PUBACK id 2\n\
        PUBREC id 3\n\
        PUBCOMP id 3\n\
        UNSUBACK id 4\n\
        DISCONNECT sent\n\
        CONNACK: 0x00 Success (session present: no, ";
    assert!(stdout.starts_with(expected), "{stdout}");
}

#[tokio::test]
async fn connect_speaks_the_mqtt_of_the_command_line() {
    let broker = Mosquitto::start().await;
    let lines = "conn\ndisc\nconn -V 5\ndisc\nconn\n";
    let (code, stdout, stderr) = script(&["-V", "3.1.1", "--broker", &broker.url()], lines).await;
    assert_eq!((code, stderr.as_str()), (0, ""), "{stdout}");
    // Only MQTT 5 says more than that.
    let more: Vec<bool> = stdout
        .lines()
        .filter_map(|line| line.strip_prefix("CONNACK: 0x00 Success (session present: no"))
        .map(|rest| rest != ")")
        .collect();
    assert_eq!(more, [false, true, false], "{stdout}");
}

#[tokio::test]
async fn messages_are_shown_as_they_come_and_can_be_held_back() {
    let broker = Mosquitto::start().await;
    for version in ["5", "3.1.1"] {
        let mut console = Console::piped(&["--broker", &broker.url()]);
        console.enter(&format!("conn -V {version}\nsubs a/+\n")).await;
        console.until("SUBACK").await;
        publish(&broker, "a/text", b"5 7\n").await;
        console.until("MESSAGE a/text (QoS 1): 5 7\\n\n").await;
        publish(&broker, "a/bytes", b"\xff\x00").await;
        console.until("MESSAGE a/bytes (QoS 1): 0xff00\n").await;
        console.enter("tgll\n").await;
        console.until("messages are held back").await;
        for count in 0..105 {
            console.enter(&format!("publ -q 2 a/flood {count}\n")).await;
            console.until("PUBCOMP").await;
        }
        // Mosquitto delivers in order: once the last one is there, all are.
        console.enter("tgll\n").await;
        console.until(" were held back\n").await;
        assert!(!console.printed[..console.read].contains("a/flood"));
        console.until("MESSAGE a/flood (QoS 1): 104\n").await;
        assert!(!console.printed.contains("MESSAGE a/flood (QoS 1): 0\n"), "{}", console.printed);
        console.enter("publ -r a/kept still there\nunsubscribe a/+\nsubs a/kept\n").await;
        console.until("MESSAGE a/kept (QoS 1, retained): still there\n").await;
        console.enter("publ -r a/kept\n").await;
        console.until("MESSAGE a/kept (QoS 1): \n").await;
        assert_eq!(console.end().await.0, 0);
    }
}

#[tokio::test]
async fn a_command_that_failed_makes_the_exit_code_and_the_next_is_carried_out() {
    let broker = Mosquitto::start().await;
    let port = broker.port;
    let lines = format!(
        "publ a b\n\
         fetch\n\
         conn 127.0.0.1:1\n\
         conn 127.0.0.1:{port}\n\
         conn\n\
         subs a#\n\
         subs a\n"
    );
    let (code, stdout, stderr) = script(&[], &lines).await;
    assert_eq!(code, 125);
    assert!(stdout.contains("CONNACK: 0x00") && stdout.contains("SUBACK id 1: 0x01"), "{stdout}");
    let expected = "\
        error: connection: line 1: there is none: CONNECT first\n\
        error: malformed: line 2: no command \"fetch\": `help` lists them\n\
        error: connection: line 3: connection refused: is the broker running?\n\
        error: connection: line 5: there is one: DISCONNECT first\n\
        error: malformed: line 6: expected a topic, with + and # only as whole levels, # as the last\n";
    assert_eq!(stderr, expected);
}

#[tokio::test]
async fn refusals_are_shown_with_their_code() {
    let folder = tempfile::tempdir().unwrap();
    let acl = folder.path().join("acl");
    std::fs::write(&acl, "topic readwrite open/#\n").unwrap();
    let users = folder.path().join("users");
    std::fs::write(&users, "").unwrap();
    let guarded = Mosquitto::start_with(&format!("allow_anonymous true\nacl_file {}", acl.display())).await;
    let (code, stdout, stderr) =
        script(&["--broker", &guarded.url()], "conn\npubl -q 1 closed x\npubl -q 2 closed x\n").await;
    assert_eq!(code, 125);
    assert!(stdout.contains("PUBACK id 1: 0x87 NotAuthorized\n"), "{stdout}");
    assert!(stdout.contains("PUBREC id 2: 0x87 NotAuthorized\n"), "{stdout}");
    assert!(stderr.starts_with("error: refused: line 2: 0x87 NotAuthorized\n"), "{stderr}");

    let closed =
        Mosquitto::start_with(&format!("allow_anonymous false\npassword_file {}", users.display())).await;
    for (version, connack) in
        [("5", "CONNACK: 0x87 NotAuthorized\n"), ("3.1.1", "CONNACK: 0x05 NotAuthorized\n")]
    {
        let (code, stdout, stderr) =
            script(&["--broker", &closed.url()], &format!("conn -V {version}\n")).await;
        assert_eq!((code, stdout.as_str()), (125, connack));
        assert_eq!(stderr, "error: connection: line 1: the broker refused it\n");
    }
}

/// CONNACK of MQTT 5: no session, success, no properties.
const CONNACK: [u8; 5] = [0x20, 3, 0, 0, 0];

/// A broker that says this to everybody who comes, and nothing else.
async fn saying(bytes: Vec<u8>) -> (u16, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let task = tokio::spawn(async move {
        let mut connections: Vec<TcpStream> = Vec::new();
        loop {
            let (mut connection, _) = listener.accept().await.unwrap();
            connection.write_all(&bytes).await.unwrap();
            connections.push(connection);
        }
    });
    (port, task)
}

#[tokio::test]
async fn an_acknowledgement_that_does_not_come_is_not_waited_for_for_ever() {
    for (said, expected) in [
        (&CONNACK[..], "error: timeout: line 2: no SUBACK for id 1 within 2000 ms\n"),
        (&[], "error: timeout: line 1: no CONNACK within 2000 ms: connection closed\n"),
    ] {
        let (port, broker) = saying(said.to_vec()).await;
        let mut command = Command::new(env!("CARGO_BIN_EXE_offload-client"));
        command.args(["-p", &port.to_string(), "console", "--ack-timeout", "2s"]);
        let mut console = Console::spawn(command, tempfile::tempdir().unwrap());
        console.enter("conn\nsubs a\n").await;
        let (code, _, stderr) = console.end().await;
        assert_eq!(code, 124, "{stderr}");
        assert!(stderr.starts_with(expected), "{stderr}");
        broker.abort();
    }
}

#[tokio::test]
async fn the_end_of_the_connection_is_shown_and_a_new_one_can_be_made() {
    let mut broker = Mosquitto::start().await;
    let mut console = Console::piped(&["--broker", &broker.url()]);
    console.enter("conn\nsubs a\n").await;
    console.until("SUBACK").await;
    broker.restart().await;
    // Whether the console has seen the end by now or sees it when it sends.
    console.enter("disc\nconn\nsubs a\n").await;
    console.until("SUBACK").await;
    let (code, _, stderr) = console.end().await;
    assert_eq!(code, 125);
    assert!(stderr.starts_with("error: connection: "), "{stderr}");
}

#[tokio::test]
async fn a_broker_that_ends_the_connection_says_why() {
    // Together with a last message: a, at QoS 0, without properties.
    let said = [&CONNACK[..], &[0x30, 5, 0, 1, b'a', 0, b'x'], &[0xE0, 2, 0x8E, 0]].concat();
    let (port, broker) = saying(said).await;
    let mut console = Console::piped(&["-p", &port.to_string()]);
    console.enter("conn\n").await;
    console.until("DISCONNECT received: 0x8E SessionTakenOver\n").await;
    let (code, stdout, stderr) = console.end().await;
    assert_eq!(code, 125);
    assert!(stdout.contains("MESSAGE a (QoS 0): x\n"), "{stdout}");
    assert_eq!(stderr, "error: connection: the broker ended the connection\n");
    broker.abort();
}

#[tokio::test]
async fn a_message_does_not_tear_the_line_that_is_being_typed() {
    let broker = Mosquitto::start().await;
    let home = tempfile::tempdir().unwrap();
    let mut console = Console::on_terminal(home, "", &format!("--broker {}", broker.url()));
    console.until("mqtt> ").await;
    console.enter("conn\r").await;
    console.until("CONNACK: 0x00").await;
    console.enter("su\tall\r").await;
    // Completed, and green.
    console.until("mqtt> subscribe ").await;
    console.until("\x1b[32mSUBACK id 1").await;
    console.enter("publ all hel").await;
    console.until("publ all hel").await;
    publish(&broker, "all", b"from elsewhere").await;
    console.until("MESSAGE all (QoS 1): from elsewhere").await;
    console.until("mqtt> publ all hel").await;
    console.enter("lo\r").await;
    console.until("MESSAGE all (QoS 1): hello\x1b[0m").await;
    // Mosquitto hands a message on before it acknowledges it.
    console.until("PUBACK id 2").await;
    console.enter("tgll\r").await;
    console.until("messages are held back").await;
    console.enter("tgll\r").await;
    console.until("messages are shown; 0 were held back").await;
    console.until("mqtt> ").await;
    // Ctrl-c clears the line, ctrl-d leaves.
    console.enter("publ all nev").await;
    console.until("publ all nev").await;
    console.enter("\x03").await;
    console.until("mqtt> ").await;
    console.enter("help\r").await;
    console.until("starts a comment.").await;
    console.until("mqtt> ").await;
    console.enter("\x04").await;
    let history = console.home.path().join("offload-client/history");
    let (ended, _) = tokio::join!(timeout(DEADLINE, console.process.wait()), async {
        let _ = console.output.read_to_string(&mut console.printed).await;
    });
    assert!(ended.unwrap().unwrap().success());
    let history = std::fs::read_to_string(history).unwrap();
    assert!(history.contains("publ all hello\ntgll\nhelp\n"), "{history}");
    assert!(!history.contains("nev"), "{history}");
}

#[tokio::test]
async fn what_is_typed_ahead_is_answered_in_its_order() {
    let broker = Mosquitto::start().await;
    let home = tempfile::tempdir().unwrap();
    // Without colours, for the lines must not depend on them.
    let mut console = Console::on_terminal(home, "NO_COLOR=1", &format!("--broker {}", broker.url()));
    console.until("`help` lists the commands\r\n").await;
    console.enter("conn\r").await;
    console.until("\nCONNACK: 0x00").await;
    // Each is answered at once, maybe while the next line is being read.
    let said = ["are held back;", "are shown; 0 were held back"];
    for _ in 0..200 {
        console.enter(&"tgll\rtgll\r".repeat(16)).await;
        for expected in std::iter::repeat_n(said, 16).flatten() {
            let from = console.read;
            console.until(expected).await;
            let before = &console.printed[from..console.read - expected.len()];
            assert!(said.iter().all(|other| !before.contains(other)), "before {expected:?}: {before:?}");
        }
    }
    // What is still to be said when the editor has left is said, too.
    console.enter("disc\rhelp\rexit\r").await;
    console.until("DISCONNECT sent").await;
    console.until("starts a comment.").await;
    let (code, printed, _) = console.end().await;
    assert_eq!(code, 0, "{printed}");
}

#[tokio::test]
async fn a_disconnect_of_the_broker_is_shown_in_each_of_its_forms() {
    for (bytes, expected) in [
        (&b"\x20\x03\x00\x00\x00\xe0\x01\x8e"[..], "DISCONNECT received: 0x8E SessionTakenOver\n"),
        (b"\x20\x03\x00\x00\x00\xe0\x00", "DISCONNECT received: 0x00 NormalDisconnection\n"),
        (
            b"\x20\x03\x00\x00\x00\xe0\x08\x8b\x06\x1f\x00\x03bye",
            "DISCONNECT received: 0x8B ServerShuttingDown (bye)\n",
        ),
    ] {
        let broker = side::Answering::with(bytes).await;
        let mut console = Console::piped(&["-p", &broker.port.to_string()]);
        console.enter("connect\n").await;
        console.until(expected).await;
        console.end().await;
    }
}

#[tokio::test]
async fn a_full_stdout_is_an_error() {
    let broker = Mosquitto::start().await;
    let mut command = Command::new(env!("CARGO_BIN_EXE_offload-client"));
    command.args(["-p", &broker.port.to_string(), "console"]).env_remove("OFFLOAD_BROKER").kill_on_drop(true);
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let mut console = command
        .stdin(Stdio::piped())
        .stdout(full)
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command starts");
    console.stdin.take().unwrap().write_all(b"connect\n").await.unwrap();
    let output = timeout(DEADLINE, console.wait_with_output()).await.expect("it ends").unwrap();
    assert_eq!(output.status.code(), Some(125));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.starts_with("error: output: No space left on device"), "{said}");
}
