//! What works in a sandbox, and what is said of what does not.

use crate::sandbox::{GCC, build, limits, run, run_with, sandbox, stdout};
use offload_native::{Ending, Error, Input, NativeProgram, OnStdout};
use std::time::Duration;

#[tokio::test]
async fn a_program_gets_its_arguments_environment_and_input() {
    let code = r#"
        #include <stdio.h>
        #include <stdlib.h>
        int main(int argc, char **argv) {
            for (int i = 0; i < argc; i++) printf("%s|", argv[i]);
            printf("%s|", getenv("NAME"));
            int c; while ((c = getchar()) != EOF) putchar(c);
            fprintf(stderr, "done");
            return 7;
        }"#;
    let input = Input {
        args: vec!["a b".into(), "--c".into(), "$HOME".into()],
        env: vec![("NAME".into(), "v=1".into())],
        stdin: vec![b'x'; 300_000],
        on_stdout: OnStdout::default(),
    };
    let outcome = run_with(code, input, limits()).await;
    assert_eq!(outcome.ending, Ending::Exit(7));
    assert_eq!(stdout(&outcome), format!("/program/hello|a b|--c|$HOME|v=1|{}", "x".repeat(300_000)));
    assert_eq!(outcome.stderr, b"done");
    assert!(outcome.cpu > Duration::ZERO && outcome.wall > Duration::ZERO);
}

/// Whatever a shell would make of them.
#[tokio::test]
async fn arguments_come_as_they_are() {
    let code = "#include <stdio.h>\nint main(int n, char **args) { while (*++args) printf(\"%s|\", *args); }";
    let every: String = (1..=0x2ff).filter_map(char::from_u32).collect();
    let args =
        ["", "-c", "it's", "$(id) `id`; \\", "*", "\n", &every, &"long".repeat(30_000)].map(str::to_owned);
    let expected = args.iter().map(|arg| format!("{arg}|")).collect::<String>();
    let outcome = run_with(code, Input { args: args.to_vec(), ..Input::default() }, limits()).await;
    assert_eq!((outcome.ending, stdout(&outcome)), (Ending::Exit(0), expected.as_str()));
}

#[tokio::test]
async fn a_program_is_built_once_and_run_many_times_at_once() {
    let built = build("#include <stdio.h>\nint main(int c, char **v) { puts(v[1]); }", GCC).await.unwrap();
    let kept = NativeProgram::new("hello", built.bytes());
    let run = |n: u32| {
        let input = Input { args: vec![n.to_string()], ..Input::default() };
        sandbox().run(&kept, input, limits())
    };
    let (one, two, three) = tokio::join!(run(1), run(2), run(3));
    assert_eq!([one, two, three].map(|o| o.unwrap().stdout), [b"1\n", b"2\n", b"3\n"].map(Vec::from));
}

#[tokio::test]
async fn makefiles_build_the_named_program_or_the_only_one() {
    let code = "#include <stdio.h>\nint main() { puts(\"made\"); }";
    for makefile in [
        "<name>: <name>.c\n\tgcc -O1 $< -o $@\n",
        "CC=gcc\nall: app\napp: hello.o\n\t$(CC) $^ -o $@\n%.o: %.c\n\t$(CC) -c $<\n",
    ] {
        let program = build(code, makefile).await.unwrap();
        let outcome = sandbox().run(&program, Input::default(), limits()).await.unwrap();
        assert_eq!(stdout(&outcome), "made\n", "{makefile}");
    }
    let cpp = "#include <iostream>\nint main() { std::cout << \"plus\"; }";
    for command in ["g++ <name>.cpp -o <name>", "g++ <name>.c -o <name>"] {
        let program = build(cpp, command).await.unwrap();
        let outcome = sandbox().run(&program, Input::default(), limits()).await.unwrap();
        assert_eq!(stdout(&outcome), "plus", "{command}");
    }
}

/// Several commands stop at the first that fails, whatever the last one does.
#[tokio::test]
async fn each_of_several_commands_has_to_succeed() {
    let code = "#include <stdio.h>\nint main() { puts(TEXT); }";
    let define = "-D'TEXT=\"made\"'";
    let commands = format!("gcc {define} -c <name>.c \\\r\n  -O1\r\n# and\r\ngcc <name>.o -o <name>\r\n");
    let program = build(code, &commands).await.unwrap();
    let outcome = sandbox().run(&program, Input::default(), limits()).await.unwrap();
    assert_eq!(stdout(&outcome), "made\n");
    let first_fails = format!("gcc -c missing.c\ngcc {define} <name>.c -o <name>");
    match build(code, &first_fails).await {
        Err(Error::Build { first, .. }) => assert!(first.contains("missing.c"), "{first}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_cannot_be_built_says_why() {
    for (code, how, first) in [
        ("int main() { return x; }", GCC, "hello.c:1:21: error: 'x' undeclared (first use in this function)"),
        (
            "int main() {}",
            "gcc -c <name>.c",
            "error: the build left no program hello (the build part was taken for a compiler command)",
        ),
        (
            "int main() {}",
            "all:\n\ttouch a b; chmod +x a b",
            "error: the build left no program hello (the build part was taken for a makefile)",
        ),
        (
            "int main() {}",
            "all:\n\techo >hello; chmod +x hello",
            "error: what the build left is no executable program",
        ),
        (
            "",
            "nonsense",
            "Makefile:1: *** missing separator.  Stop. (the build part was taken for a makefile)",
        ),
        (
            "",
            "gcc -v >/dev/null 2>&1; gcc-99 <name>.c",
            "sh: 2: gcc-99: not found (the build part was taken for a compiler command)",
        ),
        (
            "int main() { return 1; }",
            "all:\n\tgcc <name>.c -o <name>\n\t./<name>\n",
            "make: *** [Makefile:3: all] Error 1 (the build runs ./hello: leave that to the gateway, which does it with \
             the request's arguments)",
        ),
    ] {
        match build(code, how).await {
            Err(Error::Build { first: is, output }) => {
                assert_eq!(is, first, "{output}");
                assert!(output.contains(first) && !output.contains("/work"), "{output}");
            }
            other => panic!("{how}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn input_that_no_program_can_be_given_is_refused() {
    let program = NativeProgram::new("hello", &b"#!/bin/false"[..]);
    let env = |name: &str| Input { env: vec![(name.into(), String::new())], ..Input::default() };
    let args = |args: Vec<String>| Input { args, ..Input::default() };
    let long = |size| "x".repeat(size);
    for input in [
        env(""),
        env("a=b"),
        env("\0"),
        env(&long(128 << 10)),
        args(vec!["\0".into()]),
        args(vec![String::new(); 5000]),
        args(vec![long(128 << 10)]),
        args(vec![long(100 << 10); 11]),
    ] {
        assert!(matches!(sandbox().run(&program, input, limits()).await, Err(Error::Input(_))));
    }
}

#[tokio::test]
async fn a_crash_is_told_from_an_exit() {
    assert_eq!(run("#include <stdlib.h>\nint main() { abort(); }").await.ending, Ending::Signal(SIGABRT));
    assert_eq!(run("int main() { return 200; }").await.ending, Ending::Exit(200));
}

/// As on every Linux.
const SIGABRT: i32 = 6;
