//! Programs and builds that take for ever.

use crate::sandbox::{build_in, limits, run_with, stdout, with_builds};
use offload_native::{Ending, Error, Input, Limit, SandboxLimits};
use std::time::Duration;

#[tokio::test]
async fn an_endless_loop_ends_at_its_cpu_time() {
    let brief = SandboxLimits { cpu: Duration::from_millis(200), ..limits() };
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
    let brief = SandboxLimits { cpu: Duration::from_millis(300), ..limits() };
    assert_eq!(run_with(code, Input::default(), brief).await.ending, Ending::Limit(Limit::Cpu));
}

#[tokio::test]
async fn sleep_ends_at_the_wall_clock() {
    let brief = SandboxLimits { wall: Duration::from_millis(300), ..limits() };
    let outcome = run_with("#include <unistd.h>\nint main() { pause(); }", Input::default(), brief).await;
    assert_eq!(outcome.ending, Ending::Limit(Limit::Wall));
}

/// One second over its limit, not one more.
#[tokio::test]
async fn a_program_that_would_end_a_second_later_does_not_get_it() {
    let code = r#"
        #include <stdio.h>
        #include <time.h>
        int main() { puts("begun"); fflush(stdout); while (clock() < 2 * CLOCKS_PER_SEC); puts("done"); }"#;
    let one = SandboxLimits { cpu: Duration::from_secs(1), ..limits() };
    let outcome = run_with(code, Input::default(), one).await;
    assert_eq!((outcome.ending, stdout(&outcome)), (Ending::Limit(Limit::Cpu), "begun\n"));
    assert!(outcome.cpu < Duration::from_secs(2), "{:?}", outcome.cpu);
}

#[tokio::test]
async fn a_build_that_never_ends_is_ended() {
    // So little that gcc does not come to the end of its memory before, on however fast a machine.
    let little_cpu = &with_builds(|limits| limits.cpu = Duration::from_millis(100));
    let little_time = &with_builds(|limits| limits.wall = Duration::from_secs(1));
    let endless_macro =
        "all:\n\techo '#include \"hello.c\"' >hello.c; gcc -fmax-include-depth=2000000000 hello.c\n";
    for (sandbox, makefile, expected) in [
        (little_cpu, "all:\n\twhile :; do :; done\n", Limit::Cpu),
        (little_cpu, endless_macro, Limit::Cpu),
        (little_time, "all:\n\tsleep 1000\n", Limit::Wall),
        (little_time, "all:\n\tmkfifo fifo; cat fifo\n", Limit::Wall),
    ] {
        match build_in(sandbox, "", makefile).await {
            Err(Error::BuildLimit { limit, .. }) => assert_eq!(limit, expected, "{makefile}"),
            other => panic!("{makefile}: {other:?}"),
        }
    }
}
