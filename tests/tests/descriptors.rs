//! The descriptors of a module's standard streams: what follows when they are closed, renumbered and polled.

use anyhow::{Context, Result};
use bytes::Bytes;
use offload_tests::deployment::Deployment;
use offload_tests::device::{Device, Version};
use offload_tests::envelope;
use serde_json::{Value, json};

const BADF: u8 = 8;
const NOTSOCK: u8 = 57;

/// A command with these statements. One vector of four bytes, "text", is at 0, and `$code` its exit code.
fn command(body: &str) -> Bytes {
    let text = format!(
        r#"(module
            (import "wasi_snapshot_preview1" "fd_close" (func $close (param i32) (result i32)))
            (import "wasi_snapshot_preview1" "fd_fdstat_get" (func $fdstat (param i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "fd_prestat_get" (func $prestat (param i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "fd_read" (func $fd_read (param i32 i32 i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "fd_renumber" (func $renumber (param i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
            (import "wasi_snapshot_preview1" "sock_shutdown" (func $shutdown (param i32 i32) (result i32)))
            (memory (export "memory") 1)
            (data (i32.const 0) "\10\00\00\00\04\00\00\00")
            (data (i32.const 16) "text")
            (func $read (param i32) (result i32)
                (call $fd_read (local.get 0) (i32.const 0) (i32.const 1) (i32.const 8)))
            (func $write (param i32) (result i32)
                (call $fd_write (local.get 0) (i32.const 0) (i32.const 1) (i32.const 8)))
            (func (export "_start") (local $code i32)
                {body}
                (call $exit (local.get $code))))"#
    );
    wat::parse_str(text).expect("a valid guest").into()
}

async fn run(device: &mut Device, guest: Bytes) -> Result<Value> {
    let request = json!({ "module": envelope::bytes(&guest), "stdin": envelope::bytes("input") });
    envelope::ask(device, "inputCode/descriptors", &request).await
}

/// What these calls return, one after the other, and what is then on stdout and stderr.
async fn after(calls: &[(&str, u8)], stdout: &str, stderr: &str) -> Result<()> {
    let deployment = Deployment::embedded("").await?;
    let mut device = deployment.device(Version::V5, "descriptors").await?;
    // The first call that returns something else is told by its number.
    let body: String = (1..)
        .zip(calls)
        .map(|(number, (call, errno))| {
            format!(
                "(if (i32.ne {call} (i32.const {errno}))
                    (then (if (i32.eqz (local.get $code)) (then (local.set $code (i32.const {number}))))))"
            )
        })
        .collect();
    let answer = run(&mut device, command(&body)).await?;
    assert_eq!(answer["exit_code"], 0, "the call of this number in {calls:?}: {answer}");
    assert_eq!(envelope::bytes_of(&answer, "stdout")?, stdout.as_bytes(), "{calls:?}");
    assert_eq!(envelope::bytes_of(&answer, "stderr")?, stderr.as_bytes(), "{calls:?}");
    Ok(())
}

#[tokio::test]
async fn a_closed_stream_is_a_bad_descriptor_for_every_call() -> Result<()> {
    for fd in [0, 1, 2] {
        let call = |name: &str, more: &str| format!("(call ${name} (i32.const {fd}) {more})");
        let other = "(i32.const 1)";
        let before = if fd == 0 { call("read", "") } else { call("write", "") };
        let calls = [
            (before, 0),
            (call("close", ""), 0),
            (call("close", ""), BADF),
            (call("read", ""), BADF),
            (call("write", ""), BADF),
            (call("fdstat", "(i32.const 64)"), BADF),
            (call("prestat", "(i32.const 64)"), BADF),
            (call("shutdown", other), BADF),
            (call("renumber", other), BADF),
            (call("renumber", "(i32.const 2)"), BADF),
            (format!("(call $renumber (i32.const 2) (i32.const {fd}))"), BADF),
            // The others are as they were.
            (format!("(call $shutdown (i32.const {}) {other})", (fd + 1) % 3), NOTSOCK),
        ];
        let calls: Vec<_> = calls.iter().map(|(call, errno)| (call.as_str(), *errno)).collect();
        after(&calls, ["", "text", ""][fd], ["", "", "text"][fd]).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_renumbered_stream_is_where_it_went() -> Result<()> {
    let write = |fd| format!("(call $write (i32.const {fd}))");
    let read = |fd| format!("(call $read (i32.const {fd}))");
    let renumber = |from, to| format!("(call $renumber (i32.const {from}) (i32.const {to}))");
    for (calls, stdout, stderr) in [
        // As `dup2(2, 1)`, as far as WASI has it: stdout is closed, and 2 with it.
        (vec![(renumber(2, 1), 0), (write(1), 0), (write(2), BADF)], "", "text"),
        (vec![(renumber(1, 2), 0), (write(2), 0), (write(1), BADF)], "text", ""),
        (
            vec![(renumber(0, 1), 0), (read(1), 0), (write(1), BADF), (read(0), BADF), (write(2), 0)],
            "",
            "text",
        ),
        (
            vec![(renumber(1, 0), 0), (write(0), 0), (read(0), BADF), (renumber(0, 2), 0), (write(2), 0)],
            "texttext",
            "",
        ),
        (vec![(renumber(1, 1), 0), (write(1), 0)], "text", ""),
        (vec![(renumber(1, 7), BADF), (renumber(7, 1), BADF), (write(1), 0)], "text", ""),
    ] {
        let calls: Vec<_> = calls.iter().map(|(call, errno)| (call.as_str(), *errno)).collect();
        // What was read lies where the text was.
        let stderr = if calls[0].0 == renumber(0, 1) { "inpu" } else { stderr };
        after(&calls, stdout, stderr).await?;
    }
    Ok(())
}

/// An event of `poll_oneoff`.
#[derive(Debug, PartialEq)]
struct Event {
    userdata: u64,
    errno: u16,
    kind: u8,
    bytes: u64,
    flags: u16,
}

const CLOCK: u8 = 0;
const FD_READ: u8 = 1;
const FD_WRITE: u8 = 2;
const HANGUP: u16 = 1;

/// The events of these subscriptions to descriptors, and to a clock that rings in an hour, after these statements.
async fn polled(before: &str, subscriptions: &[(u8, u32)]) -> Result<Vec<Event>> {
    const LIST: usize = 1024;
    const EVENTS: usize = 2048;
    let hour = "(i64.store (i32.const 1048) (i64.const 3600000000000))";
    let list: String = (1..)
        .zip(subscriptions)
        .map(|(number, (kind, fd))| {
            let at = LIST + 48 * number;
            format!(
                "(i64.store (i32.const {at}) (i64.const {number}))
                 (i32.store8 (i32.const {}) (i32.const {kind}))
                 (i32.store (i32.const {}) (i32.const {fd}))",
                at + 8,
                at + 16
            )
        })
        .collect();
    let count = subscriptions.len() + 1;
    let body = format!(
        "{hour} {list} {before}
         (local.set $code (call $poll (i32.const {LIST}) (i32.const {EVENTS}) (i32.const {count}) (i32.const 32)))
         (i32.store (i32.const 0) (i32.const {EVENTS}))
         (i32.store (i32.const 4) (i32.mul (i32.const 32) (i32.load (i32.const 32))))
         (drop (call $write (i32.const 1)))"
    );
    let deployment = Deployment::embedded("").await?;
    let mut device = deployment.device(Version::V5, "descriptors").await?;
    let answer = run(&mut device, command(&body)).await?;
    assert_eq!(answer["exit_code"], 0, "{answer}");
    let events = envelope::bytes_of(&answer, "stdout")?;
    events.chunks(32).map(|event| read_event(event).context("a whole event")).collect()
}

fn read_event(event: &[u8]) -> Option<Event> {
    Some(Event {
        userdata: u64::from_le_bytes(event.get(..8)?.try_into().ok()?),
        errno: u16::from_le_bytes(event.get(8..10)?.try_into().ok()?),
        kind: *event.get(10)?,
        bytes: u64::from_le_bytes(event.get(16..24)?.try_into().ok()?),
        flags: u16::from_le_bytes(event.get(24..26)?.try_into().ok()?),
    })
}

#[tokio::test]
async fn an_event_says_what_its_descriptor_is_ready_for() -> Result<()> {
    let ready = |userdata, kind, bytes| Event { userdata, errno: 0, kind, bytes, flags: 0 };
    let events = polled("", &[(FD_READ, 0), (FD_WRITE, 1), (FD_WRITE, 2)]).await?;
    // Of stdin all that is left: what FIONREAD asks for.
    assert_eq!(events, [ready(1, FD_READ, 5), ready(2, FD_WRITE, 1), ready(3, FD_WRITE, 1)]);
    let events = polled("(drop (call $read (i32.const 0)))", &[(FD_READ, 0)]).await?;
    assert_eq!(events, [ready(1, FD_READ, 1)]);
    let twice = "(drop (call $read (i32.const 0)))".repeat(2);
    assert_eq!(polled(&twice, &[(FD_READ, 0)]).await?, [Event { flags: HANGUP, ..ready(1, FD_READ, 0) }]);
    Ok(())
}

#[tokio::test]
async fn a_descriptor_that_is_not_open_for_it_is_told_in_its_own_event() -> Result<()> {
    let bad = |userdata, kind| Event { userdata, errno: BADF.into(), kind, bytes: 0, flags: 0 };
    let events = polled(
        "(drop (call $close (i32.const 2)))",
        &[(FD_READ, 1), (FD_WRITE, 0), (FD_WRITE, 2), (FD_READ, 9), (FD_WRITE, 1)],
    )
    .await?;
    let writable = Event { userdata: 5, errno: 0, kind: FD_WRITE, bytes: 1, flags: 0 };
    assert_eq!(events, [bad(1, FD_READ), bad(2, FD_WRITE), bad(3, FD_WRITE), bad(4, FD_READ), writable]);
    Ok(())
}

#[tokio::test]
async fn a_clock_is_an_event_of_its_own() -> Result<()> {
    // The clock of an hour becomes one of a nanosecond; nothing else is subscribed to.
    let events = polled("(i64.store (i32.const 1048) (i64.const 1))", &[]).await?;
    assert_eq!(events, [Event { userdata: 0, errno: 0, kind: CLOCK, bytes: 0, flags: 0 }]);
    Ok(())
}
