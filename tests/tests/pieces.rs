//! Answers in pieces: a request asks for a part of stdout, a repetition of it for another part.

use anyhow::Result;
use offload_tests::deployment::Deployment;
use offload_tests::device::Version;
use offload_tests::{cbor, envelope, on_each_broker};
use serde_json::{Value, json};

on_each_broker! {
    a_part_of_stdout_is_answered,
    each_repetition_has_its_own_part,
    without_an_id_each_part_is_of_another_run,
}

/// Prints ten bytes and ends with this code.
fn ten_bytes(exit_code: i32) -> Result<Value> {
    let module = format!(
        r#"(module
            (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
            (memory (export "memory") 1)
            (data (i32.const 0) "\10\00\00\00\0a\00\00\00")
            (data (i32.const 16) "0123456789")
            (func (export "_start")
                (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
                (call $exit (i32.const {exit_code}))))"#
    );
    Ok(envelope::bytes(wat::parse_str(module)?))
}

/// Prints eight random bytes: no two runs print the same.
fn random_bytes() -> Result<Value> {
    let module = r#"(module
        (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 1)
        (data (i32.const 0) "\10\00\00\00\08\00\00\00")
        (func (export "_start")
            (drop (call $random (i32.const 16) (i32.const 8)))
            (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))"#;
    Ok(envelope::bytes(wat::parse_str(module)?))
}

/// These fields, and those of a part.
fn with(mut request: Value, part: &Value) -> Value {
    for (name, value) in part.as_object().into_iter().flatten() {
        request[name] = value.clone();
    }
    request
}

/// `stdout_offset` and `stdout_length`, both or either: the answer carries that part of stdout (whole when both are
/// absent) and, whenever one of them was given, `stdout_total`. Beyond the end: empty. A request of which nothing was
/// run has printed nothing.
async fn a_part_of_stdout_is_answered(deployment: Deployment) -> Result<()> {
    let mut device = deployment.device(Version::V311, "part").await?;
    for (part, stdout, offset, total) in [
        (json!({}), "0123456789", Value::Null, Value::Null),
        (json!({ "stdout_offset": 0 }), "0123456789", json!(0), json!(10)),
        (json!({ "stdout_length": 4 }), "0123", json!(0), json!(10)),
        (json!({ "stdout_offset": 4, "stdout_length": 4 }), "4567", json!(4), json!(10)),
        (json!({ "stdout_offset": 8, "stdout_length": 4 }), "89", json!(8), json!(10)),
        (json!({ "stdout_offset": 7 }), "789", json!(7), json!(10)),
        (json!({ "stdout_length": 0 }), "", json!(0), json!(10)),
        (json!({ "stdout_offset": 10, "stdout_length": 1 }), "", json!(10), json!(10)),
        (json!({ "stdout_offset": u64::MAX, "stdout_length": u64::MAX }), "", json!(u64::MAX), json!(10)),
    ] {
        let request = with(json!({ "module": ten_bytes(3)?, "reply": "envelope" }), &part);
        let in_json = envelope::ask(&mut device, "inputCode/part", &request).await?;
        let in_cbor = cbor::read(&device.ask("inputCode/part", cbor::write(&request)?).await?)?;
        for answer in [in_json, in_cbor] {
            assert_eq!(envelope::bytes_of(&answer, "stdout")?, stdout.as_bytes(), "{part}: {answer}");
            assert_eq!((&answer["stdout_offset"], &answer["stdout_total"]), (&offset, &total), "{answer}");
            assert_eq!(answer["exit_code"], 3, "{answer}");
        }
        // Without an envelope there is the part alone: an empty one is no error line.
        let request = with(request, &json!({ "reply": "stdout" }));
        assert_eq!(device.ask("inputCode/part", request.to_string()).await?.text(), stdout, "{part}");
    }
    let missing = json!({ "program": "missing", "stdout_offset": 5 });
    let answer = envelope::ask(&mut device, "localCode/part", missing).await?;
    assert_eq!(envelope::error_kind(&answer), "not-found");
    assert_eq!((&answer["stdout_offset"], &answer["stdout_total"]), (&json!(5), &json!(0)));
    Ok(())
}

/// They do not count for the comparison of repeated ids: each repetition, whether it joins the run or comes later, gets
/// its own part of one outcome.
async fn each_repetition_has_its_own_part(deployment: Deployment) -> Result<()> {
    let mut device = deployment.device(Version::V5, "own").await?;
    let request = json!({ "id": "1", "module": random_bytes()?, "reply": "envelope" });
    let part = |offset: u64| with(request.clone(), &json!({ "stdout_offset": offset, "stdout_length": 3 }));
    for offset in [0, 3, 6] {
        device.publish("inputCode/own", part(offset).to_string()).await?;
    }
    let (mut parts, mut runs) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        let answer = envelope::read(&device.message().await?)?;
        parts.push((answer["stdout_offset"].as_u64(), envelope::bytes_of(&answer, "stdout")?));
        runs.push(answer["run_us"].clone());
    }
    // Whoever joins is answered in any order.
    parts.sort_unstable();
    let joined: Vec<u8> = parts.into_iter().flat_map(|(_, part)| part).collect();
    let whole = envelope::ask(&mut device, "inputCode/own", &request).await?;
    assert_eq!(joined, envelope::bytes_of(&whole, "stdout")?);
    assert!(runs.iter().all(|run| *run == whole["run_us"]), "{runs:?} {whole}");
    assert_eq!(whole.get("stdout_total"), None);
    let later = envelope::ask(&mut device, "inputCode/own", part(6)).await?;
    assert_eq!(
        (envelope::bytes_of(&later, "stdout")?, &later["stdout_total"]),
        (joined[6..].to_vec(), &json!(8))
    );
    let as_stdout = with(part(2), &json!({ "reply": "stdout" }));
    assert_eq!(device.ask("inputCode/own", as_stdout.to_string()).await?.payload, joined[2..5]);
    Ok(())
}

/// Without an `id` they work too, and run the request each time.
async fn without_an_id_each_part_is_of_another_run(deployment: Deployment) -> Result<()> {
    let mut device = deployment.device(Version::V5, "each").await?;
    let request = json!({ "module": random_bytes()?, "stdout_offset": 1 });
    let mut parts = Vec::new();
    for _ in 0..2 {
        let answer = envelope::ask(&mut device, "inputCode/each", &request).await?;
        assert_eq!(answer["stdout_total"], 8, "{answer}");
        parts.push(envelope::bytes_of(&answer, "stdout")?);
    }
    assert_eq!((parts[0].len(), parts[1].len()), (7, 7));
    assert_ne!(parts[0], parts[1]);
    Ok(())
}
