//! Source and how it is built.

/// What replaces the literal `<name>` in a compiler command or a makefile.
const PLACEHOLDER: &str = "<name>";

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
    /// A shell command that must leave `<name>`.
    Command(String),
    /// A makefile, whose default target must leave `<name>` or one executable file of any name.
    Makefile(Vec<u8>),
}

impl Source {
    /// From a build part that may be either: one line whose first word is one of `compilers` is a command, anything
    /// else a makefile. It is C++ when the command's compiler is, or when the part speaks of `<name>.cpp`.
    pub fn from_parts(name: &str, code: Vec<u8>, build: &[u8], compilers: &[String]) -> Self {
        let command =
            std::str::from_utf8(build).ok().map(str::trim).filter(|line| !line.contains(['\n', '\r']));
        let compiler = command.and_then(|line| line.split_whitespace().next());
        let compiler = compiler.filter(|word| compilers.iter().any(|allowed| allowed == word));
        let dotted = b"<name>.cpp";
        let cpp = compiler.is_some_and(|word| word.contains("++"))
            || build.windows(dotted.len()).any(|at| at == dotted);
        Self {
            name: name.to_owned(),
            code,
            language: if cpp { Language::Cpp } else { Language::C },
            build: match command.filter(|_| compiler.is_some()) {
                Some(line) => Build::Command(line.to_owned()),
                None => Build::Makefile(build.to_vec()),
            },
        }
    }

    /// The name as it may be used for a file and on a command line.
    pub(crate) fn safe_name(&self) -> &str {
        let safe = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        let short = self.name.len() <= MAX_NAME && !self.name.is_empty();
        if short && !self.name.starts_with('-') && self.name.chars().all(safe) {
            &self.name
        } else {
            "program"
        }
    }

    pub(crate) fn file_name(&self) -> String {
        match self.language {
            Language::C => format!("{}.c", self.safe_name()),
            Language::Cpp => format!("{}.cpp", self.safe_name()),
        }
    }

    /// The shell's script: it builds with the compilers' own output on standard error, then puts the program on standard
    /// output. `$1` is the program's name.
    pub(crate) fn script(&self) -> String {
        match &self.build {
            Build::Command(line) => {
                format!(
                    "( {}\n) >&2 </dev/null || exit\n{FIND_PROGRAM}",
                    line.replace(PLACEHOLDER, self.safe_name())
                )
            }
            Build::Makefile(_) => format!("make -f Makefile >&2 </dev/null || exit\n{FIND_PROGRAM}"),
        }
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

/// Longest name in bytes: with an ending it is still a file name everywhere.
const MAX_NAME: usize = 64;

/// A program of another name is taken when there is no doubt which one is meant.
const FIND_PROGRAM: &str = r#"
if ! [ -f "$1" ] || ! [ -x "$1" ]; then
    wanted=$1; shift $#
    for file in *; do [ -f "$file" ] && [ -x "$file" ] && set -- "$@" "$file"; done
    [ $# = 1 ] || { echo "error: the build left no program $wanted" >&2; exit 1; }
fi
exec cat -- "$1""#;

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(build: &str) -> Source {
        Source::from_parts("p", Vec::new(), build.as_bytes(), &crate::Config::default().compilers)
    }

    #[test]
    fn build_parts_are_told_apart() {
        for (part, command, language) in [
            ("gcc <name>.c -o <name>", true, Language::C),
            ("\n gcc <name>.c -o <name> \r\n", true, Language::C),
            ("g++ <name>.cpp -o <name>", true, Language::Cpp),
            ("gcc <name>.cpp -lstdc++ -o <name>", true, Language::Cpp),
            ("clang++ a", true, Language::Cpp),
            ("rm -rf /", false, Language::C),
            ("gccx <name>.c", false, Language::C),
            ("gcc a\ngcc b", false, Language::C),
            ("all:\n\tg++ <name>.cpp -o <name>", false, Language::Cpp),
            ("all:\n\tgcc <name>.c -o <name>", false, Language::C),
            ("", false, Language::C),
        ] {
            let source = parse(part);
            assert_eq!(matches!(source.build, Build::Command(_)), command, "{part:?}");
            assert_eq!(source.language, language, "{part:?}");
        }
    }

    #[test]
    fn unsafe_names_become_program() {
        for name in ["", "a/b", "..", "-o", "a b", "ä", "$(x)", &"n".repeat(65)] {
            let source = Source { name: name.to_owned(), ..parse("gcc <name>.c") };
            assert_eq!(source.safe_name(), "program", "{name:?}");
        }
        assert_eq!(Source { name: "a_B-9".into(), ..parse("gcc") }.safe_name(), "a_B-9");
    }

    #[test]
    fn the_placeholder_is_replaced_wherever_it_stands() {
        let source = parse("all: <name>\n<<name>>: <name>.c\n\tgcc <nam <name");
        assert_eq!(source.makefile().unwrap(), b"all: p\n<p>: p.c\n\tgcc <nam <name");
        assert!(parse("gcc <name>.c -o <name>").script().contains("gcc p.c -o p"));
    }
}
