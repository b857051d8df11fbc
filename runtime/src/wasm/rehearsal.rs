//! A worker that panics when a test says so.
//!
//! No request is known that makes a worker panic. What becomes of the other requests then is rehearsed: the
//! environment of the process names a file, by [`VARIABLE`], and the worker that comes to the point which the file
//! names removes the file, and panics. The environment is the operator's; nothing that a client sends leads here.

use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;

/// Environment variable with the path of the file. Read once.
const VARIABLE: &str = "OFFLOAD_REHEARSED_PANIC";

static FILE: LazyLock<Option<PathBuf>> = LazyLock::new(|| std::env::var_os(VARIABLE).map(PathBuf::from));

/// Where a worker can be told to panic, by the words in the file.
#[derive(Clone, Copy)]
pub enum Point {
    /// `start`: with a job in hand, before it is loaded.
    Start,
    /// `slice`: when a guest has had its slice.
    Slice,
    /// `answer`: with the outcome of a guest in hand.
    Answer,
    /// `scheduler`: with the dispatcher's lock held, which leaves it torn.
    Scheduler,
}

/// Panics if that is asked for.
pub fn rehearse(point: Point) {
    if let Some(file) = &*FILE {
        let name = match point {
            Point::Start => "start",
            Point::Slice => "slice",
            Point::Answer => "answer",
            Point::Scheduler => "scheduler",
        };
        if fs::read_to_string(file).is_ok_and(|asked| asked.trim() == name) && fs::remove_file(file).is_ok() {
            panic!("rehearsed, at {name}");
        }
    }
}
