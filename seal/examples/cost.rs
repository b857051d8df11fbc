//! What sealing costs: µs of one core for each step of a request and its answer.
//!
//! `cargo run --release -p offload-seal --example cost`

use std::hint::black_box;
use std::time::Instant;

use offload_seal::{SealError, SecretKey, Suite};

/// Rounds of each step; the median of as many is robust against what else runs.
const ROUNDS: usize = 2_000;

/// A request as devices send them, and its answer.
const REQUEST: [u8; 256] = [b'x'; 256];
const ANSWER: [u8; 160] = [b'y'; 160];

fn main() -> Result<(), SealError> {
    println!(
        "{:<34}{:>8}{:>8}{:>13}{:>13}{:>9}",
        "suite", "seal", "open", "seal answer", "open answer", "gateway"
    );
    for suite in Suite::ALL {
        let secret = SecretKey::generate(suite)?;
        let topic = "localCode/device";
        let sealed = secret.public().seal(&REQUEST, topic)?;
        let opened = secret.open(&sealed.encapsulated, &sealed.ciphertext, topic)?;
        let answer = opened.answer_key.seal(&ANSWER, "result/device")?;
        let seal = median(|| secret.public().seal(black_box(&REQUEST), topic).map(drop))?;
        let open =
            median(|| secret.open(&sealed.encapsulated, black_box(&sealed.ciphertext), topic).map(drop))?;
        let seal_answer = median(|| opened.answer_key.seal(black_box(&ANSWER), "result/device").map(drop))?;
        let open_answer = median(|| sealed.answer_key.open(black_box(&answer), "result/device").map(drop))?;
        let name = suite.as_str();
        let gateway = open + seal_answer;
        println!("{name:<34}{seal:>8.1}{open:>8.1}{seal_answer:>13.1}{open_answer:>13.1}{gateway:>9.1}");
    }
    Ok(())
}

/// µs of one call.
fn median(mut step: impl FnMut() -> Result<(), SealError>) -> Result<f64, SealError> {
    let mut times = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let start = Instant::now();
        step()?;
        times.push(start.elapsed());
    }
    times.sort();
    Ok(times[ROUNDS / 2].as_secs_f64() * 1e6)
}
