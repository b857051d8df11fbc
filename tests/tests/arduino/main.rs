//! The Arduino library (`clients/arduino`): over a connection that the test plays, on a PC; and compiled for an
//! ATmega328P, in a simulator whose serial line is bridged to a gateway, on both kinds of broker.

mod answers;
mod board;
mod deployed_sketch;
mod footprint;
mod on_a_pc;
mod page;
mod restarts;
mod toolchain;

use std::path::{Path, PathBuf};

/// The library's folder.
fn library() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../clients/arduino")
}

/// The folder of these tests, with the sketches and the simulator.
fn here() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/arduino")
}

/// Where this run puts what it builds.
fn built() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("arduino")
}
