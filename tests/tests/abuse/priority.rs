//! Who goes before whom on the machine: those who watch before the gateway, and it before those who abuse it, which
//! would be other machines.

/// The watchers' niceness: what is measured is the gateway, not how long a watcher waits for a core.
const WATCHER: i32 = -10;

/// The abusers' niceness.
const ABUSER: i32 = 5;

/// Puts the calling thread before others, where the system lets it.
pub fn raise() {
    let _ = rustix::process::setpriority_process(None, WATCHER);
}

/// Puts the calling thread behind others.
pub fn lower() {
    let _ = rustix::process::setpriority_process(None, ABUSER);
}
