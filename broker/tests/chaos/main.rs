//! Abuse of every kind at once, beside honest clients that must notice nothing: `cargo xtask chaos [--time 1h]`, and
//! for a minute with all other tests. The broker is a process of its own, so that its memory can be measured and a
//! panic anywhere in it ends it.
//!
//! Not made of `#[test]`s: this program is also the broker's process.

#[path = "../broker/certificates.rs"]
#[expect(dead_code, reason = "it serves the other tests, too")]
mod certificates;
#[path = "../broker/client.rs"]
#[expect(dead_code, reason = "it serves the other tests, too")]
mod client;
#[path = "../broker/damage.rs"]
mod damage;
#[path = "../broker/server.rs"]
#[expect(dead_code, reason = "it serves the other tests, too")]
mod server;

mod abusers;
mod broker_process;
mod crowd;
mod honest;
mod memory;

use std::time::Duration;

use tokio::time::{Instant, interval};

use crate::{
    broker_process::BrokerProcess,
    memory::{Memory, SAMPLE_INTERVAL},
};

/// The one of `offload-rt`.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// What is done with all other tests.
const DEFAULT_SECONDS: u64 = 60;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [broker_process::ARGUMENT] => runtime.block_on(broker_process::serve()),
        ["--seconds", seconds] => runtime.block_on(run(seconds.parse().expect("a number of seconds"))),
        // What `cargo test -- …` hands to every test program is for those made of `#[test]`s.
        _ => runtime.block_on(run(DEFAULT_SECONDS)),
    }
}

async fn run(seconds: u64) {
    crowd::many_files();
    let mut broker = BrokerProcess::start().await;
    let mut honest = honest::start(broker.mqtt);
    honest.ready().await;
    let crowd = crowd::gather(broker.mqtt).await;
    honest.go_on().await;
    crowd.assert_open();
    drop(crowd);

    // What the same clients find at the same time where nobody is abused is what the machine makes of it.
    let quiet = BrokerProcess::start().await;
    let mut beside = honest::start(quiet.mqtt);
    beside.ready().await;
    honest.measure();

    let end = Instant::now() + Duration::from_secs(seconds);
    let abusers = abusers::start(broker.mqtt, broker.tls);
    let mut memory = Memory::of(broker.id());
    let mut ticks = interval(SAMPLE_INTERVAL);
    while Instant::now() < end {
        tokio::select! {
            _ = ticks.tick() => memory.sample(),
            failed = honest.failed() => panic!("an honest client was disturbed: {failed}"),
            failed = beside.failed() => panic!("an honest client was disturbed where nobody is abused: {failed}"),
            status = broker.ended() => panic!("the broker ended: {status}"),
        }
    }
    let abused = abusers.stop().await;
    let served = honest.stop().await;
    let served_beside = beside.stop().await;
    quiet.stop().await;
    let stats = broker.stop().await;
    println!("honest clients: {served}");
    println!("without abuse: {served_beside}");
    println!("abuse, in rounds: {abused}");
    println!("the broker's memory: {memory}");
    println!("{stats}");
    memory.assert_no_growth();
    served.assert_not_delayed(&served_beside);
}
