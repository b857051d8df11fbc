//! What is left of sandboxes when nobody waits for them any more: nothing.

use crate::host::{mark, running, until};
use crate::identities::{ROLE, again};
use crate::sandbox::{GCC, args, build, limits, sandbox, sandbox_of};
use offload_native::{Config, Input, SandboxLimits};
use std::future::pending;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

const PAUSE: &str = "#include <unistd.h>\nint main() { pause(); }";

/// Processes that are killed in the midst of starting sandboxes.
const STARTERS: u32 = 16;
/// Sandboxes that each of them has at once, every one at another moment of its life.
const AT_ONCE: u64 = 6;
/// How much later than the one before each starter is killed: together, more than the life of a sandbox.
const STEP: Duration = Duration::from_micros(1_700);

/// bubblewrap by a name with a mark in it, by which it is found from its start to its end: what it is to run is on no
/// command line before that runs.
struct Marked {
    folder: PathBuf,
    bubblewrap: PathBuf,
}

impl Marked {
    fn new(mark: &str) -> Self {
        let folder = std::env::temp_dir().join(mark);
        std::fs::create_dir(&folder).unwrap();
        let bubblewrap = folder.join("bwrap");
        let path = std::env::var_os("PATH").unwrap();
        let mut all = std::env::split_paths(&path).map(|folder| folder.join("bwrap"));
        std::os::unix::fs::symlink(all.find(|file| file.is_file()).unwrap(), &bubblewrap).unwrap();
        Self { folder, bubblewrap }
    }
}

impl Drop for Marked {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.folder).unwrap();
    }
}

/// A process that is killed also where its test fails.
struct Starter(Child);

impl Drop for Starter {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// Starts sandboxes that live for some milliseconds, until it is killed.
async fn start_sandboxes(bubblewrap: &Path) {
    let program = build(PAUSE, GCC).await.unwrap();
    let sandbox = Arc::new(sandbox_of(Config { bubblewrap: bubblewrap.to_owned(), ..Config::default() }));
    for n in 0..AT_ONCE {
        let (program, sandbox) = (program.clone(), sandbox.clone());
        let limits = SandboxLimits { wall: Duration::from_millis(12 + 3 * n), ..limits() };
        tokio::spawn(async move {
            loop {
                sandbox.run(&program, Input::default(), limits.clone()).await.unwrap();
            }
        });
    }
    eprintln!("ready");
    pending().await
}

#[tokio::test]
async fn sandboxes_die_with_who_started_them_whenever_that_is() {
    if let Some(bubblewrap) = std::env::var_os(ROLE) {
        return start_sandboxes(bubblewrap.as_ref()).await;
    }
    let mark = mark("orphan");
    let marked = Marked::new(&mark);
    for n in 0..STARTERS {
        let command = Command::new("env");
        let name = "orphans::sandboxes_die_with_who_started_them_whenever_that_is";
        let mut starter = again(command, &["--exact", "--nocapture", name]);
        starter.env(ROLE, &marked.bubblewrap).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut starter = Starter(starter.spawn().unwrap());
        let mut said = BufReader::new(starter.0.stderr.take().unwrap()).lines();
        assert!(said.any(|line| line.unwrap() == "ready"));
        until(&mark, |there| !there.is_empty()).await;
        tokio::time::sleep(n * STEP).await;
        drop(starter);
        until(&mark, |left| left.is_empty()).await;
    }
}

#[tokio::test]
async fn whoever_stops_waiting_ends_the_sandbox_whenever_that_is() {
    let program = build(PAUSE, GCC).await.unwrap();
    let mark = mark("abandoned");
    let marked = Marked::new(&mark);
    let sandbox = sandbox_of(Config { bubblewrap: marked.bubblewrap.clone(), ..Config::default() });
    for n in 0..40 {
        let waiting = sandbox.run(&program, args([&mark]), limits());
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
    let makefile =
        format!("all: <name>\n\tgcc <name>.c -o <name>; nohup sh -c ': {mark}; sleep 1000' >&- 2>&- &\n");
    build(daemon, &makefile.replace("all: <name>\n", "all:\n")).await.unwrap();
    assert_eq!(running(&mark), [""; 0]);
}
