//! A deadline that there may or may not be.

use std::future::pending;

use tokio::time::{Instant, sleep_until};

/// Returns at the deadline; never where there is none.
pub async fn reached(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => pending().await,
    }
}
