//! What is between this process and bubblewrap: a shell that leads a process group, and the end of it all when we are
//! gone.
//!
//! bubblewrap can be told to die with its parent, and is. But it can die before its own child inside is bound to it, of
//! reporting to us when we are gone for one, and that child would wait for it for ever. It is still in the group then.

use crate::landlock::Domain;
use rustix::fs::fchown;
use rustix::process::{Gid, Pid, Uid};
use std::io::{self, PipeWriter};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

/// What the shell does. Its `$0` is the pipe.
const SCRIPT: &str = include_str!("supervisor.sh");

/// The shell that bubblewrap is the child of. With it dies the sandbox.
pub struct Supervisor {
    child: Child,
    lifeline: Option<PipeWriter>,
    reaped: bool,
}

/// The pipe whose hang-up is the end: what the supervisor holds, and what we hold. `uid` is who the supervisor will be,
/// where that is not the caller.
pub fn lifeline(uid: Option<u32>) -> io::Result<(OwnedFd, PipeWriter)> {
    let (reader, writer) = io::pipe()?;
    if let Some(uid) = uid {
        // A shell opens it by name: it cannot be told to read from descriptors above 9.
        fchown(&reader, Some(Uid::from_raw(uid)), Some(Gid::from_raw(uid)))?;
    }
    Ok((reader.into(), writer))
}

/// The supervisor to be, as a command whose further arguments are bubblewrap's. `held` is the number of its end of the
/// pipe.
pub fn command(shell: &Path, held: &str) -> Command {
    let mut command = Command::new(shell);
    command.args(["-c", SCRIPT, &format!("/proc/self/fd/{held}")]);
    // Cleared here and not inside: the sandbox's first process is bubblewrap, whose environment all others could read.
    command.env_clear().current_dir("/").process_group(0);
    command
}

impl Supervisor {
    /// Starts `command` in `domain`, with `inherited` open under the numbers that they have here.
    pub fn spawn(
        mut command: Command,
        inherited: Vec<OwnedFd>,
        domain: Domain,
        lifeline: PipeWriter,
    ) -> io::Result<Self> {
        let numbers: Vec<RawFd> = inherited.iter().map(AsRawFd::as_raw_fd).collect();
        let prepare = move || {
            keep_only(&numbers)?;
            domain.enter()
        };
        // SAFETY: after the fork the closure makes system calls on numbers that it was given, and nothing else; the
        // descriptors are open until after the spawn.
        unsafe { command.pre_exec(prepare) };
        Ok(Self { child: command.spawn()?, lifeline: Some(lifeline), reaped: false })
    }

    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// The end of all that it has started. It is still to be reaped.
    pub fn end(&mut self) {
        self.lifeline = None;
    }

    /// Once it has ended. The CPU time is its own and that of all that ran inside.
    pub fn reap(&mut self) -> io::Result<Duration> {
        let pid = self.pid().as_raw_nonzero().get();
        let mut status = 0;
        // SAFETY: an all-zero `rusage` is a valid one.
        let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
        // SAFETY: both pointers are to locals of the right type; the process is our child and not reaped yet.
        if unsafe { libc::wait4(pid, &mut status, 0, &mut usage) } != pid {
            return Err(io::Error::last_os_error());
        }
        self.reaped = true;
        let time = |value: libc::timeval| {
            Duration::from_secs(value.tv_sec as u64) + Duration::from_micros(value.tv_usec as u64)
        };
        Ok(time(usage.ru_utime) + time(usage.ru_stime))
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        if !self.reaped {
            self.end();
            // It may have ended by itself; there is nobody to tell.
            let _ = self.child.wait();
        }
    }
}

/// Whoever started the gateway may have left it descriptors: nothing of them gets through.
fn keep_only(numbers: &[RawFd]) -> io::Result<()> {
    // SAFETY: marks descriptors; they are closed by exec, which drops every owner in this process as well.
    let marked = unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if marked != 0 {
        return Err(io::Error::last_os_error());
    }
    for number in numbers {
        // SAFETY: as above.
        if unsafe { libc::fcntl(*number, libc::F_SETFD, 0) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}
