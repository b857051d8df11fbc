//! Ctrl-c.

use std::future::pending;

/// Waits until the user presses ctrl-c.
pub async fn interrupted() {
    if tokio::signal::ctrl_c().await.is_err() {
        // Where signals cannot be had, ctrl-c ends the process as it always did.
        pending().await
    }
}
