//! Keeps many requests in flight on one connection: `cargo run --example in_flight -- add 100`.

use std::env;
use std::error::Error;
use std::sync::Arc;

use offload_client::{Client, Code, Options, Request};
use tokio::task::JoinSet;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = env::args().skip(1);
    let program = args.next().ok_or("expected the name of a program and a number")?;
    let count: u32 = args.next().ok_or("expected how many requests to send")?.parse()?;

    // More than these wait in `send`.
    let options = Options { max_in_flight: 64, ..Options::default() };
    let client = Arc::new(Client::connect(options).await?);
    let mut requests = JoinSet::new();
    for number in 0..count {
        let mut request = Request::new(Code::Program(program.clone()));
        request.args = vec![number.to_string(), "1".to_owned()];
        let client = client.clone();
        requests.spawn(async move { (number, client.send(request).await) });
    }

    // Answers come in the order in which the gateway has them.
    while let Some(ended) = requests.join_next().await {
        let (number, answer) = ended?;
        println!("{number}: {}", String::from_utf8_lossy(&answer?.stdout).trim_end());
    }
    Ok(())
}
