//! `offload-client ls`, `push` and `rm`: the modules that this client has at the gateway.

mod prefix;
mod table;

use std::io::stdout;
use std::path::Path;

use bytes::Bytes;
use clap::Args;
use offload_client::{Client, Code, Digest, Error, StoredModule, encode_list};

use self::prefix::Prefix;
use crate::code;
use crate::connection::ConnectionFlags;
use crate::failure::Failure;
use crate::interrupt::interrupted;
use crate::progress::shown;
use crate::report::{print, report_failure, unless_unprintable};
use crate::send::tell_losses;

/// List the modules that you have at the gateway, the last used first
///
/// A module is there once it was sent, by `push` or to be run; the gateway forgets those that were not used for longest
/// when they are too many. They belong to the user or certificate; on a broker that is not the gateway's own to the
/// client id, so that `-i` says whose they are. Programs that the gateway has for everyone are not listed.
#[derive(Args)]
#[command(after_help = LIST_EXAMPLES)]
pub struct List {
    /// Print one JSON array on stdout, with times in milliseconds since 1970. An error is one object, as of `send`
    #[arg(long)]
    json: bool,
}

const LIST_EXAMPLES: &str = "\
Examples:
  offload-client ls
  offload-client -h plant-broker -u panel -P secret ls --json";

/// Have the gateway compile and keep modules, without running them
///
/// Prints the digest of each, by which `send` runs it from then on. Source is no module: `send` has the gateway build
/// it. Nothing is sent before all files are read. What the gateway does not keep is told on stderr, the other files are
/// kept all the same; then the command exits 125.
#[derive(Args)]
#[command(after_help = PUSH_EXAMPLES)]
pub struct Push {
    /// WebAssembly modules or components: .wasm, or .wat, which is assembled first; `-` for one on stdin
    #[arg(value_name = "FILE", required = true)]
    files: Vec<String>,

    /// Print one JSON array on stdout: what is kept. An error of all is one object, as of `send`
    #[arg(long)]
    json: bool,
}

const PUSH_EXAMPLES: &str = "\
Examples:
  offload-client push sort.wasm filter.wat
  offload-client send $(offload-client push sort.wasm) --stdin numbers.txt";

/// Have the gateway forget modules
///
/// Prints the digest of each. Requests for it that run, or wait, go on. Nothing is removed where a prefix fits none of
/// your modules, or several.
#[derive(Args)]
#[command(after_help = REMOVE_EXAMPLES)]
pub struct Remove {
    /// Digests as `ls` prints them, or their first digits, four or more, with or without `sha256:`
    #[arg(value_name = "DIGEST", required = true)]
    digests: Vec<Prefix>,
}

const REMOVE_EXAMPLES: &str = "\
Examples:
  offload-client rm 5a3f
  offload-client rm sha256:5a3f09c2";

impl List {
    /// Runs the command; returns its exit code.
    pub fn run(self, connection: ConnectionFlags) -> u8 {
        let listed =
            connected(connection, "the list".to_owned(), async |client| Ok(client.modules().await?));
        match listed {
            Ok(modules) => {
                let printed = if self.json { as_json(&modules) } else { table::table(&modules) };
                unless_unprintable(print(stdout(), printed.as_bytes()), 0)
            }
            Err(failure) => report_failure(&failure, self.json),
        }
    }
}

impl Push {
    /// Runs the command; returns its exit code.
    pub fn run(self, connection: ConnectionFlags) -> u8 {
        let mut outcomes = Vec::new();
        let pushed = read(&self.files).and_then(|modules| {
            let bytes: usize = modules.iter().map(|(_, module)| module.len()).sum();
            let awaited = format!("{} modules of {} to be kept", modules.len(), table::kib(bytes as u64));
            connected(connection, awaited, async |client| {
                for (file, module) in modules {
                    outcomes.push(match client.store_module(module).await {
                        Err(Error::Gateway(error)) => {
                            let message = format!("{file}: {}", error.message);
                            Err(Failure::new(error.kind.as_str(), message))
                        }
                        outcome => Ok(outcome?),
                    });
                }
                Ok(())
            })
        });
        // What is kept is told, however the rest went.
        let (kept, refused): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(Result::is_ok);
        let kept: Vec<StoredModule> = kept.into_iter().flatten().collect();
        let failures: Vec<Failure> =
            refused.into_iter().filter_map(Result::err).chain(pushed.err()).collect();
        let exit_code = failures.last().map_or(0, |failure| failure.exit_code);
        if let ([failure], true, true) = (&failures[..], kept.is_empty(), self.json) {
            return report_failure(failure, true);
        }
        for failure in &failures {
            failure.report();
        }
        let digests = || kept.iter().map(|module| format!("{}\n", module.digest)).collect();
        let printed: String = if self.json { as_json(&kept) } else { digests() };
        unless_unprintable(print(stdout(), printed.as_bytes()), exit_code)
    }
}

impl Remove {
    /// Runs the command; returns its exit code.
    pub fn run(self, connection: ConnectionFlags) -> u8 {
        let mut removed = String::new();
        let ended = connected(connection, "modules to be removed".to_owned(), async |client| {
            for digest in self.find(client).await? {
                client.remove_module(digest).await?;
                removed += &format!("{digest}\n");
            }
            Ok(())
        });
        let exit_code = ended.map_or_else(|failure| failure.report(), |()| 0);
        unless_unprintable(print(stdout(), removed.as_bytes()), exit_code)
    }

    /// What is to be removed, each once, and all of it there. Only one that is said in full need not be looked up.
    async fn find(&self, client: &Client) -> Result<Vec<Digest>, Failure> {
        if let [one] = &*self.digests
            && let Some(digest) = one.in_full()
        {
            return Ok(vec![digest]);
        }
        let there = client.modules().await?;
        let found: Result<Vec<Digest>, Failure> =
            self.digests.iter().map(|prefix| prefix.find(&there)).collect();
        let mut found = found?;
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }
}

/// The modules in these files, by their names.
fn read(files: &[String]) -> Result<Vec<(String, Bytes)>, Failure> {
    let module = |file: &String| {
        let no_module = |what: &str, remedy: &str| {
            let problem = format!("{file}: push takes modules (.wasm, .wat), this is {what}{remedy}");
            Failure::new("malformed", problem)
        };
        if Path::new(file).is_dir() {
            return Err(no_module("a folder", "; `send` has the gateway build one"));
        }
        match code::resolve_module(file)? {
            Code::Module(module) => Ok((file.clone(), module)),
            Code::Program(_) => Err(Failure::new("not-found", format!("{file}: no such file"))),
            Code::Digest(_) => Err(no_module("a digest", "")),
            _ => Err(no_module("source", "; `send` has the gateway build it")),
        }
    };
    files.iter().map(module).collect()
}

fn as_json(modules: &[StoredModule]) -> String {
    String::from_utf8_lossy(&encode_list(modules)).into_owned() + "\n"
}

/// Does something with a connection, and shows what is awaited if that takes a while.
fn connected<T>(
    connection: ConnectionFlags,
    awaited: String,
    work: impl AsyncFnOnce(&Client) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let options = connection.options()?;
    let waiting = format!("waiting for {}:{}: {awaited}", options.host, options.port);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new("internal", format!("no runtime: {error}")))?;
    runtime.block_on(async {
        let mut connected = None;
        let doing = shown(waiting, async |notes| {
            let client: &Client = connected.insert(Client::connect(options).await?);
            tokio::select! {
                done = work(client) => done,
                never = tell_losses(client.lost(), notes) => match never {},
            }
        });
        let done = tokio::select! {
            done = doing => Some(done),
            () = interrupted() => None,
        };
        if let Some(client) = connected {
            client.disconnect().await;
        }
        done.unwrap_or_else(|| Err(Failure::interrupted("the gateway may still do what it was asked for")))
    })
}
