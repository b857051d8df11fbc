//! The gateway as a part of another program: `cargo run --release --example embedding`.
//!
//! It starts a gateway on a free port, asks it once as a device would, and stops it.

use std::env;
use std::error::Error;
use std::process::ExitCode;

use clap::Parser;
use offload_client::{Client, Code, Options, Request};
use offload_rt::compiler::{CHILD_ROLE, child};
use offload_rt::config::{Config, HostPort};
use offload_rt::{Gateway, scheduling};

/// Modules are compiled in a child process, which is this same program in another role: the first thing that it has to
/// look at. (A program that cannot do so names another one: `config.compiler.program`.)
#[derive(Parser)]
enum Role {
    #[command(name = CHILD_ROLE)]
    CompileChild(child::ChildLimits),
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    if env::args().nth(1).is_some_and(|role| role == CHILD_ROLE) {
        let Role::CompileChild(limits) = Role::parse();
        return Ok(child::run(limits));
    }
    // Its threads ask the kernel for short slices, as those of `offload-rt serve` do. Another multi-threaded runtime of
    // tokio, with I/O and time enabled, will do.
    scheduling::runtime()?.block_on(serve_once())?;
    Ok(ExitCode::SUCCESS)
}

async fn serve_once() -> Result<(), Box<dyn Error>> {
    let state = tempfile::tempdir()?;
    let mut config = Config { data_dir: state.path().join("data"), ..Config::default() };
    // The port 0 is any that is free.
    config.listen.address = HostPort::new("127.0.0.1", 0);
    let gateway = Gateway::start(config).await?;
    let url = gateway.url().to_owned();
    println!("listening on {url}");

    let device = Client::connect(Options::from_url(&url)?).await?;
    let mut request = Request::new(Code::Program("add".into()));
    request.args = vec!["5".into(), "7".into()];
    let answer = device.send(request).await?;
    println!("5 + 7 = {}", String::from_utf8_lossy(&answer.stdout));
    device.disconnect().await;

    // Requests that run may finish, for as long as `config.drain` says.
    gateway.shutdown().await;
    Ok(())
}
