//! Source that is built for WASI and runs as a module: what the same source does natively, what it lacks there, and how
//! an operator learns of differences before the devices do.

use anyhow::{Context, Result, ensure};
use offload_tests::answer::{envelope_problems, error_line_problems, refused, refused_in_envelope};
use offload_tests::deployment::Deployment;
use offload_tests::device::{Device, Version};
use offload_tests::gateway::Gateway;
use offload_tests::project::{self, Project};
use offload_tests::source::{COMMAND, MAKEFILE, MAKES_FILES, READER, legacy, program};
use offload_tests::{envelope, guest, on_each_broker};
use serde_json::json;

on_each_broker! {
    projects_do_as_wasm_what_they_are_to_do with WASM,
    legacy_text_runs_as_wasm with WASM,
    each_form_of_main_is_called with WASM,
    modules_find_what_their_build_has_left with WASM,
    each_ending_is_a_guests with SHORT,
    what_wasi_lacks_is_a_build_error_that_says_so with WASM,
    what_a_build_leaves_is_taken_for_what_it_is with SMALL_MODULES,
}

const WASM: &str = "native = \"wasm\"\n";

/// Little fuel and memory, soon used up.
const SHORT: &str = "native = \"wasm\"\n[limits]\nfuel = 100_000_000\nmemory = \"16MiB\"\n";

/// Modules that a program with a large table is over.
const SMALL_MODULES: &str = "native = \"wasm\"\n[limits]\nmodule = \"256KiB\"\n";

/// The one whose arithmetic needs a `long` of 64 bits.
const NEEDS_64_BITS: &str = "modpow";

/// Tells where it runs: 8 natively on all machines that these tests run on, 4 as wasm.
const SIZE_OF_LONG: &str =
    "#include <stdio.h>\nint main(void) { printf(\"%d\", (int)sizeof(long)); return 0; }\n";

fn is_portable(project: &Project) -> bool {
    !project.folder.ends_with(NEEDS_64_BITS)
}

/// The same cases as natively (`native_source`), with fuel as of any module.
async fn projects_do_as_wasm_what_they_are_to_do(deployment: Deployment) -> Result<()> {
    let mut device = deployment.device(Version::V5, "projects").await?;
    let projects = project::all()?;
    ensure!(projects.iter().filter(|project| is_portable(project)).count() >= 5, "too few projects");
    for project in projects.iter().filter(|project| is_portable(project)) {
        for (case, request) in project.cases.iter().zip(project.requests()?) {
            let which = format!("{}: {}", project.folder.display(), case.name);
            let answer = envelope::ask(&mut device, "inputCode/projects", &request).await?;
            assert!(answer["fuel"].as_u64().is_some_and(|fuel| fuel > 1000), "{which}: {answer}");
            let problems = envelope_problems(Ok(answer), None, &case.expected(), case.stderr.as_deref());
            assert_eq!(problems, Vec::<String>::new(), "{which}");
        }
    }
    Ok(())
}

/// As the deployed devices send it: a compiler command or a makefile, C or C++.
async fn legacy_text_runs_as_wasm(deployment: Deployment) -> Result<()> {
    let mut device = deployment.device(Version::V5, "legacy").await?;
    let add =
        program("int sum = 0; while (--argc) sum += atoi(argv[argc]); printf(\"%s %d\", argv[0], sum);");
    for build in [COMMAND, MAKEFILE] {
        let answer = device.ask("inputCode/legacy", legacy("add", "5 7", &add, build)).await?;
        assert_eq!(answer.text(), "/program/add 12", "{build}");
    }
    assert_eq!(device.ask("inputCode/legacy", legacy("l", "", SIZE_OF_LONG, COMMAND)).await?.text(), "4");
    let long_double =
        program("long double x; sscanf(argv[1], \"%Lf\", &x); printf(\"%.3Lf %g\", x / 3, 2.5);");
    let answer = device.ask("inputCode/legacy", legacy("x", "1.5", &long_double, MAKEFILE)).await?;
    assert_eq!(answer.text(), "0.500 2.5");
    let cpp = "#include <iostream>\n#include <string>\nint main(int, char **argv) { std::cout << std::string(argv[1]) + \"!\"; }";
    let answer = device.ask("inputCode/legacy", legacy("p", "plus", cpp, "g++ <name>.cpp -o <name>")).await?;
    assert_eq!(answer.text(), "plus!");

    let statements = "int c; while ((c = getchar()) != EOF) putchar(c); fprintf(stderr, \"%s %s\", argv[1], \
                      getenv(\"WHO\")); return -1;";
    let request = json!({
        "source": program(statements), "makefile": COMMAND, "name": "cat", "args": ["a b"],
        "env": { "WHO": "me" }, "stdin": envelope::bytes("in"), "id": "7",
    });
    let answer = envelope::ask(&mut device, "inputCode/legacy", &request).await?;
    // A process has eight bits for it.
    assert_eq!((&answer["status"], &answer["exit_code"]), (&json!("exit"), &json!(255)), "{answer}");
    assert_eq!(envelope::bytes_of(&answer, "stdout")?, b"in");
    assert_eq!(envelope::bytes_of(&answer, "stderr")?, b"a b me");
    assert_eq!(envelope::ask(&mut device, "inputCode/legacy", &request).await?, answer, "a repetition");
    Ok(())
}

/// Natively any form of `main` is called alike; here it has to be known.
async fn each_form_of_main_is_called(deployment: Deployment) -> Result<()> {
    let mut device = deployment.device(Version::V5, "main").await?;
    for (main, printed) in [
        ("void main(void) { puts(\"void\"); }", "void\n"),
        ("void main() { puts(\"empty\"); exit(0); }", "empty\n"),
        ("int main(int n) { printf(\"%d\", n); return 0; }", "3"),
        ("void main(int n, char **v) { printf(\"%d %s\", n, v[2]); }", "3 7"),
        ("int main(int n, char **v, char **e) { printf(\"%d %s %d\", n, v[1], !*e); return 0; }", "3 5 1"),
        ("long long main(int n, char *v[]) { printf(\"%s\", v[n - 1]); return 0; }", "7"),
        ("main(n, v) char **v; { printf(\"%d %s\", n, v[1]); return 0; }", "3 5"),
        ("void main(int n, char **v) { long double x = n; printf(\"%Lg\", x / 2); }", "1.5"),
    ] {
        let source = format!("#include <stdio.h>\n#include <stdlib.h>\n{main}\n");
        for build in [
            COMMAND,
            "<name>: <name>.o\n<name>.o: <name>.c\n",
            "/usr/bin/gcc -c <name>.c\ngcc-9 <name>.o -o <name>",
        ] {
            let answer = device.ask("inputCode/main", legacy("m", "5 7", &source, build)).await?;
            assert_eq!(answer.text(), printed, "{main} {build}");
        }
    }
    let answer = device
        .ask("inputCode/main", legacy("m", "", "int main(int n, char **v, char **e) { return 3; }", COMMAND))
        .await?;
    assert_eq!(answer.text(), "error: exit: program exited with code 3");
    // A function that is called otherwise than it is defined cannot be helped, but named.
    let two = "twice: a.o b.o\n\tgcc a.o b.o -o twice\n";
    let files = json!({
        "a.c": envelope::bytes("int f(int); int main(void) { return f(1); }\n"), "b.c": envelope::bytes("void f(void) {}\n"),
    });
    let answer =
        envelope::ask(&mut device, "inputCode/main", &json!({ "files": files, "makefile": two })).await?;
    refused_in_envelope(
        answer,
        "trap",
        "`f` is called with other types than it is defined with, in signature_mismatch:f",
    )
}

/// As natively, but for what the C library says of a file system that cannot be written.
async fn modules_find_what_their_build_has_left(deployment: Deployment) -> Result<()> {
    let mut device = deployment.device(Version::V5, "finds").await?;
    let files = json!({
        "main.c": envelope::bytes(READER), "data.txt": envelope::bytes("sent"), "a/b.txt": envelope::bytes("deep"),
    });
    let mut request = json!({ "files": files, "makefile": MAKES_FILES, "reply": "stdout" });
    request["args"] =
        json!(["data.txt", "/work/a/b.txt", "./out/table.txt", "out/link", "out", "/work", "none", "../x"]);
    for _ in 0..2 {
        let answer = device.ask("inputCode/finds", request.to_string()).await?;
        let expected = "sent,4,t|deep,4,p|SENT,4,T|SENT,4,T|2 files|5 files|No such file or directory|Capabilities insufficient|";
        assert_eq!(answer.text(), expected);
    }
    // Another client's folder, and none at all.
    let makefile = "all:\n\techo 7 >table.txt; gcc <name>.c -o <name>\n";
    let answer = device.ask("inputCode/finds", legacy("one", "table.txt data.txt", READER, makefile)).await?;
    assert_eq!(answer.text(), "7\n,2,\n|No such file or directory|");
    let answer = device.ask("inputCode/finds", legacy("one", "table.txt", READER, COMMAND)).await?;
    // The C library's word for a path that no folder is opened for.
    assert_eq!(answer.text(), "Capabilities insufficient|");
    // Standard input from a file, as by a shell.
    let reopens = "if (!freopen(argv[1], \"r\", stdin)) return 1; char line[9]; puts(fgets(line, 9, stdin)); \
                   fclose(stdin); return printf(\"%d\", !fopen(\"x/new\", \"w\")) != 1;";
    let makefile = "all:\n\techo seven >table.txt; gcc <name>.c -o <name>\n";
    let answer =
        device.ask("inputCode/finds", legacy("one", "table.txt", &program(reopens), makefile)).await?;
    assert_eq!(answer.text(), "seven\n\n1");
    // What would change the folder.
    let changes = "printf(\"%d %d %d\", remove(\"table.txt\"), rename(\"table.txt\", \"x\"), mkdir(\"x\", 0700)); \
                   perror(\"mkdir\"); return 0;";
    let source = format!("#include <sys/stat.h>\n{}", program(changes));
    let request = json!({ "source": source, "makefile": makefile });
    let answer = envelope::ask(&mut device, "inputCode/finds", &request).await?;
    assert_eq!(envelope::bytes_of(&answer, "stdout")?, b"-1 -1 -1", "{answer}");
    assert_eq!(envelope::bytes_of(&answer, "stderr")?, b"mkdir: Read-only file system\n", "{answer}");
    // A program may open a bounded number of files at once.
    let opens = "int n = 0; while (fopen(\"one.c\", \"r\")) n++; printf(\"%d\", n); return 0;";
    let answer = device.ask("inputCode/finds", legacy("one", "", &program(opens), makefile)).await?;
    assert_eq!(answer.text(), "254");
    Ok(())
}

/// The limits are those of guests. Where nothing was printed, the line has the first line of stderr.
async fn each_ending_is_a_guests(deployment: Deployment) -> Result<()> {
    let mut device = deployment.device(Version::V5, "endings").await?;
    for (statements, kind) in [
        ("return 3;", "exit"),
        ("for (;;);", "fuel"),
        ("raise(SIGSEGV);", "trap"),
        ("abort();", "trap"),
        (
            "fputs(\"\\nnot a number: 5,7\\nusage\\n\", stderr); return 1;",
            "exit: program exited with code 1: not a number: 5,7",
        ),
        ("assert(argc == 9);", "trap: … : Assertion failed: argc == 9 (p.c: main: 7)"),
        ("return 5 / (argc - 1);", "trap"),
        // The stack is used up before anything is written over.
        (
            "volatile char large[8 << 20]; for (int i = 0; i < 8 << 20; i++) large[i] = i; return large[5];",
            "trap",
        ),
        ("for (;;) puts(\"flood\");", "output"),
        ("for (;;) { volatile char *p = malloc(1 << 20); if (p) *p = 1; }", "memory"),
        ("for (;;) { volatile char *p = malloc(1 << 20); if (!p) abort(); *p = 1; }", "memory"),
        ("for (;;) { volatile char *p = malloc(1 << 20); if (!p) return 3; *p = 1; }", "exit"),
    ] {
        let request = legacy("p", "", &program(statements), COMMAND);
        let answer = device.ask("inputCode/endings", request).await.context(statements)?;
        let (kind, said) = kind.split_once(": ").unwrap_or((kind, ""));
        assert_eq!(error_line_problems(&answer.payload, kind), Vec::<String>::new(), "{statements}");
        assert!(answer.text().ends_with(said.trim_start_matches("… ")), "{}", answer.text());
    }
    let request =
        json!({ "source": program("sleep(600);"), "makefile": COMMAND, "timeout_ms": 20_000, "name": "p" });
    // It is built in time, and kept; what is left of the time ends it.
    assert_eq!(
        envelope::error_kind(&envelope::ask(&mut device, "inputCode/endings", &request).await?),
        "timeout"
    );
    Ok(())
}

async fn what_wasi_lacks_is_a_build_error_that_says_so(deployment: Deployment) -> Result<()> {
    let mut device = deployment.device(Version::V5, "lacks").await?;
    for (source, said) in [
        (
            "#include <unistd.h>\nint main(void) { return fork(); }",
            "undefined symbol: fork (WASI has no processes)",
        ),
        (
            "#include <pthread.h>\nint main(void) { return 0; }",
            "'pthread.h' file not found (WASI has no threads)",
        ),
        (
            "#include <setjmp.h>\nint main(void) { return 0; }",
            "'setjmp.h' file not found (WASI has no setjmp)",
        ),
        (
            "#include <sys/socket.h>\nint main(void) { return socket(AF_INET, SOCK_STREAM, 0); }",
            "undefined symbol: socket (WASI has no sockets)",
        ),
    ] {
        let answer = device.ask("inputCode/lacks", legacy("p", "", source, COMMAND)).await?;
        refused(&answer, "build", said)?;
        let files = json!({ "main.c": envelope::bytes(source) });
        let request = json!({ "files": files, "makefile": "p: main.o\n\tgcc $< -o $@\n" });
        refused_in_envelope(envelope::ask(&mut device, "inputCode/lacks", &request).await?, "build", said)?;
    }
    // What is built for WASI does not run while building, whether a shell is to run it or make itself.
    let hello = "int main(void) { return 0; }";
    for recipe in ["./<name>", "./<name> >table.txt"] {
        let makefile = format!("all:\n\tgcc <name>.c -o <name>\n\t{recipe}\n");
        let answer = device.ask("inputCode/lacks", legacy("p", "", hello, &makefile)).await?;
        refused(
            &answer,
            "build",
            "./p: Exec format error (what is built for WASI cannot run while building)",
        )?;
    }
    Ok(())
}

/// No program for this machine, no module that is too large, nothing that is none.
async fn what_a_build_leaves_is_taken_for_what_it_is(deployment: Deployment) -> Result<()> {
    let mut device = deployment.device(Version::V5, "left").await?;
    let large = "char table[300000] = { 1 };\nint main(int n, char **v) { return table[n]; }\n";
    for (source, makefile, kind, said) in [
        ("int main(void) { return 0; }", "all:\n\t/usr/bin/gcc <name>.c -o <name>\n", "build", "is no wasm"),
        (large, "all:\n\tgcc <name>.c -o <name>\n", "build", "the limit is 262144"),
        ("", "all:\n\tprintf '\\0asm\\1\\0\\0\\0\\1\\377' ><name>; chmod +x <name>\n", "malformed", ""),
        ("", "all:\n\tprintf '\\0asm\\1\\0\\0\\0' ><name>; chmod +x <name>\n", "malformed", ""),
    ] {
        let answer = device.ask("inputCode/left", legacy("p", "", source, makefile)).await?;
        refused(&answer, kind, said)?;
    }
    Ok(())
}

/// A makefile whose program tells when it was built.
const STAMPED: &str = "all:\n\tgcc -DSTAMP=$$(date +%s%N)LL <name>.c -o <name>\n";

/// One build for all requests, before and after a restart; and none of it is the native program.
#[tokio::test]
async fn a_module_is_built_once() -> Result<()> {
    let mut gateway = Gateway::embedded(WASM).await?;
    let source = legacy("stamp", "", &program("printf(\"%lld\", STAMP);"), STAMPED);
    let mut stamps = Vec::new();
    for configuration in [WASM, WASM, "native = \"native\"\n"] {
        gateway = gateway.restart(&["--listen", "127.0.0.1:0"], configuration).await?;
        let mut device = Device::connect(gateway.address()?, Version::V5, "stamp").await?;
        device.subscribe("result/stamp").await?;
        for _ in 0..4 {
            device.publish("inputCode/stamp", source.clone()).await?;
        }
        for _ in 0..4 {
            stamps.push(device.message().await?.text());
        }
    }
    assert!(stamps[0].parse::<u64>().is_ok(), "{stamps:?}");
    assert!(stamps[..8].iter().all(|stamp| *stamp == stamps[0]), "{stamps:?}");
    assert!(stamps[8..].iter().all(|stamp| *stamp == stamps[8] && *stamp != stamps[0]), "{stamps:?}");
    Ok(())
}

/// By rule, the last one that says so, else as at the top.
const RULES: &str = r##"
native = "off"
[[access.rule]]
users = ["line/#"]
native = "wasm"
[[access.rule]]
users = ["line/old"]
native = "native"
[[access.rule]]
users = ["line/old"]
programs = ["*"]
"##;

#[tokio::test]
async fn rules_say_what_becomes_of_whose_source() -> Result<()> {
    let deployment = Deployment::on_mosquitto(RULES).await?;
    for (id, size) in [("line/new", "4"), ("line/old", "8")] {
        let mut device = deployment.device(Version::V5, id).await?;
        let answer = device.ask(&format!("inputCode/{id}"), legacy("l", "", SIZE_OF_LONG, COMMAND)).await?;
        assert_eq!(answer.text(), size, "{id}");
    }
    let mut device = deployment.device(Version::V5, "panel").await?;
    let answer = device.ask("inputCode/panel", legacy("l", "", SIZE_OF_LONG, COMMAND)).await?;
    refused(&answer, "unauthorized", "takes no source")
}

/// The answer is the native one; the log names the source, and what it would be as wasm.
#[tokio::test]
async fn compare_answers_natively_and_logs_each_difference() -> Result<()> {
    let gateway = Gateway::embedded("native = \"compare\"\n[limits]\nfuel = 1_000_000_000\n").await?;
    let mut device = Device::connect(gateway.address()?, Version::V5, "compare").await?;
    device.subscribe("result/compare").await?;
    let hash = async |bytes: &[u8]| {
        let digest = guest::digest(bytes).await?;
        anyhow::Ok(digest.trim_start_matches("sha256:").to_owned())
    };
    for project in project::all()? {
        let mut lines = String::new();
        for (path, contents) in project.contents()? {
            lines += &format!("{}  {path}\n", hash(&contents).await?);
        }
        let hash = hash(lines.as_bytes()).await?;
        for (case, request) in project.cases.iter().zip(project.requests()?) {
            let answer = envelope::ask(&mut device, "inputCode/compare", &request).await;
            let problems = envelope_problems(answer, None, &case.expected(), case.stderr.as_deref());
            assert_eq!(problems, Vec::<String>::new(), "{}: {}", project.folder.display(), case.name);
        }
        if is_portable(&project) {
            gateway.logged(&["INFO as wasm this source does the same ", &hash]).await?;
        } else {
            let difference = r#"stdout from byte 9: "64 bits\n4294967296: 4294967311, " and "32 bits\n"#;
            gateway.logged(&["WARN as wasm this source differs in stdout: ", difference, &hash]).await?;
        }
    }
    for (source, difference) in [
        (
            program("if (fork() == 0) return 0; puts(\"forked\");"),
            "differs in its build: error: build: wasm-ld",
        ),
        (program("puts(\"code\"); return sizeof(long);"), "differs in its end: exit code 8 and exit code 4"),
        (
            program("fprintf(stderr, \"%d\", (int)sizeof(long));"),
            r#"differs in stderr: stderr from byte 0: "8" and "4""#,
        ),
    ] {
        let request = json!({ "source": source, "makefile": COMMAND, "name": "one" });
        let answer = envelope::ask(&mut device, "inputCode/compare", &request).await?;
        assert!(answer["error"].is_null(), "{answer}");
        let line = gateway.logged(&[&hash(source.as_bytes()).await?]).await?;
        assert!(line.contains(difference) && line.contains("client=compare"), "{line}");
    }
    Ok(())
}

/// What students of C try with the three descriptors: to poll them, and to close them.
const STREAMS: &str = r#"
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <sys/select.h>
#include <unistd.h>

static void polled(void) {
    struct pollfd fds[] = {{0, POLLIN, 0}, {1, POLLOUT, 0}, {2, POLLOUT, 0}};
    int ready = poll(fds, 3, 1000);
    fprintf(stderr, "poll %d:", ready);
    for (int i = 0; i < 3; i++)
        fprintf(stderr, " %s%s%s", fds[i].revents & POLLIN ? "in" : "", fds[i].revents & POLLOUT ? "out" : "",
                fds[i].revents & POLLNVAL ? "bad" : "");
    fd_set in, out;
    FD_ZERO(&in);
    FD_ZERO(&out);
    FD_SET(0, &in);
    FD_SET(1, &out);
    FD_SET(2, &out);
    struct timeval second = {1, 0};
    ready = select(3, &in, &out, NULL, &second);
    if (ready < 0) fprintf(stderr, "\nselect: %s\n", errno == EBADF ? "EBADF" : "?");
    else fprintf(stderr, "\nselect %d: %d %d %d\n", ready, FD_ISSET(0, &in) != 0, FD_ISSET(1, &out) != 0,
                 FD_ISSET(2, &out) != 0);
}

int main(void) {
    polled();
    puts("a");
    fclose(stdout);
    puts("b");
    fprintf(stderr, "write: %s\n", write(1, "c", 1) < 0 && errno == EBADF ? "EBADF" : "?");
    polled();
    char byte;
    fprintf(stderr, "close %d, ", close(0));
    fprintf(stderr, "read: %s\n", read(0, &byte, 1) < 0 && errno == EBADF ? "EBADF" : "?");
    return 0;
}
"#;

#[tokio::test]
async fn the_standard_streams_are_polled_and_closed_as_natively() -> Result<()> {
    let gateway = Gateway::embedded("native = \"compare\"\n").await?;
    let mut device = Device::connect(gateway.address()?, Version::V5, "streams").await?;
    device.subscribe("result/streams").await?;
    let request = json!({
        "source": STREAMS, "makefile": COMMAND, "name": "streams", "stdin": envelope::bytes("in"),
    });
    let answer = envelope::ask(&mut device, "inputCode/streams", &request).await?;
    assert_eq!(envelope::bytes_of(&answer, "stdout")?, b"a\n", "{answer}");
    let stderr = "poll 3: in out out\nselect 3: 1 1 1\nwrite: EBADF\n\
                  poll 3: in bad out\nselect: EBADF\nclose 0, read: EBADF\n";
    assert_eq!(String::from_utf8(envelope::bytes_of(&answer, "stderr")?)?, stderr);
    gateway.logged(&["INFO as wasm this source does the same "]).await.map(drop)
}

/// Nobody waits for them.
#[tokio::test]
async fn a_gateway_that_stops_does_not_wait_for_comparisons() -> Result<()> {
    let gateway = Gateway::embedded("native = \"compare\"\ndrain = \"1h\"\n").await?;
    let mut device = Device::connect(gateway.address()?, Version::V5, "stop").await?;
    device.subscribe("result/stop").await?;
    // Its build for WASI never ends.
    let makefile = "all:\n\tcase $$(command -v cc) in /wasi/*) sleep 600;; esac; cc <name>.c -o <name>\n";
    let answer = device.ask("inputCode/stop", legacy("l", "", SIZE_OF_LONG, makefile)).await?;
    assert_eq!(answer.text(), "8");
    gateway.stop(rustix::process::Signal::TERM).await
}

/// A build for WASI runs a stranger's commands like any other.
#[tokio::test]
async fn source_is_refused_as_wasm_too_where_builds_cannot_be_contained() -> Result<()> {
    let uncontained = "native = \"wasm\"\n[sandbox]\nbubblewrap = \"/nonexistent/bwrap\"\n";
    let gateway = Gateway::embedded(uncontained).await?;
    let mut device = Device::connect(gateway.address()?, Version::V5, "none").await?;
    device.subscribe("result/none").await?;
    let answer = device.ask("inputCode/none", legacy("l", "", SIZE_OF_LONG, COMMAND)).await?;
    refused(&answer, "unauthorized", "its log says what is missing")?;
    gateway.logged(&["source is refused: "]).await.map(drop)
}
