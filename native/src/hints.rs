//! What is told beside the words of compilers, make and shells: how the build part was understood, and that a build
//! which runs its own program need not.

use crate::diagnostics::{self, MAX_DIAGNOSTICS};
use crate::error::Error;
use crate::platform::Platform;
use crate::wasi;
use std::cell::Cell;

/// Lines about recipes that failed, of one build, whose recipes are looked at; make has one for each make that is
/// inside of another.
const MAX_RECIPES: usize = 16;

/// Bytes of the longest recipe that is looked at.
const MAX_RECIPE: usize = 4_096;

/// What stands before the program in a command of a recipe, beside assignments.
const PREFIXES: [&str; 12] =
    ["!", "env", "exec", "nice", "time", "if", "then", "else", "elif", "do", "while", "until"];

/// What a recipe calls the work directory.
const WORK_DIRS: [&str; 5] = ["./", "$(CURDIR)/", "${CURDIR}/", "$(PWD)/", "${PWD}/"];

/// What is known of a build that failed.
#[derive(Default)]
pub struct Hints<'a> {
    /// What its build part was taken for; `None` for a project, whose makefile is named as one.
    pub taken_for: Option<&'static str>,
    /// The commands that it was, if it was no makefile.
    pub commands: Option<String>,
    /// The paths and contents of the files that were sent, its makefiles among them.
    pub files: Vec<(&'a str, &'a [u8])>,
}

impl Hints<'_> {
    /// The error of a build that failed, having said this.
    pub fn error(&self, output: &[u8], platform: Platform<'_>) -> Error {
        let mut explained = self.explain(&String::from_utf8_lossy(output), platform);
        if let Some(program) = self.run_by_a_command(output) {
            let gap = if explained.is_empty() || explained.ends_with('\n') { "" } else { "\n" };
            explained += &format!("{gap}error: {}\n", left_to_us(program));
        }
        let output = explained.as_bytes();
        Error::Build { first: diagnostics::first_error(output), output: diagnostics::cleaned(output) }
    }

    /// What a build said, with what is behind its end, as much of it as is kept.
    fn explain(&self, output: &str, platform: Platform<'_>) -> String {
        let kept = output.ceil_char_boundary(output.len().saturating_sub(MAX_DIAGNOSTICS));
        let (before, kept) = output.split_at(kept);
        let recipes = Cell::new(MAX_RECIPES);
        let explained = kept.split_inclusive('\n').map(|line| {
            let (text, end) = line.strip_suffix('\n').map_or((line, ""), |text| (text, "\n"));
            format!("{}{end}", self.line_explained(text, platform, &recipes))
        });
        std::iter::once(before.to_owned()).chain(explained).collect()
    }

    /// `recipes` is how many may still be looked at.
    fn line_explained(&self, line: &str, platform: Platform<'_>, recipes: &Cell<usize>) -> String {
        if let Some(program) = self.run_while_building(line, recipes) {
            return format!("{line} ({})", left_to_us(program));
        }
        let is_wasi = matches!(platform, Platform::Wasi(_));
        if is_wasi && let Some(program) = self.taken_for_a_script(line) {
            return wasi::explained(&format!("{program}: Exec format error"));
        }
        let line = if is_wasi { wasi::explained(line) } else { line.to_owned() };
        match self.taken_for {
            Some(what) if is_misunderstood(&line) => format!("{line} (the build part was taken for {what})"),
            _ => line,
        }
    }

    /// The program that a recipe runs which failed, if the build has made it: `make: *** [Makefile:2: all] Error 1`.
    fn run_while_building(&self, line: &str, recipes: &Cell<usize>) -> Option<&str> {
        let (_, place) = line.split_once(": *** [")?;
        recipes.set(recipes.get().checked_sub(1)?);
        let mut place = place.split(": ");
        let (path, number) = place.next()?.rsplit_once(':')?;
        let (_, makefile) = self.files.iter().find(|(file, _)| *file == path)?;
        let recipe =
            str::from_utf8(makefile).ok()?.lines().nth(number.parse::<usize>().ok()?.checked_sub(1)?)?;
        self.program_run_by(recipe)
    }

    /// The same of commands without a makefile, of which the shell says nothing. What a compiler says goes first.
    fn run_by_a_command(&self, output: &[u8]) -> Option<&str> {
        self.commands
            .as_deref()
            .filter(|_| !diagnostics::names_error(output))
            .and_then(|commands| self.program_run_by(commands))
    }

    /// The first program that the build has made which these commands run.
    fn program_run_by<'c>(&self, commands: &'c str) -> Option<&'c str> {
        if commands.len() > MAX_RECIPE {
            return None;
        }
        commands.split(['&', ';', '|', '\n']).filter_map(program_of).find(|program| self.is_made(program))
    }

    /// A shell that was given a wasm module, which make does with what it cannot run: `./hello: 23: Syntax error: …`.
    fn taken_for_a_script<'l>(&self, line: &'l str) -> Option<&'l str> {
        let (program, rest) = line.split_once(": ")?;
        let is_numbered = rest.split_once(": ").is_some_and(|(number, _)| number.parse::<u32>().is_ok());
        (is_numbered && self.is_made(program)).then_some(program)
    }

    /// Whether a command is a program in the work directory that was not sent.
    fn is_made(&self, program: &str) -> bool {
        let path = WORK_DIRS.iter().find_map(|folder| program.strip_prefix(folder));
        path.is_some_and(|path| self.files.iter().all(|(file, _)| *file != path))
    }
}

/// What a build is told that runs its own program.
fn left_to_us(program: &str) -> String {
    format!("the build runs {program}: leave that to the gateway, which does it with the request's arguments")
}

/// The program of one command: its first word behind assignments and the shell's own words.
fn program_of(command: &str) -> Option<&str> {
    let is_assignment = |word: &str| {
        let name = word.split_once('=').map_or("", |(name, _)| name);
        !name.is_empty() && name.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_')
    };
    let mut words = command.trim_start_matches(['\t', ' ', '@', '-', '+', '(', '{']).split_whitespace();
    words.find(|word| !PREFIXES.contains(word) && !is_assignment(word))
}

/// Whether make or the shell cannot make sense of what they were given.
fn is_misunderstood(line: &str) -> bool {
    let of_the_shell = || line.ends_with(": not found") || line.contains("Syntax error: ");
    line.starts_with("Makefile:") && line.contains(": *** ")
        || line.starts_with("make: *** No ")
        || line.starts_with("error: the build left no program")
        || line.starts_with("sh: ") && of_the_shell()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explained(line: &str, makefile: &str, taken_for: Option<&'static str>) -> String {
        let files = vec![("Makefile", makefile.as_bytes()), ("tools/gen", b"#!/bin/sh")];
        Hints { taken_for, commands: None, files }.explain(line, Platform::Native)
    }

    #[test]
    fn what_cannot_be_made_sense_of_says_how_it_was_understood() {
        let taken = Some("a makefile");
        for line in [
            "Makefile:1: *** missing separator.  Stop.",
            "make: *** No targets.  Stop.",
            "make: *** No rule to make target 'a.c', needed by 'a'.  Stop.",
            "sh: 1: gcc-99: not found",
            "sh: 2: Syntax error: Unterminated quoted string",
            "error: the build left no program hello",
        ] {
            assert_eq!(
                explained(line, "all:\n", taken),
                format!("{line} (the build part was taken for a makefile)")
            );
            assert_eq!(explained(line, "all:\n", None), line);
        }
        for line in ["a.c:1:2: error: expected ';'", "Makefile:3: warning: overriding recipe", "gcc a.c", ""]
        {
            assert_eq!(explained(line, "all:\n", taken), line);
        }
    }

    #[test]
    fn commands_that_run_their_own_program_are_told_so() {
        let first = |commands: &str, output: &str| {
            let commands = Some(commands.to_owned());
            let hints = Hints { taken_for: Some("a compiler command"), commands, files: vec![("a.c", b"")] };
            match hints.error(output.as_bytes(), Platform::Native) {
                Error::Build { first, .. } => first,
                other => panic!("{other:?}"),
            }
        };
        let hint = "error: the build runs ./a: leave that to the gateway, which does it with the request's arguments";
        for output in ["", "Segmentation fault", "usage: a N\n"] {
            assert_eq!(first("gcc a.c -o a && ./a", output), hint, "{output}");
        }
        let compilers = "a.c:1:1: error: unknown type name";
        assert_eq!(first("gcc a.c -o a && ./a", compilers), compilers);
        assert_eq!(first("gcc a.c -o a", ""), "it failed without a word");
    }

    #[test]
    fn a_build_that_runs_its_own_program_is_told_so() {
        let hint =
            "(the build runs ./app: leave that to the gateway, which does it with the request's arguments)";
        for (recipe, is_run) in [
            ("./app 5 7", true),
            ("@-./app", true),
            ("gcc a.c -o app && ./app", true),
            ("time ./app 5", true),
            ("if ! LC_ALL=C ./app; then exit 1; fi", true),
            ("echo 5 | env A=1 ./app >out", true),
            ("echo ./app", false),
            ("if test -x ./app; then true; fi", false),
            ("gcc a.c -o ./app", false),
            ("tools/gen >a.h", false),
            ("./tools/gen >a.h", false),
        ] {
            // After what the program has printed, which may end without a line's end.
            let line = "12make: *** [Makefile:2: all] Error 1";
            let expected = if is_run { format!("{line} {hint}\n") } else { format!("{line}\n") };
            assert_eq!(explained(&format!("{line}\n"), &format!("all: app\n\t{recipe}\n"), None), expected);
        }
        let many = "make: *** [Makefile:2: all] Error 1\n".repeat(100);
        let hints = explained(&many, "all:\n\t./app\n", None).matches(hint).count();
        assert_eq!(hints, MAX_RECIPES, "strangers choose how many there are");
        let long = format!("all:\n\t./app{}\n", " ".repeat(MAX_RECIPE));
        assert_eq!(explained(&many, &long, None), many);
        let elsewhere = "make[1]: *** [other.mk:9: all] Error 1";
        assert_eq!(explained(elsewhere, "all:\n\t./app\n", None), elsewhere);
    }
}
