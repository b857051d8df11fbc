//! The end by Ctrl-C, which leaves no process and no folder: the servers are killed, so that the load beside them
//! fails, and all is dropped on the way out.

use anyhow::{Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

/// Whether this process was asked to end.
pub struct Interruption {
    asked: Arc<AtomicBool>,
}

impl Interruption {
    /// From now on SIGINT and SIGTERM end the servers, and not this process at once.
    pub fn watch(runtime: &Runtime) -> Result<Interruption> {
        let asked = Arc::new(AtomicBool::new(false));
        let (mut interrupt, mut terminate) =
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let noted = asked.clone();
        runtime.spawn(async move {
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                noted.store(true, Ordering::SeqCst);
                for child in children() {
                    // It may have ended meanwhile.
                    let _ = kill_process(child, Signal::KILL);
                }
            }
        });
        Ok(Interruption { asked })
    }

    /// # Errors
    ///
    /// When this process was asked to end.
    pub fn check(&self) -> Result<()> {
        ensure!(!self.asked.load(Ordering::SeqCst), "interrupted");
        Ok(())
    }
}

/// The processes that this one has started.
fn children() -> Vec<Pid> {
    let threads = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let lists = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok());
    let pids = lists.flat_map(|list| list.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
    pids.filter_map(|pid| Pid::from_raw(pid.parse().ok()?)).collect()
}
