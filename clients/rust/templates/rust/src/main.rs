//! Adds up the numbers in its arguments and on its standard input.

use std::io::{stdin, Read};
use std::process::ExitCode;

fn main() -> ExitCode {
    match sum() {
        Ok(sum) => {
            println!("{sum}");
            ExitCode::SUCCESS
        }
        Err(problem) => {
            eprintln!("{problem}");
            ExitCode::FAILURE
        }
    }
}

fn sum() -> Result<i64, String> {
    let mut input = String::new();
    stdin().read_to_string(&mut input).map_err(|error| format!("stdin: {error}"))?;
    let args: Vec<String> = std::env::args().skip(1).collect();
    let mut sum = 0i64;
    for word in args.iter().map(String::as_str).chain(input.split_whitespace()) {
        let number: i64 = word.parse().map_err(|_| format!("not a number: {word}"))?;
        sum = sum.checked_add(number).ok_or("the sum is too large")?;
    }
    Ok(sum)
}
