//! Prints the lines of stdin that match a regular expression, its first argument; with a second one, what that makes
//! of each match (`$1` and `${name}` are its groups) in place of the line. Text is Unicode in all its forms: letters
//! match however they are composed, compatible ones like each other (NFKC), classes and scripts by name. The tables
//! for that make this the largest of the guests.
//!
//! Exit code 1: no line matched. 2: no such expression, or stdin or stdout failed.

use std::io::{self, BufRead, BufWriter, Write};
use std::process::ExitCode;

use regex::Regex;
use unicode_normalization::UnicodeNormalization;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (expression, replacement) = match args.as_slice() {
        [expression] => (expression, None),
        [expression, replacement] => (expression, Some(replacement.as_str())),
        _ => return fail("expected EXPRESSION [REPLACEMENT]"),
    };
    let expression = match Regex::new(&normal(expression)) {
        Ok(expression) => expression,
        Err(error) => return fail(&error.to_string()),
    };
    match search(&expression, replacement) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => fail(&error.to_string()),
    }
}

/// Whether any line matched.
fn search(expression: &Regex, replacement: Option<&str>) -> io::Result<bool> {
    let mut output = BufWriter::new(io::stdout().lock());
    let mut any = false;
    for line in io::stdin().lock().lines() {
        let line = line?;
        let normal = normal(&line);
        let Some(replacement) = replacement else {
            if expression.is_match(&normal) {
                any = true;
                writeln!(output, "{line}")?;
            }
            continue;
        };
        for found in expression.captures_iter(&normal) {
            any = true;
            let mut made = String::new();
            found.expand(replacement, &mut made);
            writeln!(output, "{made}")?;
        }
    }
    output.flush()?;
    Ok(any)
}

/// One spelling for what people read as the same text.
fn normal(text: &str) -> String {
    text.nfkc().collect()
}

fn fail(message: &str) -> ExitCode {
    eprintln!("search: {message}");
    ExitCode::from(2)
}
