//! Resource limits of a sandbox, as the kernel counts them.

use crate::SandboxLimits;
use rustix::process::{Pid, Resource, Rlimit};
use std::io;
use std::thread;

/// No core dump at all. 0 means none that is a file; a pattern that starts a program (`|…` in `core_pattern`) would
/// still get the whole of a stranger's memory, as root. 1 is what the kernel has for no dump of either kind.
const NO_CORE: u64 = 1;

/// Sets them for the sandbox's first process, from which all others inherit them. It is still held back, and counts
/// processes in a user namespace of its own, so neither the caller's processes nor other sandboxes' count. `uid` is its
/// user and group, where that is not the caller.
pub fn set(uid: Option<u32>, pid: Pid, limits: &SandboxLimits, largest_file: u64) -> io::Result<()> {
    // The kernel counts full seconds; the first after the limit is for what is measured to be ended as that.
    let cpu = limits.cpu.as_secs() + 1;
    let wanted = [
        (Resource::As, limits.address_space()),
        (Resource::Core, NO_CORE),
        (Resource::Cpu, cpu),
        (Resource::Fsize, largest_file),
        (Resource::Memlock, 0),
        (Resource::Msgqueue, 0),
        (Resource::Nice, 0),
        (Resource::Nofile, limits.open_files),
        (Resource::Nproc, limits.processes),
        (Resource::Rtprio, 0),
        (Resource::Sigpending, limits.processes),
    ];
    let set = move || {
        wanted.into_iter().try_for_each(|(resource, value)| {
            let both = Rlimit { current: Some(value), maximum: Some(value) };
            Ok(rustix::process::prlimit(Some(pid), resource, both).map(drop)?)
        })
    };
    as_owner(uid, set)
}

/// Does something to processes of `uid`'s, where that is not the caller: for other users' processes system calls want a
/// right that root may lack in a container.
pub fn as_owner<T: Send>(uid: Option<u32>, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    match uid {
        None => work(),
        Some(uid) => as_user(uid, work),
    }
}

/// Does something on a thread that is this user.
fn as_user<T: Send>(uid: u32, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    let become_user = move || {
        // SAFETY: these two system calls take numbers. Unlike libc's functions of these names they change the calling
        // thread alone, which nothing else runs on, before or after.
        let done = unsafe {
            libc::syscall(libc::SYS_setresgid, uid, uid, uid) == 0
                && libc::syscall(libc::SYS_setresuid, uid, uid, uid) == 0
        };
        if done { Ok(()) } else { Err(io::Error::last_os_error()) }
    };
    thread::scope(|scope| {
        let thread = thread::Builder::new().spawn_scoped(scope, || {
            become_user()?;
            work()
        })?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
