//! `offload-client send`: one request, its answer, its exit code.

use std::convert::Infallible;
use std::ffi::OsString;
use std::future::{Future, pending};
use std::io::stdout;
use std::pin::{Pin, pin};
use std::time::Duration;

use clap::Args;
use clap_complete::ArgValueCompleter;
use offload_client::{
    Answer, Assembly, Client, Code, ErrorKind, Files, Options, Outcome, Request, RequestId, WireError,
    made_up_id,
};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use crate::completions;
use crate::connection::ConnectionFlags;
use crate::failure::Failure;
use crate::interrupt::interrupted;
use crate::progress::{Notes, shown};
use crate::report::{print, report, unless_unprintable};
use crate::request::RequestFlags;
use crate::seal::{SealFlags, explained};
use crate::units;

/// Parts of stdout that wait to be printed; more come with the answer.
const MAX_PARTS: usize = 1024;

/// How long a request may take to end that is cancelled.
const CANCEL_WAIT: Duration = Duration::from_secs(5);

/// Run one program and print what it printed
///
/// The guest's stdout goes to stdout, its stderr to stderr, its exit code is this command's. An error is printed on
/// stderr as `error: <kind>: <message>` and exits 125, a timeout 124. Ctrl-c cancels the request and exits 130; once
/// more, and it gives up at once. A connection that is lost is made again, which is said on stderr.
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

    /// Print what the guest writes to stdout as it is written; nothing sealed is streamed
    #[arg(long, conflicts_with_all = ["json", "list", "seal"])]
    stream: bool,

    /// The id of the request: sent again under it, the request is not run again, and `cancel` ends it. 1 to 64 bytes;
    /// with --seal 22 to 64 characters, of them at least 128 random bits, since who knows it can cancel the request
    /// [default: a random one, of which nobody hears]
    #[arg(long = "id", value_name = "ID", value_parser = request_id)]
    request_id: Option<RequestId>,

    /// Ask the site with this gate, through the routers between it and this broker's
    #[arg(long, value_name = "GATE", value_parser = gate)]
    gate: Option<String>,

    /// Print what of a folder would be sent, with sizes in bytes, and send nothing
    #[arg(long, conflicts_with = "json")]
    list: bool,

    #[command(flatten)]
    seal: SealFlags,

    #[command(flatten)]
    request: RequestFlags,
}

const EXAMPLES: &str = "\
Examples:
  offload-client send add 5 7
  offload-client send prog.wasm --stdin - --env LANG=C < numbers.txt
  offload-client send prog.c --build 'gcc <name>.c -lm -o <name>' 5 7
  wat2wasm prog.wat -o - | offload-client send -
  offload-client send --stream long.wasm
  offload-client -i press-4 send --id job-7 long.wasm
  offload-client send project/ --target bin/prog --stdin data.txt
  offload-client send prog.wat --timeout 2s --memory 64MiB --args -v file";

impl Send {
    /// Runs the command; returns its exit code.
    pub fn run(self, connection: ConnectionFlags, guest_args: Option<Vec<OsString>>) -> u8 {
        if self.list {
            return self.list();
        }
        let as_json = self.json;
        let result = connection.options().and_then(|mut options| {
            options.gate = self.gate;
            // Before connecting: stdin can take its time, and ctrl-c still ends the process by itself.
            let mut request = self.request.request(Some(&self.operand), guest_args)?;
            request.limits.timeout = self.timeout;
            request.id = self.request_id;
            exchange(options, request, &self.seal, self.stream)
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

/// The name of a gate.
pub fn gate(text: &str) -> Result<String, String> {
    let is_gate = offload_protocol::topic::is_gate(text);
    is_gate.then(|| text.to_owned()).ok_or_else(|| "expected 1 to 64 letters, digits, `_` and `-`".to_owned())
}

fn request_id(text: &str) -> Result<RequestId, String> {
    RequestId::try_from(text).map_err(|error| error.message)
}

fn exchange(
    mut options: Options,
    mut request: Request,
    seal: &SealFlags,
    stream: bool,
) -> Result<Answer, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new("internal", format!("no runtime: {error}")))?;
    let mut waiting_for = format!("waiting for {}:{}", options.host, options.port);
    if let Code::Files(files) = &request.code {
        waiting_for += &format!(" to build {} files", files.files.len());
    }
    options.streams = stream;
    // What is printed as it comes shows that it goes on.
    let waiting_for = Some(waiting_for).filter(|_| !stream);
    let made_up = request.id.is_none();
    let id = request.id.get_or_insert_with(made_up_id).clone();
    runtime.block_on(async {
        let mut client = None;
        let exchange = shown(waiting_for, async |notes| {
            seal.apply(&mut options).await?;
            let connected = tokio::select! {
                connected = Client::connect(options.clone()) => connected?,
                () = interrupted() => return Err(Failure::interrupted("no request was sent")),
            };
            let client = client.insert(connected);
            let mut sending = pin!(send(client, request, stream));
            tokio::select! {
                answer = &mut sending => Ok(explained(answer?, &options)),
                () = interrupted() => {
                    let _ = notes.try_send("cancelling; ctrl-c once more gives up".to_owned());
                    cancelled(client, &id, sending).await
                }
                never = tell_losses(client.lost(), notes.clone()) => match never {},
            }
        });
        let mut result = exchange.await;
        if let (Ok(answer), true) = (&mut result, made_up) {
            answer.id = None;
        }
        if let Some(client) = client {
            client.disconnect().await;
        }
        result
    })
}

/// Sends the request. With `stream` its stdout is printed as it comes, and the answer has the rest of it.
async fn send(client: &Client, request: Request, stream: bool) -> Result<Answer, Failure> {
    if !stream {
        return Ok(client.send(request).await?);
    }
    let id = request.id.clone();
    let (sender, mut parts) = mpsc::channel(MAX_PARTS);
    let mut assembly = Assembly::default();
    let mut sending = pin!(client.send_streaming(request, sender));
    let mut answer = None;
    loop {
        let part = tokio::select! {
            biased;
            part = parts.recv() => part,
            sent = &mut sending, if answer.is_none() => {
                answer = Some(sent?);
                continue;
            }
        };
        // The last sender goes with the answer.
        let Some(part) = part else { break };
        if let Err(error) = print(stdout(), &assembly.add(&part)) {
            // Nobody reads what an endless program goes on to print.
            if let Some(id) = &id {
                let _ = timeout(CANCEL_WAIT, client.cancel(id)).await;
            }
            return Err(Failure::new("output", error.to_string()));
        }
    }
    let mut answer = match answer {
        Some(answer) => answer,
        None => sending.await?,
    };
    answer.stdout = assembly.rest(&answer.stdout);
    Ok(answer)
}

/// Cancels the request, and waits for its own answer. Its outcome stands if it has ended by itself.
async fn cancelled(
    client: &Client,
    id: &RequestId,
    mut sending: Pin<&mut impl Future<Output = Result<Answer, Failure>>>,
) -> Result<Answer, Failure> {
    let ending = async {
        let answer = tokio::select! {
            answer = &mut sending => return Some(answer),
            answer = client.cancel(id) => answer.ok()?,
        };
        // What is not there any more has ended, and its answer is on its way.
        match answer.outcome {
            Outcome::Failed(WireError { kind, .. }) if kind != ErrorKind::NotFound => None,
            _ => Some(sending.await),
        }
    };
    let ended = tokio::select! {
        ended = timeout(CANCEL_WAIT, ending) => ended.unwrap_or(None),
        () = interrupted() => None,
    };
    match ended {
        Some(Ok(Answer {
            outcome: Outcome::Failed(WireError { kind: ErrorKind::Cancelled, .. }), ..
        })) => Err(Failure::interrupted("the request was cancelled")),
        Some(answer) => answer,
        None => Err(Failure::interrupted("the gateway may still run the request")),
    }
}

/// Notes when the connection is lost, and when it has been made again.
pub async fn tell_losses(mut lost: watch::Receiver<Option<String>>, notes: Notes) -> Infallible {
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
