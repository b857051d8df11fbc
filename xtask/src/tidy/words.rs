//! One concept has one word, and that is the field's where the field has one: the words that are not used, and why.

use super::Finding;
use super::tree::{File, Tree};

/// A word, or several, as they stand in a line; upper and lower case are the same.
struct Banned {
    words: &'static str,
    /// What to write.
    instead: &'static str,
    why: &'static str,
    /// Whether tests may use it, for a name of their own.
    in_tests: bool,
}

const fn banned(words: &'static str, instead: &'static str, why: &'static str) -> Banned {
    Banned { words, instead, why, in_tests: false }
}

const PERSON: &str = "clients and devices are no persons";
const NUMBER: &str = "the reader looks for the number";
const PRIVATE: &str = "the field has a term";

const BANNED: &[Banned] = &[
    banned("he", "the client, it", PERSON),
    banned("him", "the client, it", PERSON),
    banned("his", "its", PERSON),
    banned("himself", "itself", PERSON),
    banned("nought", "zero", NUMBER),
    banned("so many", "the number, or `this many`", NUMBER),
    banned("a turn", "a permit, a slice or a round", PRIVATE),
    banned("whose turn it is", "who has the permit", PRIVATE),
    banned("a place", "a slot or a permit", PRIVATE),
    banned("lend a hand", "run inline", PRIVATE),
    banned("lends a hand", "runs inline", PRIVATE),
    banned("lend_a_hand", "try_run_inline", PRIVATE),
    banned("desk", "executor", PRIVATE),
    banned("mailbox", "ready list", PRIVATE),
    banned("badge", "credentials", PRIVATE),
    banned("cage", "sandbox", PRIVATE),
    banned("lasting failure", "permanent failure", PRIVATE),
    banned("passing failure", "transient failure", PRIVATE),
    banned("foreign broker", "external broker", PRIVATE),
    banned("foreign ingress", "external ingress", PRIVATE),
    Banned { words: "deaf", instead: "unresponsive", why: PRIVATE, in_tests: true },
];

/// Files that keep their words, and why.
const EXEMPT: &[&str] = &[
    // It holds them.
    "xtask/src/tidy/words.rs",
    // The wire contract does not change for the sake of a word.
    "docs/protocol.md",
];

pub fn check(tree: &Tree) -> Vec<Finding> {
    let files = tree.ours(&["rs", "md", "sh", "py", "toml", "yml", "wit", "c"]);
    files.filter(|file| !EXEMPT.contains(&&*file.path)).flat_map(|file| check_file(file, BANNED)).collect()
}

fn check_file(file: &File, banned: &[Banned]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, line) in file.text.lines().enumerate() {
        let line = line.to_lowercase();
        for banned in banned.iter().filter(|banned| !(banned.in_tests && file.is_test())) {
            if has_words(&line, banned.words) {
                findings.push(Finding {
                    path: file.path.clone(),
                    line: index + 1,
                    what: format!("`{}`", banned.words),
                    remedy: format!("{} ({})", banned.instead, banned.why),
                });
            }
        }
    }
    findings
}

/// They stand for themselves: no letter, digit or underscore is before or behind them.
fn has_words(line: &str, words: &str) -> bool {
    let is_part = |letter: char| letter.is_alphanumeric() || letter == '_';
    line.match_indices(words).any(|(at, _)| {
        let (before, behind) = (&line[..at], &line[at + words.len()..]);
        !before.ends_with(is_part) && !behind.starts_with(is_part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> Vec<String> {
        check(&Tree::of(&[(path, text)])).iter().map(Finding::to_string).collect()
    }

    #[test]
    fn a_banned_word_is_found_with_what_to_write_instead() {
        assert_eq!(
            found("a.md", "one\nHe waits."),
            ["a.md:2: `he`: the client, it (clients and devices are no persons)"]
        );
        assert_eq!(found("a.rs", "/// So many bytes.").len(), 1);
    }

    #[test]
    fn words_have_boundaries() {
        assert_eq!(found("a.rs", "the other place, his_name, overturn, a turning point"), [""; 0]);
    }

    #[test]
    fn a_test_may_name_a_client_deaf() {
        assert_eq!(found("broker/tests/a.rs", "let deaf = 1;"), [""; 0]);
        assert_eq!(found("broker/src/a.rs", "let deaf = 1;").len(), 1);
    }

    #[test]
    fn other_peoples_files_keep_their_words() {
        assert_eq!(found("tests/projects/a.c", "/* nought */"), [""; 0]);
    }
}
