//! Every case of every guest example, sent as a device would send it: in each form that can carry it, in each
//! version of MQTT that the form allows, through each broker.

use std::sync::Arc;

use anyhow::{Context, Result};
use bytes::Bytes;
use offload_tests::answer::{common_problems, envelope_problems, line_problems};
use offload_tests::deployment::Deployment;
use offload_tests::device::{Device, Properties, Version};
use offload_tests::envelope;
use offload_tests::guest::{self, Case, Guest};
use serde_json::{Value, json};
use tokio::task::JoinSet;

/// What guests may use where their cases say nothing: enough for all of them, and soon used up by those that take
/// what they can get.
const CONFIGURATION: &str = "[limits]\nfuel = 2_000_000_000\nmemory = \"32MiB\"\n";

#[tokio::test]
async fn every_case_on_the_embedded_broker() -> Result<()> {
    every_case(&Deployment::embedded(CONFIGURATION).await?).await
}

#[tokio::test]
async fn every_case_on_mosquitto() -> Result<()> {
    every_case(&Deployment::on_mosquitto(CONFIGURATION).await?).await
}

#[derive(Clone, Copy, Debug)]
enum Form {
    /// The module as it is; with MQTT 5 also its arguments, environment and limits.
    RawModule,
    /// A JSON envelope, answered by one.
    Envelope,
    /// A JSON envelope, answered by stdout.
    EnvelopeForStdout,
    /// Words on `localCode` for the default program, which is `add`.
    LegacyArgs,
}

/// Each on a connection of its own, all at once. All that is wrong is reported, not only the first.
async fn every_case(deployment: &Deployment) -> Result<()> {
    let guests = Arc::new(guest::all()?);
    let mut ways = JoinSet::new();
    for form in [Form::RawModule, Form::Envelope, Form::EnvelopeForStdout, Form::LegacyArgs] {
        for version in [Version::V311, Version::V5] {
            let id = format!("{form:?}-{version:?}");
            let device = deployment.device(version, &id).await?;
            ways.spawn(Way { form, version, id, device }.every_case(guests.clone()));
        }
    }
    let mut sent = 0;
    let mut problems = Vec::new();
    while let Some(report) = ways.join_next().await {
        let report = report??;
        assert!(report.sent > 0, "a way through carried no case");
        sent += report.sent;
        problems.extend(report.problems);
    }
    println!("{sent} requests");
    assert!(problems.is_empty(), "{} problems in {sent} requests:\n{}", problems.len(), problems.join("\n"));
    Ok(())
}

/// One way in which requests are made.
struct Way {
    form: Form,
    version: Version,
    /// The device's client id and reply id.
    id: String,
    device: Device,
}

#[derive(Default)]
struct Report {
    sent: usize,
    problems: Vec<String>,
}

impl Way {
    async fn every_case(mut self, guests: Arc<Vec<Guest>>) -> Result<Report> {
        let mut report = Report::default();
        for guest in guests.iter() {
            for case in &guest.cases {
                if !self.carries(guest, case) {
                    continue;
                }
                let name = format!("{}: {} ({})", guest.name, case.name, self.id);
                let problems = self.problems(guest, case).await.with_context(|| name.clone())?;
                report.problems.extend(problems.iter().map(|problem| format!("{name}: {problem}")));
                report.sent += 1;
            }
        }
        Ok(report)
    }

    fn carries(&self, guest: &Guest, case: &Case) -> bool {
        match self.form {
            Form::RawModule if self.version == Version::V5 => case.stdin().is_empty(),
            Form::RawModule => {
                case.stdin().is_empty() && case.args.is_empty() && case.env.is_empty() && !case.has_limits()
            }
            Form::Envelope | Form::EnvelopeForStdout => true,
            Form::LegacyArgs => {
                let word = |arg: &String| !arg.is_empty() && !arg.contains(char::is_whitespace);
                guest.name == "add" && case.args.iter().all(word) && !case.has_limits()
            }
        }
    }

    async fn problems(&mut self, guest: &Guest, case: &Case) -> Result<Vec<String>> {
        let topic = match self.form {
            Form::LegacyArgs => format!("localCode/{}", self.id),
            _ => format!("inputCode/{}", self.id),
        };
        let payload: Bytes = match self.form {
            Form::RawModule => guest.module.clone(),
            Form::Envelope => in_envelope(guest, case, "envelope").into(),
            Form::EnvelopeForStdout => in_envelope(guest, case, "stdout").into(),
            Form::LegacyArgs => case.args.join(" ").into(),
        };
        let properties = match (self.form, self.version) {
            (Form::RawModule, Version::V5) => in_properties(case),
            _ => Properties::default(),
        };
        self.device.publish_with(&topic, payload, properties, false).await?;
        let answer = self.device.message().await?;
        let expected = case.expected();
        let mut problems = common_problems(&answer, self.version, &expected);
        problems.extend(match self.form {
            Form::Envelope => envelope_problems(&answer, Some(&case.name), &expected, case.stderr.as_deref()),
            _ => line_problems(&answer.payload, &expected),
        });
        Ok(problems)
    }
}

/// The case's name serves as the request's id.
fn in_envelope(guest: &Guest, case: &Case, reply: &str) -> String {
    let mut request = json!({
        "id": case.name,
        "module": envelope::bytes(&guest.module),
        "args": case.args,
        "env": case.env,
        "stdin": envelope::bytes(case.stdin()),
        "reply": reply,
    });
    for (name, limit) in limits(case) {
        request[name.replace('-', "_")] = Value::from(limit);
    }
    request.to_string()
}

fn in_properties(case: &Case) -> Properties {
    let args = case.args.iter().map(|arg| ("arg".to_owned(), arg.clone()));
    let env = case.env.iter().map(|(name, value)| (format!("env.{name}"), value.clone()));
    let limits = limits(case).map(|(name, limit)| (name.to_owned(), limit.to_string()));
    Properties { user: args.chain(env).chain(limits).collect(), ..Properties::default() }
}

fn limits(case: &Case) -> impl Iterator<Item = (&'static str, u64)> {
    let limits = [("fuel", case.fuel), ("memory", case.memory), ("timeout-ms", case.timeout_ms)];
    limits.into_iter().filter_map(|(name, limit)| Some((name, limit?)))
}
