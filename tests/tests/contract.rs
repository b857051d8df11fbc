//! `docs/protocol.md`, line by line, where the guests' cases do not show it: each test names what it is about, and
//! runs on each broker that it applies to.

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use offload_tests::answer::{envelope_problems, error_line_problems};
use offload_tests::deployment::Deployment;
use offload_tests::device::{Device, Message, Options, Properties, PubAckReason, Version};
use offload_tests::envelope;
use offload_tests::guest::{self, Expected};
use serde_json::{Value, json};

/// The same test on the gateway's own broker and on Mosquitto.
macro_rules! on_each_broker {
    ($($(#[$doc:meta])* $name:ident)*) => {
        $(mod $name {
            $(#[$doc])*
            #[tokio::test]
            async fn on_the_embedded_broker() -> anyhow::Result<()> {
                super::$name(&super::Deployment::embedded(super::CONFIGURATION).await?).await
            }

            $(#[$doc])*
            #[tokio::test]
            async fn on_mosquitto() -> anyhow::Result<()> {
                super::$name(&super::Deployment::on_mosquitto(super::CONFIGURATION).await?).await
            }
        })*
    };
}

/// Small limits, so that it takes little to be over them.
const CONFIGURATION: &str = "[limits]\nmodule = \"1MiB\"\nstdin = \"100KB\"\nargs = 20\nenv = 5\n";

on_each_broker! {
    reply_ids_hold_everything_after_the_first_slash
    the_bare_topic_is_ignored
    legacy_args_are_words
    what_is_no_form_is_malformed
    envelopes_are_checked_to_the_field
    envelope_errors_repeat_the_id
    code_on_local_code_is_malformed
    programs_run_by_name
    properties_are_checked
    properties_do_not_touch_envelopes
    response_topic_and_correlation_data
    what_is_over_a_limit_is_too_large
    limits_cannot_be_raised
    time_that_is_up_before_the_start_is_expired
    what_is_no_module_is_malformed
    answers_say_what_was_used
}

/// Kind and field of a request that is refused in line form.
fn refused(answer: &Message, kind: &str, named: &str) -> Result<()> {
    let problems = error_line_problems(&answer.payload, kind);
    ensure!(problems.is_empty(), "{problems:?}");
    ensure!(answer.text().contains(named), "{named:?} is not named: {}", answer.text());
    Ok(())
}

/// Kind and field of a request that is refused in an envelope.
fn refused_in_envelope(answer: &Message, kind: &str, named: &str) -> Result<()> {
    let problems = envelope_problems(
        envelope::read(answer),
        envelope::read(answer)?["id"].as_str(),
        &Expected::Error(kind.into()),
        None,
    );
    ensure!(problems.is_empty(), "{problems:?}");
    let message = envelope::read(answer)?["error"]["message"].as_str().unwrap_or_default().to_owned();
    ensure!(message.contains(named), "{named:?} is not named: {message}");
    Ok(())
}

async fn reply_ids_hold_everything_after_the_first_slash(deployment: &Deployment) -> Result<()> {
    for id in ["plain", "a/b/c", "/", "mit Leerzeichen é", "trailing/"] {
        let mut device = deployment.device(Version::V311, id).await?;
        let answer = device.ask(&format!("localCode/{id}"), "3 5").await?;
        assert_eq!((answer.topic, answer.payload), (format!("result/{id}"), Bytes::from("8\n")));
    }
    Ok(())
}

async fn the_bare_topic_is_ignored(deployment: &Deployment) -> Result<()> {
    let mut device = Device::connect(deployment.address(), Version::V311, "bare").await?;
    device.subscribe("result/#").await?;
    device.publish("localCode", "1 1").await?;
    device.publish("inputCode", guest::module("hello")?).await?;
    let answer = device.ask("localCode/bare", "2 2").await?;
    assert_eq!((answer.topic.as_str(), answer.text().as_str()), ("result/bare", "4\n"));
    Ok(())
}

async fn legacy_args_are_words(deployment: &Deployment) -> Result<()> {
    let mut device = deployment.device(Version::V5, "words").await?;
    for (payload, sum) in [("5 7", "12\n"), ("", "0\n"), (" \t5\r\n7\n", "12\n"), ("7", "7\n")] {
        assert_eq!(device.ask("localCode/words", payload).await?.text(), sum, "{payload:?}");
    }
    let limited = Properties::user(&[("fuel", "1")]);
    device.publish_with("localCode/words", "5 7", limited, false).await?;
    refused(&device.message().await?, "fuel", "")?;
    Ok(())
}

async fn what_is_no_form_is_malformed(deployment: &Deployment) -> Result<()> {
    let mut device = deployment.device(Version::V5, "formless").await?;
    for payload in [&b"5 \x00 7"[..], b"\xff\xfe", b"5 \x1b[1m", b"5\x7f"] {
        refused(&device.ask("localCode/formless", payload).await?, "malformed", "")?;
    }
    for payload in [&b""[..], b"just text", b"\xff\xfe", b"\0as"] {
        refused(&device.ask("inputCode/formless", payload).await?, "malformed", "")?;
    }
    Ok(())
}

async fn envelopes_are_checked_to_the_field(deployment: &Deployment) -> Result<()> {
    let mut device = deployment.device(Version::V5, "fields").await?;
    let module = envelope::bytes(guest::module("hello")?);
    for (request, named) in [
        (json!({ "module": module, "colour": "red" }), "colour"),
        (json!({ "module": 5 }), "module"),
        (json!({ "module": "not base64!" }), "module"),
        (json!({ "module": "AGFzbQ=" }), "module"),
        (json!({ "module": module, "args": "5 7" }), "args"),
        (json!({ "module": module, "args": ["5", 7] }), "args"),
        (json!({ "module": module, "env": ["A=1"] }), "env"),
        (json!({ "module": module, "env": { "A": 1 } }), "env"),
        (json!({ "module": module, "stdin": {} }), "stdin"),
        (json!({ "module": module, "fuel": "5" }), "fuel"),
        (json!({ "module": module, "fuel": 1.5 }), "fuel"),
        (json!({ "module": module, "memory": -1 }), "memory"),
        (json!({ "module": module, "timeout_ms": null }), "timeout_ms"),
        (json!({ "module": module, "reply": "twice" }), "reply"),
        (json!({ "module": module, "id": "" }), "id"),
        (json!({ "module": module, "id": "x".repeat(65) }), "id"),
        (json!({ "module": module, "program": "add" }), "program"),
        (json!({ "args": ["5"] }), "module"),
    ] {
        let answer = device.ask("inputCode/fields", request.to_string()).await?;
        refused_in_envelope(&answer, "malformed", named).with_context(|| request.to_string())?;
    }
    for (request, named) in [
        (r#"{"program": "add", "program": "add"}"#, "program"),
        (r#"{"program": "add", "env": {"A": "1", "A": "1"}}"#, "A"),
        (r#"{"program": "add", "fuel": 1e3}"#, "fuel"),
        (r#"{"program": "add", "fuel": 18446744073709551616}"#, "fuel"),
        (r#"{"program": "add"} {}"#, ""),
        (r#"{"program": "add""#, ""),
    ] {
        let answer = device.ask("localCode/fields", request).await?;
        refused_in_envelope(&answer, "malformed", named).context(request)?;
    }
    Ok(())
}

async fn envelope_errors_repeat_the_id(deployment: &Deployment) -> Result<()> {
    let mut device = deployment.device(Version::V311, "echo").await?;
    let unparsable = envelope::read(&device.ask("inputCode/echo", " \n{").await?)?;
    assert_eq!(unparsable["id"], Value::Null, "{unparsable}");
    let request = json!({ "id": "Ünique 1", "program": "no-such-program" });
    let answer = envelope::read(&device.ask("localCode/echo", request.to_string()).await?)?;
    assert_eq!(answer["id"], "Ünique 1", "{answer}");
    Ok(())
}

async fn code_on_local_code_is_malformed(deployment: &Deployment) -> Result<()> {
    let mut device = deployment.device(Version::V5, "code").await?;
    let module = guest::module("hello")?;
    refused(&device.ask("localCode/code", module.clone()).await?, "malformed", "")?;
    let request = json!({ "module": envelope::bytes(module) });
    refused_in_envelope(&device.ask("localCode/code", request.to_string()).await?, "malformed", "module")
}

async fn programs_run_by_name(deployment: &Deployment) -> Result<()> {
    let mut device = deployment.device(Version::V5, "named").await?;
    for topic in ["localCode/named", "inputCode/named"] {
        let request = json!({ "program": "add", "args": ["3", "5"], "reply": "stdout" });
        assert_eq!(device.ask(topic, request.to_string()).await?.text(), "8\n");
        let request = json!({ "program": "no-such-program" });
        refused_in_envelope(&device.ask(topic, request.to_string()).await?, "not-found", "no-such-program")?;
    }
    Ok(())
}

async fn properties_are_checked(deployment: &Deployment) -> Result<()> {
    let mut device = deployment.device(Version::V5, "checked").await?;
    let module = guest::module("hello")?;
    for (properties, named) in [
        (vec![("fuel", "1"), ("fuel", "1")], "fuel"),
        (vec![("id", "a"), ("id", "b")], "id"),
        (vec![("env.A", "1"), ("env.A", "2")], "env.A"),
        (vec![("memory", "64MiB")], "memory"),
        (vec![("timeout-ms", "-1")], "timeout-ms"),
        (vec![("id", "")], "id"),
    ] {
        device
            .publish_with("inputCode/checked", module.clone(), Properties::user(&properties), false)
            .await?;
        refused(&device.message().await?, "malformed", named).with_context(|| format!("{properties:?}"))?;
    }
    let others = Properties::user(&[("id", "mine"), ("colour", "red"), ("colour", "blue")]);
    device.publish_with("inputCode/checked", module, others, false).await?;
    let answer = device.message().await?;
    assert_eq!((answer.text().as_str(), answer.property("id")), ("hello!\n", Some("mine")));
    Ok(())
}

async fn properties_do_not_touch_envelopes(deployment: &Deployment) -> Result<()> {
    let mut device = deployment.device(Version::V5, "both").await?;
    let request = json!({ "id": "inner", "program": "add", "args": ["1"] });
    let properties = Properties::user(&[("id", "outer"), ("fuel", "1"), ("arg", "5"), ("fuel", "2")]);
    device.publish_with("localCode/both", request.to_string(), properties, false).await?;
    let answer = device.message().await?;
    let expected = Expected::Exit { code: 0, stdout: b"1\n".to_vec() };
    assert_eq!(
        envelope_problems(envelope::read(&answer), Some("inner"), &expected, Some("")),
        Vec::<String>::new()
    );
    Ok(())
}

async fn response_topic_and_correlation_data(deployment: &Deployment) -> Result<()> {
    let mut device = Device::connect(deployment.address(), Version::V5, "responses").await?;
    device.subscribe("result/responses/#").await?;
    let ask = |response_topic: &str, data: &[u8]| {
        let correlation_data = Some(Bytes::copy_from_slice(data));
        Properties {
            response_topic: Some(response_topic.to_owned()),
            correlation_data,
            ..Properties::default()
        }
    };
    for topic in ["result/responses", "result/responses/below/it"] {
        let data = [0, 255, b'x'];
        device.publish_with("localCode/responses", "3 5", ask(topic, &data), false).await?;
        let answer = device.message().await?;
        assert_eq!((answer.topic.as_str(), answer.text().as_str()), (topic, "8\n"));
        assert_eq!(answer.correlation_data.as_deref(), Some(&data[..]));
    }
    for topic in ["result/other", "result/responses2", "localCode/responses", "gateway/x", "anything"] {
        device.publish_with("localCode/responses", "3 5", ask(topic, b"refused"), false).await?;
        let answer = device.message().await?;
        assert_eq!(answer.topic, "result/responses");
        assert_eq!(answer.correlation_data.as_deref(), Some(&b"refused"[..]));
        refused(&answer, "unauthorized", "").with_context(|| topic.to_owned())?;
    }
    Ok(())
}

async fn what_is_over_a_limit_is_too_large(deployment: &Deployment) -> Result<()> {
    let mut device = deployment.device(Version::V5, "large").await?;
    let mut module = guest::module("hello")?.to_vec();
    module.resize(1_100_000, 0);
    let answer = device.ask("inputCode/large", module).await?;
    refused(&answer, "too-large", "1100000")?;
    refused(&answer, "too-large", "1048576")?;
    let numbers = vec!["1"; 21];
    let answer = device.ask("localCode/large", numbers.join(" ")).await?;
    refused(&answer, "too-large", "21")?;
    refused(&answer, "too-large", "20")?;
    let stdin = envelope::bytes(vec![b'x'; 100_001]);
    let request = json!({ "program": "add", "stdin": stdin });
    refused_in_envelope(&device.ask("localCode/large", request.to_string()).await?, "too-large", "100001")?;
    let env: serde_json::Map<String, Value> = (0..6).map(|n| (format!("V{n}"), "".into())).collect();
    let request = json!({ "program": "add", "env": env });
    refused_in_envelope(&device.ask("localCode/large", request.to_string()).await?, "too-large", "6")
}

async fn limits_cannot_be_raised(deployment: &Deployment) -> Result<()> {
    let mut device = deployment.device(Version::V5, "raised").await?;
    let limits = Properties::user(&[("memory", "18446744073709551615"), ("fuel", "18446744073709551615")]);
    device.publish_with("inputCode/raised", guest::module("grow")?, limits, false).await?;
    refused(&device.message().await?, "memory", "")
}

async fn time_that_is_up_before_the_start_is_expired(deployment: &Deployment) -> Result<()> {
    let mut device = deployment.device(Version::V5, "late").await?;
    let request = json!({ "program": "add", "timeout_ms": 0 });
    refused_in_envelope(&device.ask("localCode/late", request.to_string()).await?, "expired", "")
}

async fn what_is_no_module_is_malformed(deployment: &Deployment) -> Result<()> {
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

async fn answers_say_what_was_used(deployment: &Deployment) -> Result<()> {
    let mut device = deployment.device(Version::V5, "used").await?;
    let request = json!({ "program": "add", "args": ["1", "2"] });
    let answer = device.ask("localCode/used", request.to_string()).await?;
    let used = envelope::read(&answer)?["fuel"].as_u64().context("no fuel")?;
    assert!(used > 0);
    assert_eq!(answer.property("fuel"), Some(used.to_string().as_str()));
    Ok(())
}

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
    Ok(())
}

#[tokio::test]
async fn a_retained_request_is_run_once_by_the_embedded_broker() -> Result<()> {
    let deployment = Deployment::embedded("").await?;
    let mut device = deployment.device(Version::V5, "retaining").await?;
    device.publish_with("localCode/retaining", "1 1", Properties::default(), true).await?;
    assert_eq!(device.message().await?.text(), "2\n");
    // Nothing was stored for those who come later.
    device.subscribe("localCode/#").await?;
    assert_eq!(device.ask("localCode/retaining", "2 2").await?.text(), "4\n");
    assert!(device.message_there().is_none());
    Ok(())
}

#[tokio::test]
async fn only_the_gateway_publishes_results() -> Result<()> {
    let deployment = Deployment::embedded("").await?;
    let mut honest = deployment.device(Version::V5, "honest").await?;
    let mut forger = Device::connect(deployment.address(), Version::V5, "forger").await?;
    for topic in ["result/honest", "gateway/box/status"] {
        forger.publish(topic, "forged").await?;
        assert_eq!(forger.acknowledged().await?, PubAckReason::NotAuthorized, "{topic}");
    }
    let old = Device::connect(deployment.address(), Version::V311, "old-forger").await?;
    old.publish("result/honest", "forged").await?;
    assert_eq!(honest.ask("localCode/honest", "3 5").await?.text(), "8\n");
    Ok(())
}

#[tokio::test]
async fn a_full_queue_answers_busy() -> Result<()> {
    const FLOOD: usize = 20;
    let configuration = "[workers]\ncount = 1\nslots = 1\n[queue]\nper_principal = 2\ntotal = 4\n";
    let deployment = Deployment::embedded(configuration).await?;
    let mut device = deployment.device(Version::V5, "flood").await?;
    let module = envelope::bytes(guest::module("sleep")?);
    for _ in 0..FLOOD {
        let request = json!({ "module": module, "args": ["300"] });
        device.publish("inputCode/flood", request.to_string()).await?;
    }
    let mut ran = 0;
    let mut busy = 0;
    for _ in 0..FLOOD {
        // The message itself is acknowledged, whatever the answer.
        assert_eq!(device.acknowledged().await?, PubAckReason::Success);
        let answer = envelope::read(&device.message().await?)?;
        match answer["status"].as_str() {
            Some("ok") => ran += 1,
            _ if envelope::error_kind(&answer) == "busy" => busy += 1,
            _ => panic!("{answer}"),
        }
    }
    assert!(ran > 0 && busy > 0, "{ran} ran, {busy} were refused");
    Ok(())
}
