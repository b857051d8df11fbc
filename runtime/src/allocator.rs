//! The process's allocator: jemalloc. glibc's keeps for ever what a crowd has needed once, and contends where one
//! thread frees what another has allocated, as happens to every request here.

use std::ptr::null_mut;
use std::sync::Once;
use std::thread;
use std::time::Duration;
use tikv_jemallocator::Jemalloc;

#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// What jemalloc reads at its start (`malloc_conf`): memory that is free goes back within four seconds rather than ten,
/// so that what a crowd needed for a moment is given back before it is looked at as lost.
// SAFETY: jemalloc looks for a pointer to a string that ends with a null byte under this name, and a slice begins with
// that pointer.
#[unsafe(export_name = "_rjem_malloc_conf")]
static OPTIONS: &[u8] = b"dirty_decay_ms:4000\0";

/// How often memory that is free is looked for.
const INTERVAL: Duration = Duration::from_secs(2);

/// Starts the thread that, from now on, gives memory back to the system that has not been needed for some seconds
/// (jemalloc's own decay, which by itself needs somebody who allocates; its background threads, meant for this, were
/// seen to sleep for minutes over a hundred megabytes). Once in a process; a compile child never asks for it.
pub fn give_back_what_is_free() {
    static STARTED: Once = Once::new();
    STARTED.call_once(|| {
        let thread = thread::Builder::new().name("allocator".into());
        let started = thread.spawn(|| {
            loop {
                thread::sleep(INTERVAL);
                decay();
            }
        });
        if let Err(error) = started {
            tracing::warn!(%error, "free memory is given back late: its thread cannot be started");
        }
    });
}

/// Gives back what is due in all arenas.
fn decay() {
    // SAFETY: the name ends with a null byte, 4096 stands for all arenas (MALLCTL_ARENAS_ALL), and the command takes
    // and gives no value.
    unsafe {
        tikv_jemalloc_sys::mallctl(c"arena.4096.decay".as_ptr(), null_mut(), null_mut(), null_mut(), 0)
    };
}
