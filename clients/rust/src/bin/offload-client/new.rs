//! `offload-client new`: a program to begin with, in a language of the user's.
//!
//! Its files are in `clients/rust/templates`, one folder a language; what all of them have is beside these.

use std::fs;
use std::io::{self, Write, stdout};
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::{Args, ValueEnum};

use crate::failure::Failure;
use crate::report::{print, unless_unprintable};

/// What a template's `build.sh` exits with where a tool is missing; it has said which.
const EXIT_MISSING: i32 = 3;

/// Longest name of a program, in bytes: a file's name with its ending, and a package's, may be longer.
const MAX_NAME: usize = 64;

/// Names that cargo refuses, since it has folders of these names beside the program.
const RESERVED_BY_CARGO: [&str; 4] = ["build", "deps", "examples", "incremental"];

/// Make a folder with a program to offload, its cases, and what builds and tests it
///
/// The program adds up numbers, until you change it. `sh build.sh` builds it, `sh test.sh` runs its cases at a gateway.
/// It is built at once where the tools of its language are; what is missing is said, with how to get it. Nothing is
/// overwritten. Exits 125 on an error, also of the build.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct New {
    /// Language of the program: rust, c, zig, go, python or javascript
    #[arg(long, value_name = "LANGUAGE", hide_possible_values = true)]
    lang: Language,

    /// Folder to make. Its last part is the program's name: letters, digits, `-` and `_`, a letter first
    #[arg(value_name = "NAME")]
    folder: PathBuf,

    /// Make the folder alone
    #[arg(long)]
    no_build: bool,
}

const EXAMPLES: &str = "\
Examples:
  offload-client new --lang rust sum
  sh sum/test.sh
  offload-client send sum/sum.wasm 5 7";

#[derive(Clone, Copy, ValueEnum)]
enum Language {
    Rust,
    C,
    Zig,
    Go,
    Python,
    Javascript,
}

/// A file of a program: its path in the folder, and its text, in which `{{…}}` stands for what differs.
type Template = (&'static str, &'static str);

macro_rules! templates {
    ($folder:literal: $($path:literal),+) => {
        &[$(($path, include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/templates/", $folder, "/", $path)))),+]
    };
}

/// What a program in any language has.
const SHARED: &[Template] = templates!(".": "README.md", "test.sh", "gitignore");

impl Language {
    fn name(self) -> &'static str {
        match self {
            Language::Rust => "Rust",
            Language::C => "C",
            Language::Zig => "Zig",
            Language::Go => "Go",
            Language::Python => "Python",
            Language::Javascript => "JavaScript",
        }
    }

    /// The program's own file first.
    fn templates(self) -> &'static [Template] {
        match self {
            Language::Rust => templates!("rust": "src/main.rs", "Cargo.toml", "build.sh"),
            Language::C => templates!("c": "main.c", "build.sh"),
            Language::Zig => templates!("zig": "main.zig", "build.sh"),
            Language::Go => templates!("go": "main.go", "go.mod", "build.sh"),
            Language::Python => templates!("python": "app.py", "wit/world.wit", "build.sh"),
            Language::Javascript => {
                templates!("javascript": "app.js", "wit/world.wit", "package.json", "build.mjs", "build.sh")
            }
        }
    }

    /// What its README says besides.
    fn note(self) -> &'static str {
        match self {
            Language::Rust => "Crates go into `Cargo.toml`: those that need neither threads nor sockets.",
            Language::C => "All `.c` files of this folder are compiled together.",
            Language::Zig => "WASI has neither threads nor sockets.",
            Language::Go => "WASI has no sockets for it. A module of Go has 2 MB at least.",
            Language::Python => {
                "`wit/world.wit` says what of WASI it calls. Python comes with it, so that the module has 18 MB: a \
                 gateway takes half a minute over its first request, and milliseconds from then on."
            }
            Language::Javascript => {
                "`wit/world.wit` says what of WASI it calls. An engine comes with it, so that the module has 12 MB: a \
                 gateway takes half a minute over its first request, and milliseconds from then on."
            }
        }
    }

    /// What building leaves behind beside the module.
    fn ignored(self) -> &'static str {
        match self {
            Language::Rust => "target/\n",
            Language::Python => "__pycache__/\n",
            Language::Javascript => "node_modules/\n",
            Language::C | Language::Zig | Language::Go => "",
        }
    }
}

impl New {
    /// Runs the command; returns its exit code.
    pub fn run(self) -> u8 {
        let made = self.program_name().and_then(|name| {
            self.make(name).map_err(|error| match error.kind() {
                io::ErrorKind::AlreadyExists => Failure::usage(format!(
                    "{}: there is something of this name already; it is left as it is",
                    self.folder.display()
                )),
                _ => Failure::new("output", format!("{}: {error}", self.folder.display())),
            })?;
            Ok(name)
        });
        let name = match made {
            Ok(name) => name,
            Err(failure) => return failure.report(),
        };
        let folder = self.folder.display();
        let said = print(stdout(), format!("made {folder}, a program in {}\n", self.lang.name()).as_bytes());
        let next = match self.build() {
            Ok(true) => format!("built {folder}/{name}.wasm; next: sh {folder}/test.sh\n"),
            Ok(false) => format!("next: sh {folder}/build.sh, then sh {folder}/test.sh\n"),
            Err(failure) => return failure.report(),
        };
        unless_unprintable(said.and_then(|()| print(stdout(), next.as_bytes())), 0)
    }

    /// The last part of the folder's path, if a program can be called so in every language.
    fn program_name(&self) -> Result<&str, Failure> {
        let refused = |expected: String| {
            let shown = self.folder.display();
            Failure::usage(format!("{shown}: expected a folder's name for the program, {expected}"))
        };
        let name = self.folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let fits = name.starts_with(|c: char| c.is_ascii_alphabetic())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
        if !fits || name.len() > MAX_NAME {
            return Err(refused(format!(
                "of letters, digits, `-` and `_`, a letter first, at most {MAX_NAME}"
            )));
        }
        if matches!(self.lang, Language::Rust) && RESERVED_BY_CARGO.contains(&name) {
            return Err(refused(format!("and not one of cargo's own: {}", RESERVED_BY_CARGO.join(", "))));
        }
        Ok(name)
    }

    /// Writes all files into a folder that was not there before.
    fn make(&self, name: &str) -> io::Result<()> {
        if let Some(parent) = self.folder.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::create_dir(&self.folder)?;
        let own = self.lang.templates();
        let source = own.first().map(|(path, _)| *path).unwrap_or_default();
        let values = [
            ("name", name),
            ("language", self.lang.name()),
            ("source", source),
            ("note", self.lang.note()),
            ("ignored", self.lang.ignored()),
        ];
        for (path, template) in SHARED.iter().chain(own) {
            // Under its own name it would be in force among the templates.
            let path = if *path == "gitignore" { ".gitignore" } else { *path };
            let file = self.folder.join(path);
            fs::create_dir_all(file.parent().unwrap_or(Path::new("")))?;
            fs::File::create_new(&file)?.write_all(filled(template, &values).as_bytes())?;
        }
        Ok(())
    }

    /// Builds the program; not, where something is missing, which `build.sh` says.
    fn build(&self) -> Result<bool, Failure> {
        if self.no_build {
            return Ok(false);
        }
        let script = self.folder.join("build.sh");
        let failed = |why: String| Failure::new("build", format!("{}: {why}", script.display()));
        match Command::new("sh").arg(&script).status() {
            Ok(status) if status.success() => Ok(true),
            Ok(status) if status.code() == Some(EXIT_MISSING) => Ok(false),
            Ok(status) => Err(failed(status.to_string())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(failed(error.to_string())),
        }
    }
}

fn filled(template: &str, values: &[(&str, &str)]) -> String {
    values
        .iter()
        .fold(template.to_owned(), |text, (key, value)| text.replace(&format!("{{{{{key}}}}}"), value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new(lang: Language, folder: &str) -> New {
        New { lang, folder: folder.into(), no_build: true }
    }

    #[test]
    fn every_place_in_every_template_is_filled() {
        for lang in Language::value_variants() {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("within/a-b_1");
            let new = new(*lang, path.to_str().unwrap());
            new.make("a-b_1").unwrap();
            for (file, _) in lang.templates().iter().chain(SHARED).filter(|(file, _)| *file != "gitignore") {
                let text = fs::read_to_string(path.join(file)).unwrap();
                assert!(!text.contains("{{"), "{file}: {text}");
            }
            assert!(fs::read_to_string(path.join(".gitignore")).unwrap().starts_with("a-b_1.wasm\n"));
            assert_eq!(new.make("a-b_1").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        }
    }

    #[test]
    fn names_are_those_that_every_language_takes() {
        for (folder, name) in [("sum", "sum"), ("a/b-1_C", "b-1_C"), ("sum/", "sum"), ("../x", "x")] {
            assert_eq!(new(Language::Go, folder).program_name().unwrap(), name);
        }
        let long = "a".repeat(65);
        for folder in ["", ".", "..", "/", "1a", "-a", "a b", "a.b", "ä", "a/$x", &long] {
            assert!(new(Language::C, folder).program_name().is_err(), "{folder}");
        }
        assert!(new(Language::Rust, "build").program_name().is_err());
        assert!(new(Language::C, "build").program_name().is_ok());
    }
}
