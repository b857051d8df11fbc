//! Counts how often each word occurs in its input, the most frequent first: `3 the`.
//!
//! A word is a run of letters and digits, in whatever case. The first argument says how many to list (all by
//! default), the environment variable `IGNORE` which to leave out, separated by commas.

use std::collections::{HashMap, HashSet};
use std::io::{self, Read, Write};
use std::process::ExitCode;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("word-count: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let listed = match std::env::args().nth(1) {
        Some(number) => number.parse().map_err(|_| format!("not a number of words: {number}"))?,
        None => usize::MAX,
    };
    let ignore = std::env::var("IGNORE").unwrap_or_default();
    let ignored: HashSet<&str> = ignore.split(',').collect();

    let mut input = String::new();
    io::stdin().read_to_string(&mut input)?;
    let input = input.to_lowercase();
    let mut counts: HashMap<&str, usize> = HashMap::new();
    for word in input.split(|c: char| !c.is_alphanumeric()) {
        if !word.is_empty() && !ignored.contains(word) {
            *counts.entry(word).or_default() += 1;
        }
    }

    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by(|(a, a_count), (b, b_count)| b_count.cmp(a_count).then(a.cmp(b)));
    let mut out = io::stdout().lock();
    for (word, count) in counts.into_iter().take(listed) {
        writeln!(out, "{count} {word}")?;
    }
    Ok(out.flush()?)
}
