//! What a program writes to stdout comes while it runs, and the whole of it with the answer.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use offload_tests::deployment::Deployment;
use offload_tests::device::{Device, Message, Options, Version};
use offload_tests::gateway::Gateway;
use offload_tests::guest::TALKS_AND_SLEEPS;
use offload_tests::password_file::set_password;
use offload_tests::{PATIENCE, built, envelope, on_each_broker};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::process::Command;
use tokio::time::timeout;

on_each_broker! {
    stdout_comes_as_it_is_written with LONG,
    every_part_has_its_place,
    a_repetition_gets_no_stream,
    native_programs_stream_too with NATIVE,
}

const LONG: &str = "[limits]\nwall = \"10min\"\n";
const NATIVE: &str = "native = \"native\"\n[limits]\nwall = \"10min\"\n";

/// Bytes of a part at the most.
const MAX_PART: usize = 4096;

/// Prints lines of 1 KiB, this many.
fn lines(number: u32) -> String {
    format!(
        r#"(module
    (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 2047) "\n")
    (func (export "_start") (local $i i32)
        (memory.fill (i32.const 1024) (i32.const 46) (i32.const 1023))
        (i32.store (i32.const 160) (i32.const 1024))
        (i32.store (i32.const 164) (i32.const 1024))
        (loop $next
            (i32.store (i32.const 1024) (local.get $i))
            (drop (call $write (i32.const 1) (i32.const 160) (i32.const 1) (i32.const 168)))
            (br_if $next (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const {number}))))))"#
    )
}

fn streaming(id: &str, text: &str) -> Result<Value> {
    Ok(json!({ "id": id, "reply": "stream", "module": envelope::bytes(wat::parse_str(text)?) }))
}

/// Where a part is, if the message is one.
fn offset(message: &Message, answers: &str, id: &str) -> Option<usize> {
    message.topic.strip_prefix(&format!("{answers}/stream/{id}/"))?.parse().ok()
}

/// The parts up to the answer, put together, and the answer.
async fn to_the_answer(device: &mut Device, answers: &str, id: &str) -> Result<(Vec<u8>, Value)> {
    let mut stdout = Vec::new();
    loop {
        let message = device.message().await?;
        let Some(offset) = offset(&message, answers, id) else {
            ensure!(message.topic == answers, "{}", message.topic);
            return Ok((stdout, envelope::read(&message)?));
        };
        ensure!(offset == stdout.len(), "a part at {offset} after {} bytes", stdout.len());
        ensure!((1..=MAX_PART).contains(&message.payload.len()) && !message.retain);
        stdout.extend_from_slice(&message.payload);
    }
}

/// Of a program that never ends, in either version of MQTT and at each QoS.
async fn stdout_comes_as_it_is_written(deployment: Deployment) -> Result<()> {
    for version in [Version::V311, Version::V5] {
        let name = format!("{version:?}");
        let answers = format!("result/{name}");
        let mut device = deployment.device(version, &name).await?;
        device.subscribe(&format!("{answers}/stream/#")).await?;
        for qos in [0, 1, 2] {
            let id = format!("A-{qos}_b.c");
            let request = streaming(&id, TALKS_AND_SLEEPS)?.to_string();
            device.publish_at(qos, &format!("inputCode/{name}"), request).await?;
            let mut stdout = Vec::new();
            while stdout != b"a line\nand more" {
                let part = device.message().await?;
                ensure!(
                    offset(&part, &answers, &id) == Some(stdout.len()),
                    "{}: {}",
                    part.topic,
                    part.text()
                );
                ensure!(part.qos == qos.min(1), "{} for {qos}", part.qos);
                stdout.extend_from_slice(&part.payload);
            }
            device.publish(&format!("localCode/{name}"), json!({ "cancel": id }).to_string()).await?;
            let mut kinds = Vec::new();
            for _ in 0..2 {
                kinds.push(envelope::error_kind(&envelope::read(&device.message().await?)?).to_owned());
            }
            kinds.sort();
            ensure!(kinds == ["", "cancelled"], "{kinds:?}");
        }
        for id in ["", "a/b", "a b", "+"] {
            let request = json!({ "id": id, "program": "add", "reply": "stream" });
            let answer = envelope::ask(&mut device, &format!("localCode/{name}"), request).await?;
            ensure!(envelope::error_kind(&answer) == "malformed", "{id:?}: {answer}");
        }
    }
    Ok(())
}

/// Parts are short and in order, and the answer has all that they had.
async fn every_part_has_its_place(deployment: Deployment) -> Result<()> {
    let mut device = deployment.device(Version::V5, "parts").await?;
    device.subscribe("result/parts/stream/#").await?;
    device.publish("inputCode/parts", streaming("p", &lines(100))?.to_string()).await?;
    let (stdout, answer) = to_the_answer(&mut device, "result/parts", "p").await?;
    ensure!(answer["status"] == "ok", "{answer}");
    ensure!(stdout.len() == 100 << 10 && envelope::bytes_of(&answer, "stdout")? == stdout);
    Ok(())
}

async fn a_repetition_gets_no_stream(deployment: Deployment) -> Result<()> {
    let mut device = deployment.device(Version::V5, "again").await?;
    device.subscribe("result/again/stream/#").await?;
    let request = streaming("r", &lines(2))?.to_string();
    device.publish("inputCode/again", request.clone()).await?;
    let (stdout, first) = to_the_answer(&mut device, "result/again", "r").await?;
    ensure!(stdout.len() == 2 << 10);
    ensure!(envelope::read(&device.ask("inputCode/again", request).await?)? == first);
    Ok(())
}

async fn native_programs_stream_too(deployment: Deployment) -> Result<()> {
    let mut device = deployment.device(Version::V5, "native").await?;
    device.subscribe("result/native/stream/#").await?;
    let source = "#include <stdio.h>\n#include <unistd.h>\n\
                  int main(void) { puts(\"a line\"); fflush(stdout); for (;;) pause(); }";
    let request = json!({
        "id": "n", "reply": "stream", "source": source, "name": "n", "makefile": "gcc <name>.c -o <name>",
    });
    device.publish("inputCode/native", request.to_string()).await?;
    let part = device.message().await?;
    ensure!(offset(&part, "result/native", "n") == Some(0) && part.text() == "a line\n", "{part:?}");
    device.publish("localCode/native", json!({ "cancel": "n" }).to_string()).await?;
    for _ in 0..2 {
        let answer = envelope::read(&device.message().await?)?;
        ensure!(["", "cancelled"].contains(&envelope::error_kind(&answer)), "{answer}");
    }
    Ok(())
}

/// Where nothing tells clients apart, another one that waits on the same topics gets nothing.
#[tokio::test]
async fn a_client_without_an_id_has_its_stream_alone() -> Result<()> {
    let deployment = Deployment::embedded("").await?;
    let mut devices = Vec::new();
    for _ in 0..2 {
        let mut device = Device::connect(deployment.address(), Version::V311, "").await?;
        device.subscribe("result/").await?;
        device.subscribe("result//stream/#").await?;
        devices.push(device);
    }
    devices[0].publish("inputCode/", streaming("u", &lines(2))?.to_string()).await?;
    let (stdout, answer) = to_the_answer(&mut devices[0], "result/", "u").await?;
    ensure!(envelope::bytes_of(&answer, "stdout")? == stdout && stdout.len() == 2 << 10, "{answer}");
    ensure!(devices[1].ask("localCode/", "5 7").await?.text() == "12\n", "nothing came before");
    Ok(())
}

#[tokio::test]
async fn on_an_external_broker_a_client_without_an_id_has_none() -> Result<()> {
    let deployment = Deployment::on_mosquitto("").await?;
    let mut device = Device::connect(deployment.address(), Version::V311, "").await?;
    device.subscribe("result/").await?;
    let answer = envelope::ask(&mut device, "inputCode/", streaming("u", &lines(1))?).await?;
    ensure!(envelope::error_kind(&answer) == "malformed", "{answer}");
    ensure!(answer["error"]["message"].as_str().unwrap_or_default().starts_with("reply: "), "{answer}");
    Ok(())
}

#[tokio::test]
async fn whoever_may_have_answers_may_have_streams() -> Result<()> {
    let folder = TempDir::new()?;
    let passwords = folder.path().join("passwords");
    set_password(&passwords, "plc", "secret").await?;
    let configuration = format!("[access]\npasswords = {passwords:?}\nsubscribe = [\"result/%u\"]\n");
    let gateway = Gateway::embedded(&configuration).await?;
    let options = Options { credentials: Some(("plc", "secret")), ..Options::default() };
    for version in [Version::V311, Version::V5] {
        let mut device = Device::connect_with(gateway.address()?, version, "plc", options).await?;
        device.subscribe("result/plc").await?;
        device.subscribe("result/plc/stream/#").await?;
        for denied in ["result/other/stream/#", "result/plc/#", "result/+/stream/#"] {
            ensure!(device.subscribe(denied).await.is_err(), "{denied}");
        }
        let id = format!("{version:?}");
        device.publish("inputCode/plc", streaming(&id, &lines(1))?.to_string()).await?;
        ensure!(to_the_answer(&mut device, "result/plc", &id).await?.0.len() == 1 << 10);
    }
    Ok(())
}

/// Parts that a receiver does not take are left out. Its answers are all there, and whole, when it reads at last.
#[tokio::test]
async fn what_a_slow_receiver_leaves_is_left_out_of_the_stream_alone() -> Result<()> {
    /// Far more than its queue has room for parts, and the sockets for bytes.
    const REQUESTS: usize = 16;
    const KIB: usize = 1023;
    let deployment = Deployment::embedded("").await?;
    let mut witness = Device::connect(deployment.address(), Version::V5, "witness").await?;
    witness.subscribe("result/slow").await?;
    let mut slow = Slow::connect(deployment.address()).await?;
    let module = envelope::bytes(wat::parse_str(lines(KIB as u32))?);
    for number in 0..REQUESTS {
        let id = format!("s{number}");
        let request = json!({ "id": id, "reply": "stream", "module": module });
        // The slow one itself could not: nothing more is read from a client that takes nothing.
        witness.publish("inputCode/slow", request.to_string()).await?;
        let answer = envelope::read(&witness.message().await?)?;
        ensure!(answer["status"] == "ok", "{answer}");
    }
    let (mut answers, mut streamed) = (0, 0);
    while answers < REQUESTS {
        let (topic, payload) = slow.message().await?;
        if topic == "result/slow" {
            let answer: Value = serde_json::from_slice(&payload)?;
            ensure!(envelope::bytes_of(&answer, "stdout")?.len() == KIB << 10, "it is whole");
            answers += 1;
        } else {
            streamed += payload.len();
        }
    }
    ensure!(streamed > 0 && streamed < REQUESTS * (KIB << 10), "{streamed} bytes came as a stream");
    Ok(())
}

/// Prints a byte at a time, and does not end by itself.
const DRIPS: &str = r#"(module
    (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 256) "\n")
    (func (export "_start")
        (i32.store (i32.const 160) (i32.const 256))
        (i32.store (i32.const 164) (i32.const 1))
        (loop $next
            (drop (call $write (i32.const 1) (i32.const 160) (i32.const 1) (i32.const 168)))
            (br $next))))"#;

/// Each line of one byte, of many programs: few messages, and others are answered meanwhile.
#[tokio::test]
async fn many_that_print_a_byte_at_a_time_disturb_nobody() -> Result<()> {
    const PROGRAMS: usize = 64;
    const KIB: usize = 64;
    let deployment = Deployment::embedded("[limits]\nstdout = \"64KiB\"\n").await?;
    let mut device = deployment.device(Version::V5, "drips").await?;
    device.subscribe("result/drips/stream/#").await?;
    let mut bystander = deployment.device(Version::V311, "bystander").await?;
    for number in 0..PROGRAMS {
        device.publish("inputCode/drips", streaming(&format!("d{number}"), DRIPS)?.to_string()).await?;
    }
    let (mut answers, mut parts, mut bytes) = (0, 0, 0);
    while answers < PROGRAMS {
        let message = device.message().await?;
        if message.topic == "result/drips" {
            let answer = envelope::read(&message)?;
            ensure!(envelope::error_kind(&answer) == "output", "{answer}");
            answers += 1;
            ensure!(bystander.ask("localCode/bystander", "5 7").await?.text() == "12\n");
        } else {
            parts += 1;
            bytes += message.payload.len();
        }
    }
    ensure!(bytes <= PROGRAMS * (KIB << 10), "{bytes} bytes");
    ensure!(parts > 0 && parts * 16 < bytes, "{parts} messages for {bytes} bytes");
    Ok(())
}

/// A client of MQTT 3.1.1 that reads when it is told to, and from a small buffer.
struct Slow(TcpStream);

impl Slow {
    /// Connects and subscribes to its answers and streams.
    async fn connect(address: SocketAddr) -> Result<Slow> {
        let socket = TcpSocket::new_v4()?;
        socket.set_recv_buffer_size(64 << 10)?;
        let mut stream = timeout(PATIENCE, socket.connect(address)).await??;
        // Clean session, keep alive 0.
        stream.write_all(b"\x10\x10\x00\x04MQTT\x04\x02\x00\x00\x00\x04slow").await?;
        let filter = b"result/slow/#";
        let mut subscribe = vec![0x82, 5 + filter.len() as u8, 0, 1, 0, filter.len() as u8];
        subscribe.extend_from_slice(filter);
        subscribe.push(1);
        stream.write_all(&subscribe).await?;
        // CONNACK and SUBACK.
        let mut acknowledged = [0; 9];
        timeout(PATIENCE, stream.read_exact(&mut acknowledged)).await??;
        Ok(Slow(stream))
    }

    /// Topic and payload of the next PUBLISH, which is acknowledged.
    async fn message(&mut self) -> Result<(String, Vec<u8>)> {
        loop {
            let kind = timeout(PATIENCE, self.0.read_u8()).await??;
            let (mut length, mut shift) = (0, 0);
            loop {
                let byte = self.0.read_u8().await?;
                length |= usize::from(byte & 127) << shift;
                shift += 7;
                if byte < 128 {
                    break;
                }
            }
            let mut rest = vec![0; length];
            timeout(PATIENCE, self.0.read_exact(&mut rest)).await??;
            if kind >> 4 != 3 {
                continue;
            }
            let (topic_length, rest) = rest.split_first_chunk::<2>().context("a topic")?;
            let (topic, mut rest) = rest.split_at(u16::from_be_bytes(*topic_length).into());
            if kind & 0b110 != 0 {
                let (id, payload) = rest.split_first_chunk::<2>().context("a packet identifier")?;
                self.0.write_all(&[0x40, 2, id[0], id[1]]).await?;
                rest = payload;
            }
            return Ok((String::from_utf8(topic.to_vec())?, rest.to_vec()));
        }
    }
}

/// `offload-client send --stream`: what comes as a stream, and the rest from the answer.
#[tokio::test]
async fn the_command_prints_each_byte_once() -> Result<()> {
    let gateway = Gateway::embedded("").await?;
    let folder = TempDir::new()?;
    let broker = format!("mqtt://{}", gateway.address()?);
    for number in [1, 500] {
        let file = folder.path().join(format!("{number}.wat"));
        std::fs::write(&file, lines(number))?;
        for version in ["5", "3.1.1"] {
            let mut command = Command::new(built::program("offload-client")?);
            command.args(["--broker", &broker, "-V", version, "send", "--stream"]).arg(&file);
            let output = timeout(PATIENCE, command.kill_on_drop(true).output()).await??;
            ensure!(output.status.success() && output.stderr.is_empty(), "{output:?}");
            let expected = (0..number).flat_map(|line| {
                let mut bytes = vec![b'.'; 1024];
                bytes[..4].copy_from_slice(&line.to_le_bytes());
                bytes[1023] = b'\n';
                bytes
            });
            ensure!(output.stdout.iter().copied().eq(expected), "{number} lines by MQTT {version}");
        }
    }
    Ok(())
}
