//! What the documents point to exists: files and headings that are linked, files and functions that are named.

use std::collections::BTreeSet;

use super::Finding;
use super::tree::{File, Tree};

/// Files that tell of what was: what they name may be gone.
const PAST: &[&str] = &["CHANGELOG.md"];

/// A name in backticks with one of these endings is a file of ours.
const NAMED_ENDINGS: &[&str] = &[".rs", ".sh", ".wit"];

pub fn check(tree: &Tree) -> Vec<Finding> {
    let documents = tree.ours(&["md"]);
    let check_one = |file| [links(tree, file), named_files(tree, file), named_functions(tree, file)].concat();
    documents.flat_map(check_one).collect()
}

/// Lines that are prose: outside of fenced blocks. With their numbers, from one.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    text.lines().enumerate().filter_map(move |(index, line)| {
        let is_fence = line.trim_start().starts_with("```");
        fenced ^= is_fence;
        (!fenced && !is_fence).then_some((index + 1, line))
    })
}

fn links(tree: &Tree, file: &File) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (line, text) in prose(&file.text) {
        let text = without_code_spans(text);
        for target in text.split("](").skip(1).filter_map(|rest| rest.split([')', ' ']).next()) {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
            let path = if path.is_empty() { file.path.clone() } else { joined(&file.path, path) };
            let wrong = if !tree.has(&path) {
                format!("there is no {path}")
            } else if !anchor.is_empty()
                && !tree.file(&path).is_some_and(|to| anchors(&to.text).contains(anchor))
            {
                format!("{path} has no heading for #{anchor}")
            } else {
                continue;
            };
            let remedy = "correct the link".to_owned();
            findings.push(Finding { path: file.path.clone(), line, what: wrong, remedy });
        }
    }
    findings
}

/// A file may be named by the end of its path alone: `workers.rs`, `wasm/workers.rs`. The first column of a table that
/// is headed `where` or `file` may name folders too.
fn named_files(tree: &Tree, file: &File) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut in_table_of_files = false;
    for (line, text) in prose(&file.text).filter(|_| !PAST.contains(&&*file.path)) {
        let first_column = text.strip_prefix('|').and_then(|row| row.split('|').next()).map(str::trim);
        in_table_of_files = match first_column {
            Some("where" | "file") => true,
            Some(_) => in_table_of_files,
            None => false,
        };
        let is_place = |span: &&str| NAMED_ENDINGS.iter().any(|ending| span.ends_with(ending));
        let mut named: Vec<&str> = code_spans(text).filter(is_place).collect();
        if in_table_of_files {
            let folders = code_spans(first_column.unwrap_or_default()).filter(|span| span.ends_with('/'));
            named.extend(folders);
        }
        let is_pattern = |span: &&str| span.contains([' ', '*', '{', '<', '…', '=']) || span.starts_with('.');
        for name in named.into_iter().filter(|span| !is_pattern(span) && !tree.has_ending(span)) {
            findings.push(Finding {
                path: file.path.clone(),
                line,
                what: format!("there is no file {name}"),
                remedy: "name what is there now".to_owned(),
            });
        }
    }
    findings
}

/// A function that is named right after its file, `` `workers.rs`, `Workers::submit` ``, is in it.
fn named_functions(tree: &Tree, file: &File) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (line, text) in prose(&file.text).filter(|_| !PAST.contains(&&*file.path)) {
        for (path, function) in functions_after_files(text) {
            let is_named = |file: &&File| format!("/{}", file.path).ends_with(&format!("/{path}"));
            let mut named = tree.files().iter().filter(is_named).peekable();
            if named.peek().is_some() && !named.any(|source| defines(&source.text, function)) {
                findings.push(Finding {
                    path: file.path.clone(),
                    line,
                    what: format!("{path} has no function {function}"),
                    remedy: "name what is there now".to_owned(),
                });
            }
        }
    }
    findings
}

/// Code spans with a comma between them, of which the first is a Rust file and the second a function.
fn functions_after_files(text: &str) -> Vec<(&str, &str)> {
    let parts: Vec<&str> = text.split('`').collect();
    parts.windows(3).skip(1).step_by(2).filter_map(pair).collect()
}

fn pair<'a>(parts: &[&'a str]) -> Option<(&'a str, &'a str)> {
    let is_name = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_';
    let [path, ", ", name] = parts else { return None };
    let function = name.rsplit("::").next().unwrap_or(name);
    (path.ends_with(".rs") && function.chars().all(is_name)).then_some((path, function))
}

fn defines(source: &str, function: &str) -> bool {
    ["(", "<"].iter().any(|behind| source.contains(&format!("fn {function}{behind}")))
}

/// What is between single backticks.
fn code_spans(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

fn without_code_spans(text: &str) -> String {
    text.split('`').step_by(2).collect::<Vec<_>>().join("`")
}

/// A path that is relative to a file, from the root.
fn joined(file: &str, path: &str) -> String {
    let mut parts: Vec<&str> = file.split('/').collect();
    parts.pop();
    for part in path.split('/') {
        match part {
            "." | "" => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// What can stand behind a `#` in a link to this document, as GitHub makes it of headings, and what `<a id="…">` names.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut anchors = BTreeSet::new();
    for (_, line) in prose(text) {
        if let Some(heading) = line.strip_prefix('#') {
            let slug = slug(heading.trim_start_matches('#').trim());
            let numbered = (1..).map(|number| format!("{slug}-{number}"));
            let free = std::iter::once(slug.clone()).chain(numbered).find(|slug| !anchors.contains(slug));
            anchors.extend(free);
        }
        let ids = line.split("<a id=\"").skip(1).filter_map(|rest| rest.split('"').next());
        anchors.extend(ids.map(str::to_owned));
    }
    anchors
}

fn slug(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(files: &[(&str, &str)]) -> Vec<String> {
        check(&Tree::of(files))
            .into_iter()
            .map(|finding| format!("{}: {}", finding.line, finding.what))
            .collect()
    }

    #[test]
    fn links_lead_to_files_and_headings_that_exist() {
        let target = ("docs/b.md", "# B\n## Two words, `code`\n## Again\n## Again\n<a id=\"here\"></a>\n");
        let good = "# A\n[x](docs/b.md) [y](docs/b.md#two-words-code) [z](#a) [u](https://x.y/z) [w](docs/)\n\
                    [v](docs/b.md#again-1) [t](docs/b.md#here) `[no](link)`\n```\n[no](link)\n```\n";
        assert_eq!(found(&[target, ("a.md", good)]), [""; 0]);
        let bad = "# A\n[x](docs/c.md)\n[y](docs/b.md#three)\n[z](../b.md)";
        assert_eq!(
            found(&[target, ("docs/a.md", bad)]),
            ["2: there is no docs/docs/c.md", "3: there is no docs/docs/b.md", "4: there is no b.md"]
        );
        assert_eq!(
            found(&[target, ("a.md", "# A\n[y](docs/b.md#three)")]),
            ["2: docs/b.md has no heading for #three"]
        );
    }

    #[test]
    fn functions_that_are_named_after_their_file_are_in_it() {
        let code = ("runtime/src/a.rs", "//! x\nimpl A { pub fn start<T>() {} fn stop(&self) {} }\n");
        let good =
            "# A\n1. `runtime/src/a.rs`, `A::start`: x\n2. `a.rs`, `stop`, `Other`; `a.rs` or `gone`\n";
        assert_eq!(found(&[code, ("docs/a.md", good)]), [""; 0]);
        let bad = "# A\n1. `runtime/src/a.rs`, `A::started`: x\n";
        assert_eq!(found(&[code, ("docs/a.md", bad)]), ["2: runtime/src/a.rs has no function started"]);
    }

    #[test]
    fn files_that_are_named_exist() {
        let code = ("runtime/src/wasm/workers.rs", "//! x\n");
        let good = "# A\n`workers.rs`, `wasm/workers.rs`, `src/*.rs`, `a = \"x.rs\"`, `.rs`\n| file | x |\n| `wasm/` | `y/` |\n";
        assert_eq!(found(&[code, ("docs/a.md", good)]), [""; 0]);
        let bad = "# A\nsee `old.rs`\n| file | x |\n| `gone/` | y |\n";
        assert_eq!(
            found(&[code, ("docs/a.md", bad)]),
            ["2: there is no file old.rs", "4: there is no file gone/"]
        );
    }
}
