//! Lines have at most 120 characters: two files side by side on one screen, and reviews without scrolling.
//!
//! What is exempt cannot be broken: a line of one word (a URL); a line of Rust that has a literal at the limit, or ends
//! with one; a row of a table, in Markdown or in a comment; a fenced block of Markdown, since what is printed there is
//! typed as it is; a line of TOML with one string.

use super::Finding;
use super::rust_source::{Kind, RustSource};
use super::tree::{File, Tree};

/// Characters, not bytes.
const MAX_WIDTH: usize = 120;

/// Files that keep their lines, and why.
const EXEMPT: &[&str] = &[
    // The wire contract: whoever compares two versions of it sees changes of the contract alone.
    "docs/protocol.md",
];

pub fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.files().iter().filter(|file| file.ours && !EXEMPT.contains(&&*file.path)) {
        let too_wide = match file.ending() {
            "rs" => in_rust(file),
            "md" => in_markdown(file),
            "toml" => overlong(&file.text).filter(|line| line.text.matches('"').count() != 2).collect(),
            "yml" | "py" => overlong(&file.text).collect(),
            _ if file.is_shell_script() => overlong(&file.text).collect(),
            _ => continue,
        };
        findings.extend(too_wide.into_iter().filter(|line| !line.is_one_word()).map(|line| Finding {
            path: file.path.clone(),
            line: line.number,
            what: format!("{} characters", line.text.chars().count()),
            remedy: format!("break the line, {MAX_WIDTH} are allowed"),
        }));
    }
    findings
}

struct Line<'a> {
    /// From one.
    number: usize,
    /// Where it begins in its file.
    begin: usize,
    text: &'a str,
}

impl Line<'_> {
    /// It has no white space to break it at, but for its indentation and a list's or comment's mark.
    fn is_one_word(&self) -> bool {
        let mut words = self.text.split_whitespace().peekable();
        words.next_if(|first| matches!(*first, "-" | "*" | "#" | "//" | "///" | "//!"));
        words.count() <= 1
    }

    /// Where the first character beyond the limit is in its file.
    fn beyond(&self) -> usize {
        self.begin + self.text.char_indices().nth(MAX_WIDTH).map_or(self.text.len(), |(at, _)| at)
    }
}

fn overlong(text: &str) -> impl Iterator<Item = Line<'_>> {
    let mut begin = 0;
    text.split('\n')
        .enumerate()
        .map(move |(index, text)| {
            let line = Line { number: index + 1, begin, text };
            begin += text.len() + 1;
            line
        })
        .filter(|line| line.text.chars().count() > MAX_WIDTH)
}

fn in_rust(file: &File) -> Vec<Line<'_>> {
    let source = RustSource::new(&file.text);
    let is_literal = |at: usize| source.kind(at) == Kind::Literal;
    let ends_with_literal = |line: &Line<'_>| {
        let inside =
            line.text.trim_end_matches(|letter: char| letter != '"' && letter.is_ascii_punctuation());
        !inside.is_empty() && is_literal(line.begin + inside.len() - 1)
    };
    let is_table_row = |line: &Line<'_>| {
        source.kind(line.beyond()) == Kind::Comment
            && line.text.trim_start().trim_start_matches(['/', '!']).starts_with(" |")
    };
    let is_exempt =
        |line: &Line<'_>| is_literal(line.beyond()) || ends_with_literal(line) || is_table_row(line);
    overlong(&file.text).filter(|line| !is_exempt(line)).collect()
}

fn in_markdown(file: &File) -> Vec<Line<'_>> {
    let mut fences = file.text.lines().scan(false, |fenced, line| {
        let is_fence = line.trim_start().starts_with("```");
        *fenced ^= is_fence;
        Some(*fenced || is_fence)
    });
    let fenced: Vec<bool> = fences.by_ref().collect();
    let is_prose = |line: &Line<'_>| !fenced[line.number - 1] && !line.text.trim_start().starts_with('|');
    overlong(&file.text).filter(is_prose).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines that are found too long in a file of this name.
    fn found(path: &str, text: &str) -> Vec<usize> {
        check(&Tree::of(&[(path, text)])).into_iter().map(|finding| finding.line).collect()
    }

    fn words(characters: usize) -> String {
        "ä ".repeat(characters / 2)
    }

    #[test]
    fn characters_count_and_not_bytes() {
        assert_eq!(found("a.sh", &words(120)), [0; 0]);
        assert_eq!(found("a.sh", &format!("\n{}", words(122))), [2]);
    }

    #[test]
    fn in_rust_literals_at_the_limit_and_rows_of_tables_are_exempt() {
        let filler = " ".repeat(110);
        assert_eq!(found("a.rs", &format!("{filler}\"a literal of some length\"")), [0; 0]);
        assert_eq!(found("a.rs", &format!("{filler}\"to here\"));")), [0; 0]);
        assert_eq!(found("a.rs", &format!("\"a literal\"{filler}, code")), [1]);
        assert_eq!(found("a.rs", &format!("// {}", words(120))), [1]);
        assert_eq!(found("a.rs", &format!("    //! | {} |", words(120))), [0; 0]);
    }

    #[test]
    fn in_markdown_tables_and_fenced_blocks_are_exempt() {
        let long = words(130);
        assert_eq!(found("a.md", &format!("| {long} |\n```sh\n{long}\n```\n{long}")), [5]);
    }

    #[test]
    fn one_word_cannot_be_broken() {
        let url = format!("https://{}", "x".repeat(130));
        assert_eq!(found("a.md", &format!("- {url}")), [0; 0]);
        assert_eq!(found("a.md", &format!("see {url}")), [1]);
    }

    #[test]
    fn one_string_of_toml_is_exempt_and_a_list_is_not() {
        let long = words(130);
        assert_eq!(found("a.toml", &format!("a = \"{long}\"")), [0; 0]);
        assert_eq!(found("a.toml", &format!("a = [\"{long}\", \"b\"]")), [1]);
    }
}
