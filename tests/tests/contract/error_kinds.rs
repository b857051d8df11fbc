//! The kinds of errors, each made once in either form of answer. Those of requests that are wrong in themselves
//! (`malformed`, `not-found`, `too-large`, `unauthorized`) and of time (`expired`, `timeout`) have files of their own,
//! and what only source has (`build`) is in `native_source.rs`.

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use offload_tests::answer::{refused, refused_in_envelope};
use offload_tests::deployment::Deployment;
use offload_tests::device::{Device, PubAckReason, Version};
use offload_tests::on_each_broker;
use offload_tests::{envelope, guest};
use serde_json::json;

use crate::guests::prints_and;

/// Whatever is compiled has more functions than this, but for the guests that are to run.
const CONFIGURATION: &str = "[limits]\nfuel = 100_000_000\nmemory = \"1MiB\"\nstdout = \"1KiB\"\n\
                             [compiler]\nfunctions = 100\n";

on_each_broker! {
    an_internal_error_is_logged_under_its_reference,
    each_way_to_end_has_its_kind with CONFIGURATION,
    a_full_queue_answers_busy with SHORT_QUEUE,
}

/// `compile`, `exit`, `trap` (why and where), `fuel`, `memory`, `output`.
async fn each_way_to_end_has_its_kind(deployment: Deployment) -> Result<()> {
    let mut device = deployment.device(Version::V5, "kinds").await?;
    let many_functions = format!("(module {} (func (export \"_start\")))", "(func)".repeat(200));
    let many_functions: Bytes = wat::parse_str(many_functions)?.into();
    for (module, kind, words) in [
        (many_functions, "compile", "201 functions, the limit compiler.functions is 100"),
        (prints_and("", "(call $exit (i32.const 77))")?, "exit", "program exited with code 77"),
        (prints_and("lost", "unreachable")?, "trap", "unreachable"),
        (prints_and("lost", "unreachable")?, "trap", "main"),
        (guest::module("spin")?, "fuel", ""),
        (guest::module("grow")?, "memory", ""),
        (guest::module("flood")?, "output", ""),
    ] {
        let answer = device.ask("inputCode/kinds", module.clone()).await?;
        refused(&answer, kind, words)?;
        assert_eq!(answer.property("error-kind"), Some(kind));
        if kind != "exit" {
            let request = json!({ "module": envelope::bytes(&module) });
            let answer = envelope::read(&device.ask("inputCode/kinds", request.to_string()).await?)?;
            refused_in_envelope(answer, kind, words)?;
        }
    }
    Ok(())
}

/// With this there is no compiler.
const NO_COMPILER: &str = "[compiler]\nprogram = \"/bin/false\"\n";

/// `internal`: our fault; logged under a reference that the message repeats.
async fn an_internal_error_is_logged_under_its_reference(deployment: Deployment) -> Result<()> {
    // There has been one, so that the gateway's own program is compiled already.
    let Deployment { gateway, mosquitto, .. } = deployment;
    let (gateway, broker) = match &mosquitto {
        Some(mosquitto) => {
            (gateway.restart(&["--broker", &mosquitto.url()], NO_COMPILER).await?, mosquitto.address())
        }
        None => {
            let gateway = gateway.restart(&["--listen", "127.0.0.1:0"], NO_COMPILER).await?;
            let address = gateway.address()?;
            (gateway, address)
        }
    };
    let mut device = Device::connect(broker, Version::V5, "internal").await?;
    device.subscribe("result/internal").await?;
    let answer = device.ask("inputCode/internal", guest::module("hello")?).await?;
    refused(&answer, "internal", "")?;
    let text = answer.text();
    let reference = text.rsplit(' ').next().context("a reference comes last")?;
    let log = gateway.log();
    ensure!(log.contains(reference), "{reference} is not in the log: {log}");
    Ok(())
}

/// Fewer may wait than a test sends.
const SHORT_QUEUE: &str = "[workers]\ncount = 1\nslots = 1\n[queue]\nper_principal = 2\ntotal = 4\n";

async fn a_full_queue_answers_busy(deployment: Deployment) -> Result<()> {
    const FLOOD: usize = 20;
    let mut device = deployment.device(Version::V5, "flood").await?;
    let module = envelope::bytes(guest::module("sleep")?);
    let request = |id: &str| json!({ "id": id, "module": module, "args": ["300"] }).to_string();
    for number in 0..FLOOD {
        device.publish("inputCode/flood", request(&number.to_string())).await?;
    }
    let mut ran = 0;
    let mut busy = Vec::new();
    for _ in 0..FLOOD {
        assert_eq!(device.acknowledged().await?, PubAckReason::Success);
        let answer = envelope::read(&device.message().await?)?;
        if answer["status"] == "ok" {
            ran += 1;
        } else {
            busy.push(answer["id"].as_str().context("an id")?.to_owned());
            refused_in_envelope(answer, "busy", "try again after ")?;
        }
    }
    assert!(ran > 0 && !busy.is_empty(), "{ran} ran, {} were refused", busy.len());
    // It is not remembered: the same request, asked again, is run.
    let answer = envelope::read(&device.ask("inputCode/flood", request(&busy[0])).await?)?;
    assert_eq!(answer["status"], "ok", "{answer}");
    Ok(())
}
