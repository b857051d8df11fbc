//! Compilers' output, made fit to be shown to whoever sent the source.

use crate::bwrap_args::WORK_DIR;

/// Bytes of compilers' output that are kept: the last ones, since what stopped the build stands there.
pub const MAX_DIAGNOSTICS: usize = 64 * 1024;

/// Bytes of the one line that stands for the whole.
const MAX_FIRST_ERROR: usize = 200;

/// What compilers, assemblers and linkers call an error. The mere word is in `-Werror` and in names of files as well.
const ERRORS: [&str; 5] =
    ["error: ", "Error: ", "undefined reference to ", "multiple definition of ", "cannot find -l"];

/// What gcc and clang say, in their own name, when a program that they have started was killed.
const KILLED: [&str; 2] =
    [": fatal error: Killed signal terminated program ", ": error: unable to execute command: Killed"];

/// Whether a compiler says that a part of it was killed, which is no word about the source.
pub fn tells_of_a_kill(output: &[u8]) -> bool {
    KILLED.iter().any(|words| output.windows(words.len()).any(|part| part == words.as_bytes()))
}

/// Text without control characters but line ends and tabs, and with the paths that its sender knows; its last
/// [`MAX_DIAGNOSTICS`] bytes.
pub fn cleaned(output: &[u8]) -> String {
    let text: String = String::from_utf8_lossy(output)
        .chars()
        .filter(|c| !c.is_control() || matches!(c, '\n' | '\t'))
        .collect();
    let text = without_work_dir(&text);
    let start = text.ceil_char_boundary(text.len().saturating_sub(MAX_DIAGNOSTICS));
    text[start..].to_owned()
}

/// Paths in the work directory, as makefiles with `$(CURDIR)` name them, without it; `/usr/work/x` stays.
fn without_work_dir(text: &str) -> String {
    let folder = format!("{WORK_DIR}/");
    let mut short = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(&folder) {
        let (before, found) = rest.split_at(at);
        short.push_str(before);
        let is_inner = before.ends_with(|c: char| c.is_alphanumeric() || "/._-".contains(c));
        short.push_str(if is_inner { &folder } else { "" });
        rest = &found[folder.len()..];
    }
    short + rest
}

/// The first line that names an error, else the last line.
pub fn first_error(output: &[u8]) -> String {
    let error = output.split(|byte| *byte == b'\n').find(|line| names_error(line));
    let last = || output.split(|byte| *byte == b'\n').rfind(|line| !line.trim_ascii().is_empty());
    let line = cleaned(error.or_else(last).unwrap_or(b"it failed without a word"));
    line[..line.floor_char_boundary(MAX_FIRST_ERROR)].trim().to_owned()
}

/// Whether a text has the word of a compiler, linker or make for an error.
pub fn names_error(text: &[u8]) -> bool {
    ERRORS.iter().any(|error| text.windows(error.len()).any(|part| part == error.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_killed_compiler_is_told_from_an_error() {
        assert!(tells_of_a_kill(
            b"gcc: fatal error: Killed signal terminated program cc1\ncompilation terminated."
        ));
        assert!(tells_of_a_kill(b"clang: error: unable to execute command: Killed\n"));
        assert!(!tells_of_a_kill(b"p.c:1:5: error: unknown type name 'Killed'\n"));
    }

    #[test]
    fn the_first_error_is_found() {
        let output = b"p.c: In function 'main':\np.c:1:5: error: expected ';'\np.c:2:5: error: more\n";
        assert_eq!(first_error(output), "p.c:1:5: error: expected ';'");
        assert_eq!(
            first_error(b"make: *** No rule to make target 'x'.  Stop.\n\n"),
            "make: *** No rule to make target 'x'.  Stop."
        );
        for (output, first) in [
            ("gcc -Werror -c error.c\nerror.c:1:5: error: no\n", "error.c:1:5: error: no"),
            (
                "gcc error.c\n/usr/bin/ld: a.o: undefined reference to `f'\ncollect2: error: ld returned 1 exit status",
                "/usr/bin/ld: a.o: undefined reference to `f'",
            ),
            (
                "cc -Werror x.c\nsh: 1: python: not found\nmake: *** [Makefile:2: all] Error 127\n",
                "make: *** [Makefile:2: all] Error 127",
            ),
        ] {
            assert_eq!(first_error(output.as_bytes()), first);
        }
        assert_eq!(first_error(b""), "it failed without a word");
        assert_eq!(first_error(format!("error: {}", "ä".repeat(200)).as_bytes()).len(), 199);
    }

    #[test]
    fn paths_are_those_that_the_sender_knows() {
        for (said, short) in [
            ("/work/src/a.c:1: error: in /work/a.h", "src/a.c:1: error: in a.h"),
            ("gcc -I/work/include '/work/b c.c'", "gcc -I/work/include 'b c.c'"),
            ("/usr/work/x /work", "/usr/work/x /work"),
        ] {
            assert_eq!(cleaned(said.as_bytes()), short);
        }
    }

    #[test]
    fn control_characters_go_and_the_end_stays() {
        assert_eq!(cleaned(b"a\x1b[31mb\x07\r\n\tc\xff"), "a[31mb\n\tc\u{fffd}");
        let long = cleaned("ä".repeat(MAX_DIAGNOSTICS).as_bytes());
        assert!(long.len() <= MAX_DIAGNOSTICS && long.starts_with('ä'));
    }
}
