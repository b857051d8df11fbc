//! How the threads that must not wait for a core are scheduled: by tokio, and by the kernel.
//!
//! All cores may be busy with guests and compilers. A thread that serves connections has microseconds of work when it
//! wakes, but the kernel lets whoever runs go on for a few milliseconds first, unless the waking thread is content with
//! a shorter slice than that one's. So the short ask for short slices; they get no larger share of a core by it.

use std::time::Duration;
use std::{io, mem};
use tokio::runtime::{Builder, Runtime};

/// What connections' threads run at a stretch where others wait: the shortest that the kernel gives.
pub const SLICE: Duration = Duration::from_micros(100);

/// Tasks that a thread of the runtime polls before it looks for what the network and other threads have brought.
/// tokio's own default is 61, but a connection that floods has tasks of up to a millisecond, guests included.
const INTERVAL: u32 = 8;

/// A runtime for the gateway's connections, with a thread a core.
///
/// # Errors
///
/// When the operating system gives us no threads.
pub fn runtime() -> io::Result<Runtime> {
    Builder::new_multi_thread()
        .enable_all()
        .event_interval(INTERVAL)
        .global_queue_interval(INTERVAL)
        .on_thread_start(short_slices)
        .build()
}

/// The calling thread asks for slices of [`SLICE`]. Linux 6.12 and newer heed it, older ones take no notice.
pub fn short_slices() {
    if let Err(error) = request_slices(SLICE) {
        tracing::debug!(%error, "a thread keeps the slices that the kernel gives by default");
    }
}

/// Of a thread with the usual policy `sched_runtime` is the slice that it asks for (Linux 6.12, "sched/eevdf: Use
/// sched_attr::sched_runtime to set request/slice suggestion").
fn request_slices(length: Duration) -> io::Result<()> {
    let mut attributes = attributes()?;
    attributes.sched_runtime = length.as_nanos() as u64;
    // Compilers and sandboxes that this thread starts are not to be as quick.
    attributes.sched_flags |= libc::SCHED_FLAG_RESET_ON_FORK as u64;
    // SAFETY: the kernel reads `size` bytes of the structure, which is alive and as long as it says.
    let done = unsafe { libc::syscall(libc::SYS_sched_setattr, THIS_THREAD, &raw const attributes, 0) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Stands for the calling thread in these system calls, for which no library has a wrapper.
const THIS_THREAD: libc::pid_t = 0;

fn attributes() -> io::Result<libc::sched_attr> {
    let size = mem::size_of::<libc::sched_attr>() as u32;
    let mut attributes = libc::sched_attr {
        size,
        sched_policy: 0,
        sched_flags: 0,
        sched_nice: 0,
        sched_priority: 0,
        sched_runtime: 0,
        sched_deadline: 0,
        sched_period: 0,
    };
    // SAFETY: the kernel writes at most `size` bytes, which is how long the structure is.
    let done = unsafe { libc::syscall(libc::SYS_sched_getattr, THIS_THREAD, &raw mut attributes, size, 0) };
    if done == 0 { Ok(attributes) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_asks_for_its_own_slices_and_keeps_its_priority() {
        let asked = std::thread::spawn(|| {
            rustix::process::nice(3)?;
            let before = attributes()?;
            request_slices(SLICE)?;
            let child = std::thread::spawn(attributes);
            io::Result::Ok((before, attributes()?, child.join().unwrap()?))
        });
        let (before, after, child) = asked.join().unwrap().unwrap();
        assert_eq!((after.sched_policy, after.sched_nice), (before.sched_policy, before.sched_nice));
        // An older kernel says zero.
        assert!([0, SLICE.as_nanos() as u64].contains(&after.sched_runtime), "{}", after.sched_runtime);
        assert_eq!((child.sched_nice, child.sched_runtime), (before.sched_nice, before.sched_runtime));
    }
}
