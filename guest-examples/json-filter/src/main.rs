//! Reads a JSON document and prints the value that its argument points at (a JSON pointer, RFC 6901: `/a/b/0`),
//! the whole document without one: text as it is, anything else as JSON, followed by a line end.
//!
//! Exit code 1: the input is no JSON. 2: there is nothing at that path.

use std::io::{self, Read, Write};
use std::process::ExitCode;

use serde_json::Value;

fn main() -> ExitCode {
    let path = std::env::args().nth(1).unwrap_or_default();
    let mut input = Vec::new();
    if let Err(error) = io::stdin().read_to_end(&mut input) {
        return fail(1, &format!("cannot read stdin: {error}"));
    }
    let document: Value = match serde_json::from_slice(&input) {
        Ok(document) => document,
        Err(error) => return fail(1, &format!("not JSON: {error}")),
    };
    let written = match document.pointer(&path) {
        Some(Value::String(text)) => writeln!(io::stdout(), "{text}"),
        Some(value) => writeln!(io::stdout(), "{value}"),
        None => return fail(2, &format!("nothing at {path}")),
    };
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(1, &format!("cannot write stdout: {error}")),
    }
}

fn fail(code: u8, message: &str) -> ExitCode {
    eprintln!("json-filter: {message}");
    ExitCode::from(code)
}
