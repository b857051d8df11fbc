//! Who goes before whom on the CPU: the threads that measure before all others, what strangers run after all others.
//!
//! Many processes that compute for some microseconds and sleep for one keep everything else from the CPU for seconds:
//! Linux gives each session a share as one (autogroups), forgives such a crowd what it had too much, and so what
//! measures it is starved as well. Measured on Linux 6.18 with 28 of them on two cores, how late another thread woke:
//! 1400 ms as they are, 390 ms under `SCHED_IDLE` alone, and with the session's share at nice 19 some 10 ms.

use crate::{rlimits, usage};
use rustix::process::Pid;
use std::{fs, io};

/// Threads beyond which a sandbox is a crowd, the sandbox's own two included: make and one compiler are six, and up to
/// here others wake in time at [`FEW`].
const MOST_OF_FEW: u64 = 8;

/// Nice value of a session with few threads: a tenth of the usual share. Beside guests that keep all cores busy a build
/// takes some four times as long, at 19 some 25 times.
const FEW: &str = "10";

/// Nice value of a session that is or has been a crowd.
const CROWD: &str = "19";

/// Nice value of every other session.
const USUAL: &str = "0";

/// The lowest real-time priority is above everything that is not real-time.
const REAL_TIME: i32 = 1;

/// Puts the calling thread before all that is not real-time, where this process may do that: as root, or with an
/// `RLIMIT_RTPRIO`. Anyone else's still comes before what [`come_last`] holds back.
pub fn come_first() {
    let parameters = libc::sched_param { sched_priority: REAL_TIME };
    let policy = libc::SCHED_RR | libc::SCHED_RESET_ON_FORK;
    // SAFETY: reads one struct, which outlives the call. That it may fail is told above.
    unsafe { libc::sched_setscheduler(0, policy, &parameters) };
}

/// Has the first process of a sandbox and the launcher, which are all there are yet, run only when nobody else wants
/// to, and so all that they will start: no one of them can leave `SCHED_IDLE` again. `uid` is their user, where that is
/// not the caller.
pub fn come_last(uid: Option<u32>, first: Pid) -> io::Result<()> {
    let first = first.as_raw_nonzero().get();
    let processes = [vec![first], usage::children(first)?].concat();
    rlimits::as_owner(uid, move || {
        let parameters = libc::sched_param { sched_priority: 0 };
        for process in processes {
            // SAFETY: reads one struct, which outlives the call.
            if unsafe { libc::sched_setscheduler(process, libc::SCHED_IDLE, &parameters) } != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    })
}

/// The share of the CPU that a sandbox's session has among those of the machine. It cannot make another session.
pub struct Share {
    path: String,
    nice: Option<&'static str>,
}

impl Share {
    pub fn of(first: Pid) -> Self {
        Self { path: format!("/proc/{}/autogroup", first.as_raw_nonzero()), nice: None }
    }

    /// Sets it for a sandbox of this many threads. A crowd stays one, so that it gains nothing by coming and going.
    pub fn fit(&mut self, threads: u64) {
        let nice = if threads > MOST_OF_FEW || self.nice == Some(CROWD) { CROWD } else { FEW };
        if self.nice == Some(nice) {
            return;
        }
        match fs::write(&self.path, nice) {
            // Whoever is not root may do it once in 100 ms on the whole machine: the next measurement tries again.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            // A kernel without autogroups has no sessions that share either.
            _ => self.nice = Some(nice),
        }
    }

    /// Gives processes that have been killed the usual share: they can do nothing any more but give their memory back.
    pub fn lift(&self) {
        // Without it that takes longer.
        let _ = fs::write(&self.path, USUAL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crowd_gets_less_and_stays_a_crowd() {
        let file = std::env::temp_dir().join(format!("share-of-{}", std::process::id()));
        let mut share = Share { path: file.to_str().unwrap().to_owned(), nice: None };
        for (threads, nice) in [(2, FEW), (MOST_OF_FEW, FEW), (MOST_OF_FEW + 1, CROWD), (2, CROWD)] {
            share.fit(threads);
            assert_eq!(fs::read_to_string(&file).unwrap(), nice, "{threads}");
        }
        share.lift();
        assert_eq!(fs::read_to_string(&file).unwrap(), USUAL);
        fs::remove_file(file).unwrap();
    }
}
