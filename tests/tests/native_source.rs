//! Legacy source: built and run natively for devices that send C with a compiler command or a makefile.

use anyhow::{Context, Result};
use bytes::Bytes;
use offload_tests::answer::{envelope_problems, error_line_problems, refused, refused_in_envelope};
use offload_tests::deployment::Deployment;
use offload_tests::device::{Device, Options, Properties, Version};
use offload_tests::gateway::Gateway;
use offload_tests::mosquitto::Mosquitto;
use offload_tests::password_file::set_password;
use offload_tests::source::{COMMAND, MAKEFILE, MAKES_FILES, READER, legacy, program};
use offload_tests::{envelope, on_each_broker, project};
use serde_json::{Value, json};

on_each_broker! {
    deployed_devices_are_answered with ["", ALLOWED],
    a_name_is_a_files_name_or_program with ["", ALLOWED],
    commands_are_what_students_send with ["", ALLOWED],
    each_ending_is_told with ["", ALLOWED],
    programs_find_what_their_build_has_left with ["", ALLOWED],
    an_envelope_carries_source_too with ["", ALLOWED],
    a_build_error_is_the_compilers_own with SMALL_SOURCE,
    projects_of_several_files_do_what_they_are_to_do with ["", ALLOWED],
    the_program_is_the_target_or_the_makefiles_first with ["", ALLOWED],
    files_are_one_request_with_all_that_is_in_them with ["", ALLOWED],
    files_over_a_limit_are_too_large with FEW_FILES,
    several_files_have_the_compilers_own_errors with ["", ALLOWED],
}

/// Prints the sum of its arguments, as the programs of the deployed devices do.
const ADD: &str = "#include <stdio.h>\n#include <stdlib.h>\nint main(int argc, char *argv[]) {\n    int sum = 0;\n    \
                   for (int i = 1; i < argc; i++)\n        sum += atoi(argv[i]);\n    printf(\"%d\", sum);\n    return 0;\n}\n";

/// On an external broker it has to be allowed.
const ALLOWED: &str = "native = \"native\"\n";

/// A device with an id, and a Linux client whose library leaves it none. The build part is a compiler command, in one
/// line, or a makefile; the source file's ending is `.cpp` where the build part says so.
async fn deployed_devices_are_answered(deployment: Deployment) -> Result<()> {
    for id in ["rpi4", ""] {
        let mut device = Device::connect(deployment.address(), Version::V311, id).await?;
        device.subscribe(&format!("result/{id}")).await?;
        for (name, build) in [("add", COMMAND), ("add", MAKEFILE), ("../add", COMMAND), ("", COMMAND)] {
            let answer = device.ask(&format!("inputCode/{id}"), legacy(name, "5 7", ADD, build)).await?;
            assert_eq!(answer.text(), "12", "{name:?} {build}");
        }
        // Source may hold `----`, and a C++ compiler, or `<name>.cpp`, makes it C++.
        let holds_delimiter = "#include <stdio.h>\nint main() { puts(\"a----b\"); }";
        let answer =
            device.ask(&format!("inputCode/{id}"), legacy("d", "", holds_delimiter, COMMAND)).await?;
        assert_eq!(answer.text(), "a----b\n");
        let cpp = "#include <iostream>\nint main(int, char **argv) { std::cout << argv[1]; }";
        for build in
            ["g++ <name>.cpp -o <name>", "g++ <name>.c -o <name>", "<name>: <name>.cpp\n\tg++ $< -o $@"]
        {
            let answer = device.ask(&format!("inputCode/{id}"), legacy("plus", "plus", cpp, build)).await?;
            assert_eq!(answer.text(), "plus", "{build}");
        }
    }
    Ok(())
}

/// An empty or unsafe name (anything but letters, digits, `_`, `-`) becomes `program`. In command and makefile the
/// literal six characters `<name>` stand for the program's path without its ending. Args are split on white space.
async fn a_name_is_a_files_name_or_program(deployment: Deployment) -> Result<()> {
    let mut device = deployment.device(Version::V5, "name").await?;
    // What follows the last `/` of the source file's path, and the number of arguments.
    let source = "#include <stdio.h>\n#include <string.h>\nint main(int argc, char **argv) {\n    \
                  const char *slash = strrchr(__FILE__, '/');\n    \
                  printf(\"%s %d\", slash ? slash + 1 : __FILE__, argc - 1);\n}\n";
    for (name, expected) in [
        ("Prime-2_x", "Prime-2_x"),
        ("", "program"),
        ("../add", "program"),
        ("a.c", "program"),
        ("zwei wörter", "program"),
    ] {
        for build in [COMMAND, MAKEFILE] {
            let request = legacy(name, " \t5  7\n", source, build);
            let answer = device.ask("inputCode/name", request).await?;
            assert_eq!(answer.text(), format!("{expected}.c 2"), "{name:?} {build}");
        }
        let request = json!({
            "name": name, "source": source, "makefile": COMMAND, "args": ["5 7"], "reply": "stdout"
        });
        let answer = device.ask("inputCode/name", request.to_string()).await?;
        assert_eq!(answer.text(), format!("{expected}.c 1"), "{name:?} in an envelope");
    }
    // Of one line, but no compiler: a makefile, and none that does anything.
    let answer = device.ask("inputCode/name", legacy("p", "", source, "cp <name>.c <name>")).await?;
    assert_eq!(error_line_problems(&answer.payload, "build"), Vec::<String>::new());
    // A makefile that holds `----` needs an envelope.
    let makefile = "# ---- build ----\nall:\n\tgcc <name>.c -o <name>\n";
    let request = json!({ "source": source, "makefile": makefile, "reply": "stdout" });
    assert_eq!(device.ask("inputCode/name", request.to_string()).await?.text(), "program.c 0");
    Ok(())
}

/// By the names that compilers have on a machine, on several lines, and with the zero that ends a string in C. What
/// cannot be built says what it was taken for.
async fn commands_are_what_students_send(deployment: Deployment) -> Result<()> {
    let mut device = deployment.device(Version::V5, "student").await?;
    let version = std::process::Command::new("gcc").arg("-dumpversion").output()?.stdout;
    let version = format!("gcc-{} <name>.c -o <name>", String::from_utf8(version)?.trim());
    for build in [
        &version,
        "c99 <name>.c -o <name>",
        "/usr/bin/gcc <name>.c -o <name>",
        "LANG=C CFLAGS='-O1 -g' gcc <name>.c -o <name>",
        "gcc -c <name>.c\ngcc <name>.o -o <name>",
        "# two steps\r\n\r\nmkdir -p out\r\ngcc -c <name>.c \\\r\n  -o out/it.o\r\ngcc out/it.o -o <name>\r\n",
        "gcc <name>.c -o <name>\0",
        "all:\n\tgcc <name>.c -o <name>\n\0\0\n",
    ] {
        let answer = device.ask("inputCode/student", legacy("add", "5 7", ADD, build)).await?;
        assert_eq!(answer.text(), "12", "{build:?}");
        let request =
            json!({ "name": "add", "source": ADD, "makefile": build, "args": ["5", "7"], "reply": "stdout" });
        let answer = device.ask("inputCode/student", request.to_string()).await?;
        assert_eq!(answer.text(), "12", "{build:?} in an envelope");
    }
    for (request, field) in [
        (legacy("add\0", "", ADD, COMMAND), "name: "),
        (legacy("add", "5\0", ADD, COMMAND), "args[0]: "),
        (legacy("add", "", "int main;\0", COMMAND), "source: "),
        (legacy("add", "", ADD, "gcc \0 <name>.c -o <name>\0"), "makefile: "),
    ] {
        let answer = device.ask("inputCode/student", request).await?;
        refused(&answer, "malformed", &format!("{field}expected text without NUL"))?;
    }
    for (build, said) in [
        ("cp <name>.c <name>", "missing separator.  Stop. (the build part was taken for a makefile)"),
        ("gcc-99 <name>.c -o <name>", "gcc-99: not found (the build part was taken for a compiler command)"),
        ("gcc -c <name>.c\nmkdir x", "left no program add (the build part was taken for compiler commands)"),
        (
            "all:\n\tgcc <name>.c -o <name>\n\t./<name>; false\n",
            "(the build runs ./add: leave that to the gateway",
        ),
    ] {
        refused(&device.ask("inputCode/student", legacy("add", "", ADD, build)).await?, "build", said)?;
    }
    Ok(())
}

/// What was sent in `files`, and what the makefile has made, is there when the program runs: read-only, where it was
/// built.
async fn programs_find_what_their_build_has_left(deployment: Deployment) -> Result<()> {
    let mut device = deployment.device(Version::V5, "finds").await?;
    let files = json!({
        "main.c": envelope::bytes(READER), "data.txt": envelope::bytes("sent"), "a/b.txt": envelope::bytes("deep"),
    });
    let mut request = json!({ "files": files, "makefile": MAKES_FILES, "reply": "stdout" });
    request["args"] = json!(["data.txt", "/work/a/b.txt", "out/table.txt", "out/link", "out", "none"]);
    // Once built, and once from what is kept.
    for _ in 0..2 {
        let answer = device.ask("inputCode/finds", request.to_string()).await?;
        let expected = "sent,4,t|deep,4,p|SENT,4,T|SENT,4,T|2 files|No such file or directory|";
        assert_eq!(answer.text(), expected);
    }
    let makefile = "all:\n\techo 7 >table.txt; gcc <name>.c -o <name>\n";
    let answer = device.ask("inputCode/finds", legacy("one", "table.txt", READER, makefile)).await?;
    assert_eq!(answer.text(), "7\n,2,\n|");
    // It is bounded by the run's work directory.
    let makefile = "app: main.c\n\tgcc $< -o $@; yes | head -c 20000000 >large\n";
    let request = json!({ "files": { "main.c": envelope::bytes(READER) }, "makefile": makefile });
    let answer = envelope::ask(&mut device, "inputCode/finds", request).await?;
    refused_in_envelope(answer, "build", " bytes in its folder, the limit is 16777216")
}

/// `exit`, `trap`, `output`, `memory`, `timeout` and `expired` of a native program. Where nothing was printed, the line
/// has the first line of stderr.
async fn each_ending_is_told(deployment: Deployment) -> Result<()> {
    let mut device = deployment.device(Version::V5, "endings").await?;
    for (statements, kind) in [
        ("return 3;", "exit"),
        ("raise(SIGSEGV);", "trap"),
        ("abort();", "trap"),
        (
            "fputs(\"\\nnot a number: 5,7\\nusage\\n\", stderr); return 1;",
            "exit: program exited with code 1: not a number: 5,7",
        ),
        (
            "assert(argc == 9);",
            "trap: killed by SIGABRT, which abort() raises: p: p.c:7: main: Assertion `argc == 9' failed.",
        ),
        ("for (;;) puts(\"flood\");", "output"),
        (
            "for (;;) { char *p = malloc(1 << 20); for (int i = 0; i < 1 << 20; i += 512) p[i] = 1; }",
            "memory",
        ),
    ] {
        let answer = device.ask("inputCode/endings", legacy("p", "", &program(statements), COMMAND)).await?;
        match kind.split_once(": ") {
            None => {
                assert_eq!(error_line_problems(&answer.payload, kind), Vec::<String>::new(), "{statements}")
            }
            Some(_) => assert_eq!(answer.text(), format!("error: {kind}")),
        }
    }
    // Its own time and the request's.
    let endless = legacy("p", "", &program("for (;;) pause();"), COMMAND);
    device
        .publish_with("inputCode/endings", endless, Properties::user(&[("timeout-ms", "3000")]), false)
        .await?;
    let answer = device.message().await?;
    assert_eq!(error_line_problems(&answer.payload, "timeout"), Vec::<String>::new());
    let too_late = Properties::user(&[("timeout-ms", "1")]);
    device.publish_with("inputCode/endings", legacy("p", "", ADD, COMMAND), too_late, false).await?;
    let answer = device.message().await?;
    assert_eq!(error_line_problems(&answer.payload, "expired"), Vec::<String>::new());
    Ok(())
}

/// `source`, `makefile`, `name`: legacy offload in an envelope.
async fn an_envelope_carries_source_too(deployment: Deployment) -> Result<()> {
    let mut device = deployment.device(Version::V5, "env").await?;
    let statements = "int c; while ((c = getchar()) != EOF) putchar(c); fprintf(stderr, \"%s %s\", argv[1], \
                      getenv(\"WHO\")); return 4;";
    let request = json!({
        "source": program(statements), "makefile": COMMAND, "name": "cat", "args": ["a b"],
        "env": { "WHO": "me" }, "stdin": envelope::bytes("in"), "id": "7",
    });
    let answer = envelope::ask(&mut device, "inputCode/env", request.clone()).await?;
    assert_eq!(
        (&answer["status"], &answer["exit_code"], &answer["id"]),
        (&json!("exit"), &json!(4), &json!("7"))
    );
    assert_eq!(envelope::bytes_of(&answer, "stdout")?, b"in");
    assert_eq!(envelope::bytes_of(&answer, "stderr")?, b"a b me");
    assert!(answer["run_us"].as_u64().is_some_and(|time| time > 0), "{answer}");
    // A repetition is answered from memory.
    assert_eq!(envelope::ask(&mut device, "inputCode/env", request).await?, answer);

    // Code on localCode.
    let source = json!({ "source": ADD, "makefile": COMMAND });
    let refused = envelope::ask(&mut device, "localCode/env", source).await?;
    assert_eq!(envelope::error_kind(&refused), "malformed");
    Ok(())
}

/// Little source, so that it takes little to be over it.
const SMALL_SOURCE: &str = "native = \"native\"\n[limits]\nsource = \"64KiB\"\n";

/// `build`: the compiler or make failed. The line form says its first error, an envelope the last 64 KiB of what it
/// said, cleaned of control characters.
async fn a_build_error_is_the_compilers_own(deployment: Deployment) -> Result<()> {
    let mut device = deployment.device(Version::V5, "build").await?;
    let wrong = "int main() {\n    return x;\n}\nint f() { return y; }\n";
    let answer = device.ask("inputCode/build", legacy("wrong", "", wrong, COMMAND)).await?;
    assert!(
        answer.text().starts_with("error: build: wrong.c:2:12: error: 'x' undeclared"),
        "{}",
        answer.text()
    );
    let request = json!({ "source": wrong, "makefile": COMMAND, "name": "wrong" });
    let answer = envelope::ask(&mut device, "inputCode/build", request).await?;
    assert_eq!(envelope::error_kind(&answer), "build");
    let message = answer["error"]["message"].as_str().context("a message")?;
    assert!(message.contains("'x' undeclared") && message.contains("'y' undeclared"), "{message}");

    // A makefile that fails, and one that leaves nothing.
    let answer = device.ask("inputCode/build", legacy("p", "", ADD, "all:\n\tfalse\n")).await?;
    assert_eq!(error_line_problems(&answer.payload, "build"), Vec::<String>::new());
    let answer = device.ask("inputCode/build", legacy("p", "", ADD, "all:\n\ttrue\n")).await?;
    assert!(answer.text().contains("left no program"), "{}", answer.text());

    // Much, and not fit for a terminal: each line has its number, and 100 digits after that.
    let noisy = "all:\n\t@i=0; while [ $$i -lt 2000 ]; do printf '%d \\033[31m %0100d\\r\\a\\n' $$i 0; \
                 i=$$((i + 1)); done; echo the very last; false\n";
    let request = json!({ "source": ADD, "makefile": noisy });
    let answer = envelope::ask(&mut device, "inputCode/build", request).await?;
    refused_in_envelope(answer.clone(), "build", "\n1999 ")?;
    let message = answer["error"]["message"].as_str().context("a message")?;
    assert!((60 << 10..=64 << 10).contains(&message.len()), "{} bytes", message.len());
    assert!(message.contains("the very last") && !message.contains("\n1 "), "not its end");
    let is_dirty = |c: char| c.is_control() && c != '\n' && c != '\t';
    assert!(!message.contains(is_dirty), "control characters");

    let large = format!("{ADD}/*{}*/", "x".repeat(64 << 10));
    let size = large.len() + COMMAND.len();
    let answer = device.ask("inputCode/build", legacy("p", "", &large, COMMAND)).await?;
    refused(&answer, "too-large", &size.to_string())?;
    refused(&answer, "too-large", "65536")
}

/// `files`, `makefile`, `target`: real projects, with a makefile among their files.
async fn projects_of_several_files_do_what_they_are_to_do(deployment: Deployment) -> Result<()> {
    let mut device = deployment.device(Version::V5, "projects").await?;
    for project in project::all()? {
        for (case, request) in project.cases.iter().zip(project.requests()?) {
            let answer = envelope::ask(&mut device, "inputCode/projects", request).await;
            let problems = envelope_problems(answer, None, &case.expected(), case.stderr.as_deref());
            assert_eq!(problems, Vec::<String>::new(), "{}: {}", project.folder.display(), case.name);
        }
    }
    Ok(())
}

/// Prints the name of the file that it was compiled as, and its arguments' number.
const NAMED: &str =
    "#include <stdio.h>\nint main(int argc, char **argv) { printf(\"%s %d\", NAME, argc - 1); }\n";

/// Two programs in two folders.
const TWO: &str = "all: bin/one bin/two\nbin/%: src/main.c\n\tmkdir -p bin\n\tgcc -DNAME='\"$*\"' $< -o $@\n";

/// `target` is the program to run, the makefile's first by default; a makefile of its own takes the place of that among
/// the files.
async fn the_program_is_the_target_or_the_makefiles_first(deployment: Deployment) -> Result<()> {
    let mut device = deployment.device(Version::V5, "target").await?;
    let source = envelope::bytes(NAMED);
    for (request, expected) in [
        (json!({ "makefile": TWO }), "one 2"),
        (json!({ "makefile": TWO, "target": "bin/two" }), "two 2"),
        (json!({ "makefile": TWO, "target": "bin/three" }), "three 2"),
        (json!({ "makefile": "app:\n\tgcc -DNAME='\"app\"' src/main.c -o app\n" }), "app 2"),
    ] {
        let mut request = request;
        request["files"] = json!({ "src/main.c": source, "Makefile": envelope::bytes("all:\n\tfalse\n") });
        request["args"] = json!(["5", "7"]);
        request["reply"] = "stdout".into();
        let answer = device.ask("inputCode/target", request.to_string()).await?;
        assert_eq!(answer.text(), expected, "{request}");
    }
    Ok(())
}

/// The same `id` with other code is `malformed`: another path, contents, makefile or target.
async fn files_are_one_request_with_all_that_is_in_them(deployment: Deployment) -> Result<()> {
    let mut device = deployment.device(Version::V5, "once").await?;
    let makefile = "one two:\n\tgcc $(wildcard *.c) -o $@\n";
    let request = |files: Value| json!({ "id": "1", "files": files, "makefile": makefile });
    let code = envelope::bytes(ADD);
    let first = request(json!({ "a.c": code, "b.h": "" }));
    let answer = envelope::ask(&mut device, "inputCode/once", first.clone()).await?;
    assert_eq!(answer["status"], "ok", "{answer}");
    // Written in another order.
    let id_last = format!(
        r#"{{"makefile": {}, "files": {{"b.h": "", "a.c": {code}}}, "id": "1"}}"#,
        Value::from(makefile)
    );
    let stored = envelope::read(&device.ask("inputCode/once", id_last).await?)?;
    assert_eq!(stored, answer, "the stored answer");
    let mut others = vec![
        request(json!({ "a.c": code, "c.h": "" })),
        request(json!({ "a.c": code, "b.h": envelope::bytes("//") })),
        request(json!({ "a.c": code })),
        first.clone(),
        first,
    ];
    others[3]["target"] = "one".into();
    others[4]["makefile"] = format!("{makefile}#").into();
    for other in others {
        let refused = envelope::ask(&mut device, "inputCode/once", other).await?;
        refused_in_envelope(refused, "malformed", "id: ")?;
    }
    Ok(())
}

/// Few files, and little in them.
const FEW_FILES: &str = "native = \"native\"\n[limits]\nsource = \"64KiB\"\nfiles = 3\n";

/// `too-large`: source over the limit, in bytes or in number (both figures in the message).
async fn files_over_a_limit_are_too_large(deployment: Deployment) -> Result<()> {
    let mut device = deployment.device(Version::V5, "large").await?;
    let makefile = "all:\n\tgcc a.c -o a\n";
    let contents = vec![b'/'; 64 << 10];
    let large = json!({ "files": { "a.c": envelope::bytes(ADD), "b.c": envelope::bytes(contents) } });
    let bytes = (64 << 10) + ADD.len() + makefile.len() + "a.cb.c".len();
    let many = json!({ "files": { "a.c": envelope::bytes(ADD), "b.h": "", "c.h": "", "d.h": "" } });
    let fit = json!({ "files": { "a.c": envelope::bytes(ADD), "b.h": "", "c.h": "" } });
    for (mut request, said) in [
        (large, format!("source: {bytes} bytes, the limit is 65536")),
        (many, "files: number 4, the limit is 3".to_owned()),
    ] {
        request["makefile"] = makefile.into();
        refused_in_envelope(
            envelope::ask(&mut device, "inputCode/large", request).await?,
            "too-large",
            &said,
        )?;
    }
    let mut request = fit;
    request["makefile"] = makefile.into();
    request["args"] = json!(["5", "7"]);
    let answer = envelope::ask(&mut device, "inputCode/large", request).await?;
    assert_eq!(envelope::bytes_of(&answer, "stdout")?, b"12", "{answer}");
    Ok(())
}

/// `build`: the line form says the first error, an envelope all that was said, with paths as they were sent.
async fn several_files_have_the_compilers_own_errors(deployment: Deployment) -> Result<()> {
    let mut device = deployment.device(Version::V5, "wrong").await?;
    let wrong = envelope::bytes("int main(void) { return x; }\n");
    let makefile = "app: src/main.c\n\tgcc -Werror $(CURDIR)/$< -o $@\n";
    let mut request = json!({ "files": { "src/main.c": wrong }, "makefile": makefile });
    let answer = envelope::ask(&mut device, "inputCode/wrong", request.clone()).await?;
    let message = answer["error"]["message"].as_str().context("a message")?;
    assert_eq!(envelope::error_kind(&answer), "build");
    assert!(
        message.starts_with("gcc -Werror src/main.c -o app\nsrc/main.c: In function 'main':\n"),
        "{message}"
    );
    request["reply"] = "stdout".into();
    let answer = device.ask("inputCode/wrong", request.to_string()).await?;
    assert!(
        answer.text().starts_with("error: build: src/main.c:1:25: error: 'x' undeclared"),
        "{}",
        answer.text()
    );

    let ambiguous = "all:\n\tgcc -DNAME='\"\"' main.c -o a; cp a b\n";
    let request = json!({ "files": { "main.c": envelope::bytes(NAMED) }, "makefile": ambiguous });
    let answer = envelope::ask(&mut device, "inputCode/wrong", request).await?;
    refused_in_envelope(answer, "build", "error: the build left several programs, and `target` names none: ")
}

/// By default an external broker's clients may run programs and offload wasm, not native source: `unauthorized`.
/// Neither may anyone where the sandbox is not complete, or the configuration forbids it.
#[tokio::test]
async fn source_is_refused_where_nothing_allows_it() -> Result<()> {
    let off = Deployment::embedded("native = \"off\"\n").await?;
    let external = Deployment::on_mosquitto("").await?;
    let no_bubblewrap = Deployment::embedded("[sandbox]\nbubblewrap = \"/nonexistent/bwrap\"\n").await?;
    for deployment in [&off, &external, &no_bubblewrap] {
        let mut device = deployment.device(Version::V5, "refused").await?;
        let answer = device.ask("inputCode/refused", legacy("p", "5 7", ADD, COMMAND)).await?;
        assert_eq!(error_line_problems(&answer.payload, "unauthorized"), Vec::<String>::new());
        let files = json!({ "files": { "a.c": envelope::bytes(ADD) }, "makefile": "a:\n\tgcc a.c -o a\n" });
        let answer = envelope::ask(&mut device, "inputCode/refused", files).await?;
        assert_eq!(envelope::error_kind(&answer), "unauthorized", "{answer}");
        // Modules run there all the same.
        let module: Bytes = offload_tests::guest::module("hello")?;
        assert_eq!(device.ask("inputCode/refused", module).await?.text(), "hello!\n");
    }
    Ok(())
}

/// Native builds: with `--broker` only by `--allow-native` or the configuration.
#[tokio::test]
async fn allow_native_allows_it_on_an_external_broker() -> Result<()> {
    let mosquitto = Mosquitto::start().await?;
    let _gateway = Gateway::start(&["--broker", &mosquitto.url(), "--allow-native"], "").await?;
    let mut device = Device::connect(mosquitto.address(), Version::V311, "allowed").await?;
    device.subscribe("result/allowed").await?;
    assert_eq!(device.ask("inputCode/allowed", legacy("add", "5 7", ADD, COMMAND)).await?.text(), "12");
    Ok(())
}

/// Compilers and native programs have their own turns: what needs none is answered at once.
#[tokio::test]
async fn native_programs_do_not_hold_up_guests() -> Result<()> {
    let deployment = Deployment::embedded("[sandbox]\nconcurrency = 2\n").await?;
    let slow = deployment.device(Version::V5, "slow").await?;
    for _ in 0..8 {
        slow.publish("inputCode/slow", legacy("p", "", &program("sleep(600);"), COMMAND)).await?;
    }
    let mut quick = deployment.device(Version::V5, "quick").await?;
    assert_eq!(quick.ask("localCode/quick", "5 7").await?.text(), "12\n");
    // Another principal's turn is not taken by those that wait.
    assert_eq!(quick.ask("inputCode/quick", legacy("add", "5 7", ADD, COMMAND)).await?.text(), "12");
    // All of them end with the gateway, within its drain time.
    drop(slow);
    Ok(())
}

/// A makefile whose program tells when it was built.
const STAMPED: &str = "all:\n\tgcc -DSTAMP=$$(date +%s%N)LL <name>.c -o <name>\n";

/// The same source, build and owner: one program, also for those who ask at the same time, and after a restart.
#[tokio::test]
async fn a_program_is_built_once_for_whoever_sent_it() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let passwords = folder.path().join("passwords");
    for name in ["first", "second"] {
        set_password(&passwords, name, name).await?;
    }
    let configuration = format!("[access]\npasswords = {passwords:?}\n");
    let mut gateway = Gateway::embedded(&configuration).await?;
    let source = program("printf(\"%lld\", STAMP);");
    let mut first: Option<String> = None;
    for run in 0..2 {
        let options = |name: &'static str| Options { credentials: Some((name, name)), ..Options::default() };
        let mut device =
            Device::connect_with(gateway.address()?, Version::V5, "first", options("first")).await?;
        device.subscribe("result/first").await?;
        let at_once = 4;
        for _ in 0..at_once {
            device.publish("inputCode/first", legacy("stamp", "", &source, STAMPED)).await?;
        }
        for _ in 0..at_once {
            let stamp = device.message().await?.text();
            assert!(stamp.parse::<u64>().is_ok(), "{stamp}");
            assert_eq!(*first.get_or_insert(stamp.clone()), stamp, "run {run}");
        }
        let other_build = STAMPED.replace("gcc", "gcc -O1");
        let other = device.ask("inputCode/first", legacy("stamp", "", &source, &other_build)).await?.text();
        assert_ne!(Some(other), first, "another build is another program");
        let mut device =
            Device::connect_with(gateway.address()?, Version::V5, "second", options("second")).await?;
        device.subscribe("result/second").await?;
        let other = device.ask("inputCode/second", legacy("stamp", "", &source, STAMPED)).await?.text();
        assert_ne!(Some(other), first, "another's program is not taken");
        gateway = gateway.restart(&["--listen", "127.0.0.1:0"], &configuration).await?;
    }
    Ok(())
}
