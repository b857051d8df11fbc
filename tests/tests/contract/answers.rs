//! Answers: their forms, where they go, what they carry, and how large they may be.

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use offload_tests::answer::{refused, refused_in_envelope};
use offload_tests::deployment::Deployment;
use offload_tests::device::{Device, Message, Options, Properties, Version};
use offload_tests::on_each_broker;
use offload_tests::{cbor, envelope, guest};
use serde_json::{Value, json};

use crate::guests::prints_and;

const CONFIGURATION: &str = "[answers]\nresponse_topics = [\"replies/+/out\", \"#\"]\n\
                             [[answers.max]]\ntopic = \"result/tiny/#\"\nbytes = 200\n";

on_each_broker! {
    without_an_envelope_an_answer_is_stdout_or_one_line with CONFIGURATION,
    an_error_line_is_short_and_clean with CONFIGURATION,
    an_envelope_has_every_field with CONFIGURATION,
    an_unreadable_envelope_is_answered_in_its_encoding with CONFIGURATION,
    answers_carry_user_properties with CONFIGURATION,
    an_answer_goes_to_a_permitted_response_topic with CONFIGURATION,
    response_topics_that_nothing_permits_are_unauthorized with CONFIGURATION,
    an_answer_over_its_topics_maximum_is_replaced with CONFIGURATION,
    by_default_only_the_own_result_topic_is_permitted,
}

/// Stdout bytes, nothing else, whatever the exit code, unless that is non-zero and stdout is empty. Else one line,
/// stdout dropped. The same in every form without an envelope, and by `reply: stdout`.
async fn without_an_envelope_an_answer_is_stdout_or_one_line(deployment: Deployment) -> Result<()> {
    let cases = [
        (prints_and("done", "")?, "done"),
        (prints_and("", "")?, ""),
        (prints_and("half", "(call $exit (i32.const 3))")?, "half"),
        (prints_and("", "(call $exit (i32.const 3))")?, "error: exit: program exited with code 3"),
        (prints_and("dropped", "unreachable")?, "error: trap: "),
    ];
    for version in [Version::V311, Version::V5] {
        let mut device = deployment.device(version, "line").await?;
        for (module, expected) in &cases {
            let in_json = json!({ "module": envelope::bytes(module), "reply": "stdout" });
            for request in [
                module.clone(),
                [b"name--------", &module[..]].concat().into(),
                in_json.to_string().into(),
                cbor::write(&in_json)?.into(),
            ] {
                let answer = device.ask("inputCode/line", request).await?.text();
                let is_as_expected =
                    if expected.ends_with(' ') { answer.starts_with(expected) } else { answer == *expected };
                ensure!(is_as_expected && !answer.contains("dropped"), "{answer:?}, expected {expected:?}");
            }
        }
    }
    Ok(())
}

/// One line, `error: <kind>: <message>`, at most 200 bytes, control characters replaced, no line end.
async fn an_error_line_is_short_and_clean(deployment: Deployment) -> Result<()> {
    let mut device = deployment.device(Version::V5, "clean").await?;
    for name in
        ["first\nsecond\r\n\u{1b}[31m\u{7}\u{0}\u{85}".to_owned(), "é\n".repeat(500), "x".repeat(5000)]
    {
        let request = json!({ "program": name, "reply": "stdout" });
        let answer = device.ask("localCode/clean", request.to_string()).await?;
        // Length, control characters and line ends are what this looks at.
        refused(&answer, "not-found", "")?;
        ensure!(answer.text().starts_with("error: not-found: "), "{}", answer.text());
    }
    Ok(())
}

/// Envelope in the same encoding: `id` (or null), `status`, `exit_code`, `stdout`, `stderr`, `error` (`kind`,
/// `message`), `fuel`, `run_us`, `queue_us`; all of them, always.
async fn an_envelope_has_every_field(deployment: Deployment) -> Result<()> {
    let mut device = deployment.device(Version::V311, "full").await?;
    let exits = envelope::bytes(prints_and("half", "(call $exit (i32.const 3))")?);
    let traps = envelope::bytes(prints_and("half", "unreachable")?);
    for (request, expected) in [
        (json!({ "program": "add", "id": "a" }), json!(["a", "ok", 0, "MAo=", null])),
        (json!({ "module": exits }), json!([null, "exit", 3, "aGFsZg==", null])),
        (json!({ "module": traps, "id": "t" }), json!(["t", "error", null, "aGFsZg==", "trap"])),
        (json!({ "program": "?" }), json!([null, "error", null, "", "not-found"])),
    ] {
        let in_json = envelope::read(&device.ask("inputCode/full", request.to_string()).await?)?;
        // With its tag, which the reader insists on. The same `id` would be a repetition.
        let again = device.ask("inputCode/full", cbor::write(&request)?).await?;
        for answer in [in_json, cbor::read(&again)?] {
            let fields: Vec<&str> =
                answer.as_object().context("an object")?.keys().map(String::as_str).collect();
            let all =
                ["error", "exit_code", "fuel", "id", "queue_us", "run_us", "status", "stderr", "stdout"];
            assert_eq!(fields, all);
            let error = &answer["error"];
            let found =
                json!([answer["id"], answer["status"], answer["exit_code"], answer["stdout"], error["kind"]]);
            assert_eq!(found, expected, "{answer}");
            assert_eq!(error["message"].is_string(), !error.is_null(), "{answer}");
            for number in ["fuel", "run_us", "queue_us"] {
                ensure!(answer[number].is_u64(), "{number}: {answer}");
            }
        }
    }
    Ok(())
}

/// An envelope that cannot be parsed is answered so too, with `id` null.
async fn an_unreadable_envelope_is_answered_in_its_encoding(deployment: Deployment) -> Result<()> {
    let mut device = deployment.device(Version::V5, "unreadable").await?;
    for topic in ["localCode/unreadable", "inputCode/unreadable"] {
        let answer = envelope::read(&device.ask(topic, r#"{"id": "a", "reply": "stdout""#).await?)?;
        assert_eq!(answer["id"], Value::Null);
        refused_in_envelope(answer, "malformed", "")?;
        let answer = cbor::read(&device.ask(topic, &b"\xD9\xD9\xF7\xA2bidaa"[..]).await?)?;
        assert_eq!(answer["id"], Value::Null);
        refused_in_envelope(answer, "malformed", "")?;
    }
    Ok(())
}

/// Answers carry user properties `status`, `exit-code`, `error-kind`, `fuel`, `run-us`, `id`, whatever their form.
async fn answers_carry_user_properties(deployment: Deployment) -> Result<()> {
    let mut device = deployment.device(Version::V5, "told").await?;
    let exits = envelope::bytes(prints_and("half", "(call $exit (i32.const 3))")?);
    for reply in ["envelope", "stdout"] {
        for (request, expected) in [
            (json!({ "program": "add", "id": "a" }), [Some("ok"), Some("0"), None, Some("a")]),
            (json!({ "module": exits }), [Some("exit"), Some("3"), None, None]),
            (json!({ "program": "?", "id": "b" }), [Some("error"), None, Some("not-found"), Some("b")]),
        ] {
            let mut request = request;
            request["reply"] = reply.into();
            let answer = device.ask("inputCode/told", request.to_string()).await?;
            let found = ["status", "exit-code", "error-kind", "id"].map(|name| answer.property(name));
            assert_eq!(found, expected, "{request}");
            for number in ["fuel", "run-us"] {
                let value = answer.property(number).with_context(|| number.to_owned())?;
                value.parse::<u64>().with_context(|| format!("{number}: {value}"))?;
            }
            if reply == "envelope" {
                let fuel = envelope::read(&answer)?["fuel"].to_string();
                assert_eq!(answer.property("fuel"), Some(fuel.as_str()));
            }
        }
    }
    let answer = device.ask("localCode/told", "5 7").await?;
    ensure!(answer.property("fuel").is_some_and(|fuel| fuel != "0"), "{:?}", answer.user_properties);
    Ok(())
}

/// A request with this Response Topic and this Correlation Data.
async fn ask_for(device: &mut Device, topic: &str, data: &'static [u8]) -> Result<Message> {
    let properties = Properties {
        response_topic: Some(topic.to_owned()),
        correlation_data: Some(Bytes::from_static(data)),
        ..Properties::default()
    };
    device.publish_with("localCode/responses", "3 5", properties, false).await?;
    device.message().await
}

/// Response Topic is honoured when it is `result/<id>`, below it, or in a pattern that the configuration allows.
/// Correlation Data is returned.
async fn an_answer_goes_to_a_permitted_response_topic(deployment: Deployment) -> Result<()> {
    let mut device = Device::connect(deployment.address(), Version::V5, "responses").await?;
    device.subscribe("result/responses/#").await?;
    device.subscribe("replies/#").await?;
    for topic in ["result/responses", "result/responses/below/it", "replies/it/out"] {
        let answer = ask_for(&mut device, topic, &[0, 255, b'x']).await?;
        assert_eq!((answer.topic.as_str(), answer.text().as_str()), (topic, "8\n"));
        assert_eq!(answer.correlation_data.as_deref(), Some(&[0, 255, b'x'][..]));
    }
    Ok(())
}

/// Any other (request topics, `$…`, `gateway/…`, wildcards) is answered `unauthorized` on `result/<id>`; no pattern
/// permits these.
async fn response_topics_that_nothing_permits_are_unauthorized(deployment: Deployment) -> Result<()> {
    let mut device = Device::connect(deployment.address(), Version::V5, "responses").await?;
    device.subscribe("result/responses").await?;
    for topic in [
        "localCode/responses",
        "inputCode/x",
        "$SYS/x",
        "$share/g/x",
        "gateway/x/status",
        "gateway",
        "result/+",
        "result/responses/#",
    ] {
        let answer = ask_for(&mut device, topic, b"refused").await?;
        assert_eq!(answer.topic, "result/responses", "{topic}");
        assert_eq!(answer.correlation_data.as_deref(), Some(&b"refused"[..]));
        refused(&answer, "unauthorized", "").with_context(|| topic.to_owned())?;
    }
    Ok(())
}

/// Without a pattern another one's `result/…` and everything else is `unauthorized` too.
async fn by_default_only_the_own_result_topic_is_permitted(deployment: Deployment) -> Result<()> {
    let mut device = Device::connect(deployment.address(), Version::V5, "responses").await?;
    device.subscribe("result/responses").await?;
    for topic in ["result/other", "result/responses2", "result/", "replies/it/out", "anything"] {
        let answer = ask_for(&mut device, topic, b"refused").await?;
        assert_eq!(answer.topic, "result/responses", "{topic}");
        refused(&answer, "unauthorized", "").with_context(|| topic.to_owned())?;
    }
    Ok(())
}

/// An answer that would exceed the configured `max_answer` of its topic (for 3.1.1) is replaced by `error: output` that
/// fits, in the form that was asked for.
async fn an_answer_over_its_topics_maximum_is_replaced(deployment: Deployment) -> Result<()> {
    let options = Options { max_packet: 200, ..Options::default() };
    let mut tiny = Device::connect_with(deployment.address(), Version::V311, "tiny", options).await?;
    tiny.subscribe("result/tiny/#").await?;
    // A device with more room sends it in its name: the answer is what matters.
    let sender = Device::connect(deployment.address(), Version::V5, "sender").await?;
    let arguments = Properties::user(&[("arg", "1000")]);
    sender.publish_with("inputCode/tiny", guest::module("primes")?, arguments, false).await?;
    refused(&tiny.message().await?, "output", "")?;
    let request = json!({ "module": envelope::bytes(guest::module("primes")?), "args": ["1000"] });
    sender.publish("inputCode/tiny", request.to_string()).await?;
    refused_in_envelope(envelope::read(&tiny.message().await?)?, "output", "")?;
    // What fits is left alone.
    assert_eq!(tiny.ask("localCode/tiny", "5 7").await?.text(), "12\n");
    Ok(())
}

/// An answer that would exceed the receiver's Maximum Packet Size (MQTT 5) is replaced by `error: output` that fits.
/// Only the embedded broker knows its receivers.
#[tokio::test]
async fn an_answer_over_the_receivers_maximum_packet_size_is_replaced() -> Result<()> {
    let deployment = Deployment::embedded("").await?;
    let options = Options { max_packet: 400, ..Options::default() };
    let mut small = Device::connect_with(deployment.address(), Version::V5, "small", options).await?;
    small.subscribe("result/small").await?;
    let sender = Device::connect(deployment.address(), Version::V5, "sender").await?;
    let arguments = Properties::user(&[("arg", "1000")]);
    sender.publish_with("inputCode/small", guest::module("primes")?, arguments, false).await?;
    let answer = small.message().await?;
    refused(&answer, "output", "")?;
    assert_eq!(answer.property("error-kind"), Some("output"));
    let request = json!({ "module": envelope::bytes(guest::module("primes")?), "args": ["1000"] });
    sender.publish("inputCode/small", request.to_string()).await?;
    refused_in_envelope(envelope::read(&small.message().await?)?, "output", "")?;
    assert_eq!(small.ask("localCode/small", "5 7").await?.text(), "12\n");
    Ok(())
}
