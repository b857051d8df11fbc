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

/// A build part whose first word is one of these is a compiler command.
const C_COMPILERS: [&str; 4] = ["gcc", "cc", "clang", "tcc"];
const CPP_COMPILERS: [&str; 3] = ["g++", "c++", "clang++"];

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

    /// The language, and with it the ending of the source file.
    pub fn language(&self) -> Language {
        self.build.language()
    }
}

/// How source becomes a program. In both, [`PLACEHOLDER`] stands for the program's path without its ending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Build {
    /// One line that calls a compiler: `gcc <name>.c -o <name>`.
    Command(String),
    /// A makefile.
    Makefile(String),
}

impl Build {
    /// Reads a build part: a compiler command if it is one line whose first word is a compiler (`gcc`, `cc`, `clang`,
    /// `tcc`, `g++`, `c++`, `clang++`), else a makefile. Fails with `malformed` if there is nothing but white space.
    pub fn parse(text: &str) -> Result<Self, WireError> {
        let line = text.trim();
        let Some(first) = line.split_whitespace().next() else {
            return Err(WireError::malformed(
                "makefile",
                "expected a makefile or a compiler command, got nothing",
            ));
        };
        let is_compiler = C_COMPILERS.contains(&first) || CPP_COMPILERS.contains(&first);
        Ok(if is_compiler && !line.contains(['\n', '\r']) {
            Build::Command(line.to_owned())
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
            Build::Command(command) => {
                command.split_whitespace().next().is_some_and(|first| CPP_COMPILERS.contains(&first))
            }
            // Whole words: `-lstdc++` and `-std=c++17` call no compiler.
            Build::Makefile(text) => {
                text.contains("$(CXX)")
                    || text.contains("${CXX}")
                    || text
                        .split(|c: char| !(c.is_ascii_alphanumeric() || "+-_".contains(c)))
                        .any(|word| CPP_COMPILERS.contains(&word))
            }
        };
        if calls_cpp_compiler || self.as_str().contains("<name>.cpp") { Language::Cpp } else { Language::C }
    }
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
    /// Path and contents; each path is relative, has at most [`MAX_PATH`] bytes and [`MAX_DEPTH`] parts, and no part of it
    /// is empty, `.`, `..` or another one's file.
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
    if Build::parse(source.build.as_str())? != source.build {
        return Err(WireError::malformed(
            "makefile",
            "expected a makefile or one line that calls a compiler",
        ));
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
            (
                "gcc -c <name>.c\ngcc <name>.o",
                Build::Makefile("gcc -c <name>.c\ngcc <name>.o".into()),
                Language::C,
            ),
            ("gccx <name>.c", Build::Makefile("gccx <name>.c".into()), Language::C),
            ("/usr/bin/gcc a.c", Build::Makefile("/usr/bin/gcc a.c".into()), Language::C),
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
