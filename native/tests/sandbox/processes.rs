//! Programs and builds that start ever more processes, and what they can do to others'.

use crate::host::{Bystander, mark, running};
use crate::sandbox::{args, build_in, limits, make_says, run, run_with, stdout, with_builds};
use offload_native::{Ending, Error, Input, Limit, SandboxLimits};
use std::time::Duration;

#[tokio::test]
async fn a_fork_bomb_is_small() {
    let code = "#include <unistd.h>\nint main() { for (;;) fork(); }";
    let brief = SandboxLimits { cpu: Duration::from_millis(500), ..limits() };
    assert_eq!(run_with(code, Input::default(), brief).await.ending, Ending::Limit(Limit::Cpu));
    let counting = r#"
        #include <stdio.h>
        #include <unistd.h>
        int main() { int n = 0; for (; n < 500; n++) { int p = fork(); if (p < 0) break; if (!p) pause(); } printf("%d", n); }"#;
    // The program itself and the sandbox's first process are two of them.
    let few = SandboxLimits { processes: 10, ..limits() };
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
    let few = SandboxLimits { processes: 10, ..limits() };
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

/// A crowd that computes for some microseconds and sleeps for one keeps whatever is scheduled as it is from the CPU,
/// what measures it as well. Each byte of the output is a MiB of memory that was taken.
#[tokio::test]
async fn a_crowd_that_wakes_all_the_time_is_measured_in_time() {
    let code = r#"
        #include <string.h>
        #include <stdlib.h>
        #include <time.h>
        #include <unistd.h>
        #define KIB 1024
        static double now() { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec + t.tv_nsec / 1e9; }
        int main() {
            for (int i = 0; i < 27 && fork(); i++);
            for (int taken = 0;; taken += 128) {
                for (double until = now() + 50e-6; now() < until;);
                struct timespec brief = {0, 1000};
                nanosleep(&brief, 0);
                // A GiB is the most that all of them take.
                if (taken < 36 * KIB) memset(malloc(128 * KIB), 1, 128 * KIB);
                if (taken % KIB == 0 && taken < 36 * KIB) write(1, "M", 1);
            }
        }"#;
    let outcome = run_with(code, Input::default(), limits()).await;
    assert_eq!(outcome.ending, Ending::Limit(Limit::Memory));
    let (limit, taken) = (limits().memory >> 20, outcome.stdout.len() as u64);
    assert!(taken >= limit / 4 && taken < 4 * limit, "{taken} MiB of {limit}");
}

#[tokio::test]
async fn everything_in_a_sandbox_comes_after_everyone_else() {
    let code = r#"
        #define _GNU_SOURCE
        #include <pthread.h>
        #include <sched.h>
        #include <stdio.h>
        #include <sys/wait.h>
        #include <unistd.h>
        static void *thread(void *_) { printf("%d", sched_getscheduler(0) == SCHED_IDLE); return 0; }
        int main() {
            thread(0);
            pthread_t t; pthread_create(&t, 0, thread, 0); pthread_join(t, 0);
            fflush(stdout);
            if (fork() == 0) { thread(0); return 0; }
            wait(0);
        }"#;
    assert_eq!(stdout(&run(code).await), "111");
}

/// The share of the CPU that its session has falls with the first crowd, and nobody inside can raise it.
#[tokio::test]
async fn a_crowd_has_a_small_share_of_the_cpu() {
    if !std::fs::exists("/proc/self/autogroup").unwrap() {
        return;
    }
    let said = make_says(
        "shows() { until grep -q \"nice $$1\" /proc/self/autogroup; do :; done; echo \"$$1\"; }; shows 10; \
         for i in 1 2 3 4 5 6 7 8; do sleep 1000 & done; shows 19; \
         echo 0 >/proc/self/autogroup || echo kept; setsid true || echo one session; shows 19",
    )
    .await;
    assert!(said.starts_with("10\n19\n"), "{said}");
    assert!(said.contains("\nkept\n") && said.contains("\none session\n19\n"), "{said}");
}

/// What measures goes before all that is not real-time, and hands that on to nothing that it starts.
#[tokio::test]
async fn what_measures_comes_first() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    const SCHED_RR: &str = "2";
    let policies = || {
        let all = std::fs::read_dir("/proc/self/task").unwrap().flatten();
        let stats = all.filter_map(|task| std::fs::read_to_string(task.path().join("stat")).ok());
        // Field 41 of proc(5)'s stat.
        let policy = |stat: String| Some(stat.split_once("(measurer) ")?.1.split(' ').nth(38)?.to_owned());
        stats.filter_map(policy).collect::<Vec<_>>()
    };
    let pause = "#include <unistd.h>\nint main() { pause(); }";
    let measured = async {
        while !policies().iter().any(|policy| policy == SCHED_RR) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::select! {
        ended = run_with(pause, Input::default(), limits()) => panic!("{ended:?}"),
        () = measured => {}
    }
}
