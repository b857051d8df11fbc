//! The client as the conformance tests drive it: cases come on stdin, results go to stdout, a line of JSON each. The
//! fields are those of tests/README.md.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use offload_client::answer::ContentRange;
use offload_client::{
    Answer, Build, Client, Code, Error, Options, Outcome, Part, Request, RequestLimits, Source, StdoutRange,
    TlsFiles,
};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// What every wasm module starts with.
const WASM_MAGIC: &[u8] = b"\0asm";

/// Parts of a stream that wait to be shown.
const MAX_PARTS: usize = 64;

/// How source is built.
const BUILD: &str = "gcc -O2 <name>.c -o <name>";

/// The first line.
#[derive(Deserialize)]
struct Connection {
    host: String,
    port: u16,
    client_id: String,
    username: Option<String>,
    password: Option<String>,
    cafile: Option<PathBuf>,
}

/// A line behind it.
#[derive(Deserialize)]
#[serde(untagged)]
enum Line {
    /// Which case is to be cancelled.
    Cancel {
        cancel: u64,
    },
    Case(Box<Case>),
}

#[derive(Deserialize)]
struct Case {
    case: u64,
    program: Option<String>,
    digest: Option<String>,
    file: Option<PathBuf>,
    #[serde(default)]
    args: Vec<String>,
    #[serde(default)]
    stdin: String,
    stdin_repeat: Option<usize>,
    id: Option<String>,
    fuel: Option<u64>,
    memory: Option<u64>,
    timeout_ms: Option<u64>,
    piece: Option<u64>,
    /// Whether stdout is shown as it is written.
    #[serde(default)]
    stream: bool,
}

// On one thread, so that requests go out in the order of their lines.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let connection = lines.next_line().await?.context("a first line")?;
    let client = match Client::connect(options(serde_json::from_str(&connection)?)).await {
        Ok(client) => Arc::new(client),
        Err(error) => {
            say(json!({ "case": null, "error": described(&error) }));
            return Ok(());
        }
    };
    say(json!({ "case": null }));
    let mut cases = JoinSet::new();
    let mut ids = HashMap::new();
    while let Some(line) = lines.next_line().await? {
        let client = client.clone();
        let case = match serde_json::from_str(&line)? {
            Line::Case(case) => case,
            Line::Cancel { cancel } => {
                let id: Option<&String> = ids.get(&cancel);
                let id = id.context("a case without an id cannot be cancelled")?.as_str().try_into()?;
                // The case's own answer says what came of it.
                cases.spawn(async move { drop(client.send(Request::new(Code::Cancel(id))).await) });
                continue;
            }
        };
        ids.extend(case.id.clone().map(|id| (case.case, id)));
        cases.spawn(async move {
            let (number, has_id) = (case.case, case.id.is_some());
            let mut result = match ask(&client, *case).await {
                Ok(answer) => shown(&answer, has_id),
                Err(error) => json!({ "error": error }),
            };
            result["case"] = number.into();
            say(result);
        });
    }
    while let Some(ended) = cases.join_next().await {
        ended?;
    }
    if let Some(client) = Arc::into_inner(client) {
        client.disconnect().await;
    }
    Ok(())
}

fn options(connection: Connection) -> Options {
    let Connection { host, port, client_id, username, password, cafile } = connection;
    Options {
        host,
        port,
        client_id,
        credentials: username.map(|name| (name, password.unwrap_or_default())),
        streams: true,
        tls: cafile.map(|cafile| TlsFiles { ca: Some(cafile), ..TlsFiles::default() }),
        ..Options::default()
    }
}

/// The answer to a case, or the error in its place.
async fn ask(client: &Client, case: Case) -> Result<Answer, Value> {
    let (number, piece, stream) = (case.case, case.piece, case.stream);
    let mut request =
        request(case).map_err(|error| json!({ "kind": "malformed", "message": format!("{error:#}") }))?;
    if stream {
        return send_streaming(client, number, request).await.map_err(|error| described(&error));
    }
    let Some(piece) = piece else {
        return client.send(request).await.map_err(|error| described(&error));
    };
    // All pieces are of one run, which has an id.
    let made_up = request.id.is_none();
    if made_up {
        request.id = format!("conformance-{}-{number}", std::process::id()).as_str().try_into().ok();
    }
    let mut stdout = Vec::new();
    loop {
        request.stdout_range = Some(StdoutRange { offset: stdout.len() as u64, length: Some(piece) });
        let answer = client.send(request.clone()).await.map_err(|error| described(&error))?;
        stdout.extend_from_slice(&answer.stdout);
        match answer.content_range {
            Some(ContentRange { total, .. })
                if (stdout.len() as u64) < total && !answer.stdout.is_empty() => {}
            _ => {
                let id = answer.id.clone().filter(|_| !made_up);
                return Ok(Answer { stdout: stdout.into(), id, ..answer });
            }
        }
    }
}

/// Shows the parts of stdout as they come, each byte once where none is missing before it.
async fn send_streaming(client: &Client, number: u64, request: Request) -> Result<Answer, Error> {
    let (sender, mut parts) = mpsc::channel::<Part>(MAX_PARTS);
    let mut next = 0;
    let shown = async {
        while let Some(part) = parts.recv().await {
            if part.offset < next {
                continue;
            }
            next = part.offset + part.bytes.len() as u64;
            let piece = String::from_utf8_lossy(&part.bytes);
            say(json!({ "case": number, "offset": part.offset, "piece": piece }));
        }
    };
    let (answer, ()) = tokio::join!(client.send_streaming(request, sender), shown);
    answer
}

fn request(case: Case) -> Result<Request> {
    let code = match (case.program, case.digest, case.file) {
        (Some(program), None, None) => Code::Program(program),
        (None, Some(digest), None) => Code::Digest(digest.parse()?),
        (None, None, Some(file)) => {
            let contents = std::fs::read(file)?;
            if contents.starts_with(WASM_MAGIC) {
                Code::Module(contents.into())
            } else {
                Code::Source(Source::new(b"program", contents.into(), Build::Command(BUILD.to_owned())))
            }
        }
        _ => bail!("expected exactly one of program, digest and file"),
    };
    Ok(Request {
        id: case.id.as_deref().map(TryInto::try_into).transpose()?,
        args: case.args,
        stdin: case.stdin.repeat(case.stdin_repeat.unwrap_or(1)).into(),
        limits: RequestLimits {
            fuel: case.fuel,
            memory: case.memory,
            timeout: case.timeout_ms.map(Duration::from_millis),
        },
        ..Request::new(code)
    })
}

fn shown(answer: &Answer, has_id: bool) -> Value {
    let (status, exit_code) = match &answer.outcome {
        Outcome::Exited(0) => ("ok", 0),
        Outcome::Exited(code) => ("exit", *code),
        Outcome::Failed(error) => {
            return json!({ "error": { "kind": error.kind.as_str(), "message": error.message } });
        }
    };
    json!({
        "id": answer.id.as_ref().filter(|_| has_id).map(|id| id.as_str()),
        "status": status,
        "exit_code": exit_code,
        "stdout": String::from_utf8_lossy(&answer.stdout),
        "stderr": String::from_utf8_lossy(&answer.stderr),
        "fuel": answer.fuel,
        "run_us": answer.run_us,
        "queue_us": answer.queue_us,
    })
}

fn described(error: &Error) -> Value {
    json!({ "kind": error.kind(), "message": error.to_string() })
}

fn say(line: Value) {
    println!("{line}");
}
