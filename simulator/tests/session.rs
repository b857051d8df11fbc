//! `offload-sim session`: transcripts, and terminals that share a network.
//!
//! A transcript, in `tests/session/` or in `docs/simulator.md`, holds its commands, as they are echoed, and what is
//! shown. `UPDATE_TRANSCRIPTS=1 cargo test --release
//! -p offload-simulator --test session` writes them anew from their commands: read the difference before you commit it.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use offload_simulator::random::stream::Stream;
use offload_simulator::session::display::View;
use offload_simulator::session::network::Network;
use offload_simulator::session::packet::{Authenticity, Packet, Tampering};
use offload_simulator::session::shell::Shell;
use serde_json::Value;

/// Set where transcripts are to be written anew.
const UPDATE: &str = "UPDATE_TRANSCRIPTS";

fn offload_sim(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_offload-sim"));
    command
        .arg("session")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// What it shows of these commands.
fn transcript(arguments: &[&str], commands: &str) -> Output {
    let mut child = offload_sim(arguments).spawn().unwrap();
    child.stdin.take().unwrap().write_all(commands.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

/// The command that a line of a transcript echoes, if it is one.
fn command(line: &str) -> Option<&str> {
    // A topic filter in a table has more space behind it.
    if line.starts_with("# ") && !line.starts_with("#  ") {
        return Some(line);
    }
    let (session, command) = line.split_once("> ")?;
    session.chars().all(|c| c.is_ascii_alphanumeric() || c == '-').then_some(command)
}

fn commands(transcript: &str) -> String {
    transcript.lines().filter_map(command).map(|command| format!("{command}\n")).collect()
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/session")
}

/// The file says what its own commands show. Whether all commands succeeded is returned.
fn check(name: &str, arguments: &[&str]) -> bool {
    let path = folder().join(name);
    let expected = fs::read_to_string(&path).unwrap();
    let output = transcript(arguments, &commands(&expected));
    let shown = String::from_utf8(output.stdout).unwrap();
    if std::env::var_os(UPDATE).is_some() {
        fs::write(&path, shown).unwrap();
    } else {
        assert_eq!(shown, expected, "{}: {UPDATE}=1 writes it anew", path.display());
    }
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
    output.status.success()
}

#[test]
fn one_network_from_the_help_at_its_start_to_the_exit() {
    assert!(check("one-network.txt", &[]));
    let text = fs::read_to_string(folder().join("one-network.txt")).unwrap();
    for kind in [
        "join (TCP open)",
        "left (TCP close)",
        "connection request (CONNECT)",
        "connection response (CONNACK)",
        "subscription request (SUBSCRIBE)",
        "subscription response (SUBACK)",
        "unsubscription request (UNSUBSCRIBE)",
        "unsubscription response (UNSUBACK)",
        "publish (PUBLISH)",
        "ping (PINGREQ)",
        "ping response (PINGRESP)",
        "disconnection (DISCONNECT)",
    ] {
        assert!(text.contains(&format!("arrived: {kind}")), "{kind}");
    }
}

#[test]
fn what_is_tampered_with_is_refused() {
    assert!(check("tampering.txt", &["--quiet"]));
    let text = fs::read_to_string(folder().join("tampering.txt")).unwrap();
    // Each is shown twice: when it is tampered with, and when it arrives. What is in clear is taken all the same.
    let (refused, tampered) =
        (text.matches("authentic  NO, refused").count(), text.matches("tampered ").count() / 2);
    assert_eq!((refused, tampered), (5, 5), "the request that was sealed to a wrong key, and four of five");
    assert!(text.contains("takes door = locked") && !text.contains("takes door = open"));
}

#[test]
fn the_silent_are_dropped_and_buffers_are_bounded() {
    assert!(!check("silence.txt", &["--quiet"]), "who was dropped cannot publish");
}

#[test]
fn routers_connect_networks_through_a_master() {
    assert!(check("networks.txt", &["--quiet"]));
}

#[test]
fn errors_say_what_to_do_and_are_the_exit_code() {
    assert!(!check("errors.txt", &["--quiet"]));
}

#[test]
fn wide_terminals_have_longer_lines() {
    assert!(check("wide.txt", &["--quiet", "--columns", "200"]));
}

/// The blocks of `text` in "By hand" are one transcript, in parts.
#[test]
fn the_tutorial_shows_what_its_commands_show() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/simulator.md");
    let document = fs::read_to_string(&path).unwrap();
    let start = document.find("## By hand").unwrap();
    let end = start + document[start..].find("\n## ").unwrap_or(document.len() - start - 3);
    let section = &document[start..end];
    // Every second part is inside of a block.
    let parts: Vec<&str> = section.split("```").collect();
    let is_transcript = |at: usize| at % 2 == 1 && parts[at].starts_with("text\n");
    let transcripts: Vec<usize> = (0..parts.len()).filter(|at| is_transcript(*at)).collect();
    let counts: Vec<usize> = transcripts.iter().map(|at| commands(parts[*at]).lines().count()).collect();
    assert!(counts.len() >= 4 && !counts.contains(&0), "{counts:?}");
    let all: String = transcripts.iter().map(|at| commands(parts[*at])).collect();
    let shown = String::from_utf8(transcript(&["--quiet"], &all).stdout).unwrap();
    let mut lines = shown.lines().peekable();
    let mut parts: Vec<String> = parts.iter().map(|part| (*part).to_owned()).collect();
    for (at, count) in transcripts.into_iter().zip(counts) {
        parts[at] = "text\n".to_owned();
        let mut left = count;
        while let Some(line) = lines.next_if(|line| left > 0 || command(line).is_none()) {
            left -= usize::from(command(line).is_some());
            parts[at].push_str(&format!("{line}\n"));
        }
    }
    let expected = parts.join("```");
    if std::env::var_os(UPDATE).is_some() {
        fs::write(&path, format!("{}{expected}{}", &document[..start], &document[end..])).unwrap();
    } else {
        assert_eq!(section, expected, "docs/simulator.md: {UPDATE}=1 writes it anew");
    }
}

#[test]
fn all_lines_fit() {
    for (name, columns) in [
        ("one-network.txt", 80),
        ("tampering.txt", 80),
        ("silence.txt", 80),
        ("networks.txt", 80),
        ("errors.txt", 80),
        ("wide.txt", 200),
    ] {
        let text = fs::read_to_string(folder().join(name)).unwrap();
        for line in text.lines().filter(|line| command(line).is_none()) {
            assert!(line.chars().count() <= columns, "{name}: {line}");
        }
    }
}

#[test]
fn each_seed_has_its_keys_and_repeats_them() {
    let shown = |seed| {
        let commands = "open broker b\njoin\nopen client c\njoin\nrun\nconn\nrun\n";
        String::from_utf8(transcript(&["--seed", seed, "--columns", "200"], commands).stdout).unwrap()
    };
    assert_eq!(shown("7"), shown("7"));
    assert_ne!(shown("7"), shown("8"));
    assert!(shown("7").contains("seed 7: who knows it knows them"));
}

#[test]
fn packets_are_lines_of_json_where_that_is_wanted() {
    let commands =
        "open broker b\njoin\nopen client c\njoin\nrun\nconn\nrun\npubl lamp on\ntamper\nrun\nfly\n";
    let output = transcript(&["--json"], commands);
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let delivered: Vec<&Value> =
        lines.iter().filter(|line| line["event"] == "arrived").map(|line| &line["packet"]).collect();
    let types: Vec<&str> = delivered.iter().map(|packet| packet["type"].as_str().unwrap()).collect();
    assert_eq!(types, ["join", "join", "connection request", "connection response", "publish"]);
    let authentic: Vec<&Value> = delivered.iter().map(|packet| &packet["authentic"]).collect();
    assert_eq!(authentic, [&Value::Null, &Value::Null, &true.into(), &true.into(), &false.into()]);
    assert_eq!(delivered[4]["clear"], r#"{"publish":{"topic":"lamp","value":"on","from":"10.0.0.2"}}"#);
    assert!(lines.last().unwrap()["error"].as_str().unwrap().contains("there is no command"), "{text}");
}

/// Whatever is typed in whatever order, nothing panics and every line fits.
#[test]
fn a_class_that_types_anything_breaks_nothing() {
    const NAMES: [&str; 7] = ["b1", "b2", "c1", "c2", "r1", "r2", "m"];
    let view = View { columns: 80, colour: false, json: false };
    for seed in 0..40 {
        let mut random = Stream::new(seed, "class", 0);
        let mut network = Network::new(seed);
        let mut shell = Shell::new(view);
        for _ in 0..400 {
            let mut one_of = |of: &[&str]| of[random.below(of.len() as u64) as usize].to_owned();
            let name = one_of(&NAMES);
            let kind = match name.as_bytes()[0] {
                b'b' => "broker",
                b'c' => "client",
                b'r' => "router",
                _ => "master",
            };
            let topic = one_of(&["a", "a/b", "#", "+/b", "$x"]);
            let line = match &*one_of(&["open", "join", "conn", "topic", "plain", "tamper", "run", "run"]) {
                "open" => format!("open {kind} {name}"),
                "join" => format!("{name}: join {}", one_of(&["home", "lab"])),
                "conn" => format!("{name}: conn {}", one_of(&["", "1s", "0s words"])),
                "topic" => {
                    format!("{name}: {} {topic} {}", one_of(&["publ", "subs", "unsubs"]), one_of(&["", "v"]))
                }
                "plain" => format!(
                    "{name}: {}",
                    one_of(&[
                        "disc",
                        "ping",
                        "tgll",
                        "leave",
                        "routes",
                        "connections",
                        "subscriptions",
                        "packets"
                    ])
                ),
                "tamper" => format!("tamper {}", one_of(&["bit", "sender", "replay", "key"])),
                _ => one_of(&["run", "step", "run 1s", "sessions"]),
            };
            let outcome = shell.carry_out(&line, &mut network);
            let events = network.take_events();
            let seen: String = events.iter().filter_map(|event| shell.sees(event, &network)).collect();
            let text = shell.reply(seen, outcome, &network).text;
            assert!(text.lines().all(|line| line.chars().count() <= 80), "{line}: {text}");
        }
        let is_altered =
            |packet: &Packet| matches!(packet.tampered, Some(Tampering::Bit | Tampering::Sender));
        for (_, packet) in network.packets().filter(|(_, packet)| is_altered(packet)) {
            assert_ne!(packet.authenticity, Authenticity::Holds, "seed {seed}: {packet:?}");
        }
    }
}

/// Far longer than any of it takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// A terminal of its own process, whose lines a test reads one by one.
struct Terminal {
    child: Child,
    commands: ChildStdin,
    lines: Receiver<String>,
}

impl Terminal {
    fn open(network: &Path) -> Self {
        let mut child = offload_sim(&["--quiet", "--network", network.to_str().unwrap()]).spawn().unwrap();
        let (commands, output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        Self { child, commands, lines }
    }

    fn say(&mut self, command: &str) {
        writeln!(self.commands, "{command}").unwrap();
    }

    /// Reads on to a line that has this in it.
    fn until(&mut self, told: &str) -> String {
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) if line.contains(told) => return line,
                Ok(_) => {}
                Err(error) => panic!("{told:?} does not come: {error}"),
            }
        }
    }

    /// Its exit code, when it has ended.
    fn ended(&mut self) -> Option<i32> {
        while self
            .lines
            .recv_timeout(PATIENCE)
            .map_err(|error| assert_eq!(error, RecvTimeoutError::Disconnected))
            .is_ok()
        {}
        self.child.wait().unwrap().code()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn several_terminals_share_one_network_until_its_first_ends() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("class.sock");
    let mut first = Terminal::open(&socket);
    first.say("open broker b1");
    first.say("join");
    first.until("b1 is 10.0.0.1 in lan");
    let mut second = Terminal::open(&socket);
    second.say("open client c1");
    second.say("join");
    second.until("c1 is 10.0.0.2 in lan");
    // Time is one for all: whoever runs it, each sees its own sessions' packets.
    second.say("run");
    first.until("arrived: join (TCP open), 10.0.0.2 c1 -> 10.0.0.1 b1");
    second.until("c1 takes");
    second.say("conn");
    first.until("sent: connection request");
    first.say("run");
    second.until("so 10.0.0.1 has the same key");
    // A session is its own terminal's.
    first.say("use c1");
    first.until("c1 is a session of another terminal");
    first.say("connections");
    assert!(first.until("10.0.0.2").contains("200 OK"));
    // What ends with its terminal leaves.
    second.say("exit");
    assert_eq!(second.ended(), Some(0));
    first.until("sent: left (TCP close), 10.0.0.2 c1 -> 10.0.0.1 b1");
    let mut third = Terminal::open(&socket);
    third.say("open client c3");
    third.until("c3 is open");
    first.say("exit");
    assert_eq!(first.ended(), Some(1), "`use c1` was refused");
    assert!(!socket.exists());
    third.say("join");
    assert_eq!(third.ended(), Some(2));
}

#[test]
fn a_socket_that_nobody_answers_is_taken_over_and_a_file_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("class.sock");
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let network = socket.to_str().unwrap();
    assert!(transcript(&["--network", network], "open broker b\njoin\n").status.success());
    fs::write(&socket, "precious").unwrap();
    let refused = transcript(&["--network", network], "");
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8(refused.stderr).unwrap().contains("no socket: name another file"));
    assert_eq!(fs::read_to_string(&socket).unwrap(), "precious");
}
