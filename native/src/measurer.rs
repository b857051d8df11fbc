//! The thread that holds a sandbox to its limits while it runs.
//!
//! It does nothing else, so that it can go before all others: what reads a sandbox's output would take the CPU from
//! everyone at that priority.

use crate::bwrap_args::WORK_DIR;
use crate::outcome::Limit;
use crate::priority::{self, Share};
use crate::syscalls::Calls;
use crate::{SandboxLimits, usage};
use rustix::process::{Pid, Signal, pidfd_send_signal};
use rustix::time::{ClockId, clock_gettime};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How often all that [`Measured`] names is measured: at a gigabyte a second, a bomb gets 10 MB over its limit.
const MEASURE_EVERY: Duration = Duration::from_millis(10);

/// The part of a core that measuring one sandbox may take is one in this number. It goes before those that it is to
/// protect.
const PART_OF_A_CORE: u32 = 10;

/// What this machine lets us see of all processes of a sandbox together.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    /// Memory and CPU time.
    pub usage: bool,
    /// Files in the work directory, and mappings.
    pub files: bool,
}

/// A sandbox that is let go, and what it is held to.
pub struct Held {
    /// Its first process, with which all others end.
    pub first: Pid,
    pub descriptor: OwnedFd,
    pub share: Share,
    pub limits: SandboxLimits,
    pub measured: Measured,
    /// Whether there may be sockets.
    pub calls: Calls,
    pub deadline: Instant,
}

/// Signal that the sandbox was ended by another thread.
struct Killed;

/// The thread. It ends when this is dropped.
pub struct Measurer {
    stop: Sender<Killed>,
    thread: JoinHandle<Option<Limit>>,
}

impl Measurer {
    pub fn start(held: Held) -> io::Result<Self> {
        let (stop, stopped) = mpsc::channel();
        let thread = thread::Builder::new().name("measurer".to_owned()).spawn(move || held.hold(&stopped))?;
        Ok(Self { stop, thread })
    }

    /// To be called once the sandbox's first process has been sent its end, so that all of them come to it soon.
    pub fn killed(&self) {
        // It may have come to its own end.
        let _ = self.stop.send(Killed);
    }

    /// Ends it. The limit is the one for which it ended the sandbox.
    pub fn finish(self) -> Option<Limit> {
        drop(self.stop);
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Held {
    /// Measures until the sandbox is over a limit, which ends it, or until `stopped` hangs up or says that it is ended.
    fn hold(mut self, stopped: &Receiver<Killed>) -> Option<Limit> {
        priority::come_first();
        loop {
            let begun = clock_gettime(ClockId::ThreadCPUTime);
            if let Some(limit) = self.over() {
                // All other processes of a namespace die with its first one. It may have ended by itself meanwhile.
                let _ = pidfd_send_signal(&self.descriptor, Signal::KILL);
                self.share.lift();
                return Some(limit);
            }
            let took = clock_gettime(ClockId::ThreadCPUTime) - begun;
            let left = self.deadline.saturating_duration_since(Instant::now());
            let pause = pause_after(took.try_into().unwrap_or_default()).min(left);
            match stopped.recv_timeout(pause) {
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return None,
                Ok(Killed) => {
                    self.share.lift();
                    return None;
                }
            }
        }
    }

    /// The limit that it is over. Its processes may have ended since: that is seen elsewhere.
    fn over(&mut self) -> Option<Limit> {
        if Instant::now() >= self.deadline {
            return Some(Limit::Wall);
        }
        if self.measured.usage
            && let Ok(used) = usage::of(self.first, self.limits.processes)
        {
            self.share.fit(used.threads);
            let buffers = if self.calls == Calls::Build { usage::sockets(self.first) } else { 0 };
            if used.memory.saturating_add(buffers) > self.limits.memory
                || self.has_too_many_mappings(used.address_space)
            {
                return Some(Limit::Memory);
            }
            if used.cpu > self.limits.cpu {
                return Some(Limit::Cpu);
            }
        }
        let files = || usage::files(self.first, WORK_DIR).is_ok_and(|files| files > self.limits.files);
        (self.measured.files && files()).then_some(Limit::Files)
    }

    /// Counting them takes a lock of the process's, and time: it is done only where so much address space can hold too
    /// many.
    fn has_too_many_mappings(&self, address_space: u64) -> bool {
        let most = self.limits.mappings;
        self.measured.files
            && address_space / rustix::param::page_size() as u64 > most
            && usage::mappings(self.first, self.limits.processes, most) > most
    }
}

/// How long to wait after a measurement that took this time on a core.
fn pause_after(took: Duration) -> Duration {
    MEASURE_EVERY.max(took * (PART_OF_A_CORE - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measuring_takes_a_tenth_of_a_core_at_most() {
        let ms = Duration::from_millis;
        assert_eq!(pause_after(Duration::ZERO), ms(10));
        assert_eq!(pause_after(ms(1)), ms(10));
        assert_eq!(pause_after(ms(5)), ms(45));
    }
}
