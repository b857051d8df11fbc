//! Runs a program that the gateway has, by its name: `cargo run --example run -- add 5 7`.

use std::env;
use std::error::Error;

use offload_client::{Client, Code, Options, Outcome, Request};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = env::args().skip(1);
    let program = args.next().ok_or("expected the name of a program and its arguments")?;
    let request = Request { args: args.collect(), ..Request::new(Code::Program(program)) };

    // To the gateway on this machine; `Options::from_url` takes another one's address.
    let client = Client::connect(Options::default()).await?;
    let answer = client.send(request).await?;
    client.disconnect().await;

    match answer.outcome {
        Outcome::Exited(0) => print!("{}", String::from_utf8_lossy(&answer.stdout)),
        Outcome::Exited(code) => return Err(format!("the program exited with code {code}").into()),
        Outcome::Failed(error) => return Err(error.into()),
    }
    Ok(())
}
