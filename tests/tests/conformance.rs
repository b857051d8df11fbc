//! Every case of every guest example, sent as a device would send it: in each form that can carry it, in each
//! version of MQTT that the form allows, through each broker.

use std::sync::Arc;

use anyhow::{Context, Result};
use bytes::Bytes;
use offload_tests::answer::{common_problems, envelope_problems, line_problems};
use offload_tests::deployment::Deployment;
use offload_tests::device::{Device, Properties, Version};
use offload_tests::guest::{self, Case, Guest};
use offload_tests::{built, cbor, envelope};
use serde_json::{Value, json};
use tokio::task::JoinSet;

/// What guests may use where their cases say nothing: enough for all of them, and soon used up by those that take
/// what they can get.
const LIMITS: &str = "[limits]\nfuel = 2_000_000_000\nmemory = \"32MiB\"\n";

#[tokio::test]
async fn every_case_on_the_embedded_broker() -> Result<()> {
    let guests = guest::all()?;
    every_case(&Deployment::embedded(&configuration(&guests)?).await?, guests).await
}

#[tokio::test]
async fn every_case_on_mosquitto() -> Result<()> {
    let guests = guest::all()?;
    every_case(&Deployment::on_mosquitto(&configuration(&guests)?).await?, guests).await
}

/// All guests as programs of the gateway; `add` is the default one.
fn configuration(guests: &[Guest]) -> Result<String> {
    let mut configuration = LIMITS.to_owned();
    for guest in guests {
        let file = built::guest(&guest.name)?;
        let program = json!({ "name": guest.name, "file": file, "default": guest.name == "add" });
        configuration += &format!("[[program]]\n{}", toml::to_string(&program)?);
    }
    Ok(configuration)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// The module as it is; with MQTT 5 also its arguments, environment and limits.
    RawModule,
    /// A JSON envelope, answered by one.
    Envelope,
    /// A JSON envelope, answered by stdout.
    EnvelopeForStdout,
    /// A CBOR envelope, answered by one.
    Cbor,
    /// A CBOR envelope, answered by stdout.
    CborForStdout,
    /// A JSON envelope on `localCode` that names a program of the gateway.
    ProgramByName,
    /// A JSON envelope on `localCode` that names a module by its digest, which the device has sent before.
    Digest,
    /// The module behind its name and its arguments; with MQTT 5 also its limits.
    LegacyText,
    /// Words on `localCode` for the default program, which is `add`; with MQTT 5 also its limits.
    LegacyArgs,
}

impl Form {
    const ALL: [Form; 9] = [
        Form::RawModule,
        Form::Envelope,
        Form::EnvelopeForStdout,
        Form::Cbor,
        Form::CborForStdout,
        Form::ProgramByName,
        Form::Digest,
        Form::LegacyText,
        Form::LegacyArgs,
    ];

    /// What requests of this form are published on, before the reply id.
    fn topic(self) -> &'static str {
        match self {
            Form::ProgramByName | Form::Digest | Form::LegacyArgs => "localCode",
            _ => "inputCode",
        }
    }
}

/// Each on a connection of its own, all at once. All that is wrong is reported, not only the first.
async fn every_case(deployment: &Deployment, guests: Vec<Guest>) -> Result<()> {
    let guests = Arc::new(guests);
    let mut ways = JoinSet::new();
    for form in Form::ALL {
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
            if self.form == Form::Digest {
                self.send_ahead(guest).await?;
            }
            for (number, case) in guest.cases.iter().enumerate() {
                if !self.carries(guest, case) {
                    continue;
                }
                let id = format!("{}-{number}", guest.name);
                let name = format!("{}: {} ({})", guest.name, case.name, self.id);
                let problems = self.problems(guest, case, &id).await.with_context(|| name.clone())?;
                report.problems.extend(problems.iter().map(|problem| format!("{name}: {problem}")));
                report.sent += 1;
            }
        }
        Ok(report)
    }

    /// Sends the module for later, and does not care how it ends: with so little fuel, soon.
    async fn send_ahead(&mut self, guest: &Guest) -> Result<()> {
        let request = json!({ "module": envelope::bytes(&guest.module), "fuel": 1 });
        self.device.ask(&format!("inputCode/{}", self.id), request.to_string()).await?;
        Ok(())
    }

    fn carries(&self, guest: &Guest, case: &Case) -> bool {
        let v5 = self.version == Version::V5;
        let words = || case.args.iter().all(|arg| is_word(arg));
        let no_input = case.stdin().is_empty();
        match self.form {
            Form::RawModule => {
                no_input && (v5 || case.args.is_empty() && case.env.is_empty() && !case.has_limits())
            }
            Form::LegacyText => no_input && case.env.is_empty() && words() && (v5 || !case.has_limits()),
            Form::LegacyArgs => guest.name == "add" && words() && (v5 || !case.has_limits()),
            _ => true,
        }
    }

    /// `id` is the request's, and no other's: what had one before is not run again.
    async fn problems(&mut self, guest: &Guest, case: &Case, id: &str) -> Result<Vec<String>> {
        let topic = format!("{}/{}", self.form.topic(), self.id);
        let by_module = ("module", envelope::bytes(&guest.module));
        let payload: Bytes = match self.form {
            Form::RawModule => guest.module.clone(),
            Form::Envelope => in_envelope(by_module, case, id, "envelope").to_string().into(),
            Form::EnvelopeForStdout => in_envelope(by_module, case, id, "stdout").to_string().into(),
            Form::Cbor => cbor::write(&in_envelope(by_module, case, id, "envelope"))?.into(),
            Form::CborForStdout => cbor::write(&in_envelope(by_module, case, id, "stdout"))?.into(),
            Form::ProgramByName => {
                in_envelope(("program", guest.name.as_str().into()), case, id, "envelope").to_string().into()
            }
            Form::Digest => {
                let digest = guest::digest(&guest.module).await?;
                in_envelope(("digest", digest.into()), case, id, "envelope").to_string().into()
            }
            Form::LegacyText => {
                // The space keeps a hyphen at the end of the arguments apart from the delimiter.
                let before = format!("{}----{} ----", guest.name, case.args.join(" "));
                [before.as_bytes(), &guest.module].concat().into()
            }
            Form::LegacyArgs => case.args.join(" ").into(),
        };
        let properties = match (self.form, self.version) {
            (Form::RawModule, Version::V5) => in_properties(case),
            (Form::LegacyText | Form::LegacyArgs, Version::V5) => limits_in_properties(case),
            _ => Properties::default(),
        };
        self.device.publish_with(&topic, payload, properties, false).await?;
        let answer = self.device.message().await?;
        let expected = case.expected();
        let mut problems = common_problems(&answer, self.version, &expected);
        let in_answer = |answer| envelope_problems(answer, Some(id), &expected, case.stderr.as_deref());
        problems.extend(match self.form {
            Form::Envelope | Form::ProgramByName | Form::Digest => in_answer(envelope::read(&answer)),
            Form::Cbor => in_answer(cbor::read(&answer)),
            _ => line_problems(&answer.payload, &expected),
        });
        Ok(problems)
    }
}

/// Whether it can be one of several arguments in one text.
fn is_word(arg: &str) -> bool {
    !arg.is_empty() && !arg.contains(char::is_whitespace) && !arg.contains("----")
}

/// `code` is the field that says what to run.
fn in_envelope(code: (&str, Value), case: &Case, id: &str, reply: &str) -> Value {
    let mut request = json!({
        "id": id,
        "args": case.args,
        "env": case.env,
        "stdin": envelope::bytes(case.stdin()),
        "reply": reply,
    });
    request[code.0] = code.1;
    for (name, limit) in limits(case) {
        request[name.replace('-', "_")] = Value::from(limit);
    }
    request
}

fn in_properties(case: &Case) -> Properties {
    let args = case.args.iter().map(|arg| ("arg".to_owned(), arg.clone()));
    let env = case.env.iter().map(|(name, value)| (format!("env.{name}"), value.clone()));
    let limits = limits_in_properties(case).user;
    Properties { user: args.chain(env).chain(limits).collect(), ..Properties::default() }
}

fn limits_in_properties(case: &Case) -> Properties {
    let user = limits(case).map(|(name, limit)| (name.to_owned(), limit.to_string())).collect();
    Properties { user, ..Properties::default() }
}

fn limits(case: &Case) -> impl Iterator<Item = (&'static str, u64)> {
    let limits = [("fuel", case.fuel), ("memory", case.memory), ("timeout-ms", case.timeout_ms)];
    limits.into_iter().filter_map(|(name, limit)| Some((name, limit?)))
}
