//! `offload-client send`: one request, its answer, its exit code.

use std::ffi::OsString;
use std::time::Duration;

use clap::Args;
use offload_client::{Answer, Client, Options, Request};

use crate::connection::ConnectionFlags;
use crate::failure::Failure;
use crate::interrupt::unless_interrupted;
use crate::progress::shown;
use crate::report::report;
use crate::request::RequestFlags;
use crate::units;

/// Run one program and print what it printed
///
/// The guest's stdout goes to stdout, its stderr to stderr, its exit code is this command's. An error is printed on
/// stderr as `error: <kind>: <message>` and exits 125, a timeout 124, ctrl-c 130.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Send {
    /// A .wasm, .wat, C or C++ file, the name of a program that the gateway has, or the digest of a module that it has
    #[arg(value_name = "FILE|PROGRAM|sha256:HEX")]
    operand: String,

    /// Time from the request's arrival to its answer: 2s, 500ms. Waited for 10 s longer, for the way there and back;
    /// without it for 5 minutes. A connection that cannot be made is given up after 5 s
    #[arg(long, value_name = "T", value_parser = units::duration)]
    timeout: Option<Duration>,

    /// Print the whole answer, errors too, as one JSON object on stdout; byte strings are base64
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    request: RequestFlags,
}

const EXAMPLES: &str = "\
Examples:
  offload-client send add --args 5 7
  offload-client send prog.wasm --stdin - --env LANG=C < numbers.txt
  offload-client send prog.c --build 'gcc <name>.c -lm -o <name>' --args 5 7
  offload-client send prog.wat --timeout 2s --memory 64MiB --json --args -v file";

impl Send {
    /// Runs the command; returns its exit code.
    pub fn run(self, connection: ConnectionFlags, guest_args: Option<Vec<OsString>>) -> u8 {
        let as_json = self.json;
        let result = connection.options().and_then(|options| {
            // Before connecting: stdin can take its time, and ctrl-c still ends the process by itself.
            let mut request = self.request.request(Some(&self.operand), guest_args.unwrap_or_default())?;
            request.limits.timeout = self.timeout;
            exchange(options, request)
        });
        report(result, as_json)
    }
}

fn exchange(options: Options, request: Request) -> Result<Answer, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new("internal", format!("no runtime: {error}")))?;
    let waiting_for = format!("waiting for {}:{}", options.host, options.port);
    runtime.block_on(async {
        let mut client = None;
        let result = unless_interrupted(shown(waiting_for, async {
            let client = client.insert(Client::connect(options).await?);
            Ok(client.send(request).await?)
        }))
        .await;
        if let Some(client) = client {
            client.disconnect().await;
        }
        result
    })
}
