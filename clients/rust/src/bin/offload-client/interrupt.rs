//! Ctrl-c.

use std::future::Future;

use crate::failure::Failure;

/// Awaits `future` until the user presses ctrl-c.
pub async fn unless_interrupted<T>(future: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::select! {
        output = future => output,
        // Where signals cannot be had, ctrl-c ends the process as it always did.
        Ok(()) = tokio::signal::ctrl_c() => Err(Failure::interrupted()),
    }
}
