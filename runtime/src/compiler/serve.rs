//! What the stage of a compile means to the kernel: how its child is scheduled.

use offload_policy::Stage;
use rustix::process::{Pid, Signal, kill_process, setpriority_process};

/// Niceness of a child that was demoted: less than half the weight of one that has begun, and still
/// enough to come to its end within its time beside workers that are never idle, as the kernel's idle class would not
/// be.
const DEMOTED_NICENESS: i32 = 19;

/// Serves a child so from now on. No child comes back to full priority, so a priority never has to be raised.
pub fn serve(child: Pid, stage: Stage) {
    let served = match stage {
        // As it began.
        Stage::Full => Ok(()),
        Stage::Demoted => setpriority_process(Some(child), DEMOTED_NICENESS)
            .and_then(|()| kill_process(child, Signal::CONT)),
        Stage::Stopped => kill_process(child, Signal::STOP),
    };
    if let Err(error) = served {
        tracing::warn!(%error, ?stage, "the priority of a compile child cannot be changed");
    }
}
