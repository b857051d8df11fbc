//! What the stage of a compile means to the kernel: how its child is scheduled.

use offload_policy::Stage;
use rustix::process::{Pid, Signal, kill_process, setpriority_process};

/// Scheduling priority of a child that made room for others: less than half the weight of one that has begun, and still
/// enough to come to its end within its time beside workers that are never idle, as the kernel's idle class would not
/// be.
const OLD_NICENESS: i32 = 19;

/// Serves a child so from now on. A stage is never left for a younger one, so a priority never has to be raised.
pub fn serve(child: Pid, stage: Stage) {
    let served = match stage {
        // As it began.
        Stage::Young => Ok(()),
        Stage::Old => {
            setpriority_process(Some(child), OLD_NICENESS).and_then(|()| kill_process(child, Signal::CONT))
        }
        Stage::Stopped => kill_process(child, Signal::STOP),
    };
    if let Err(error) = served {
        tracing::warn!(%error, ?stage, "the priority of a compile child cannot be changed");
    }
}
