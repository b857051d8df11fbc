//! `offload-client send`: one request, its answer, its exit code.

use std::convert::Infallible;
use std::ffi::OsString;
use std::future::pending;
use std::io::stdout;
use std::time::Duration;

use clap::Args;
use clap_complete::ArgValueCompleter;
use offload_client::{Answer, Client, Code, Files, Options, Request};
use tokio::sync::watch;

use crate::completions;
use crate::connection::ConnectionFlags;
use crate::failure::Failure;
use crate::interrupt::interrupted;
use crate::progress::{Notes, shown};
use crate::report::{print, report, unless_unprintable};
use crate::request::RequestFlags;
use crate::units;

/// Run one program and print what it printed
///
/// The guest's stdout goes to stdout, its stderr to stderr, its exit code is this command's. An error is printed on
/// stderr as `error: <kind>: <message>` and exits 125, a timeout 124. Ctrl-c ends the wait and exits 130; the gateway
/// may still run the request. A connection that is lost is made again, which is said on stderr.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Send {
    /// A .wasm, .wat, C or C++ file, `-` for a module on stdin, a folder with a Makefile, the name of a program that
    /// the gateway has, or the digest of a module that it has. Of a folder all files go but hidden ones, what is built
    /// (objects, libraries, programs), and what `.gitignore` and `.offloadignore` name; `!NAME` in `.offloadignore`
    /// takes something along all the same
    #[arg(value_name = "FILE|PROGRAM|sha256:HEX", add = ArgValueCompleter::new(completions::operands))]
    operand: String,

    /// Time from the request's arrival to its answer: 2s, 500ms. Waited for 10 s longer, for the way there and back;
    /// without it for 5 minutes. A connection that cannot be made is given up after 5 s
    #[arg(long, value_name = "T", value_parser = units::duration)]
    timeout: Option<Duration>,

    /// Print the whole answer, errors too, as one JSON object on stdout; byte strings are base64
    #[arg(long)]
    json: bool,

    /// Print what of a folder would be sent, with sizes in bytes, and send nothing
    #[arg(long, conflicts_with = "json")]
    list: bool,

    #[command(flatten)]
    request: RequestFlags,
}

const EXAMPLES: &str = "\
Examples:
  offload-client send add 5 7
  offload-client send prog.wasm --stdin - --env LANG=C < numbers.txt
  offload-client send prog.c --build 'gcc <name>.c -lm -o <name>' 5 7
  wat2wasm prog.wat -o - | offload-client send -
  offload-client send project/ --target bin/prog --stdin data.txt
  offload-client send prog.wat --timeout 2s --memory 64MiB --args -v file";

impl Send {
    /// Runs the command; returns its exit code.
    pub fn run(self, connection: ConnectionFlags, guest_args: Option<Vec<OsString>>) -> u8 {
        if self.list {
            return self.list();
        }
        let as_json = self.json;
        let result = connection.options().and_then(|options| {
            // Before connecting: stdin can take its time, and ctrl-c still ends the process by itself.
            let mut request = self.request.request(Some(&self.operand), guest_args)?;
            request.limits.timeout = self.timeout;
            exchange(options, request)
        });
        report(result, as_json)
    }

    fn list(self) -> u8 {
        let listed = match self.request.request(Some(&self.operand), None) {
            Ok(Request { code: Code::Files(files), .. }) => list_of(&files),
            Ok(_) => return Failure::usage("--list: expected with a folder").report(),
            Err(failure) => return failure.report(),
        };
        unless_unprintable(print(stdout(), listed.as_bytes()), 0)
    }
}

/// A line for each file, and one for all of them.
fn list_of(files: &Files) -> String {
    let mut list: String =
        files.files.iter().map(|(path, contents)| format!("{:>10} {path}\n", contents.len())).collect();
    let bytes: usize = files.files.iter().map(|(_, contents)| contents.len()).sum();
    list += &format!("{bytes:>10} in {} files\n", files.files.len());
    list
}

fn exchange(options: Options, request: Request) -> Result<Answer, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new("internal", format!("no runtime: {error}")))?;
    let mut waiting_for = format!("waiting for {}:{}", options.host, options.port);
    if let Code::Files(files) = &request.code {
        waiting_for += &format!(" to build {} files", files.files.len());
    }
    runtime.block_on(async {
        let mut client = None;
        let exchange = shown(waiting_for, async |notes| {
            let client = client.insert(Client::connect(options).await?);
            tokio::select! {
                answer = client.send(request) => Ok(answer?),
                never = tell_losses(client.lost(), notes) => match never {},
            }
        });
        let result = tokio::select! {
            result = exchange => Some(result),
            () = interrupted() => None,
        };
        let result = result.unwrap_or_else(|| {
            let sent = client.is_some();
            let message = if sent { "the gateway may still run the request" } else { "no request was sent" };
            Err(Failure::interrupted(message))
        });
        if let Some(client) = client {
            client.disconnect().await;
        }
        result
    })
}

/// Notes when the connection is lost, and when it has been made again.
async fn tell_losses(mut lost: watch::Receiver<Option<String>>, notes: Notes) -> Infallible {
    let mut was_lost = false;
    while lost.changed().await.is_ok() {
        let reason = lost.borrow_and_update().clone();
        let note = match reason {
            Some(reason) if !was_lost => {
                format!("warning: the connection is lost: {reason}; connecting again")
            }
            None if was_lost => "warning: connected again".to_owned(),
            _ => continue,
        };
        was_lost = !was_lost;
        // The queue is full only where stderr takes nothing.
        let _ = notes.try_send(note);
    }
    pending().await
}
