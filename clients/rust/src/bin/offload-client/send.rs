//! `offload-client send`: one request, its answer, its exit code.

use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

use clap::Args;
use offload_client::{Answer, Client, Limits, Options, Request};

use crate::connection::ConnectionFlags;
use crate::failure::Failure;
use crate::interrupt::unless_interrupted;
use crate::progress::shown;
use crate::report::report;
use crate::{code, units};

/// No packet of MQTT can carry more, so no more is read from a file or a pipe.
const MAX_STDIN: u64 = 256 * 1024 * 1024;

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

    /// Build FILE at the gateway with this makefile, in which `<name>` stands for the program's path
    #[arg(long, value_name = "FILE")]
    makefile: Option<PathBuf>,

    /// Build FILE at the gateway with this compiler command [default: gcc <name>.c -o <name>, or g++ for C++]
    #[arg(long, value_name = "CMD", conflicts_with = "makefile")]
    build: Option<String>,

    /// The program of a folder to run; folders are not supported yet
    #[arg(long, value_name = "NAME")]
    target: Option<String>,

    /// What the guest reads from stdin; `-` is this command's own
    #[arg(long, value_name = "FILE|-")]
    stdin: Option<PathBuf>,

    /// A variable of the guest's environment; may be repeated
    #[arg(long, value_name = "K=V", value_parser = variable)]
    env: Vec<(String, String)>,

    /// Units of fuel that the guest may use
    #[arg(long, value_name = "N")]
    fuel: Option<u64>,

    /// Memory that the guest may use: 64MiB, 64MB, or bytes
    #[arg(long, value_name = "SIZE", value_parser = units::size)]
    memory: Option<u64>,

    /// Time from the request's arrival to its answer: 2s, 500ms. Waited for 10 s longer, for the way there and back;
    /// without it for 5 minutes. A connection that cannot be made is given up after 5 s
    #[arg(long, value_name = "T", value_parser = units::duration)]
    timeout: Option<Duration>,

    /// Print the whole answer, errors too, as one JSON object on stdout; byte strings are base64
    #[arg(long)]
    json: bool,

    /// The guest's arguments: everything that follows, hyphens and all
    // Split off before clap sees it, which would take `--` for its own.
    #[arg(long, value_name = "A", num_args = 0.., allow_hyphen_values = true)]
    args: Vec<OsString>,
}

const EXAMPLES: &str = "\
Examples:
  offload-client send add --args 5 7
  offload-client send prog.wasm --stdin - --env LANG=C < numbers.txt
  offload-client send prog.c --build 'gcc <name>.c -lm -o <name>' --args 5 7
  offload-client send prog.wat --timeout 2s --memory 64MiB --json --args -v file";

fn variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE".to_owned()),
    }
}

impl Send {
    /// Runs the command; returns its exit code.
    pub fn run(self, connection: ConnectionFlags, guest_args: Option<Vec<OsString>>) -> u8 {
        let as_json = self.json;
        let result = connection.options().and_then(|options| {
            // Before connecting: stdin can take its time, and ctrl-c still ends the process by itself.
            let request = self.request(guest_args.unwrap_or_default())?;
            exchange(options, request)
        });
        report(result, as_json)
    }

    fn request(self, guest_args: Vec<OsString>) -> Result<Request, Failure> {
        let args = guest_args
            .into_iter()
            .enumerate()
            .map(|(index, arg)| {
                arg.into_string().map_err(|_| Failure::usage(format!("args[{index}]: expected UTF-8")))
            })
            .collect::<Result<_, _>>()?;
        if self.target.is_some() {
            return Err(Failure::usage("--target: sending a folder is not supported yet"));
        }
        let build = code::build(self.build.as_deref(), self.makefile.as_deref())?;
        Ok(Request {
            args,
            env: self.env,
            stdin: self.stdin.as_deref().map(read_stdin).transpose()?.unwrap_or_default().into(),
            limits: Limits { fuel: self.fuel, memory: self.memory, timeout: self.timeout },
            // In an envelope, so that stdin goes there and stderr comes back.
            ..Request::new(code::resolve(&self.operand, build)?)
        })
    }
}

fn read_stdin(path: &Path) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let read = if path == Path::new("-") {
        io::stdin().take(MAX_STDIN + 1).read_to_end(&mut bytes)
    } else {
        fs::File::open(path).and_then(|file| file.take(MAX_STDIN + 1).read_to_end(&mut bytes))
    };
    match read {
        Err(error) => Err(code::unreadable(path, &error)),
        Ok(length) if length as u64 > MAX_STDIN => {
            Err(Failure::new("too-large", format!("stdin: more than {MAX_STDIN} bytes")))
        }
        Ok(_) => Ok(bytes),
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
