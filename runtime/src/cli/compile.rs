//! `offload-rt compile`: modules made ready before the gateway that will run them starts.

use super::output;
use super::state::StateFlags;
use crate::data_dir::DataDir;
use crate::modules::Modules;
use crate::programs::{compile, read_module};
use clap::Args;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

/// The modules, and the gateway that is to have them.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Compile {
    /// Modules or components: .wasm, or .wat text
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    #[command(flatten)]
    state: StateFlags,
    /// Print a line of JSON for each
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  offload-rt compile interpreter.wasm
  offload-rt compile --config gateway.toml --json *.wasm

Each module is checked against the limits of the configuration, compiled, and
kept in the data directory, as if a client had sent it. A running gateway does
not need this, and has its data directory locked.";

pub fn run(command: Compile) -> anyhow::Result<ExitCode> {
    let config = command.state.configuration()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let mut code = ExitCode::SUCCESS;
    // A file that is no module needs no data directory, which a gateway may have.
    let mut found = Vec::new();
    for file in &command.files {
        match runtime.block_on(read_module(&file.display().to_string(), file)) {
            Ok(module) => found.push((file, module)),
            Err(error) => {
                output::complain(&format!("error: {error}"));
                code = ExitCode::FAILURE;
            }
        }
    }
    if found.is_empty() {
        return Ok(code);
    }
    let data_dir = DataDir::open(&config.data_dir)?;
    let modules = Arc::new(Modules::open(&config, &data_dir, None)?);
    for (file, module) in found {
        let (start, size) = (Instant::now(), fs::metadata(file)?.len());
        match runtime.block_on(compile(&file.display().to_string(), module, &modules)) {
            Ok(artifact) => {
                let (file, digest, compiled) = (file.display(), artifact.digest, artifact.size());
                let milliseconds = start.elapsed().as_millis();
                if command.json {
                    let line = serde_json::json!({
                        "file": file.to_string(),
                        "digest": digest.to_string(),
                        "bytes": size,
                        "compiled_bytes": compiled,
                        "milliseconds": milliseconds as u64,
                    });
                    output::print_line(line)?;
                } else {
                    output::print_line(format_args!(
                        "{digest}  {file}  {size} bytes, {compiled} compiled, {milliseconds} ms"
                    ))?;
                }
            }
            Err(error) => {
                output::complain(&format!("error: {error}"));
                code = ExitCode::FAILURE;
            }
        }
    }
    Ok(code)
}
