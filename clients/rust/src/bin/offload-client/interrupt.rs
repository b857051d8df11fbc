//! Ctrl-c.

use std::future::{Future, pending};

use crate::failure::Failure;

/// Waits until the user presses ctrl-c.
pub async fn interrupted() {
    if tokio::signal::ctrl_c().await.is_err() {
        // Where signals cannot be had, ctrl-c ends the process as it always did.
        pending().await
    }
}

/// Awaits `future` until the user presses ctrl-c.
pub async fn unless_interrupted<T>(future: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::select! {
        output = future => output,
        () = interrupted() => Err(Failure::interrupted()),
    }
}
