//! Request forms: told apart by their bytes, each with what it takes.

use anyhow::{Context, Result};
use bytes::Bytes;
use offload_tests::answer::{envelope_problems, refused, refused_in_envelope};
use offload_tests::deployment::Deployment;
use offload_tests::device::{Device, Message, Properties, Version};
use offload_tests::guest::{self, Expected};
use offload_tests::on_each_broker;
use offload_tests::{cbor, envelope};
use serde_json::{Value, json};

on_each_broker! {
    a_raw_module_takes_its_arguments_and_environment_from_user_properties,
    after_a_cbor_envelope_there_is_nothing,
    ascii_white_space_may_stand_before_json,
    base64_is_of_the_standard_alphabet_and_padded,
    a_module_after_two_delimiters_goes_to_the_last_byte,
    legacy_text_has_four_parts,
    legacy_args_are_words,
    what_is_no_form_is_malformed,
    code_on_local_code_is_malformed,
    paths_of_files_are_relative_and_lead_nowhere_else,
    what_is_no_module_is_malformed,
    forms_without_an_envelope_take_id_and_limits_from_user_properties,
    properties_are_checked,
    properties_do_not_touch_envelopes,
}

/// `hello` with bytes after it that are a part of the module, but look like the delimiter of legacy text.
fn hello_with_delimiters() -> Result<Bytes> {
    let mut module = guest::module("hello")?.to_vec();
    // A custom section: 0, its length, its name and anything.
    module.extend(b"\0\x0f\x04note----5----\n");
    Ok(module.into())
}

/// The answer to a request with these user properties.
async fn ask_with(
    device: &mut Device,
    topic: &str,
    payload: impl Into<Bytes>,
    user: &[(&str, &str)],
) -> Result<Message> {
    device.publish_with(topic, payload, Properties::user(user), false).await?;
    device.message().await
}

/// Raw module: starts with the wasm magic. From MQTT 5 user properties: `arg` (repeated, in order), `env.<NAME>`.
async fn a_raw_module_takes_its_arguments_and_environment_from_user_properties(
    deployment: Deployment,
) -> Result<()> {
    let mut device = deployment.device(Version::V5, "raw").await?;
    let environment = [("env.B", "2"), ("arg", "ignored"), ("env.A", "a = b"), ("other", "ignored")];
    let answer = ask_with(&mut device, "inputCode/raw", guest::module("environment")?, &environment).await?;
    assert_eq!(answer.text(), "A=a = b\nB=2\n");
    // The other way round it would be no number of primes.
    let in_order = [("arg", "--count"), ("arg", "100")];
    let answer = ask_with(&mut device, "inputCode/raw", guest::module("primes")?, &in_order).await?;
    assert_eq!(answer.text(), "25\n");
    Ok(())
}

/// CBOR envelope: starts with the self-described CBOR tag `D9 D9 F7`, then one map, nothing after it.
async fn after_a_cbor_envelope_there_is_nothing(deployment: Deployment) -> Result<()> {
    let mut device = deployment.device(Version::V311, "cbor").await?;
    let request = cbor::write(&json!({ "program": "add", "args": ["40", "2"] }))?;
    let answer = cbor::read(&device.ask("localCode/cbor", request.clone()).await?)?;
    assert_eq!(envelope::bytes_of(&answer, "stdout")?, b"42\n");
    let tag = b"\xD9\xD9\xF7";
    for (payload, what) in [
        ([&request[..], b"\n"].concat(), "white space after it"),
        ([&request[..], &request].concat(), "an envelope after it"),
        (request[..request.len() - 1].to_vec(), "its last byte is missing"),
        (tag.to_vec(), "no map"),
        ([&tag[..], b"\x80"].concat(), "a list"),
        ([&tag[..], b"\x63add"].concat(), "text"),
    ] {
        let answer = cbor::read(&device.ask("localCode/cbor", payload).await?).context(what)?;
        assert_eq!(answer["id"], Value::Null, "{what}");
        refused_in_envelope(answer, "malformed", "").context(what)?;
    }
    // Without the tag it is no envelope, and no text either.
    refused(&device.ask("localCode/cbor", request[tag.len()..].to_vec()).await?, "malformed", "")
}

/// JSON envelope: `{` after optional ASCII white space.
async fn ascii_white_space_may_stand_before_json(deployment: Deployment) -> Result<()> {
    let mut device = deployment.device(Version::V5, "space").await?;
    for space in ["", " ", "\t", "\n", "\r", "\x0c", " \t\r\n\x0c "] {
        let request = format!("{space}{{\"program\": \"add\", \"args\": [\"1\", \"2\"]}}\n");
        for topic in ["localCode/space", "inputCode/space"] {
            let answer = envelope::read(&device.ask(topic, request.clone()).await?);
            let expected = Expected::Exit { code: 0, stdout: b"3\n".to_vec() };
            assert_eq!(envelope_problems(answer, None, &expected, Some("")), [""; 0], "{space:?}");
        }
    }
    // What is white space for others is not ASCII: words for the default program, of which it is none.
    let answer = device.ask("localCode/space", "\u{a0}{\"program\": \"add\"}").await?;
    refused(&answer, "exit", "program exited with code 1")
}

/// Byte strings are base64 (standard alphabet, padded).
async fn base64_is_of_the_standard_alphabet_and_padded(deployment: Deployment) -> Result<()> {
    let mut device = deployment.device(Version::V5, "base64").await?;
    let echo = envelope::bytes(guest::module("echo")?);
    let request = |stdin: &str| json!({ "module": echo, "stdin": stdin }).to_string();
    let answer = envelope::read(&device.ask("inputCode/base64", request("+/+/AA==")).await?)?;
    assert_eq!(envelope::bytes_of(&answer, "stdout")?, [0xFB, 0xFF, 0xBF, 0]);
    for other in ["-_-_AA==", "+/+/AA", "+/+/AA=", "+/+/AA==\n", " +/+/AA==", "+/+/AB==", "+/+/ AA==", "="] {
        let answer = envelope::read(&device.ask("inputCode/base64", request(other)).await?)?;
        refused_in_envelope(answer, "malformed", "stdin").with_context(|| format!("{other:?}"))?;
    }
    Ok(())
}

/// If what follows the second delimiter starts with the wasm magic it is, to the last byte, a module to run with those
/// args; they are split on white space.
async fn a_module_after_two_delimiters_goes_to_the_last_byte(deployment: Deployment) -> Result<()> {
    let mut device = deployment.device(Version::V311, "behind").await?;
    let payload = [b"any name----5 7----", &hello_with_delimiters()?[..]].concat();
    assert_eq!(device.ask("inputCode/behind", payload).await?.text(), "hello!\n");
    let payload = [b"----\t5\n 7 ----", &guest::module("add")?[..]].concat();
    assert_eq!(device.ask("inputCode/behind", payload).await?.text(), "12\n");
    Ok(())
}

/// Legacy text: four parts with `----` between them: name, args, source, build.
async fn legacy_text_has_four_parts(deployment: Deployment) -> Result<()> {
    let mut device = deployment.device(Version::V5, "parts").await?;
    for (payload, missing) in
        [("add----5", "source"), ("add----5----int main;", "makefile"), ("----------------", "makefile")]
    {
        refused(&device.ask("inputCode/parts", payload).await?, "malformed", missing)
            .with_context(|| payload.to_owned())?;
    }
    // On localCode it is no form of its own: words, and none of them a number.
    let answer = device.ask("localCode/parts", "add----5 7----source----gcc").await?;
    refused(&answer, "exit", "program exited with code 1")
}

/// Legacy args (`localCode` only): the argument list of the gateway's default program, split on white space.
async fn legacy_args_are_words(deployment: Deployment) -> Result<()> {
    let mut device = deployment.device(Version::V5, "words").await?;
    for (payload, sum) in [("5 7", "12\n"), ("", "0\n"), (" \t5\r\n7\n", "12\n"), ("7", "7\n")] {
        assert_eq!(device.ask("localCode/words", payload).await?.text(), sum, "{payload:?}");
    }
    Ok(())
}

/// Legacy args are UTF-8 without control characters other than white space; what is none of the forms is `malformed`.
async fn what_is_no_form_is_malformed(deployment: Deployment) -> Result<()> {
    let mut device = deployment.device(Version::V5, "formless").await?;
    for payload in [&b"5 \x00 7"[..], b"\xff\xfe", b"5 \x1b[1m", b"5\x7f"] {
        refused(&device.ask("localCode/formless", payload).await?, "malformed", "")?;
    }
    for payload in [&b""[..], b"just text", b"5 7", b"\xff\xfe", b"\0as"] {
        refused(&device.ask("inputCode/formless", payload).await?, "malformed", "")?;
    }
    Ok(())
}

/// Code on `localCode` is `malformed`.
async fn code_on_local_code_is_malformed(deployment: Deployment) -> Result<()> {
    let mut device = deployment.device(Version::V5, "code").await?;
    let module = guest::module("hello")?;
    refused(&device.ask("localCode/code", module.clone()).await?, "malformed", "")?;
    for (request, field) in [
        (json!({ "module": envelope::bytes(module) }), "module"),
        (json!({ "source": "int main(void) {}", "makefile": "gcc <name>.c -o <name>" }), "source"),
        (json!({ "files": { "a.c": "" }, "makefile": "all:" }), "files"),
    ] {
        let answer = envelope::read(&device.ask("localCode/code", request.to_string()).await?)?;
        refused_in_envelope(answer, "malformed", field)?;
    }
    Ok(())
}

/// `files`: relative paths, no `..`; `target` is such a path, too.
async fn paths_of_files_are_relative_and_lead_nowhere_else(deployment: Deployment) -> Result<()> {
    let mut device = deployment.device(Version::V5, "paths").await?;
    for path in
        ["/etc/passwd", "../a.c", "a/../../b.c", "..", ".", "a//b.c", "a/", "", "a\\b.c", "a\u{0}.c", "a\n"]
    {
        for (field, request) in [
            ("files", json!({ "files": { path: "" }, "makefile": "all:" })),
            ("target", json!({ "files": { "a.c": "" }, "makefile": "all:", "target": path })),
        ] {
            let answer = envelope::read(&device.ask("inputCode/paths", request.to_string()).await?)?;
            refused_in_envelope(answer, "malformed", &format!("{field}: "))?;
        }
    }
    for (request, field) in [
        (json!({ "files": { "a/b.c": "", "a": "" }, "makefile": "all:" }), "files.a: "),
        (json!({ "files": {}, "makefile": "all:" }), "files: "),
        (json!({ "files": { "a.c": "" } }), "makefile: "),
        (json!({ "program": "add", "target": "a" }), "target: "),
    ] {
        let answer = envelope::read(&device.ask("inputCode/paths", request.to_string()).await?)?;
        refused_in_envelope(answer, "malformed", field)?;
    }
    let twice = r#"{"files": {"a.c": "", "a.c": ""}, "makefile": "all:"}"#;
    let answer = envelope::read(&device.ask("inputCode/paths", twice).await?)?;
    refused_in_envelope(answer, "malformed", "files.a.c: ")
}

/// `malformed`: not valid wasm.
async fn what_is_no_module_is_malformed(deployment: Deployment) -> Result<()> {
    let mut device = deployment.device(Version::V5, "broken").await?;
    let module = guest::module("hello")?;
    let truncated = module.slice(..module.len() - 3);
    let garbage = Bytes::from_static(b"\0asm\x01\0\0\0 and then something else");
    for payload in [truncated, garbage, Bytes::from_static(b"\0asm")] {
        refused(&device.ask("inputCode/broken", payload).await?, "malformed", "")?;
    }
    // The gateway is none the worse for it.
    assert_eq!(device.ask("inputCode/broken", module).await?.text(), "hello!\n");
    Ok(())
}

/// Forms 1, 4 and 5 take `id`, `fuel`, `memory` (bytes) and `timeout-ms` from MQTT 5 user properties.
async fn forms_without_an_envelope_take_id_and_limits_from_user_properties(
    deployment: Deployment,
) -> Result<()> {
    let mut device = deployment.device(Version::V5, "plain").await?;
    let legacy = |module: Bytes| Bytes::from([b"name--------", &module[..]].concat());
    let (hello, grow) = (guest::module("hello")?, guest::module("grow")?);
    for (id, topic, payload, growing) in [
        ("form 1", "inputCode/plain", hello.clone(), grow.clone()),
        ("form 4", "inputCode/plain", legacy(hello), legacy(grow)),
        // The default program has a memory of one page, which is more than it may have then.
        ("form 5", "localCode/plain", "5 7".into(), "5 7".into()),
    ] {
        let limits = [("id", id), ("fuel", "1000000"), ("memory", "33554432"), ("timeout-ms", "60000")];
        let answer = ask_with(&mut device, topic, payload.clone(), &limits).await?;
        assert_eq!((answer.property("status"), answer.property("id")), (Some("ok"), Some(id)));
        for (limit, value, kind) in
            [("fuel", "1", "fuel"), ("timeout-ms", "0", "expired"), ("memory", "65535", "memory")]
        {
            let answer = ask_with(&mut device, topic, growing.clone(), &[(limit, value)]).await?;
            refused(&answer, kind, "").with_context(|| format!("{id}: {limit}"))?;
        }
    }
    Ok(())
}

/// Any of these given twice, or one `env.<NAME>` given twice, is `malformed`; others are nobody's business.
async fn properties_are_checked(deployment: Deployment) -> Result<()> {
    let mut device = deployment.device(Version::V5, "checked").await?;
    let module = guest::module("hello")?;
    for (properties, named) in [
        (vec![("fuel", "1"), ("fuel", "1")], "fuel"),
        (vec![("memory", "65536"), ("arg", "x"), ("memory", "65536")], "memory"),
        (vec![("timeout-ms", "9"), ("timeout-ms", "8")], "timeout-ms"),
        (vec![("id", "a"), ("id", "b")], "id"),
        (vec![("env.A", "1"), ("env.A", "2")], "env.A"),
        (vec![("memory", "64MiB")], "memory"),
        (vec![("timeout-ms", "-1")], "timeout-ms"),
        (vec![("id", "")], "id"),
    ] {
        let answer = ask_with(&mut device, "inputCode/checked", module.clone(), &properties).await?;
        refused(&answer, "malformed", named).with_context(|| format!("{properties:?}"))?;
    }
    let others = [("id", "mine"), ("colour", "red"), ("colour", "blue")];
    let answer = ask_with(&mut device, "inputCode/checked", module, &others).await?;
    assert_eq!((answer.text().as_str(), answer.property("id")), ("hello!\n", Some("mine")));
    Ok(())
}

/// With an envelope, properties of these names are ignored.
async fn properties_do_not_touch_envelopes(deployment: Deployment) -> Result<()> {
    let mut device = deployment.device(Version::V5, "both").await?;
    let request = json!({ "id": "inner", "program": "add", "args": ["1"] });
    let ignored = [
        ("id", "outer"),
        ("fuel", "1"),
        ("memory", "no number"),
        ("timeout-ms", "0"),
        ("arg", "5"),
        ("env.A", "1"),
        ("fuel", "2"),
    ];
    let expected = Expected::Exit { code: 0, stdout: b"1\n".to_vec() };
    let answer = ask_with(&mut device, "localCode/both", request.to_string(), &ignored).await?;
    assert_eq!(envelope_problems(envelope::read(&answer), Some("inner"), &expected, Some("")), [""; 0]);
    let answer = ask_with(&mut device, "localCode/both", cbor::write(&request)?, &ignored).await?;
    assert_eq!(envelope_problems(cbor::read(&answer), Some("inner"), &expected, Some("")), [""; 0]);
    Ok(())
}
