//! Compilers and make, made to read the host's files or to run what is not theirs.

use crate::host::Secret;
use crate::sandbox::{build, build_in, limits, sandbox, sandbox_of, stdout};
use offload_native::{Build, Compilers, Config, Error, Input, Language, Platform, Source};

/// The source, and the command or makefile. `{}` stands for a file of the host.
const READERS: &[(&str, &str)] = &[
    ("#include \"{}\"\n", "gcc <name>.c -o <name>"),
    ("#include \"/proc/1/root{}\"\n", "gcc <name>.c -o <name>"),
    ("#if __has_include(\"{}\")\n#error found the secret\n#endif\n", "gcc -c <name>.c -o <name>"),
    ("__asm__(\".incbin \\\"{}\\\"\");\nint main() {}\n", "gcc <name>.c -o <name>"),
    ("__asm__(\".include \\\"{}\\\"\");\nint main() {}\n", "gcc <name>.c -o <name>"),
    ("int main() {}", "gcc @{} <name>.c -o <name>"),
    ("int main() {}", "gcc -include {} <name>.c -o <name>"),
    ("int main() {}", "gcc -imacros {} <name>.c -o <name>"),
    ("int main() {}", "gcc -specs={} <name>.c -o <name>"),
    ("int main() {}", "gcc -fplugin={} <name>.c -o <name>"),
    ("int main() {}", "gcc -x c {} -o <name>"),
    ("int main() {}", "gcc -T {} <name>.c -o <name>"),
    ("int main() {}", "gcc -Wl,--version-script={} <name>.c -o <name>"),
    ("int main() {}", "gcc -Wl,-b,binary {} <name>.c -o <name>"),
    ("int main() {}", "gcc -wrapper cat,{} <name>.c -o <name>"),
    ("int main() {}", "include {}\n"),
    ("int main() {}", "all:\n\t@echo 'INCLUDE {}' >script; ld -T script\n"),
    ("int main() {}", "all:\n\t@. {}\n"),
    ("int main() {}", "$(error $(file <{}) $(shell cat {}))\n"),
    ("int main() {}", "all: {}\n\tcp $< <name>\n"),
];

#[tokio::test]
async fn compilers_find_no_files_of_the_host() {
    let secret = Secret::new("compiled");
    for (code, how) in READERS {
        // One that is the test's own and readable for all, and one that every machine has.
        for (path, word) in [(secret.path(), secret.word.as_str()), ("/etc/passwd", "root:")] {
            let (code, how) = (code.replace("{}", path), how.replace("{}", path));
            match build(&code, &how).await {
                Err(Error::Build { output, .. }) => {
                    assert!(!output.contains(word), "{code}{how}: {output}");
                    assert!(!output.contains("found the secret"), "{code}{how}: {output}");
                }
                // What could not be read was not asked for after all.
                Ok(program) => {
                    let found = program.bytes().windows(word.len()).any(|part| part == word.as_bytes());
                    assert!(!found, "{code}{how}");
                }
                Err(error) => panic!("{code}{how}: {error:?}"),
            }
        }
    }
    secret.assert_untouched();
}

/// A plugin, a wrapper and a makefile's shell are strangers' programs that run where the compiler runs: there, and with
/// no more rights than a program has.
#[tokio::test]
async fn what_a_build_runs_is_contained_as_programs_are() {
    let secret = Secret::new("plugged");
    let plugin = r#"
        #include <fcntl.h>
        #include <stdio.h>
        #include <sys/socket.h>
        int plugin_is_GPL_compatible;
        int plugin_init(void *info, void *version) {
            fprintf(stderr, "plugin: secret %d socket %d shadow %d\n", open(SECRET, O_RDWR),
                    socket(AF_INET, SOCK_STREAM, 0), open("/etc/shadow", O_RDONLY));
            return 1;
        }"#;
    let run_plugin = format!(
        "all:\n\tgcc -shared -fPIC -DSECRET='\"{}\"' <name>.c -o plugin.so\n\techo 'int x;' >x.c; gcc -fplugin=./plugin.so -c x.c\n",
        secret.path()
    );
    let wrapper = format!(
        "all:\n\tgcc -wrapper sh,-c,'echo wrapped >&2; cat {} >&2; false' -c <name>.c\n",
        secret.path()
    );
    let preload = "all:\n\tgcc -shared -fPIC -DSECRET='\"x\"' <name>.c -o x.so; LD_PRELOAD=./x.so /usr/bin/su -c id; \
                   echo preloaded >&2; false\n";
    for (makefile, runs) in [
        (run_plugin.as_str(), "plugin: secret -1 socket -1 shadow -1"),
        (&wrapper, "wrapped"),
        (preload, "preloaded"),
    ] {
        match build(plugin, makefile).await {
            Err(Error::Build { output, .. }) => {
                assert!(output.contains(runs) && !output.contains(&secret.word), "{output}");
                assert!(!output.contains("uid=0"), "{output}");
            }
            other => panic!("{makefile}: {other:?}"),
        }
    }
    secret.assert_untouched();
}

/// The name and the command come from the client as well.
#[tokio::test]
async fn names_and_commands_do_nothing_outside() {
    let secret = Secret::new("named");
    for name in ["../../../../etc/passwd", "$(id)", "a;id", "-o", "..", "x/y", "\u{0}"] {
        let source = Source {
            name: name.to_owned(),
            code: b"int main() {}".to_vec(),
            language: Language::C,
            build: Build::Command("gcc <name>.c -o <name>".to_owned()),
        };
        assert_eq!(sandbox().build(source, Platform::Native).await.unwrap().name(), "program", "{name}");
    }
    let path = secret.path();
    for how in [
        format!("gcc <name>.c -o {path}"),
        format!("gcc <name>.c -o <name>; cp <name> {path}"),
        format!("gcc -MD -MF {path} -c <name>.c"),
        format!("gcc -save-temps -dumpdir {path}. <name>.c -o <name>; false"),
        format!("gcc <name>.c ) ; cat {path} >&2; ( false"),
    ] {
        match build("int main() {}", &how).await {
            Err(Error::Build { output, .. }) => assert!(!output.contains(&secret.word), "{how}: {output}"),
            // The copy failed, the program is there.
            Ok(program) => assert!(program.bytes().starts_with(b"\x7fELF"), "{how}"),
            other => panic!("{how}: {other:?}"),
        }
    }
    secret.assert_untouched();
}

/// What compiled it, and whether that optimized.
const WHO: &str = r#"
#include <stdio.h>
int main(void) {
#ifdef __TINYC__
    printf("tcc");
#elif defined __OPTIMIZE__
    printf("gcc, optimizing");
#else
    printf("gcc");
#endif
}
"#;

/// Nested functions are gcc's alone.
const NESTED: &str = r#"
#include <stdio.h>
int main(void) {
    int two(void) { return 2; }
    printf("%d", two());
}
"#;

#[tokio::test]
async fn what_compiles_is_the_operators_choice() {
    let makefile =
        "CC = gcc -pedantic\nhello: hello.o\n\t$(CC) -o $@ $^\nhello.o: hello.c\n\t$(CC) -O2 -c $<\n";
    for (compilers, expected) in
        [(Compilers::AsCalled, "gcc, optimizing"), (Compilers::Unoptimized, "gcc"), (Compilers::Tcc, "tcc")]
    {
        assert_eq!(compilers.missing(), None, "cargo xtask setup");
        let sandbox = sandbox_of(Config { compilers, ..Config::default() });
        let printed = async |code, how| {
            let program = build_in(&sandbox, code, how).await.unwrap();
            let outcome = sandbox.run(&program, Input::default(), limits()).await.unwrap();
            stdout(&outcome).to_owned()
        };
        for how in ["gcc -O2 <name>.c -o <name>", makefile] {
            assert_eq!(printed(WHO, how).await, expected, "{compilers:?} {how}");
        }
        // What one does not know is compiled by what was called, which has the last word on errors too.
        assert_eq!(printed(NESTED, "gcc <name>.c -o <name>").await, "2", "{compilers:?}");
        let cpp =
            printed("#include <cstdio>\nint main() { std::puts(\"C++\"); }", "g++ <name>.cpp -o <name>");
        assert_eq!(cpp.await, "C++\n", "{compilers:?}");
        let error = build_in(&sandbox, "int main(void) { return x; }", "gcc <name>.c -o <name>").await;
        assert!(
            matches!(&error, Err(Error::Build { first, .. }) if first.contains("'x' undeclared")),
            "{compilers:?}: {error:?}"
        );
    }
}
