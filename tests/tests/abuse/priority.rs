//! Who goes before whom on the machine: those who watch before the gateway, and it before those who abuse it. All of
//! them would be other machines; what is measured is the gateway, not how long a watcher waits for a core.

/// The lowest real-time priority is above everything that is not real-time.
const WATCHER: i32 = 1;

/// The abusers' niceness.
const ABUSER: i32 = 5;

/// Puts the calling thread before others, where the system lets it.
pub fn raise() {
    let parameters = libc::sched_param { sched_priority: WATCHER };
    let policy = libc::SCHED_RR | libc::SCHED_RESET_ON_FORK;
    // SAFETY: reads one struct, which outlives the call.
    unsafe { libc::sched_setscheduler(0, policy, &parameters) };
}

/// Puts the calling thread behind others.
pub fn lower() {
    let _ = rustix::process::setpriority_process(None, ABUSER);
}
