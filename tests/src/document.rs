//! The fenced blocks of a document in Markdown: the lines that its reader types, and what they show.

use anyhow::{Context, Result, ensure};

/// What stands between a pair of fences.
#[derive(Clone, Debug)]
pub struct Block<'a> {
    /// What is behind the opening fence: `sh`, `text`, `cpp`.
    pub language: &'a str,
    /// Its first line's number.
    pub line: usize,
    /// Its lines, each with its end.
    pub text: String,
    /// Nothing is between it and the block before.
    pub follows_another: bool,
}

/// Commands, and what they show.
#[derive(Debug, PartialEq)]
pub struct Example {
    /// Where the commands begin.
    pub line: usize,
    /// The block of `sh`.
    pub commands: String,
    /// The block of `text` right behind it.
    pub output: String,
}

/// A document's blocks, in their order.
pub fn blocks(document: &str) -> impl Iterator<Item = Block<'_>> {
    let mut lines = document.lines().enumerate();
    let mut follows_another = false;
    std::iter::from_fn(move || {
        loop {
            let (number, line) = lines.next()?;
            let Some(language) = line.strip_prefix("```") else {
                follows_another &= line.is_empty();
                continue;
            };
            let text = lines.by_ref().map(|(_, line)| line).take_while(|line| *line != "```");
            let text = text.map(|line| format!("{line}\n")).collect();
            let follows_another = std::mem::replace(&mut follows_another, true);
            return Some(Block { language, line: number + 2, text, follows_another });
        }
    })
}

/// A document's examples; its other blocks are left out.
pub fn examples(document: &str) -> Vec<Example> {
    let mut found = Vec::new();
    let mut commands: Option<Block> = None;
    for block in blocks(document) {
        let before = commands.take().filter(|_| block.follows_another);
        match (block.language, before) {
            ("sh", _) => commands = Some(block),
            ("text", Some(Block { line, text, .. })) => {
                found.push(Example { line, commands: text, output: block.text });
            }
            _ => {}
        }
    }
    found
}

/// The one block of commands with these words.
///
/// # Errors
/// If there is none, or more than one.
pub fn commands(document: &str, words: &str) -> Result<String> {
    let mut found = blocks(document).filter(|block| block.language == "sh" && block.text.contains(words));
    let block = found.next().with_context(|| format!("there are no commands with {words}"))?;
    ensure!(found.next().is_none(), "there are two blocks with {words}");
    Ok(block.text)
}

/// The one example whose commands have these words.
///
/// # Errors
/// If there is none, or more than one.
pub fn example(document: &str, words: &str) -> Result<Example> {
    let commands = commands(document, words)?;
    let example = examples(document).into_iter().find(|example| example.commands == commands);
    example.with_context(|| format!("the commands with {words} show nothing"))
}

#[test]
fn an_example_is_commands_and_what_they_show_right_behind() {
    let document =
        "```sh\nnot this\n```\nwords\n```text\nnor this\n```\n\n```sh\na\nb\n```\n\n```text\nc\n```\n";
    let example = Example { line: 10, commands: "a\nb\n".into(), output: "c\n".into() };
    assert_eq!(examples(document), [example]);
}
