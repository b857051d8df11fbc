//! Source and how it is built.

use crate::hints::Hints;
use crate::left::TAKE;
use crate::platform::Platform;

/// What replaces the literal `<name>` in a compiler command or a makefile.
const PLACEHOLDER: &str = "<name>";

/// Leaves the program, whose name is `$1`.
const FIND_PROGRAM: &str = include_str!("source/find_program.sh");

/// Source and how it is built.
#[derive(Clone, Debug)]
pub struct Source {
    /// Name of the program: letters, digits, `_` and `-`, not starting with `-`. Anything else becomes `program`.
    pub name: String,
    /// The source file, `<name>.c` or `<name>.cpp`.
    pub code: Vec<u8>,
    /// Its language.
    pub language: Language,
    /// How it is built.
    pub build: Build,
}

/// Language of a source file, which decides its ending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// `.c`
    C,
    /// `.cpp`
    Cpp,
}

/// How a source is built, in its work directory. `<name>` in it stands for the program's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Build {
    /// Shell commands, a line each, that must leave `<name>`. Of several each has to succeed.
    Command(String),
    /// A makefile, whose default target must leave `<name>` or one executable file of any name.
    Makefile(Vec<u8>),
}

impl Build {
    /// Whether it says `<name>.c`, and not only as the beginning of `<name>.cpp`.
    fn mentions_c_file(&self) -> bool {
        let part = match self {
            Build::Command(line) => line.as_bytes(),
            Build::Makefile(text) => text,
        };
        let file = b"<name>.c";
        let is_it = |at: usize| part[at..].starts_with(file) && part.get(at + file.len()) != Some(&b'p');
        (0..part.len()).any(is_it)
    }
}

impl Source {
    /// The name as it may be used for a file and on a command line.
    pub(crate) fn safe_name(&self) -> &str {
        safe_name(&self.name)
    }

    /// The names of the source file in the work directory: the language's, and `<name>.c` where the build part speaks
    /// of that (`g++ <name>.c` is C++, and a deployed habit).
    pub(crate) fn file_names(&self) -> Vec<String> {
        let name = self.safe_name();
        match self.language {
            Language::C => vec![format!("{name}.c")],
            Language::Cpp if self.build.mentions_c_file() => {
                vec![format!("{name}.cpp"), format!("{name}.c")]
            }
            Language::Cpp => vec![format!("{name}.cpp")],
        }
    }

    /// The shell's script: it builds with the compilers' own output on standard error, then puts on standard output
    /// what [`Left`](crate::left::Left) reads. `$1` is the program's name.
    pub(crate) fn script(&self, platform: Platform<'_>) -> String {
        let build = match &self.build {
            Build::Command(commands) => {
                let commands: Vec<&str> = commands.lines().collect();
                let commands = commands.join("\n").replace(PLACEHOLDER, self.safe_name());
                let stops = if commands.contains('\n') { "set -e;" } else { "" };
                format!("({stops} {}\n)", platform.redirected(&commands))
            }
            Build::Makefile(_) => "make -f Makefile".to_owned(),
        };
        format!("exec 3>&1 >&2 </dev/null\n{build} 3>&-\n[ $? = 0 ] || exit 1\n{TAKE}{FIND_PROGRAM}")
    }

    /// What its errors are explained by.
    pub(crate) fn hints<'a>(&self, files: Vec<(&'a str, &'a [u8])>) -> Hints<'a> {
        let taken_for = match &self.build {
            Build::Command(commands) if commands.contains('\n') => "compiler commands",
            Build::Command(_) => "a compiler command",
            Build::Makefile(_) => "a makefile",
        };
        let commands = match &self.build {
            Build::Command(commands) => Some(commands.replace(PLACEHOLDER, self.safe_name())),
            Build::Makefile(_) => None,
        };
        Hints { taken_for: Some(taken_for), commands, files }
    }

    /// The makefile's bytes, if it is one.
    pub(crate) fn makefile(&self) -> Option<Vec<u8>> {
        let Build::Makefile(text) = &self.build else { return None };
        let (from, to) = (PLACEHOLDER.as_bytes(), self.safe_name().as_bytes());
        let mut replaced = Vec::with_capacity(text.len());
        let mut rest = text.as_slice();
        while let Some(first) = rest.first() {
            if let Some(after) = rest.strip_prefix(from) {
                replaced.extend_from_slice(to);
                rest = after;
            } else {
                replaced.push(*first);
                rest = &rest[1..];
            }
        }
        Some(replaced)
    }
}

/// The name, or `program` where it is empty, too long, or not of letters, digits, `_` and `-` with no `-` in front.
pub(crate) fn safe_name(name: &str) -> &str {
    let safe = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let short = name.len() <= MAX_NAME && !name.is_empty();
    if short && !name.starts_with('-') && name.chars().all(safe) { name } else { "program" }
}

/// Longest name in bytes: with an ending it is still a file name everywhere.
const MAX_NAME: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn source(language: Language, build: Build) -> Source {
        Source { name: "p".to_owned(), code: Vec::new(), language, build }
    }

    fn command(language: Language, line: &str) -> Source {
        source(language, Build::Command(line.to_owned()))
    }

    #[test]
    fn the_file_has_the_ending_of_its_language_and_the_one_that_is_asked_for() {
        for (language, line, names) in [
            (Language::C, "gcc <name>.c -o <name>", &["p.c"][..]),
            (Language::Cpp, "g++ <name>.cpp -o <name>", &["p.cpp"]),
            (Language::Cpp, "g++ *.cpp -o <name>", &["p.cpp"]),
            (Language::Cpp, "g++ <name>.c -o <name>", &["p.cpp", "p.c"]),
            (Language::Cpp, "g++ <name>.c", &["p.cpp", "p.c"]),
        ] {
            assert_eq!(command(language, line).file_names(), names, "{line}");
        }
    }

    #[test]
    fn unsafe_names_become_program() {
        for name in ["", "a/b", "..", "-o", "a b", "ä", "$(x)", &"n".repeat(65)] {
            let source = Source { name: name.to_owned(), ..command(Language::C, "gcc <name>.c") };
            assert_eq!(source.safe_name(), "program", "{name:?}");
        }
        assert_eq!(Source { name: "a_B-9".into(), ..command(Language::C, "gcc") }.safe_name(), "a_B-9");
    }

    #[test]
    fn the_placeholder_is_replaced_wherever_it_stands() {
        let makefile = b"all: <name>\n<<name>>: <name>.c\n\tgcc <nam <name".to_vec();
        let source = source(Language::C, Build::Makefile(makefile));
        assert_eq!(source.makefile().unwrap(), b"all: p\n<p>: p.c\n\tgcc <nam <name");
        let script = command(Language::C, "gcc <name>.c -o <name>").script(Platform::Native);
        assert!(script.contains("( gcc p.c -o p\n)"), "{script}");
        let script = command(Language::C, "gcc -c <name>.c\r\ngcc <name>.o").script(Platform::Native);
        assert!(script.contains("(set -e; gcc -c p.c\ngcc p.o\n)"), "{script}");
    }
}
