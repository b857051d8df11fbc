//! What is left of sandboxes when nobody waits for them any more: nothing.

use crate::host::{mark, running, until};
use crate::identities::{ROLE, again};
use crate::sandbox::{GCC, args, build, limits, sandbox};
use offload_native::Limits;
use std::future::pending;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

const PAUSE: &str = "#include <unistd.h>\nint main() { pause(); }";

/// Processes that are killed in the midst of starting sandboxes.
const STARTERS: u32 = 16;
/// Sandboxes that each of them has at once, every one at another moment of its life.
const AT_ONCE: u64 = 6;
/// How much later than the one before each starter is killed: together, more than the life of a sandbox.
const STEP: Duration = Duration::from_micros(1_700);

/// Starts sandboxes that live for some milliseconds, until it is killed.
async fn start_sandboxes(mark: String) {
    let program = build(PAUSE, GCC).await.unwrap();
    for n in 0..AT_ONCE {
        let (program, input) = (program.clone(), args([&mark]));
        let limits = Limits { wall: Duration::from_millis(12 + 3 * n), ..limits() };
        tokio::spawn(async move {
            loop {
                sandbox().run(&program, input.clone(), limits.clone()).await.unwrap();
            }
        });
    }
    eprintln!("ready");
    pending().await
}

#[tokio::test]
async fn sandboxes_die_with_who_started_them_whenever_that_is() {
    if let Ok(mark) = std::env::var(ROLE) {
        return start_sandboxes(mark).await;
    }
    let mark = mark("orphan");
    for n in 0..STARTERS {
        let command = Command::new("env");
        let name = "orphans::sandboxes_die_with_who_started_them_whenever_that_is";
        let mut starter = again(command, &["--exact", "--nocapture", name]);
        let mut starter =
            starter.env(ROLE, &mark).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(starter.stderr.take().unwrap()).lines();
        assert!(said.any(|line| line.unwrap() == "ready"));
        until(&mark, |there| !there.is_empty()).await;
        tokio::time::sleep(n * STEP).await;
        starter.kill().unwrap();
        starter.wait().unwrap();
        until(&mark, |left| left.is_empty()).await;
    }
}

#[tokio::test]
async fn whoever_stops_waiting_ends_the_sandbox_whenever_that_is() {
    let program = build(PAUSE, GCC).await.unwrap();
    let mark = mark("abandoned");
    for n in 0..40 {
        let waiting = sandbox().run(&program, args([&mark]), limits());
        assert!(tokio::time::timeout(n * Duration::from_micros(300), waiting).await.is_err());
    }
    until(&mark, |left| left.is_empty()).await;
}

#[tokio::test]
async fn daemons_do_not_survive() {
    let daemon = r#"
        #include <signal.h>
        #include <stdio.h>
        #include <unistd.h>
        int main() {
            signal(SIGTERM, SIG_IGN); signal(SIGHUP, SIG_IGN);
            if (fork() == 0) { setsid(); if (fork() == 0) for (;;) pause(); _exit(0); }
            puts("parent"); return 0;
        }"#;
    let mark = mark("daemon");
    let program = build(daemon, GCC).await.unwrap();
    let outcome = sandbox().run(&program, args([&mark]), limits()).await.unwrap();
    assert_eq!((outcome.ending, outcome.stdout), (offload_native::Ending::Exit(0), b"parent\n".to_vec()));
    assert_eq!(running(&mark), [""; 0]);
    // A build has more tools for it.
    let makefile = format!(
        "all: <name>\n\tgcc <name>.c -o <name>; setsid nohup sh -c ': {mark}; sleep 1000' >&- 2>&- &\n"
    );
    build(daemon, &makefile.replace("all: <name>\n", "all:\n")).await.unwrap();
    assert_eq!(running(&mark), [""; 0]);
}
