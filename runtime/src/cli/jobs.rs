//! `offload-rt jobs`: requests that have crashed the gateway, and are set aside.

use super::output;
use super::state::StateFlags;
use crate::set_aside::{Job, JobError, SetAside};
use crate::telemetry::bounded;
use anyhow::ensure;
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::process::ExitCode;

/// What to do with them.
#[derive(Args)]
#[command(arg_required_else_help = true, after_help = EXAMPLES)]
pub struct Jobs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// List the requests that are set aside
    #[command(
        after_help = "Examples:\n  offload-rt jobs list\n  offload-rt jobs list --config gateway.toml --json"
    )]
    List {
        #[command(flatten)]
        gateway: OfGateway,
        /// Print a JSON array
        #[arg(long)]
        json: bool,
    },
    /// Show what is known of one, and where its files are
    #[command(after_help = "Examples:\n  offload-rt jobs show 3\n  offload-rt jobs show 3 --json")]
    Show {
        /// Its number, from the list
        #[arg(value_name = "NUMBER")]
        number: u64,
        #[command(flatten)]
        gateway: OfGateway,
        /// Print a JSON object
        #[arg(long)]
        json: bool,
    },
    /// Have the gateway run them once more, and publish their answers
    #[command(
        after_help = "Examples:\n  offload-rt jobs retry 3\n  offload-rt jobs retry 3 4 --config gateway.toml\n\n\
        A gateway that runs takes them up within a second or two, another one at its\nnext start. One that crashes the \
        gateway twice more is set aside again."
    )]
    Retry {
        /// Their numbers
        #[arg(value_name = "NUMBER", required = true)]
        numbers: Vec<u64>,
        #[command(flatten)]
        gateway: OfGateway,
        /// Print a line of JSON for each
        #[arg(long)]
        json: bool,
    },
    /// Remove them
    #[command(
        after_help = "Examples:\n  offload-rt jobs drop 3\n  offload-rt jobs drop 3 4 --config gateway.toml"
    )]
    Drop {
        /// Their numbers
        #[arg(value_name = "NUMBER", required = true)]
        numbers: Vec<u64>,
        #[command(flatten)]
        gateway: OfGateway,
        /// Print a line of JSON for each
        #[arg(long)]
        json: bool,
    },
}

/// Whose requests.
#[derive(Args)]
struct OfGateway {
    #[command(flatten)]
    state: StateFlags,
}

const EXAMPLES: &str = "\
Examples:
  offload-rt jobs list
  offload-rt jobs show 3
  offload-rt jobs retry 3
  offload-rt jobs drop 3

A request that has crashed the gateway twice while nothing else ran is answered
`internal` and set aside. These commands work beside a gateway that runs, and
without one.

Exit codes: 0, or 1 for a number that is not there and for what the system
refuses.";

pub fn run(command: Jobs) -> anyhow::Result<ExitCode> {
    match command.action {
        Action::List { gateway, json } => list(&gateway.set_aside()?, json),
        Action::Show { number, gateway, json } => show(&gateway.set_aside()?.job(number)?, json),
        Action::Retry { numbers, gateway, json } => {
            let set_aside = gateway.set_aside()?;
            each(&numbers, json, ("retried", "is run again"), |number| set_aside.retry(number))
        }
        Action::Drop { numbers, gateway, json } => {
            let set_aside = gateway.set_aside()?;
            each(&numbers, json, ("dropped", "is removed"), |number| set_aside.drop(number))
        }
    }
}

impl OfGateway {
    fn set_aside(&self) -> anyhow::Result<SetAside> {
        let data_dir = self.state.configuration()?.data_dir;
        ensure!(
            data_dir.is_dir(),
            "there is no data directory {}: name the gateway's by --data-dir, or its configuration by --config",
            data_dir.display()
        );
        Ok(SetAside::of(&data_dir))
    }
}

fn list(set_aside: &SetAside, json: bool) -> anyhow::Result<ExitCode> {
    let jobs = set_aside.jobs()?;
    if json {
        output::print_line(Value::from(jobs.iter().map(document).collect::<Vec<_>>()))?;
    } else if jobs.is_empty() {
        output::print_line("nothing is set aside")?;
    } else {
        let mut rows = vec![["NUMBER", "SET ASIDE", "CRASHES", "CLIENT", "TOPIC", "CODE"].map(str::to_owned)];
        rows.extend(jobs.iter().map(row));
        output::print(output::table(&rows))?;
    }
    let unreadable = set_aside.unreadable()?;
    unreadable.iter().for_each(|error| output::complain(&format!("error: {error}")));
    Ok(if unreadable.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn show(job: &Job, json: bool) -> anyhow::Result<ExitCode> {
    if json {
        output::print_line(document(job))?;
        return Ok(ExitCode::SUCCESS);
    }
    let of = &job.document;
    let module = job.module().map_or_else(|| "not kept".to_owned(), |path| path.display().to_string());
    let limits = &of.limits;
    let mut lines = vec![
        ("number", job.number.to_string()),
        ("state", state(job).to_owned()),
        ("set aside", of.set_aside.clone()),
        ("crashes", format!("{} while nothing else ran, of offload-rt {}", of.crashes, of.gateway)),
        ("reference", of.reference.clone()),
        ("client", format!("{} (of {})", bounded(of.client.name()), bounded(&of.client.account))),
        ("topic", bounded(&of.topic).to_string()),
        ("form", of.form.clone()),
        ("code", bounded(&of.code).to_string()),
    ];
    lines.extend(of.id.as_ref().map(|id| ("id", bounded(id).to_string())));
    lines.extend(of.response_topic.as_ref().map(|topic| ("answer to", bounded(topic).to_string())));
    for (name, value) in &of.user_properties {
        lines.push(("property", format!("{} = {}", bounded(name), bounded(value))));
    }
    lines.push((
        "limits",
        format!(
            "{} units of fuel, {} ms of CPU time, {} ms, {} bytes of memory",
            limits.fuel, limits.cpu_ms, limits.wall_ms, limits.memory
        ),
    ));
    lines.push(("payload", format!("{} bytes in {}/payload", of.payload_bytes, job.folder.display())));
    lines.push(("module", module));
    for (name, value) in lines {
        output::print_line(format_args!("{name:<10}  {value}"))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Does it to each; what cannot be done is told, and the rest is done.
fn each(
    numbers: &[u64],
    json: bool,
    (word, sentence): (&str, &str),
    act: impl Fn(u64) -> Result<(), JobError>,
) -> anyhow::Result<ExitCode> {
    let mut code = ExitCode::SUCCESS;
    for &number in numbers {
        match act(number) {
            Ok(()) if json => output::print_line(json!({ "number": number, "state": word }))?,
            Ok(()) => output::print_line(format_args!("request {number} {sentence}"))?,
            Err(error) => {
                output::complain(&format!("error: {error}"));
                code = ExitCode::FAILURE;
            }
        }
    }
    Ok(code)
}

/// All that is known of it.
fn document(job: &Job) -> Value {
    let mut document = serde_json::to_value(&job.document).unwrap_or_default();
    document["number"] = job.number.into();
    document["state"] = state(job).into();
    document["folder"] = job.folder.display().to_string().into();
    document["bytes"] = job.bytes.into();
    document["module"] = job.module().map(|path| path.display().to_string()).into();
    document
}

fn state(job: &Job) -> &'static str {
    match (job.is_retried, job.is_taken) {
        (false, _) => "set aside",
        (true, false) => "to be run again",
        (true, true) => "being run again",
    }
}

fn row(job: &Job) -> [String; 6] {
    let of = &job.document;
    let set_aside = if job.is_retried { state(job).to_owned() } else { of.set_aside.clone() };
    let texts = [of.client.name(), &of.topic, &of.code].map(|text| bounded(text).to_string());
    let [client, topic, code] = texts;
    [job.number.to_string(), set_aside, of.crashes.to_string(), client, topic, code]
}
