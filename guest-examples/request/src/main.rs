//! Says what it knows about its request: for each argument one line.
//!
//! `id` prints the request's id, `reply` who is answered, `fuel` and `time` whether some is left, and whether it
//! becomes less.

use std::process::ExitCode;

mod bindings {
    wit_bindgen::generate!({ path: "../../wit", world: "program" });
}

use bindings::offload::guest::context;

fn main() -> ExitCode {
    for what in std::env::args().skip(1) {
        match what.as_str() {
            "id" => println!("id: {}", context::request_id().as_deref().unwrap_or("none")),
            "reply" => println!("reply: {}", context::reply_id()),
            "fuel" => println!("fuel: {}", falls(context::fuel_left)),
            "time" => println!("time: {}", falls(context::time_left)),
            unknown => {
                eprintln!("{unknown}: not one of id, reply, fuel, time");
                return ExitCode::from(2);
            }
        }
    }
    ExitCode::SUCCESS
}

/// Asks twice, with a little work in between.
fn falls(left: fn() -> u64) -> &'static str {
    let before = left();
    std::hint::black_box((0..1000u64).map(std::hint::black_box).sum::<u64>());
    let after = left();
    if after < before && after > 0 { "some, and falling" } else { "does not fall" }
}
