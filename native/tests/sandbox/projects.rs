//! Several files and a makefile: real projects, which of their programs is run, and what strangers make of it.

use crate::host::Secret;
use crate::sandbox::{args, limits, sandbox, stdout};
use offload_native::{Ending, Error, Input, NativeProgram, Platform, Project};
use serde::Deserialize;
use std::fs;
use std::path::{Path, PathBuf};

/// A program that prints one word.
const PRINT: &[u8] = b"#include <stdio.h>\nint main(int n, char **v) { printf(\"%s %s\", WORD, v[0]); }\n";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Cases {
    case: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    target: Option<String>,
    #[serde(default)]
    args: Vec<String>,
    #[serde(default)]
    stdin: String,
    stdout: String,
    stderr: Option<String>,
    #[serde(default)]
    exit_code: i32,
}

/// The folders of the projects.
pub fn folders() -> Vec<PathBuf> {
    let projects = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/projects");
    let entries = fs::read_dir(projects).unwrap().map(|entry| entry.unwrap().path());
    let folders: Vec<PathBuf> = entries.filter(|path| path.is_dir()).collect();
    assert!(folders.len() >= 6, "{folders:?}");
    folders
}

/// Path and contents of all files of a project.
pub fn files_of(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    read_folder(folder, "", &mut files);
    files
}

fn read_folder(folder: &Path, prefix: &str, files: &mut Vec<(String, Vec<u8>)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = format!("{prefix}{}", entry.file_name().to_str().unwrap());
        if entry.path().is_dir() {
            read_folder(&entry.path(), &format!("{name}/"), files);
        } else {
            files.push((name, fs::read(entry.path()).unwrap()));
        }
    }
}

async fn build(
    files: &[(&str, &[u8])],
    makefile: Option<&str>,
    target: Option<&str>,
) -> Result<NativeProgram, Error> {
    let project = Project { files: files.to_vec(), makefile: makefile.map(str::as_bytes), target };
    sandbox().build_project(&project, Platform::Native).await
}

/// How the makefiles of these tests build a target.
const BUILD: &str = "build = mkdir -p $(@D); gcc -DWORD='\"$@\"' $(CURDIR)/src/main.c -o $@\n";

/// What the program of this makefile prints: the target that it was made as, and its name.
async fn made(makefile: &str, target: Option<&str>) -> String {
    let deeper = b"inner:\n\tgcc -DWORD='\"inner\"' ../src/main.c -o $@\n";
    let files = [("src/main.c", PRINT), ("deeper/Makefile", &deeper[..])];
    let program = build(&files, Some(&format!("{BUILD}{makefile}")), target).await;
    let program = program.unwrap_or_else(|error| panic!("{makefile}{target:?}: {error:?}"));
    let outcome = sandbox().run(&program, Input::default(), limits()).await.unwrap();
    stdout(&outcome).to_owned()
}

/// The first error, and all that was said.
async fn not_made(files: &[(&str, &[u8])], makefile: Option<&str>, target: Option<&str>) -> (String, String) {
    match build(files, makefile, target).await {
        Err(Error::Build { first, output }) => (first, output),
        other => panic!("{makefile:?} {target:?}: {other:?}"),
    }
}

#[tokio::test]
async fn projects_are_built_and_do_what_they_are_to_do() {
    for folder in folders() {
        let files = files_of(&folder);
        let cases = fs::read_to_string(folder.join("cases.toml")).unwrap();
        for case in toml::from_str::<Cases>(&cases).unwrap().case {
            let which = format!("{}: {}", folder.display(), case.name);
            let project = Project {
                files: files.iter().map(|(path, contents)| (path.as_str(), &contents[..])).collect(),
                makefile: None,
                target: case.target.as_deref(),
            };
            let program = sandbox().build_project(&project, Platform::Native).await;
            let program = program.unwrap_or_else(|error| panic!("{which}: {error:?}"));
            let input = Input { args: case.args, stdin: case.stdin.into_bytes(), ..Input::default() };
            let outcome = sandbox().run(&program, input, limits()).await.unwrap();
            let printed = case.stdout.strip_prefix('\n').unwrap_or(&case.stdout);
            assert_eq!(
                (outcome.ending, stdout(&outcome)),
                (Ending::Exit(case.exit_code), printed),
                "{which}"
            );
            if let Some(stderr) = case.stderr {
                assert_eq!(String::from_utf8_lossy(&outcome.stderr), stderr, "{which}");
            }
        }
    }
}

#[tokio::test]
async fn the_program_is_the_makefiles_first() {
    for (makefile, expected) in [
        // The default target itself.
        ("app:\n\t$(build)\nother:\n\t$(build)\n", "app /program/app"),
        // What it is made of, in the order in which that is written.
        ("all: two one\none two:\n\t$(build)\n", "two /program/two"),
        (
            "all: parts late\nparts: lib.so out/app\nlib.so out/app late:\n\t$(build)\n",
            "out/app /program/app",
        ),
        ("all:: one\nall:: two\none:\n\techo 1\ntwo:\n\t$(build)\n", "two /program/two"),
        ("all: CFLAGS += -g\nall: app\napp:\n\t$(build)\n", "app /program/app"),
        (".DEFAULT_GOAL := b\na b:\n\t$(build)\n", "b /program/b"),
        ("all: by-pattern\nby-%: src/main.c\n\t$(build)\n", "by-pattern /program/by-pattern"),
        // What is behind a `|` only has to be there.
        ("all: | tool\nall: app\napp tool:\n\t$(build)\n", "app /program/app"),
        // No rule tells: it is the only one that is there.
        ("all:\n\tgcc -DWORD='\"only\"' src/main.c -o 'the program'\n", "only /program/program"),
        ("all:\n\t$(MAKE) -C deeper\n", "inner /program/inner"),
    ] {
        assert_eq!(made(makefile, None).await, expected, "{makefile}");
    }
}

#[tokio::test]
async fn a_target_is_made_and_run() {
    let several = "all: a bin/b\na bin/b c:\n\t$(build)\n.PHONY: all debug\ndebug: c\n";
    let unruly = "all:\n\tfor name in x y; do gcc -DWORD='\"xy\"' src/main.c -o $$name; done\n";
    for (makefile, target, expected) in [
        (several, "a", "a /program/a"),
        (several, "bin/b", "bin/b /program/b"),
        (several, "c", "c /program/c"),
        // A target that is no file: what it is made of.
        (several, "debug", "c /program/c"),
        // A file that is no target: the default target leaves it.
        (unruly, "y", "xy /program/y"),
        ("all:\n\t$(MAKE) -C deeper\n", "deeper/inner", "inner /program/inner"),
    ] {
        assert_eq!(made(makefile, Some(target)).await, expected, "{makefile} {target}");
    }
}

#[tokio::test]
async fn what_cannot_be_built_is_said_with_the_senders_own_paths() {
    let wrong = b"int f(void) { return x; }\n";
    let absolute =
        "all: app\napp: lib/f.o\n\tgcc $< -o $@\nlib/f.o: lib/f.c\n\tgcc -Werror -c $(CURDIR)/$< -o $@\n";
    let (first, output) = not_made(&[("lib/f.c", wrong)], Some(absolute), None).await;
    assert_eq!(first, "lib/f.c:1:22: error: 'x' undeclared (first use in this function)");
    assert!(
        output.starts_with("gcc -Werror -c lib/f.c -o lib/f.o\n") && !output.contains("/work/"),
        "{output}"
    );

    let two = "all:\n\t@gcc -DWORD='\"\"' main.c -o x; cp x y\n";
    for (makefile, target, expected) in [
        (two, None, "error: the build left several programs, and `target` names none: "),
        (two, Some("z"), "error: the build left no program z"),
        // A file that was sent, and one that is not in the work directory.
        (two, Some("main.c"), "error: the build left no program main.c"),
        ("all:\n\t@true\n", None, "error: the build left no program"),
        (
            "all:\n\t@echo '#!/bin/sh' >app; chmod +x app\n",
            Some("app"),
            "error: the build left no program app",
        ),
        (
            "all:\n\t@gcc -DWORD='\"\"' -shared -fPIC main.c -o x.so\n",
            None,
            "error: the build left no program",
        ),
        (
            "app: main.o\n\tgcc $^ -o $@\nmain.o:\n\tgcc -c -Dprintf=nowhere -DWORD='\"\"' main.c\n",
            None,
            "main.c:(.text",
        ),
        ("all: missing.c\n", None, "make: *** No rule to make target 'missing.c', needed by 'all'.  Stop."),
        ("a: b\nb:\n\tfalse\n", Some("a"), "make: *** [Makefile:3: b] Error 1"),
        ("nonsense", None, "Makefile:1: *** missing separator.  Stop."),
    ] {
        let (first, output) = not_made(&[("main.c", PRINT)], Some(makefile), target).await;
        assert!(first.starts_with(expected), "{makefile} {target:?}: {first}: {output}");
    }
    let (first, _) = not_made(&[("a.c", b"")], None, None).await;
    assert_eq!(first, "make: *** No targets specified and no makefile found.  Stop.");
}

/// It is make's and the compilers' matter which languages there are.
#[tokio::test]
async fn projects_are_in_any_language_that_has_a_compiler() {
    let files: [(&str, &[u8]); 5] = [
        ("Makefile", b"app: main.o word.o number.o\n\t$(CXX) $^ -o $@\nmain.o word.o: word.hpp\n"),
        ("word.hpp", b"#include <string>\nstd::string word();\nextern \"C\" int number;\n"),
        ("word.cpp", b"#include \"word.hpp\"\nstd::string word() { return \"C++\"; }\n"),
        (
            "main.cpp",
            b"#include <iostream>\n#include \"word.hpp\"\nint main() { std::cout << word() << number; }\n",
        ),
        ("number.s", b"\t.section .note.GNU-stack,\"\"\n\t.data\n\t.globl number\nnumber:\t.long 42\n"),
    ];
    let program = build(&files, None, None).await.unwrap();
    let outcome = sandbox().run(&program, Input::default(), limits()).await.unwrap();
    assert_eq!(stdout(&outcome), "C++42");
}

/// A makefile that came apart takes the place of the files'.
#[tokio::test]
async fn makefiles_are_found_as_make_finds_them() {
    let rule = |name: &str| format!("{name}: main.c\n\tgcc -DWORD='\"{name}\"' $< -o $@\n");
    let rules = ["first", "second", "third", "apart"].map(rule);
    let files: Vec<(&str, &[u8])> = ["GNUmakefile", "makefile", "Makefile"]
        .into_iter()
        .zip(&rules)
        .map(|(path, text)| (path, text.as_bytes()))
        .chain([("main.c", PRINT)])
        .collect();
    for (skipped, apart, expected) in
        [(0, None, "first"), (1, None, "second"), (2, None, "third"), (0, Some(rules[3].as_str()), "apart")]
    {
        assert_eq!(build(&files[skipped..], apart, None).await.unwrap().name(), expected);
    }
}

/// All files are of one time, so what was sent is not made again; what has to run while building can.
#[tokio::test]
async fn files_that_were_sent_are_not_made_again_and_scripts_run() {
    let makefile = "app: parser.c gen.h\n\tgcc -include gen.h parser.c -o $@\nparser.c: parser.y\n\tfalse\n\
                    gen.h:\n\ttools/gen >$@\n";
    let files: [(&str, &[u8]); 4] = [
        ("Makefile", makefile.as_bytes()),
        ("parser.c", PRINT),
        ("parser.y", b""),
        ("tools/gen", b"#!/bin/sh\necho '#define WORD \"made\"'\n"),
    ];
    let program = build(&files, None, None).await.unwrap();
    let outcome = sandbox().run(&program, args(["5"]), limits()).await.unwrap();
    assert_eq!(stdout(&outcome), "made /program/app");
}

/// Neither by the paths of files, nor by a target, nor by what the build leaves.
#[tokio::test]
async fn projects_lead_to_no_files_of_the_host() {
    let secret = Secret::new("projected");
    let path = secret.path();
    for outside in ["/work/x", path, "../x", "a/../../x", "", "a\0b"] {
        let refused = build(&[(outside, b"x")], Some("all:\n"), None).await;
        assert!(matches!(refused, Err(Error::Input(_))), "{outside:?}: {refused:?}");
    }
    let odd = ["-f", "--checkpoint-action=exec=sh x", "$(id)", "a b\nc", "*", "@x", "|x"];
    let files: Vec<(&str, &[u8])> = odd.iter().map(|path| (*path, &b"id"[..])).collect();
    let (first, output) = not_made(&files, Some("all:\n\t@ls -1b | tr '\\n' ' '; false\n"), None).await;
    assert!(
        output.starts_with("$(id) * --checkpoint-action=exec=sh\\ x -f @x Makefile a\\ b\\nc |x "),
        "{first}{output}"
    );
    for target in
        ["-f/etc/passwd", &format!("-f{path}"), &format!("--eval=$(error $(file <{path}))"), path, "`id`"]
    {
        let (_, output) = not_made(&[], Some("all:\n"), Some(target)).await;
        assert!(!output.contains(&secret.word) && !output.contains("uid="), "{target}: {output}");
    }
    for makefile in [format!("app:\n\tln -s {path} app\n"), "app:\n\tln -s /etc app\n".to_owned()] {
        let (first, _) = not_made(&[], Some(&makefile), None).await;
        assert_eq!(first, "error: the build left no program", "{makefile}");
    }
    secret.assert_untouched();
}
