//! The fields of an envelope, the same in CBOR and JSON.

use anyhow::{Context, Result};
use offload_tests::answer::refused_in_envelope;
use offload_tests::deployment::Deployment;
use offload_tests::device::Version;
use offload_tests::on_each_broker;
use offload_tests::{cbor, envelope, guest};
use serde_json::{Value, json};

on_each_broker! {
    an_unknown_field_or_a_wrong_type_is_named,
    json_is_read_strictly,
    cbor_is_read_strictly,
    an_id_has_1_to_64_bytes_and_is_echoed,
    programs_run_by_name_on_either_topic,
    limits_are_unsigned_64_bit_integers,
}

/// An unknown field or a wrong type is `malformed`, with the field's name. Exactly one of `module`, `digest`,
/// `program`, `source`, `files` is present.
async fn an_unknown_field_or_a_wrong_type_is_named(deployment: Deployment) -> Result<()> {
    let mut device = deployment.device(Version::V5, "fields").await?;
    let module = envelope::bytes(guest::module("hello")?);
    let digest = format!("sha256:{}", "0".repeat(64));
    for (request, named) in [
        (json!({ "module": module, "colour": "red" }), "colour"),
        (json!({ "module": module, "Args": [] }), "Args"),
        (json!({ "module": module, "args": "5 7" }), "args"),
        (json!({ "module": module, "args": ["5", 7] }), "args"),
        (json!({ "module": module, "env": ["A=1"] }), "env"),
        (json!({ "module": module, "env": { "A": 1 } }), "env"),
        (json!({ "module": module, "fuel": "5" }), "fuel"),
        (json!({ "module": module, "fuel": 1.5 }), "fuel"),
        (json!({ "module": module, "memory": -1 }), "memory"),
        (json!({ "module": module, "timeout_ms": null }), "timeout_ms"),
        (json!({ "module": module, "reply": "twice" }), "reply"),
        (json!({ "module": module, "reply": true }), "reply"),
        (json!({ "module": module, "id": "" }), "id"),
        (json!({ "module": module, "id": 7 }), "id"),
        (json!({ "module": module, "id": "x".repeat(65) }), "id"),
        (json!({ "module": module, "makefile": "all:" }), "makefile"),
        (json!({ "module": module, "name": "n" }), "name"),
        (json!({ "module": module, "target": "t" }), "target"),
        (json!({ "program": ["add"] }), "program"),
        (json!({ "digest": "sha256:12" }), "digest"),
        (json!({ "digest": "0".repeat(64) }), "digest"),
        (json!({ "digest": digest.replace("sha256", "sha512") }), "digest"),
        (json!({ "digest": 5 }), "digest"),
        (json!({ "source": 5, "makefile": "all:" }), "source"),
        (json!({ "source": "int main;" }), "makefile"),
        (json!({ "source": "int main;", "makefile": ["all:"] }), "makefile"),
        (json!({ "source": "int main;", "makefile": "all:", "name": 5 }), "name"),
        (json!({ "module": module, "program": "add" }), "program"),
        (json!({ "program": "add", "digest": digest }), "digest"),
        (json!({ "program": "add", "source": "int main;", "makefile": "all:" }), "source"),
        (json!({ "args": ["5"] }), "module"),
        (json!({}), "program"),
    ] {
        let answer = envelope::read(&device.ask("inputCode/fields", request.to_string()).await?)?;
        refused_in_envelope(answer, "malformed", named).with_context(|| request.to_string())?;
        let answer = cbor::read(&device.ask("inputCode/fields", cbor::write(&request)?).await?)?;
        refused_in_envelope(answer, "malformed", named).with_context(|| format!("in CBOR: {request}"))?;
    }
    Ok(())
}

/// Bytes in JSON are text in base64, integers are integer literals, and no field or variable is given twice.
async fn json_is_read_strictly(deployment: Deployment) -> Result<()> {
    let mut device = deployment.device(Version::V5, "json").await?;
    for (request, named) in [
        (r#"{"module": 5}"#, "module"),
        (r#"{"module": "not base64!"}"#, "module"),
        (r#"{"program": "add", "stdin": {}}"#, "stdin"),
        (r#"{"program": "add", "stdin": [65]}"#, "stdin"),
        (r#"{"program": "add", "program": "add"}"#, "program"),
        (r#"{"program": "add", "fuel": 5000000, "fuel": 5000000}"#, "fuel"),
        (r#"{"program": "add", "id": "a", "id": "b"}"#, "id"),
        (r#"{"program": "add", "env": {"A": "1", "A": "1"}}"#, "A"),
        (r#"{"program": "add", "fuel": 1e3}"#, "fuel"),
        (r#"{"program": "add", "fuel": 1000.0}"#, "fuel"),
        (r#"{"program": "add", "fuel": 18446744073709551616}"#, "fuel"),
        (r#"{"program": "add"} {}"#, ""),
        (r#"{"program": "add""#, ""),
    ] {
        let answer = envelope::read(&device.ask("inputCode/json", request).await?)?;
        refused_in_envelope(answer, "malformed", named).context(request)?;
    }
    Ok(())
}

/// Bytes in CBOR are byte strings, and no field is given twice.
async fn cbor_is_read_strictly(deployment: Deployment) -> Result<()> {
    let mut device = deployment.device(Version::V5, "cbor").await?;
    for (map, named) in [
        (&b"\xA2gprogramcaddestdindNDIK"[..], "stdin"),
        (b"\xA1fmoduledNDIK", "module"),
        (b"\xA1gprogramCadd", "program"),
        (b"\xA2gprogramcaddgprogramcadd", "program"),
        (b"\xA3gprogramcaddbidaxbidax", "id"),
        (b"\xA2gprogramcaddcenv\xA2aAa1aAa1", "A"),
        // 1.0, as a float of 16 bits.
        (b"\xA2gprogramcadddfuel\xF9\x3C\x00", "fuel"),
        (b"\xA2gprogramcadddfuel\x20", "fuel"),
    ] {
        let request = [b"\xD9\xD9\xF7", map].concat();
        let answer = cbor::read(&device.ask("inputCode/cbor", request).await?)?;
        refused_in_envelope(answer, "malformed", named).with_context(|| map.escape_ascii().to_string())?;
    }
    Ok(())
}

/// `id`: text of 1–64 bytes, echoed, also by an error; an envelope that cannot be parsed is answered with `id` null.
async fn an_id_has_1_to_64_bytes_and_is_echoed(deployment: Deployment) -> Result<()> {
    let mut device = deployment.device(Version::V311, "echo").await?;
    let longest = "ü".repeat(32);
    // What was not found is not remembered: the second request of an id is another one.
    for (id, program) in
        ["x", "Ünique 1", &longest].into_iter().flat_map(|id| [(id, "no-such-program"), (id, "add")])
    {
        let request = json!({ "id": id, "program": program });
        let answer = envelope::read(&device.ask("localCode/echo", request.to_string()).await?)?;
        assert_eq!(answer["id"], id, "{answer}");
    }
    let unparsable = envelope::read(&device.ask("inputCode/echo", " \n{").await?)?;
    assert_eq!(unparsable["id"], Value::Null, "{unparsable}");
    refused_in_envelope(unparsable, "malformed", "")
}

/// `program`: a program that the gateway has (either topic).
async fn programs_run_by_name_on_either_topic(deployment: Deployment) -> Result<()> {
    let mut device = deployment.device(Version::V5, "named").await?;
    for topic in ["localCode/named", "inputCode/named"] {
        let request = json!({ "program": "add", "args": ["3", "5"], "reply": "stdout" });
        assert_eq!(device.ask(topic, request.to_string()).await?.text(), "8\n");
        let request = json!({ "program": "no-such-program" });
        let answer = envelope::read(&device.ask(topic, request.to_string()).await?)?;
        refused_in_envelope(answer, "not-found", "no-such-program")?;
    }
    Ok(())
}

/// `fuel`, `memory`, `timeout_ms`: unsigned 64-bit integers, the largest among them.
async fn limits_are_unsigned_64_bit_integers(deployment: Deployment) -> Result<()> {
    let mut device = deployment.device(Version::V5, "limits").await?;
    let request = json!({ "program": "add", "fuel": u64::MAX, "memory": u64::MAX, "timeout_ms": u64::MAX });
    let answer = envelope::read(&device.ask("localCode/limits", request.to_string()).await?)?;
    assert_eq!(answer["status"], "ok", "{answer}");
    let answer = cbor::read(&device.ask("localCode/limits", cbor::write(&request)?).await?)?;
    assert_eq!(answer["status"], "ok", "{answer}");
    Ok(())
}
