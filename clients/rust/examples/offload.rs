//! Offloads a module and shows all of its answer: `cargo run --example offload -- prog.wasm 5 7`.

use std::error::Error;
use std::time::Duration;
use std::{env, fs};

use offload_client::{Client, Code, Options, Outcome, Request, RequestLimits};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = env::args().skip(1);
    let file = args.next().ok_or("expected a .wasm file and its arguments")?;
    let module = fs::read(file)?.into();
    let limits = RequestLimits { timeout: Some(Duration::from_secs(5)), ..RequestLimits::default() };
    let request = Request { args: args.collect(), limits, ..Request::new(Code::Module(module)) };

    // The module's digest goes first, and the module itself to a gateway that does not have it.
    let client = Client::connect(Options::default()).await?;
    let answer = client.send(request).await?;
    client.disconnect().await;

    // What goes wrong at the gateway is an answer too.
    match &answer.outcome {
        Outcome::Exited(code) => println!("exit code {code}"),
        Outcome::Failed(error) => println!("error: {error}"),
    }
    println!("stdout: {}", String::from_utf8_lossy(&answer.stdout));
    println!("stderr: {}", String::from_utf8_lossy(&answer.stderr));
    println!(
        "{} units of fuel, {} µs in the queue, {} µs of run",
        answer.fuel, answer.queue_us, answer.run_us
    );
    Ok(())
}
