//! The text files of the checkout that the rules look at.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use ignore::WalkBuilder;

/// Folders with what others wrote, or what is written as others write it: no house rule is asked of them.
const NOT_OURS: &[&str] = &[
    // Projects in the habits of strangers: what they look like is what the tests are about.
    "tests/projects/",
    // WASI's own definitions, copied.
    "wit/deps/",
];

/// A file, by its path from the checkout's root, with `/` on every system.
pub struct File {
    pub path: String,
    /// Empty where it is no text.
    pub text: String,
    /// Whether the house rules hold for it.
    pub ours: bool,
}

impl File {
    /// What is behind the last dot of its name.
    pub fn ending(&self) -> &str {
        self.name().rsplit_once('.').map_or("", |(_, ending)| ending)
    }

    /// The last part of its path.
    pub fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or(&self.path)
    }

    /// A program for a shell, by its ending or its first line.
    pub fn is_shell_script(&self) -> bool {
        let first = self.text.lines().next().unwrap_or_default();
        self.ending() == "sh" || (first.starts_with("#!") && first.ends_with("sh"))
    }

    /// Code of tests alone, by its folder.
    pub fn is_test(&self) -> bool {
        self.path.starts_with("tests/") || self.path.contains("/tests/") || self.name() == "tests.rs"
    }
}

/// All files, sorted by path.
pub struct Tree(Vec<File>);

impl Tree {
    /// Reads what git tracks or would track: `.gitignore` decides, so that a new file is looked at before it is added.
    pub fn read(root: &Path) -> Result<Tree> {
        let mut files = Vec::new();
        let mut walk = WalkBuilder::new(root);
        walk.hidden(false).require_git(false).filter_entry(|entry| entry.file_name() != ".git");
        for entry in walk.build() {
            let entry = entry?;
            if !entry.file_type().is_some_and(|kind| kind.is_file()) {
                continue;
            }
            let path = entry.path();
            let text = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
            let relative = path.strip_prefix(root)?.to_string_lossy().replace('\\', "/");
            files.push((relative, String::from_utf8(text).unwrap_or_default()));
        }
        Ok(Tree::new(files))
    }

    /// Of paths and texts.
    pub fn new(files: impl IntoIterator<Item = (String, String)>) -> Tree {
        let ours = |path: &str| !NOT_OURS.iter().any(|folder| path.starts_with(folder));
        let files = files.into_iter().map(|(path, text)| File { ours: ours(&path), path, text });
        let mut files: Vec<File> = files.collect();
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Tree(files)
    }

    /// All of them.
    pub fn files(&self) -> &[File] {
        &self.0
    }

    /// Those that the rules hold for, of one of these endings.
    pub fn ours<'a>(&'a self, endings: &'a [&str]) -> impl Iterator<Item = &'a File> {
        self.0.iter().filter(|file| file.ours && endings.contains(&file.ending()))
    }

    /// The file with exactly this path.
    pub fn file(&self, path: &str) -> Option<&File> {
        self.0.iter().find(|file| file.path == path)
    }

    /// Whether there is a file of this path, or one in a folder of this path.
    pub fn has(&self, path: &str) -> bool {
        let path = path.trim_end_matches('/');
        let is_or_holds = |file: &File| {
            file.path.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        path.is_empty() || self.0.iter().any(is_or_holds)
    }

    /// Whether the path of some file, or of the folder of some file, ends with this one.
    pub fn has_ending(&self, path: &str) -> bool {
        let wanted = format!("/{}", path.trim_end_matches('/'));
        let is_folder = path.ends_with('/');
        self.0.iter().any(|file| {
            let whole = format!("/{}", file.path);
            if is_folder { whole.contains(&format!("{wanted}/")) } else { whole.ends_with(&wanted) }
        })
    }
}

#[cfg(test)]
impl Tree {
    /// For tests of rules.
    pub fn of(files: &[(&str, &str)]) -> Tree {
        Tree::new(files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_found_whole_and_by_their_end() {
        let tree = Tree::of(&[("a/b/c.rs", ""), ("tests/projects/x/y.sh", "")]);
        assert!(tree.has("a/b/c.rs") && tree.has("a/b") && tree.has("a/b/") && !tree.has("a/b/c"));
        assert!(tree.has_ending("b/c.rs") && tree.has_ending("c.rs") && tree.has_ending("b/"));
        assert!(!tree.has_ending("xc.rs") && !tree.has_ending("c/"));
    }

    #[test]
    fn what_strangers_write_is_not_ours() {
        let tree = Tree::of(&[("a.sh", ""), ("tests/projects/x/y.sh", "")]);
        assert_eq!(tree.ours(&["sh"]).map(|file| &*file.path).collect::<Vec<_>>(), ["a.sh"]);
    }

    #[test]
    fn a_script_is_known_by_its_ending_or_its_first_line() {
        let tree = Tree::of(&[
            ("a", "#!/bin/sh\n"),
            ("b", "#!/usr/bin/env bash\n"),
            ("c.sh", ""),
            ("d", "#!/usr/bin/python3\n"),
        ]);
        assert_eq!(
            tree.files().iter().map(File::is_shell_script).collect::<Vec<_>>(),
            [true, true, true, false]
        );
    }

    #[test]
    fn what_git_ignores_is_not_read() {
        let root = std::env::temp_dir().join(format!("offload-tidy-{}", std::process::id()));
        fs::create_dir_all(root.join("target")).unwrap();
        for (name, text) in [(".gitignore", "/target\n"), ("target/a.rs", ""), ("b.rs", "x"), (".hidden", "")]
        {
            fs::write(root.join(name), text).unwrap();
        }
        let tree = Tree::read(&root);
        fs::remove_dir_all(&root).unwrap();
        let tree = tree.unwrap();
        assert_eq!(
            tree.files().iter().map(|file| &*file.path).collect::<Vec<_>>(),
            [".gitignore", ".hidden", "b.rs"]
        );
        assert_eq!(tree.file("b.rs").unwrap().text, "x");
    }
}
