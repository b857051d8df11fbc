//! `offload-rt demo`: a gateway on a free port, a device that plays its part over real MQTT, and a table of what
//! happened.

use super::output::{self, Unprintable, print_line};
use crate::config::{Config, HostPort};
use crate::source::sandbox_config;
use crate::{Gateway, scheduling};
use anyhow::{Context, bail};
use offload_mqtt::{
    Connection, ConnectionOptions, Event, Message, PacketSender, Properties, QoS, Subscription, open,
};
use offload_native::Sandbox;
use offload_protocol::topic;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// The device's client id, and its reply id.
const DEVICE: &str = "demo";

/// How long the demo waits for one answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Width of the table where standard output is no terminal, in columns.
const DEFAULT_WIDTH: usize = 100;

/// One thing that the device sends.
struct Step {
    what: &'static str,
    topic: &'static str,
    /// As a person would write it.
    shown: &'static str,
    payload: Vec<u8>,
    user_properties: &'static [(&'static str, &'static str)],
    /// What the answer must start with.
    expected: &'static str,
    /// Whether a machine may refuse it: one without the means to contain it.
    refusable: bool,
}

/// A deployed device's message: name, arguments, source, makefile.
const SOURCE: &str = concat!(
    "add----5 7----",
    "#include <stdio.h>\n#include <stdlib.h>\n",
    "int main(int n, char **v) { printf(\"%d\\n\", atoi(v[1]) + atoi(v[2])); }\n",
    "----<name>: <name>.c\n\tgcc <name>.c -o <name>\n"
);

fn steps() -> anyhow::Result<Vec<Step>> {
    let assemble = |text| wat::parse_str(text).context("a guest example");
    let hello = assemble(include_str!("../../../guest-examples/hello/hello.wat"))?;
    let greet = assemble(include_str!("../../../guest-examples/greet/greet.wat"))?;
    let spin = assemble(include_str!("../../../guest-examples/spin/spin.wat"))?;
    let step = |what, topic, shown, payload: &[u8], expected| Step {
        what,
        topic,
        shown,
        payload: payload.to_vec(),
        user_properties: &[],
        expected,
        refusable: false,
    };
    Ok(vec![
        step("numbers to add", "localCode/demo", "5 7", b"5 7", "12"),
        step("more of them", "localCode/demo", "1 2 3 4", b"1 2 3 4", "10"),
        step("a program of its own", "inputCode/demo", "hello.wasm", &hello, "hello"),
        step("a component", "inputCode/demo", "greet.wasm", &greet, "hello from a component!"),
        Step {
            user_properties: &[("fuel", "50000000")],
            ..step("one that never ends", "inputCode/demo", "spin.wasm", &spin, "error: fuel")
        },
        step(
            "what is no program",
            "inputCode/demo",
            "\\0asm, then noise",
            b"\0asm noise",
            "error: malformed",
        ),
        Step {
            refusable: true,
            ..step("C and its makefile", "inputCode/demo", "add.c, Makefile", SOURCE.as_bytes(), "12")
        },
        step(
            "an envelope",
            "localCode/demo",
            "{\"program\":\"add\", …}",
            br#"{"program":"add","args":["40","2"],"id":"last"}"#,
            "{",
        ),
    ])
}

/// What came back for one step.
struct Result {
    answer: String,
    took: Duration,
    verdict: Verdict,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Right,
    /// This machine cannot do it, and says so.
    LeftOut,
    Wrong,
}

impl Verdict {
    fn sign(self) -> &'static str {
        match self {
            Verdict::Right => "ok",
            Verdict::LeftOut => "--",
            Verdict::Wrong => "??",
        }
    }
}

pub fn run() -> anyhow::Result<ExitCode> {
    scheduling::runtime()?.block_on(async {
        tokio::select! {
            shown = show() => shown,
            interrupted = tokio::signal::ctrl_c() => { interrupted?; Ok(ExitCode::from(130)) }
        }
    })
}

async fn show() -> anyhow::Result<ExitCode> {
    let folder = tempfile::tempdir().context("a folder for the demo's state")?;
    let mut config = Config { data_dir: folder.path().join("state"), ..Config::default() };
    config.listen.address = HostPort::new("127.0.0.1", 0);
    let sandbox = sandbox_config(&config);
    let gateway = Gateway::start(config).await?;
    let address = gateway.address().context("the embedded broker has an address")?;
    print_line(format_args!(
        "A gateway listens on mqtt://{address}; a device called `{DEVICE}` connects.\n"
    ))?;

    let mut device = Device::connect(address.ip().to_string(), address.port()).await?;
    let width = output::columns().unwrap_or(DEFAULT_WIDTH);
    print_row(width, ["", "sent", "came back", "took"])?;
    let mut verdicts = Vec::new();
    for step in steps()? {
        let result = device.play(&step).await?;
        let took = format!("{:.1} ms", result.took.as_secs_f64() * 1e3);
        let sent = format!("{}: {}", step.what, step.shown);
        print_row(width, [result.verdict.sign(), &sent, &result.answer, &took])?;
        verdicts.push((step.what, result.verdict));
    }
    gateway.shutdown().await;

    if verdicts.iter().any(|(_, verdict)| *verdict == Verdict::Wrong) {
        print_line("\nNot everything came back as it should (??).")?;
        return Ok(ExitCode::FAILURE);
    }
    let left_out: Vec<&str> = verdicts
        .iter()
        .filter_map(|(what, verdict)| (*verdict == Verdict::LeftOut).then_some(*what))
        .collect();
    if left_out.is_empty() {
        print_line("\nAll came back right.")?;
    } else {
        let why = tokio::task::spawn_blocking(move || why_refused(sandbox)).await?;
        print_line(format_args!(
            "\nAll else came back right. Left out (--): {}, which this machine cannot contain:\n\n  {why}",
            left_out.join(", ")
        ))?;
    }
    print_line(
        "\nNext, a gateway that stays:\n\n  \
         cargo run --release --bin offload-rt -- serve\n\n\
         and from a second terminal a device, with our client or the tools you have:\n\n  \
         cargo run --release --bin offload-client -- send add --args 5 7\n\n  \
         mosquitto_sub -i dev1 -t result/dev1 &\n  \
         mosquitto_pub -t localCode/dev1 -m '5 7'",
    )?;
    Ok(ExitCode::SUCCESS)
}

/// What native programs are refused for, and what to do about it.
fn why_refused(sandbox: offload_native::Config) -> String {
    let report = match Sandbox::probe(sandbox) {
        Ok(_) => {
            return "`offload-rt serve` logs why, and `offload-rt doctor` shows what there is".to_owned();
        }
        Err(unavailable) => unavailable.report,
    };
    report.causes().map(ToString::to_string).collect::<Vec<_>>().join("\n  ")
}

/// A device: one MQTT 5 connection that asks and waits.
struct Device {
    sender: PacketSender,
    connection: Connection,
}

impl Device {
    async fn connect(host: String, port: u16) -> anyhow::Result<Device> {
        let (sender, connection) = open(ConnectionOptions::new(host, port, DEVICE));
        sender.subscribe(&[Subscription::new(topic::result(DEVICE), QoS::AtLeastOnce)])?;
        let mut device = Device { sender, connection };
        device.until(|event| matches!(event, Event::SubAck { .. }).then_some(())).await?;
        Ok(device)
    }

    async fn play(&mut self, step: &Step) -> anyhow::Result<Result> {
        let started = Instant::now();
        let owned = |(name, value): &(&str, &str)| (name.to_string(), value.to_string());
        let properties = Properties {
            user_properties: step.user_properties.iter().map(owned).collect(),
            ..Properties::default()
        };
        self.sender.publish(Message { properties, ..Message::new(step.topic, step.payload.clone()) })?;
        let payload = self
            .until(|event| match event {
                Event::Message { message, .. } => Some(message.payload),
                _ => None,
            })
            .await?;
        let answer = String::from_utf8_lossy(&payload).trim_end().to_string();
        let verdict = if answer.starts_with(step.expected) {
            Verdict::Right
        } else if step.refusable && answer.starts_with("error: unauthorized") {
            Verdict::LeftOut
        } else {
            Verdict::Wrong
        };
        Ok(Result { verdict, answer, took: started.elapsed() })
    }

    /// Drives the connection until the event comes that is waited for.
    async fn until<T>(&mut self, mut wanted: impl FnMut(Event) -> Option<T>) -> anyhow::Result<T> {
        let wait = async {
            loop {
                if let Some(found) = wanted(self.connection.next().await?) {
                    return anyhow::Ok(found);
                }
            }
        };
        match tokio::time::timeout(PATIENCE, wait).await {
            Ok(found) => found,
            Err(_) => bail!("the gateway did not answer within {PATIENCE:?}"),
        }
    }
}

/// Prints one row, cut to the width.
fn print_row(width: usize, cells: [&str; 4]) -> std::result::Result<(), Unprintable> {
    const SIGN: usize = 2;
    const TOOK: usize = 9;
    const GAPS: usize = 6;
    let room = width.saturating_sub(SIGN + TOOK + GAPS).max(20);
    let sent = (room * 2 / 5).min(44);
    let [sign, what, answer, took] = cells;
    let (what, answer) = (cut(what, sent), cut(answer, room - sent));
    print_line(format_args!(
        "{sign:<SIGN$}  {what:<sent$}  {answer:<width$}  {took:>TOOK$}",
        width = room - sent
    ))
}

/// The beginning of a text, one line of at most this number of characters.
fn cut(text: &str, columns: usize) -> String {
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().count() <= columns {
        return text;
    }
    text.chars().take(columns - 1).chain(['…']).collect()
}
