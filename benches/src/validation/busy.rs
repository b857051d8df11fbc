//! How long workers were busy: what the kernel says that their threads had of a processor or waited for of one. Divided
//! by the requests that they served in that time it is what one took (the utilisation law: P. J. Denning and J. P.
//! Buzen, "The Operational Analysis of Queueing Network Models", ACM Computing Surveys 10(3), 1978).

use anyhow::{Context, Result, ensure};
use std::path::Path;
use std::time::Duration;

/// What the names of the threads begin with that run guests.
const WORKERS: &str = "worker-";

/// How long all workers of a gateway's process have been busy since their start.
pub fn of(process: u32) -> Result<Duration> {
    let threads = std::fs::read_dir(format!("/proc/{process}/task")).context("the gateway has a process")?;
    let mut busy = Vec::new();
    for thread in threads {
        let thread = thread?.path();
        if std::fs::read_to_string(thread.join("comm"))?.starts_with(WORKERS) {
            busy.push(of_thread(&thread)?);
        }
    }
    ensure!(!busy.is_empty(), "the gateway has no thread named {WORKERS}*");
    Ok(busy.into_iter().sum())
}

/// Of `schedstat` the first two numbers: nanoseconds on a processor, and runnable without one.
fn of_thread(thread: &Path) -> Result<Duration> {
    let text =
        std::fs::read_to_string(thread.join("schedstat")).context("the kernel counts for its scheduler")?;
    let numbers = text.split_whitespace().take(2).map(str::parse::<u64>);
    Ok(Duration::from_nanos(numbers.sum::<Result<u64, _>>()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::time::{ClockId, clock_gettime};
    use std::thread;
    use std::time::Instant;

    /// CPU time of this thread.
    fn computed() -> Duration {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    }

    #[test]
    fn a_worker_is_busy_while_it_computes_and_not_while_it_waits() {
        const COMPUTES: Duration = Duration::from_millis(50);
        let process = std::process::id();
        assert!(of(process).is_err(), "nothing here is a worker");
        let worker = thread::Builder::new().name(format!("{WORKERS}test"));
        let busy = worker.spawn(move || {
            let begin = Instant::now();
            while computed() < COMPUTES {}
            // The kernel counts at ticks and where a thread stops.
            thread::sleep(2 * COMPUTES);
            (of(process).unwrap(), begin.elapsed())
        });
        let (busy, whole) = busy.unwrap().join().unwrap();
        assert!(busy >= COMPUTES && busy < whole - COMPUTES, "{busy:?} of {whole:?}");
    }
}
