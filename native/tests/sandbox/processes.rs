//! Programs and builds that start ever more processes, and what they can do to others'.

use crate::host::{Bystander, mark, running};
use crate::sandbox::{args, build_in, limits, make_says, run_with, stdout, with_builds};
use offload_native::{Ending, Error, Input, Limit, Limits};
use std::time::Duration;

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
async fn threads_count_as_processes() {
    let code = r#"
        #include <pthread.h>
        #include <stdio.h>
        #include <unistd.h>
        static void *idle(void *_) { pause(); return 0; }
        int main() { int n = 0; pthread_t t; while (n < 500 && pthread_create(&t, 0, idle, 0) == 0) n++; printf("%d", n); }"#;
    let few = Limits { processes: 10, ..limits() };
    assert_eq!(stdout(&run_with(code, Input::default(), few).await), "8");
}

#[tokio::test]
async fn a_makefile_that_is_a_fork_bomb_is_ended() {
    let sandbox = with_builds(|limits| {
        limits.cpu = Duration::from_millis(500);
        limits.wall = Duration::from_secs(5);
    });
    let mark = mark("bomb");
    let shell = format!("all:\n\t@bomb() {{ : {mark}; bomb | bomb & bomb; }}; bomb\n");
    let make = format!("all: {mark}; @$(MAKE) -j all & $(MAKE) -j all\n{mark}:\n");
    for makefile in [shell, make] {
        match build_in(&sandbox, "", &makefile).await {
            // It dies of itself when no more processes can be had, or of the time that it takes.
            Err(
                Error::Build { .. }
                | Error::BuildLimit { limit: Limit::Cpu | Limit::Wall | Limit::Memory, .. },
            ) => {}
            other => panic!("{makefile}: {other:?}"),
        }
        assert_eq!(running(&mark), [""; 0]);
    }
}

#[tokio::test]
async fn signals_reach_nobody_outside() {
    let mut bystander = Bystander::new();
    let code = r#"
        #include <errno.h>
        #include <signal.h>
        #include <stdio.h>
        #include <stdlib.h>
        #include <sys/types.h>
        int main(int n, char **args) {
            int pid = atoi(args[1]);
            printf("%d ", kill(pid, SIGKILL));
            printf("%d ", errno == ESRCH);
            printf("%d ", kill(-pid, SIGKILL));
            // All but itself and the sandbox's first process.
            kill(-1, SIGKILL);
            // The first process takes no signal that it has not asked for.
            printf("%d", kill(1, SIGKILL));
        }"#;
    let outcome = run_with(code, args([&bystander.pid()]), limits()).await;
    assert_eq!((outcome.ending, stdout(&outcome)), (Ending::Exit(0), "-1 1 -1 0"));
    let said = make_says(&format!("kill -9 {pid} -{pid}; ls /proc/{pid}", pid = bystander.pid())).await;
    assert!(said.contains("No such process") && said.contains("No such file"), "{said}");
    bystander.assert_alive();
}

/// When the machine runs out of memory, the kernel takes them before the gateway.
#[tokio::test]
async fn sandboxes_are_the_first_to_die_of_a_lack_of_memory() {
    let said = make_says("cat /proc/self/oom_score_adj").await;
    assert!(said.starts_with("1000\n\n"), "{said}");
}
