//! The map from the contract to its tests, in `tests/README.md`: every sentence is in it, and every test that it names
//! is there.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// The sections of `docs/protocol.md` that are the contract; the others are examples and background.
const SECTIONS: [&str; 5] =
    ["Topics and identities", "Request forms", "Answers", "Sealed requests", "Command lines"];

/// In place of a test: nothing shows this sentence yet, or it claims nothing that could be shown.
const OPEN: &str = "open";
const NONE: &str = "–";

/// The heading above the map in `tests/README.md`.
const HEADING: &str = "## Which test shows which sentence of the contract";

/// One line of the table.
struct Row {
    sentence: String,
    tests: Vec<String>,
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The table's lines, without its head.
fn rows() -> Result<Vec<Row>> {
    let readme = fs::read_to_string(repository().join("tests/README.md"))?;
    let (_, map) = readme.split_once(HEADING).context("the map has no heading")?;
    let table = map.lines().skip_while(|line| !line.starts_with("| --- |")).skip(1);
    let cells = table.map_while(|line| line.strip_prefix("| ")?.strip_suffix(" |")?.rsplit_once(" | "));
    let row = |(sentence, tests): (&str, &str)| Row {
        sentence: plain(sentence),
        tests: tests.split(", ").map(|test| test.trim_matches('`').to_owned()).collect(),
    };
    Ok(cells.map(row).collect())
}

/// Text without what only Markdown needs, and with one space between its words.
fn plain(text: &str) -> String {
    let marks = |word: &&str| !["|", "-", "---"].contains(word);
    text.replace("**", "").replace("\\|", "|").split_whitespace().filter(marks).collect::<Vec<_>>().join(" ")
}

/// The contract's own words, section by section.
fn contract() -> Result<String> {
    let document = fs::read_to_string(repository().join("docs/protocol.md"))?;
    let mut text = String::new();
    for section in SECTIONS {
        let heading = format!("\n## {section}\n");
        let (_, rest) = document.split_once(&heading).with_context(|| format!("no section {section}"))?;
        text += rest.split("\n## ").next().unwrap_or_default();
    }
    Ok(plain(&text))
}

/// The table's first column, read from top to bottom, is the contract: a sentence that is new there has to say here
/// what shows it.
#[test]
fn the_map_holds_every_sentence_of_the_contract() -> Result<()> {
    let contract = contract()?;
    let mut left = contract.as_str();
    for Row { sentence, .. } in rows()? {
        let next = left.strip_prefix(sentence.as_str());
        left = next.with_context(|| {
            let there: String = left.chars().take(200).collect();
            format!("the map has\n{sentence}\nwhere the contract has\n{there}…")
        })?;
        left = left.trim_start();
    }
    ensure!(left.is_empty(), "the map ends before\n{left}");
    Ok(())
}

/// Tests are named `<file>::<test>`; the file is a path without `.rs`, from this folder's parent or from the
/// repository.
#[test]
fn every_test_in_the_map_is_there() -> Result<()> {
    let mut named = 0;
    for Row { sentence, tests } in rows()? {
        for test in tests.iter().filter(|test| ![OPEN, NONE].contains(&test.as_str())) {
            let (file, name) = test.rsplit_once("::").with_context(|| format!("{test}: no test's name"))?;
            let files = [format!("tests/tests/{file}.rs"), format!("{file}.rs")];
            let source = files.iter().find_map(|file| fs::read_to_string(repository().join(file)).ok());
            let source = source.with_context(|| format!("{test}: no such file; {sentence}"))?;
            ensure!(source.contains(&format!("fn {name}(")), "{test}: no such test; {sentence}");
            named += 1;
        }
    }
    ensure!(named > 0, "the map names no test");
    Ok(())
}
