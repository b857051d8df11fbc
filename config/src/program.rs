//! `[[program]]`: programs that requests may name.

use super::Refusal;
use super::table::table;
use std::path::PathBuf;

/// Name of the built-in program, which adds its arguments. It is the default until the configuration names another.
pub const BUILT_IN: &str = "add";

/// Longest name of a program, in bytes.
const MAX_NAME: usize = 64;

table! {
    /// A program that requests may name. A request with arguments alone runs the default program: the built-in `add`,
    /// which adds them up, unless another one is marked as default.
    pub struct Program {
        /// What requests call it: 1 to 64 of `A-Z a-z 0-9 _ -`.
        pub name: String = String::new();
        /// The program: a `.wasm` or a `.wat` file.
        pub file: PathBuf = PathBuf::new();
        /// Whether it runs when a request has arguments alone; true for one program at most.
        pub default: bool = false;
    }
}

impl Program {
    /// `path` is that of the table, for the refusals.
    pub(super) fn check(&self, path: &str, refusals: &mut Vec<Refusal>) {
        let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if !(1..=MAX_NAME).contains(&self.name.len()) || !self.name.chars().all(allowed) {
            let problem = format!("{:?} is no name of a program", self.name);
            let refusal = Refusal::new(format!("{path}.name"), problem);
            refusals.push(refusal.accepting("1 to 64 of `A-Z a-z 0-9 _ -`"));
        }
        let problem = match self.file.extension().and_then(|extension| extension.to_str()) {
            Some("wasm" | "wat") => return,
            _ if self.file.as_os_str().is_empty() => "the program has no file".to_owned(),
            _ => format!("{} has another ending", self.file.display()),
        };
        let refusal = Refusal::new(format!("{path}.file"), problem);
        refusals.push(refusal.accepting("a `.wasm` or `.wat` file"));
    }
}
