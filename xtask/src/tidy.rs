//! `cargo xtask tidy`: the house rules that a machine can check, over all files that git tracks or would track.
//!
//! The rules and their reasons are in `CONTRIBUTING.md`. Each rule is a file below `tidy/`, a function from the
//! [`Tree`] to its [`Finding`]s, and has tests that show it failing.

use std::fmt;
use std::time::Instant;

use anyhow::{Result, ensure};

use crate::workspace::Workspace;
use tree::Tree;

mod allowed_circles;
mod circles;
mod links;
mod panics;
mod purpose;
mod rust_source;
mod scripts;
mod tree;
mod width;
mod words;

/// The rules that need nothing but the text of the files.
const RULES: &[fn(&Tree) -> Vec<Finding>] =
    &[width::check, words::check, purpose::check, circles::check, links::check, panics::check];

/// What breaks a rule, where, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    path: String,
    line: usize,
    what: String,
    remedy: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Finding { path, line, what, remedy } = self;
        write!(f, "{path}:{line}: {what}: {remedy}")
    }
}

/// Prints each finding on a line of its own.
///
/// # Errors
///
/// There is a finding, a file cannot be read, or shellcheck is missing and cannot be installed.
pub fn run() -> Result<()> {
    let begin = Instant::now();
    let root = Workspace::find()?.root;
    let tree = Tree::read(&root)?;
    let mut findings: Vec<Finding> = RULES.iter().flat_map(|rule| rule(&tree)).collect();
    findings.sort();
    print(&findings);
    // Last, since it is the one rule that needs a program.
    let of_scripts = scripts::check(&tree, &root)?;
    print(&of_scripts);
    let count = findings.len() + of_scripts.len();
    ensure!(count == 0, "{count} findings; CONTRIBUTING.md has the rules and their reasons");
    println!("{} files are tidy ({:.1} s)", tree.files().len(), begin.elapsed().as_secs_f64());
    Ok(())
}

fn print(findings: &[Finding]) {
    for finding in findings {
        println!("{finding}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_a_line_that_editors_can_open() {
        let finding =
            Finding { path: "a.rs".into(), line: 3, what: "too long".into(), remedy: "break it".into() };
        assert_eq!(finding.to_string(), "a.rs:3: too long: break it");
    }
}
