//! Source that the gateway builds and runs natively: one file, or several.

use std::collections::HashSet;

use bytes::Bytes;

use crate::error::{WireError, cut};

/// What a program without a usable name is called.
pub const UNNAMED: &str = "program";

/// A program's name is a file's name, too, and may have at most this many bytes.
pub const MAX_NAME: usize = 64;

/// A path among the files of a request may have at most this many bytes.
pub const MAX_PATH: usize = 255;

/// A path among the files of a request may have at most this many parts: the file, and the folders that it is in.
pub const MAX_DEPTH: usize = 32;

/// What stands for the program's path without its ending, in a compiler command and in a makefile.
pub const PLACEHOLDER: &str = "<name>";

/// A build part whose lines begin with one of these is compiler commands. A folder, a version and what the compiler is
/// for may be part of the word: `/usr/bin/gcc`, `clang++-14`, `x86_64-linux-gnu-gcc-12`.
const C_COMPILERS: [&str; 6] = ["gcc", "cc", "clang", "tcc", "c89", "c99"];
const CPP_COMPILERS: [&str; 3] = ["g++", "c++", "clang++"];

/// What lines beside the compilers' may begin with. No line of a makefile does: it would be no rule and no variable.
const TOOLS: [&str; 12] =
    ["ar", "as", "chmod", "cp", "echo", "ld", "mkdir", "mv", "objcopy", "ranlib", "rm", "strip"];

/// The files that make takes for a makefile by itself.
const MAKEFILES: [&str; 3] = ["GNUmakefile", "makefile", "Makefile"];

/// One file of source, and how it becomes a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The program's name: 1 to [`MAX_NAME`] ASCII letters, digits, `_` and `-`.
    pub name: String,
    /// The file's contents. Only legacy text carries what is not UTF-8.
    pub text: Bytes,
    /// How to build it.
    pub build: Build,
}

impl Source {
    /// Source of a program with the name that was given, or with [`UNNAMED`] where that cannot be one.
    pub fn new(name: &[u8], text: Bytes, build: Build) -> Self {
        let name = str::from_utf8(name).ok().filter(|name| is_safe_name(name)).unwrap_or(UNNAMED);
        Self { name: name.to_owned(), text, build }
    }

    /// Source from the three parts of a request. Fails with `malformed` for a NUL, which ends a string for compilers
    /// and shells, and as [`Build::parse`].
    pub(super) fn read(name: &[u8], text: Bytes, build: &str) -> Result<Self, WireError> {
        check_no_nul("name", name)?;
        check_no_nul("source", &text)?;
        Ok(Self::new(name, text, Build::parse(build)?))
    }

    /// The language, and with it the ending of the source file.
    pub fn language(&self) -> Language {
        self.build.language()
    }
}

/// How source becomes a program. In both, [`PLACEHOLDER`] stands for the program's path without its ending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Build {
    /// A line that calls a compiler, `gcc <name>.c -o <name>`, or several, each of which has to succeed.
    Command(String),
    /// A makefile.
    Makefile(String),
}

impl Build {
    /// Reads a build part: compiler commands if it is lines that begin with a compiler, else a makefile. NULs at its
    /// end are white space: devices send the zero that ends a string in C along.
    ///
    /// Assignments may come before the compiler (`LANG=C gcc …`). Among several lines some may begin with another tool
    /// (`ar`, `strip`, `mkdir`, …). Fails with `malformed` for a NUL elsewhere, and if there is nothing but white
    /// space.
    pub fn parse(text: &str) -> Result<Self, WireError> {
        let text = without_last_nuls(text);
        check_no_nul("makefile", text.as_bytes())?;
        if text.trim().is_empty() {
            return Err(WireError::malformed(
                "makefile",
                "expected a makefile or a compiler command, got nothing",
            ));
        }
        let mut first_words = command_lines(text).map(first_word).peekable();
        let compiles = first_words.clone().any(is_compiler);
        let is_one_line = !text.trim().contains(['\n', '\r']);
        // A line can be assignments alone.
        let is_known = |word: &str| word.is_empty() || is_compiler(word) || TOOLS.contains(&word);
        Ok(if compiles && (is_one_line || first_words.all(is_known)) {
            Build::Command(text.trim().to_owned())
        } else {
            Build::Makefile(text.to_owned())
        })
    }

    /// The command or the makefile.
    pub fn as_str(&self) -> &str {
        match self {
            Build::Command(text) | Build::Makefile(text) => text,
        }
    }

    /// C++ where a C++ compiler is called or `<name>.cpp` is named, else C.
    pub fn language(&self) -> Language {
        let calls_cpp_compiler = match self {
            Build::Command(commands) => command_lines(commands).any(|line| is_cpp_compiler(first_word(line))),
            // Whole words: `-lstdc++` and `-std=c++17` call no compiler.
            Build::Makefile(text) => {
                text.contains("$(CXX)")
                    || text.contains("${CXX}")
                    || text
                        .split(|c: char| !(c.is_ascii_alphanumeric() || "+-_.".contains(c)))
                        .any(is_cpp_compiler)
            }
        };
        if calls_cpp_compiler || self.as_str().contains("<name>.cpp") { Language::Cpp } else { Language::C }
    }
}

/// The lines of commands: neither comments nor what continues the line before.
fn command_lines(text: &str) -> impl Iterator<Item = &str> + Clone {
    let mut continues = false;
    text.lines().map(str::trim).filter(move |line| {
        let begins = !std::mem::replace(&mut continues, line.ends_with('\\'));
        begins && !line.is_empty() && !line.starts_with('#')
    })
}

/// The first word that is no assignment to a variable, nor `env`, which makes some; empty where there is none.
fn first_word(line: &str) -> &str {
    let mut rest = line;
    loop {
        let (word, after) = split_word(rest);
        let is_name = |name: &str| {
            name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
                && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        };
        match word.split_once('=') {
            Some((name, _)) if is_name(name) => rest = after,
            None if word == "env" => rest = after,
            _ => return word,
        }
    }
}

/// A line's first word, up to white space that is not in quotes, and what comes after it.
fn split_word(line: &str) -> (&str, &str) {
    let line = line.trim_start();
    let mut quote = None;
    let ends = |c: char| {
        match quote {
            Some(open) if open == c => quote = None,
            None if matches!(c, '\'' | '"') => quote = Some(c),
            _ => {}
        }
        quote.is_none() && c.is_whitespace()
    };
    line.split_at(line.find(ends).unwrap_or(line.len()))
}

fn is_compiler(word: &str) -> bool {
    C_COMPILERS.contains(&tool(word)) || is_cpp_compiler(word)
}

fn is_cpp_compiler(word: &str) -> bool {
    CPP_COMPILERS.contains(&tool(word))
}

/// A tool's name without its folder, its version and what it makes programs for.
fn tool(word: &str) -> &str {
    let name = word.rsplit('/').next().unwrap_or(word);
    let is_version = |part: &str| part.chars().all(|c| c.is_ascii_digit() || c == '.');
    let name = match name.rsplit_once('-') {
        Some((name, version)) if is_version(version) => name,
        _ => name,
    };
    name.rsplit('-').next().unwrap_or(name)
}

/// A build part without the NULs at its end, and without the white space among them.
pub(super) fn without_last_nuls(text: &str) -> &str {
    let blank = text.trim_end_matches(|c: char| c == '\0' || c.is_whitespace()).len();
    text[blank..].find('\0').map_or(text, |nul| &text[..blank + nul])
}

fn check_no_nul(field: &str, text: &[u8]) -> Result<(), WireError> {
    if text.contains(&b'\0') {
        return Err(WireError::malformed(field, "expected text without NUL"));
    }
    Ok(())
}

/// The language of a source file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Language {
    /// C.
    C,
    /// C++.
    Cpp,
}

impl Language {
    /// The ending of its source files, with the dot.
    pub const fn ending(self) -> &'static str {
        match self {
            Language::C => ".c",
            Language::Cpp => ".cpp",
        }
    }
}

/// Several files with a makefile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// Path and contents; each path is relative, has at most [`MAX_PATH`] bytes and [`MAX_DEPTH`] parts, and no part of
    /// it is empty, `.`, `..` or another one's file.
    pub files: Vec<(String, Bytes)>,
    /// The makefile; `None` only if it is among the files.
    pub makefile: Option<String>,
    /// The program to run, a path as above; the makefile's first target by default.
    pub target: Option<String>,
}

impl Files {
    /// Bytes of all of it: what the gateway's limit on source is about.
    pub fn size(&self) -> usize {
        let files: usize = self.files.iter().map(|(path, contents)| path.len() + contents.len()).sum();
        files + self.makefile.as_ref().map_or(0, String::len)
    }
}

fn is_safe_name(name: &str) -> bool {
    (1..=MAX_NAME).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
}

/// Refuses source that would not be read back as it is written.
pub(super) fn check_source(source: &Source) -> Result<(), WireError> {
    if !is_safe_name(&source.name) {
        return Err(WireError::malformed("name", "expected letters, digits, `_` and `-`"));
    }
    check_no_nul("source", &source.text)?;
    if Build::parse(source.build.as_str())? != source.build {
        return Err(WireError::malformed("makefile", "expected a makefile or lines that call a compiler"));
    }
    Ok(())
}

/// Refuses files that could not be written side by side into one folder, or not be built there.
pub(super) fn check_files(given: &Files) -> Result<(), WireError> {
    if given.files.is_empty() {
        return Err(WireError::malformed("files", "expected at least one file, got none"));
    }
    let mut paths = HashSet::with_capacity(given.files.len());
    for (path, _) in &given.files {
        check_path("files", path)?;
        if !paths.insert(path.as_str()) {
            return Err(WireError::malformed(file_field(path), "given twice"));
        }
    }
    for (path, _) in &given.files {
        let mut folders = path.match_indices('/').map(|(at, _)| &path[..at]);
        if let Some(file) = folders.find(|folder| paths.contains(folder)) {
            return Err(WireError::malformed(file_field(file), "expected a file or a folder, got both"));
        }
    }
    if given.makefile.is_none() && !MAKEFILES.iter().any(|name| paths.contains(name)) {
        return Err(WireError::malformed("makefile", "expected, here or as a file `Makefile`"));
    }
    if given.makefile.as_ref().is_some_and(|makefile| makefile.trim().is_empty()) {
        return Err(WireError::malformed("makefile", "expected a makefile, got nothing"));
    }
    check_no_nul("makefile", given.makefile.as_deref().unwrap_or_default().as_bytes())?;
    given.target.as_deref().map_or(Ok(()), |target| check_path("target", target))
}

fn check_path(field: &str, path: &str) -> Result<(), WireError> {
    let usable = path.len() <= MAX_PATH
        && path.split('/').count() <= MAX_DEPTH
        && !path.contains(|c: char| c.is_control() || c == '\\')
        && path.split('/').all(|part| !matches!(part, "" | "." | ".."));
    if usable {
        return Ok(());
    }
    let problem = format!(
        "expected relative paths of at most {MAX_PATH} bytes and {MAX_DEPTH} parts, none empty, `.` or `..`"
    );
    Err(WireError::malformed(field, format_args!("{problem}, got `{}`", cut(path, 32))))
}

/// A file as a message names it.
pub(super) fn file_field(path: &str) -> String {
    format!("files.{}", cut(path, 64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_part_is_a_compiler_command_or_a_makefile() {
        for (text, expected, language) in [
            ("gcc <name>.c -o <name>", Build::Command("gcc <name>.c -o <name>".into()), Language::C),
            ("\n cc -O2 a.c \r\n", Build::Command("cc -O2 a.c".into()), Language::C),
            ("clang++ a.cpp", Build::Command("clang++ a.cpp".into()), Language::Cpp),
            ("g++ <name>.c", Build::Command("g++ <name>.c".into()), Language::Cpp),
            ("gcc <name>.cpp -lstdc++", Build::Command("gcc <name>.cpp -lstdc++".into()), Language::Cpp),
            ("gcc <name>.c -lstdc++", Build::Command("gcc <name>.c -lstdc++".into()), Language::C),
            ("gccx <name>.c", Build::Makefile("gccx <name>.c".into()), Language::C),
            ("all:\n\tgcc <name>.c\n", Build::Makefile("all:\n\tgcc <name>.c\n".into()), Language::C),
            ("all:\n\t/usr/bin/g++ x", Build::Makefile("all:\n\t/usr/bin/g++ x".into()), Language::Cpp),
            ("all:\n\t$(CXX) x", Build::Makefile("all:\n\t$(CXX) x".into()), Language::Cpp),
            ("a: <name>.cpp", Build::Makefile("a: <name>.cpp".into()), Language::Cpp),
            ("CXXFLAGS=-std=c++17\n", Build::Makefile("CXXFLAGS=-std=c++17\n".into()), Language::C),
        ] {
            let build = Build::parse(text).unwrap();
            assert_eq!((&build, build.language()), (&expected, language), "{text}");
        }
        assert_eq!(Build::parse(" \n").unwrap_err().message.split(':').next(), Some("makefile"));
    }

    /// Whatever a shell would take for a call of a compiler, and nothing that make would take for a makefile.
    #[test]
    fn compilers_are_known_by_any_name_and_on_several_lines() {
        for (text, language) in [
            ("gcc-12 <name>.c -o <name>", Language::C),
            ("c99 a.c", Language::C),
            ("/usr/bin/gcc a.c", Language::C),
            ("x86_64-linux-gnu-gcc-12 a.c", Language::C),
            ("/usr/local/bin/clang++-14.0 a.cpp", Language::Cpp),
            ("LANG=C gcc a.c", Language::C),
            ("A= B=\"b c\" C='d e' g++ a.c", Language::Cpp),
            ("env LANG=C gcc a.c", Language::C),
            ("FLAGS=-O2 WHO=me\ngcc $FLAGS a.c", Language::C),
            ("gcc -c <name>.c\ngcc <name>.o", Language::C),
            ("# two steps\r\n\r\ncc -c a.c \\\r\n  -O2\r\n\tc++ a.o", Language::Cpp),
            ("mkdir -p lib\ngcc -c a.c\nar rcs lib/a.a a.o\ngcc lib/a.a -o <name>", Language::C),
        ] {
            let build = Build::parse(&format!("{text}\n")).unwrap();
            assert_eq!((&build, build.language()), (&Build::Command(text.to_owned()), language), "{text}");
        }
        for (text, language) in [
            ("mkdir -p lib\n", Language::C),
            ("CC=gcc\n", Language::C),
            ("CC=gcc\nall: a\n", Language::C),
            ("CC = gcc\ngcc a.c\n", Language::C),
            ("SRC = \\\ngcc a.c\n", Language::C),
            ("all: a.c\ngcc a.c -o a\n", Language::C),
            ("gcc a.c\nall:\n", Language::C),
            ("gcc a.c\n./a.out\n", Language::C),
            ("1=a gcc b\n", Language::C),
            ("all:\n\tg++-12 a.c\n", Language::Cpp),
        ] {
            let build = Build::parse(text).unwrap();
            assert_eq!((&build, build.language()), (&Build::Makefile(text.to_owned()), language), "{text}");
        }
    }

    #[test]
    fn nuls_are_white_space_at_the_end_and_nowhere_else() {
        for (text, expected) in [
            ("gcc a.c\0", Build::Command("gcc a.c".into())),
            ("gcc a.c\n\0\0 \0\n", Build::Command("gcc a.c".into())),
            ("all:\n\tgcc a.c\n\0", Build::Makefile("all:\n\tgcc a.c\n".into())),
        ] {
            assert_eq!(Build::parse(text), Ok(expected), "{text:?}");
        }
        let refused = |field| WireError::malformed(field, "expected text without NUL");
        assert_eq!(Build::parse("gcc\0 a.c").unwrap_err(), refused("makefile"));
        assert_eq!(Build::parse("all:\0\n\tgcc").unwrap_err(), refused("makefile"));
        let read = |name, text: &'static [u8]| Source::read(name, text.into(), "gcc").unwrap_err();
        assert_eq!(read(b"a\0", b""), refused("name"));
        assert_eq!(read(b"a", b"int main;\0"), refused("source"));
        assert_eq!(Build::parse("\0").unwrap_err().message.split(':').next(), Some("makefile"));
    }

    #[test]
    fn unsafe_names_are_replaced() {
        let longest = "x".repeat(MAX_NAME);
        let safe_name = |given: &[u8]| Source::new(given, Bytes::new(), Build::Makefile("all:".into())).name;
        for safe in ["a", "Prime-2_x", "-", longest.as_str()] {
            assert_eq!(safe_name(safe.as_bytes()), safe);
        }
        for other in ["", " a", "a.c", "../a", "a/b", "ä", "a\n", "a\0", &format!("{longest}x")] {
            assert_eq!(safe_name(other.as_bytes()), UNNAMED, "{other}");
        }
        assert_eq!(safe_name(b"\xff"), UNNAMED);
    }
}
