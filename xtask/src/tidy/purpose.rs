//! Each file says what it is for: in its name, and in its first line.

use super::Finding;
use super::tree::{File, Tree};

/// Names that say nothing of what is in a file: whatever has no home ends there.
const EMPTY_NAMES: &[&str] = &["common", "helper", "helpers", "misc", "util", "utils"];

pub fn check(tree: &Tree) -> Vec<Finding> {
    tree.files()
        .iter()
        .filter(|file| file.ours)
        .flat_map(|file| name(file).into_iter().chain(first_line(file)))
        .collect()
}

fn name(file: &File) -> Option<Finding> {
    let stem = file.name().split('.').next().unwrap_or_default();
    let folder = file.path.rsplit('/').nth(1).unwrap_or_default();
    let empty = [stem, folder].into_iter().find(|name| EMPTY_NAMES.contains(name))?;
    Some(Finding {
        path: file.path.clone(),
        line: 1,
        what: format!("`{empty}` says nothing of what is in it"),
        remedy: "name it for its one concept".to_owned(),
    })
}

fn first_line(file: &File) -> Option<Finding> {
    let mut lines = file.text.lines();
    let first = lines.next().unwrap_or_default();
    // What comes after the line by which the system knows the interpreter.
    let after_interpreter = if first.starts_with("#!") { lines.next().unwrap_or_default() } else { first };
    let (says, remedy) = match file.ending() {
        "rs" => (first.starts_with("//! "), "begin with a line of `//!`"),
        "md" => (first.starts_with("# "), "begin with a title, `# …`"),
        "yml" => (first.starts_with("# "), "begin with a comment"),
        "py" => (after_interpreter.starts_with("\"\"\""), "begin with a docstring"),
        "c" | "h" => (first.starts_with("/* "), "begin with a comment"),
        "js" | "cjs" | "mjs" => (after_interpreter.starts_with("// "), "begin with a comment"),
        _ if file.is_shell_script() => (after_interpreter.starts_with("# "), "begin with a comment"),
        _ => return None,
    };
    (!says).then(|| Finding {
        path: file.path.clone(),
        line: 1,
        what: "does not say what it is for".to_owned(),
        remedy: remedy.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> usize {
        check(&Tree::of(&[(path, text)])).len()
    }

    #[test]
    fn each_kind_of_file_says_what_it_is_for_in_its_first_line() {
        for (path, text, finding) in [
            ("a.rs", "//! What it is.\n", 0),
            ("a.rs", "use std::io;\n", 1),
            ("a.rs", "", 1),
            ("a.md", "# Title\n", 0),
            ("a.md", "text\n", 1),
            ("a.sh", "#!/bin/sh\n# What it does.\n", 0),
            ("a.sh", "#!/bin/sh\nset -e\n", 1),
            ("a.sh", "# For whoever reads it in.\n", 0),
            ("run", "#!/usr/bin/env bash\nset -e\n", 1),
            ("a.py", "#!/usr/bin/env python3\n\"\"\"What it does.\"\"\"\n", 0),
            ("a.py", "import os\n", 1),
            ("a.c", "/* What it does. */\n", 0),
            ("a.c", "int x;\n", 1),
            ("a.yml", "# What it does.\n", 0),
            ("a.yml", "on: push\n", 1),
            ("tests/projects/a.c", "int x;\n", 0),
            ("a.toml", "[package]\n", 0),
        ] {
            assert_eq!(found(path, text), finding, "{path}: {text:?}");
        }
    }

    #[test]
    fn names_say_what_is_in_a_file() {
        assert_eq!(found("src/utils.rs", "//! x\n"), 1);
        assert_eq!(found("tests/common/mod.rs", "//! x\n"), 1);
        assert_eq!(found("src/utilization.rs", "//! x\n"), 0);
    }
}
