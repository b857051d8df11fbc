//! The real sandbox: what works in it, and what does not.

use offload_native::{
    Build, Config, Ending, Error, Input, Language, Limit, Limits, Outcome, Program, Sandbox, Source,
};
use std::time::Duration;

const GCC: &str = "gcc <name>.c -o <name>";

fn sandbox() -> Sandbox {
    Sandbox::probe(Config::default()).expect("bubblewrap and user namespaces: cargo xtask setup")
}

async fn build(sandbox: &Sandbox, code: &str, how: &str) -> Result<Program, Error> {
    let language = if how.contains("++") { Language::Cpp } else { Language::C };
    let build = match how.split(' ').next() {
        Some("gcc" | "g++") => Build::Command(how.to_owned()),
        _ => Build::Makefile(how.into()),
    };
    sandbox.build(Source { name: "hello".to_owned(), code: code.into(), language, build }).await
}

fn limits() -> Limits {
    Limits { cpu: Duration::from_secs(3), wall: Duration::from_secs(20), memory: 64 << 20, ..Limits::run() }
}

async fn run_with(code: &str, input: Input, limits: Limits) -> Outcome {
    let sandbox = sandbox();
    let program = build(&sandbox, code, GCC).await.unwrap();
    sandbox.run(&program, input, limits).await.unwrap()
}

async fn run(code: &str) -> Outcome {
    run_with(code, Input::default(), limits()).await
}

fn stdout(outcome: &Outcome) -> &str {
    std::str::from_utf8(&outcome.stdout).unwrap()
}

/// What a makefile printed; the build is made to fail, since that is what shows it.
async fn make_says(script: &str) -> String {
    let makefile = format!("all:\n\t@{script}; echo; echo error; false\n");
    match build(&sandbox(), "", &makefile).await {
        Err(Error::Build { output, .. }) => output,
        other => panic!("{other:?}"),
    }
}

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
    };
    let outcome = run_with(code, input, limits()).await;
    assert_eq!(outcome.ending, Ending::Exit(7));
    assert_eq!(stdout(&outcome), format!("/program/hello|a b|--c|$HOME|v=1|{}", "x".repeat(300_000)));
    assert_eq!(outcome.stderr, b"done");
    assert!(outcome.cpu > Duration::ZERO && outcome.wall > Duration::ZERO);
}

#[tokio::test]
async fn a_program_is_built_once_and_run_many_times_at_once() {
    let sandbox = sandbox();
    let built =
        build(&sandbox, "#include <stdio.h>\nint main(int c, char **v) { puts(v[1]); }", GCC).await.unwrap();
    let kept = Program::new("hello", built.bytes());
    let run = |n: u32| {
        let input = Input { args: vec![n.to_string()], ..Input::default() };
        sandbox.run(&kept, input, limits())
    };
    let (one, two, three) = tokio::join!(run(1), run(2), run(3));
    assert_eq!([one, two, three].map(|o| o.unwrap().stdout), [b"1\n", b"2\n", b"3\n"].map(Vec::from));
}

#[tokio::test]
async fn makefiles_build_the_named_program_or_the_only_one() {
    let code = "#include <stdio.h>\nint main() { puts(\"made\"); }";
    let sandbox = sandbox();
    for makefile in [
        "<name>: <name>.c\n\tgcc -O1 $< -o $@\n",
        "CC=gcc\nall: app\napp: hello.o\n\t$(CC) $^ -o $@\n%.o: %.c\n\t$(CC) -c $<\n",
    ] {
        let program = build(&sandbox, code, makefile).await.unwrap();
        let outcome = sandbox.run(&program, Input::default(), limits()).await.unwrap();
        assert_eq!(stdout(&outcome), "made\n", "{makefile}");
    }
    let cpp = "#include <iostream>\nint main() { std::cout << \"plus\"; }";
    for command in ["g++ <name>.cpp -o <name>", "g++ <name>.c -o <name>"] {
        let program = build(&sandbox, cpp, command).await.unwrap();
        let outcome = sandbox.run(&program, Input::default(), limits()).await.unwrap();
        assert_eq!(stdout(&outcome), "plus", "{command}");
    }
}

#[tokio::test]
async fn what_cannot_be_built_says_why() {
    let sandbox = sandbox();
    for (code, how, first) in [
        ("int main() { return x; }", GCC, "hello.c:1:21: error: 'x' undeclared (first use in this function)"),
        ("int main() {}", "gcc -c <name>.c", "error: the build left no program hello"),
        ("int main() {}", "all:\n\ttouch a b; chmod +x a b", "error: the build left no program hello"),
        (
            "int main() {}",
            "all:\n\techo >hello; chmod +x hello",
            "error: what the build left is no executable program",
        ),
        ("", "nonsense", "Makefile:1: *** missing separator.  Stop."),
    ] {
        match build(&sandbox, code, how).await {
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
    let sandbox = sandbox();
    let program = Program::new("hello", &b"#!/bin/false"[..]);
    let env = |name: &str| Input { env: vec![(name.into(), String::new())], ..Input::default() };
    let args = |args: Vec<String>| Input { args, ..Input::default() };
    for input in [env(""), env("a=b"), env("\0"), args(vec!["\0".into()]), args(vec![String::new(); 5000])] {
        assert!(matches!(sandbox.run(&program, input, limits()).await, Err(Error::Input(_))));
    }
}

#[tokio::test]
async fn the_environment_is_empty() {
    let code = "#include <stdio.h>\nextern char **environ;\nint main() { for (char **e = environ; *e; e++) puts(*e); }";
    assert_eq!(stdout(&run(code).await), "PWD=/work\n");
    // Nor is anything of ours in that of bubblewrap, the first process.
    assert_eq!(make_says("tr '\\0' ';' </proc/1/environ").await.lines().next(), Some(""));
}

#[tokio::test]
async fn nothing_of_the_host_is_there() {
    let said = make_says(
        "ls / /etc /proc/1/root/ | tr '\\n' ' '; ls /proc | grep -c '^[0-9]'; cat /etc/shadow /root/x; ls /home; \
         ls /proc/self/fd | wc -l",
    )
    .await;
    assert!(!said.contains("root:") && !said.contains("home ") && !said.contains("sys "), "{said}");
    assert!(said.contains("/etc/shadow: No such file"), "{said}");
    let code = r#"
        #include <stdio.h>
        #include <unistd.h>
        #include <fcntl.h>
        int main() {
            const char *paths[] = {"/etc/shadow", "/etc/passwd", "/root", "/proc/1/environ", "/home", "/var", "/sys",
                                   "/run", "/usr/bin", "/dev/sda", "/dev/kmsg"};
            for (int i = 0; i < sizeof paths / sizeof *paths; i++)
                if (access(paths[i], F_OK) == 0) puts(paths[i]);
            for (int fd = 3; fd < 64; fd++)
                if (fcntl(fd, F_GETFD) != -1) printf("descriptor %d\n", fd);
        }"#;
    assert_eq!(stdout(&run(code).await), "");
}

#[tokio::test]
async fn only_the_work_directory_can_be_written() {
    let code = r#"
        #include <stdio.h>
        #include <fcntl.h>
        int main() {
            const char *paths[] = {"/x", "/usr/x", "/usr/lib/x", "/etc/x", "/dev/x", "/dev/shm/x", "/program/x",
                                   "/program/hello", "/work/x", "/tmp/y"};
            for (int i = 0; i < sizeof paths / sizeof *paths; i++)
                if (open(paths[i], O_CREAT | O_RDWR, 0600) != -1) puts(paths[i]);
        }"#;
    assert_eq!(stdout(&run(code).await), "/work/x\n/tmp/y\n");
}

#[tokio::test]
async fn there_is_no_network_and_no_way_to_more_rights() {
    let code = r#"
        #define _GNU_SOURCE
        #include <stdio.h>
        #include <sched.h>
        #include <unistd.h>
        #include <sys/mount.h>
        #include <sys/mman.h>
        #include <sys/prctl.h>
        #include <sys/ptrace.h>
        #include <sys/socket.h>
        #include <sys/syscall.h>
        int main() {
            if (socket(AF_INET, SOCK_STREAM, 0) != -1) puts("inet");
            if (socket(AF_UNIX, SOCK_STREAM, 0) != -1) puts("unix");
            if (unshare(CLONE_NEWUSER) == 0) puts("unshare");
            if (syscall(SYS_clone, CLONE_NEWUSER | 17, 0, 0, 0, 0) > 0) puts("clone");
            if (mount("none", "/work", "tmpfs", 0, 0) == 0) puts("mount");
            if (memfd_create("x", 0) != -1) puts("memfd");
            if (ptrace(PTRACE_TRACEME, 0, 0, 0) == 0) puts("ptrace");
            if (setuid(0) == 0) puts("setuid");
            if (prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1) puts("new privileges");
            if (syscall(SYS_getpid | 0x40000000) > 0) puts("x32");
        }"#;
    assert_eq!(stdout(&run(code).await), "");
}

#[tokio::test]
async fn an_endless_loop_ends_at_its_cpu_time() {
    let brief = Limits { cpu: Duration::from_millis(200), ..limits() };
    assert_eq!(
        run_with("int main() { for (;;); }", Input::default(), brief).await.ending,
        Ending::Limit(Limit::Cpu)
    );
}

#[tokio::test]
async fn cpu_time_of_short_lived_processes_counts() {
    let code = r#"
        #include <unistd.h>
        #include <sys/wait.h>
        int main() { for (;;) if (fork() == 0) { for (volatile int i = 0; i < 10000000; i++); _exit(0); } else wait(0); }"#;
    let brief = Limits { cpu: Duration::from_millis(300), ..limits() };
    assert_eq!(run_with(code, Input::default(), brief).await.ending, Ending::Limit(Limit::Cpu));
}

#[tokio::test]
async fn sleep_ends_at_the_wall_clock() {
    let brief = Limits { wall: Duration::from_millis(300), ..limits() };
    let outcome = run_with("#include <unistd.h>\nint main() { pause(); }", Input::default(), brief).await;
    assert_eq!(outcome.ending, Ending::Limit(Limit::Wall));
}

#[tokio::test]
async fn a_fork_bomb_is_small() {
    let code = "#include <unistd.h>\nint main() { for (;;) fork(); }";
    let brief = Limits { cpu: Duration::from_millis(500), ..limits() };
    assert_eq!(run_with(code, Input::default(), brief).await.ending, Ending::Limit(Limit::Cpu));
    let counting = r#"
        #include <stdio.h>
        #include <unistd.h>
        int main() { int n = 0; for (; n < 500; n++) { int p = fork(); if (p < 0) break; if (!p) pause(); } printf("%d", n); }"#;
    // The program itself and the sandbox's first process are two of them.
    let few = Limits { processes: 10, ..limits() };
    assert_eq!(stdout(&run_with(counting, Input::default(), few).await), "8");
}

#[tokio::test]
async fn memory_is_limited_over_all_processes() {
    let alone = "#include <stdlib.h>\n#include <string.h>\nint main() { for (;;) memset(malloc(1 << 20), 1, 1 << 20); }";
    assert_eq!(run(alone).await.ending, Ending::Limit(Limit::Memory));
    // No one of them is over the limit.
    let spread = r#"
        #include <stdlib.h>
        #include <string.h>
        #include <unistd.h>
        int main() {
            for (int i = 0; i < 15 && fork(); i++);
            memset(malloc(8 << 20), 1, 8 << 20);
            pause();
        }"#;
    assert_eq!(run(spread).await.ending, Ending::Limit(Limit::Memory));
    let shared = r#"
        #include <string.h>
        #include <sys/mman.h>
        int main() { for (;;) memset(mmap(0, 1 << 20, 3, MAP_SHARED | MAP_ANONYMOUS, -1, 0), 1, 1 << 20); }"#;
    assert_eq!(run(shared).await.ending, Ending::Limit(Limit::Memory));
}

#[tokio::test]
async fn the_work_directory_and_files_are_capped() {
    let code = r#"
        #include <errno.h>
        #include <fcntl.h>
        #include <stdio.h>
        #include <string.h>
        #include <unistd.h>
        static char block[1 << 20];
        int main() {
            long n = 0;
            for (int f = 0;; f++) {
                char name[9]; sprintf(name, "f%d", f);
                int fd = open(name, O_CREAT | O_WRONLY, 0600);
                for (int i = 0; i < 2; i++, n++)
                    if (write(fd, block, sizeof block) != sizeof block) { printf("%ld %s", n, strerror(errno)); return 0; }
                close(fd);
            }
        }"#;
    let few = Limits { work_dir: 8 << 20, ..limits() };
    assert_eq!(stdout(&run_with(code, Input::default(), few).await), "8 No space left on device");
    let small = Limits { file_size: 1 << 20, ..limits() };
    assert_eq!(run_with(code, Input::default(), small).await.ending, Ending::Limit(Limit::FileSize));
}

#[tokio::test]
async fn output_is_capped() {
    let flood = |to: &str| format!("#include <stdio.h>\nint main() {{ for (;;) fputs(\"flood \", {to}); }}");
    let small = Limits { stdout: 1000, stderr: 1000, cpu: Duration::from_millis(500), ..limits() };
    let outcome = run_with(&flood("stdout"), Input::default(), small.clone()).await;
    assert_eq!((outcome.ending, outcome.stdout.len()), (Ending::Limit(Limit::Stdout), 1000));
    let outcome = run_with(&flood("stderr"), Input::default(), small).await;
    assert_eq!((outcome.ending, outcome.stderr.len()), (Ending::Limit(Limit::Cpu), 1000));
    match build(&sandbox(), "", "all:\n\t@yes error").await {
        Err(Error::BuildLimit { limit: Limit::Stderr, output }) => {
            assert!(output.len() <= offload_native::MAX_DIAGNOSTICS, "{}", output.len());
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_crash_is_told_from_an_exit() {
    assert_eq!(run("#include <stdlib.h>\nint main() { abort(); }").await.ending, Ending::Signal(SIGABRT));
    assert_eq!(run("int main() { return 200; }").await.ending, Ending::Exit(200));
}

/// As on every Linux.
const SIGABRT: i32 = 6;

/// Programs that run in a sandbox on this machine with `word` among their arguments.
fn running(word: &str) -> usize {
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    all.filter(|entry| {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        line.starts_with(b"/program/") && String::from_utf8_lossy(&line).contains(word)
    })
    .count()
}

const DAEMON: &str = r#"
    #include <signal.h>
    #include <stdio.h>
    #include <unistd.h>
    int main() {
        signal(SIGTERM, SIG_IGN); signal(SIGHUP, SIG_IGN);
        if (fork() == 0) { setsid(); if (fork() == 0) for (;;) pause(); _exit(0); }
        puts("parent"); return 0;
    }"#;

#[tokio::test]
async fn daemons_do_not_survive() {
    let mark = "daemon-of-the-test";
    let input = Input { args: vec![mark.into()], ..Input::default() };
    let outcome = run_with(DAEMON, input, limits()).await;
    assert_eq!((outcome.ending, stdout(&outcome)), (Ending::Exit(0), "parent\n"));
    assert_eq!(running(mark), 0);
}

#[tokio::test]
async fn whoever_stops_waiting_ends_the_sandbox() {
    let sandbox = sandbox();
    let program = build(&sandbox, "#include <unistd.h>\nint main() { pause(); }", GCC).await.unwrap();
    let mark = "abandoned-by-the-test";
    let input = Input { args: vec![mark.into()], ..Input::default() };
    let waited =
        tokio::time::timeout(Duration::from_millis(200), sandbox.run(&program, input, limits())).await;
    assert!(waited.is_err());
    tokio::time::timeout(Duration::from_secs(10), async {
        while running(mark) > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_machine_without_bubblewrap_says_so() {
    let config = Config { bubblewrap: "/nowhere/bwrap".into(), ..Config::default() };
    let error = Sandbox::probe(config).unwrap_err();
    assert!(error.why.contains("bubblewrap") && error.hint.contains("install"), "{error}");
    let config = Config { bubblewrap: "/bin/false".into(), ..Config::default() };
    assert!(Sandbox::probe(config).unwrap_err().hint.contains("user namespaces"));
    let config = Config { toolchain: Vec::new(), ..Config::default() };
    let error = Sandbox::probe(config).unwrap_err();
    assert!(error.why.contains("bwrap: execvp"), "{error}");
}

/// Set for a process of its own that these tests start.
const ROLE: &str = "OFFLOAD_NATIVE_TEST_ROLE";

/// This very test program once more, as standard input: it may lie where another user cannot look.
fn again(mut command: std::process::Command, args: &[&str]) -> std::process::Command {
    let program = std::fs::File::open(std::env::current_exe().unwrap()).unwrap();
    command.arg("/proc/self/fd/0").args(args).stdin(program);
    command
}

/// Longest wait for a process to come or go. Far above what a busy machine needs: the other tests are bombs.
const PATIENCE: Duration = Duration::from_secs(120);
/// Time between two looks at the processes.
const LOOK: Duration = Duration::from_millis(10);

#[tokio::test]
async fn a_sandbox_dies_with_who_started_it() {
    let name = "a_sandbox_dies_with_who_started_it";
    if let Ok(mark) = std::env::var(ROLE) {
        let input = Input { args: vec![mark], ..Input::default() };
        run_with("#include <unistd.h>\nint main() { pause(); }", input, limits()).await;
        return;
    }
    let mut command = again(std::process::Command::new("env"), &["--exact", name]);
    // Not that of another run of this test.
    let mark = &format!("orphan-of-{}", std::process::id());
    let mut starter = command.env(ROLE, mark).spawn().unwrap();
    let until = |there: bool| async move {
        let change = async {
            while (running(mark) > 0) != there {
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::time::timeout(PATIENCE, change).await
    };
    let appeared = until(true).await;
    starter.kill().unwrap();
    starter.wait().unwrap();
    appeared.unwrap();
    until(false).await.unwrap();
}

/// Who is no root already has run all tests as an ordinary user.
#[test]
fn all_holds_for_an_ordinary_user() {
    if std::env::var_os(ROLE).is_some() || !rustix::process::geteuid().is_root() {
        return;
    }
    let mut setpriv = std::process::Command::new("setpriv");
    setpriv.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]).env(ROLE, "ordinary");
    // What starts itself again runs above, and marks processes that both would look for.
    let output =
        again(setpriv, &["--skip", "a_sandbox_dies", "--skip", "daemons", "--skip", "whoever_stops"])
            .output()
            .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}
