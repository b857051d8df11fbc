//! What a program or a build can read of the gateway, the machine and others' jobs.

use crate::host::{Secret, mark, running, until};
use crate::sandbox::{GCC, args, build, limits, make_says, run, run_with, sandbox, stdout};
use offload_native::Input;

#[tokio::test]
async fn the_environment_is_empty() {
    let code = "#include <stdio.h>\nextern char **environ;\nint main() { for (char **e = environ; *e; e++) puts(*e); }";
    assert_eq!(stdout(&run(code).await), "PWD=/work\n");
}

/// bubblewrap runs as the same user as the build: whoever reached its memory could undo what binds it to the gateway.
#[tokio::test]
async fn the_first_process_is_out_of_reach() {
    let said = make_says(
        "find /proc/1 | wc -l; cat /proc/1/environ /proc/1/cmdline /proc/1/mem; ls -l /proc/1/fd /proc/1/root; \
         echo x >/proc/1/mem; ls /proc/1/task /proc/thread-self/../../../1",
    )
    .await;
    assert_eq!(said.lines().next(), Some("1"), "{said}");
    assert!(!said.contains("->") && !said.contains("bwrap"), "{said}");
    // It is there, and can be asked whether it is.
    assert!(make_says("kill -0 1 && echo there").await.starts_with("there\n"));
}

/// Nor does anything of the request run before the sandbox is ready for it.
#[tokio::test]
async fn variables_for_the_loader_and_the_shell_are_dropped() {
    let code = "#include <stdio.h>\nextern char **environ;\nint main() { for (char **e = environ; *e; e++) puts(*e); }";
    let names =
        ["LD_PRELOAD", "LD_AUDIT", "SHELLOPTS", "BASHOPTS", "BASH_FUNC_read%%", "a-b", "1a", "Good_1"];
    let env = names.map(|name| (name.to_owned(), "/program/hello".to_owned())).to_vec();
    let outcome = run_with(code, Input { env, ..Input::default() }, limits()).await;
    let mut lines: Vec<&str> = stdout(&outcome).lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["Good_1=/program/hello", "PWD=/work"]);
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

/// They stand in the command line of the program itself, as with any program, and of nothing that is started for it.
#[tokio::test]
async fn arguments_are_on_no_command_line_but_the_programs_own() {
    let word = mark("argument");
    let program = build("#include <unistd.h>\nint main() { pause(); }", GCC).await.unwrap();
    let looked = async {
        until(&word, |there| !there.is_empty()).await;
        running(&word)
    };
    tokio::select! {
        ended = sandbox().run(&program, args([&word]), limits()) => panic!("{ended:?}"),
        lines = looked => assert_eq!(lines, [format!("/program/hello {word} ")]),
    }
}

/// A folder of the gateway's, which the sandbox's user could enter, and what a gateway knows in its memory.
#[tokio::test]
async fn data_of_the_gateway_is_not_found() {
    let secret = Secret::new("data");
    let code = r#"
        #include <fcntl.h>
        #include <stdio.h>
        #include <unistd.h>
        int main(int n, char **args) {
            for (int i = 1; i < n; i++) {
                if (access(args[i], F_OK) == 0) printf("%s is there\n", args[i]);
                if (open(args[i], O_RDONLY) != -1) printf("%s opens\n", args[i]);
            }
        }"#;
    let own = std::env::current_exe().unwrap().display().to_string();
    let memory = format!("/proc/{}/mem", std::process::id());
    let folder = secret.folder().to_str().unwrap();
    let outcome = run_with(code, args([secret.path(), folder, &own, &memory]), limits()).await;
    assert_eq!(stdout(&outcome), "");
    let said = make_says(&format!(
        "cat {path} /proc/1/root{path} /proc/1/cwd/../..{path}; ls {folder} /proc/*/root{folder}; \
         cat {memory} /proc/*/environ",
        path = secret.path(),
    ))
    .await;
    assert!(!said.contains(&format!("\n{}", secret.word)) && !said.starts_with(&secret.word), "{said}");
    secret.assert_untouched();
}

/// While one job has a secret in its work directory, memory and arguments, another one looks for it.
#[tokio::test]
async fn jobs_do_not_see_each_other() {
    let word = mark("of-another-job");
    let keeper = r#"
        #include <stdio.h>
        #include <unistd.h>
        int main(int n, char **args) {
            FILE *f = fopen("kept", "w"); fputs(args[1], f); fclose(f);
            pause();
        }"#;
    let program = build(keeper, GCC).await.unwrap();
    let kept = sandbox().run(&program, args([&word]), limits());
    let looked = async {
        until(&word, |there| there.iter().any(|line| line.starts_with("/program/"))).await;
        // What looks for the word must not be what is found.
        let halves = word.split_at(4);
        make_says(&format!(
            "ls /work /tmp; ls /proc/*/root/work /proc/*/cwd; cat /proc/*/root/work/kept; cat /proc/*/cmdline >lines; \
             grep -ac '{}''{}' lines",
            halves.0, halves.1
        ))
        .await
    };
    tokio::select! {
        ended = kept => panic!("{ended:?}"),
        said = looked => {
            assert!(!said.contains("\nkept") && said.contains("No such file"), "{said}");
            assert!(said.contains("\n0\n"), "{said}");
        }
    }
}
