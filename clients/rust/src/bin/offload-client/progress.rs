//! A spinner for who waits at a terminal.

use std::future::Future;
use std::io::{IsTerminal, stderr};
use std::pin::pin;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::timeout;

/// Nobody needs to be told that a shorter wait goes on.
const PATIENCE: Duration = Duration::from_millis(500);

const TICK: Duration = Duration::from_millis(100);

/// Awaits `future`; if that takes a while and stderr is a terminal, shows there that it goes on. The line is cleared
/// before this returns or is dropped.
pub async fn shown<T>(what: String, future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    if !stderr().is_terminal() {
        return future.await;
    }
    if let Ok(output) = timeout(PATIENCE, &mut future).await {
        return output;
    }
    let style =
        ProgressStyle::with_template("{spinner} {msg} {elapsed}").expect("the template is well-formed");
    let spinner = Spinner(ProgressBar::new_spinner().with_style(style).with_message(what));
    spinner.0.enable_steady_tick(TICK);
    future.await
}

struct Spinner(ProgressBar);

impl Drop for Spinner {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
