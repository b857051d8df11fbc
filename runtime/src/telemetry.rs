//! What the operator sees: the log, and errors of ours that a client can refer to.

use crate::log_sampling::sampled;
use crate::log_writer;
use offload_protocol::error::{ErrorKind, WireError};
use std::io::IsTerminal;
use std::sync::atomic::{AtomicU64, Ordering};
use tracing_subscriber::EnvFilter;

/// Environment variable that sets the log filter, in tracing's syntax (`debug`, `offload_broker=trace`).
pub const LOG_VARIABLE: &str = "OFFLOAD_LOG";

/// What is logged unless that variable says otherwise. wasmtime-wasi opens a span for each host call at `info`, which
/// costs a tenth of a short request, and warns of what a guest calls, as often as it does.
const DEFAULT_FILTER: &str = "info,wasmtime_wasi=error,wiggle=error";

/// Bytes of one logged detail at the most; what is logged may hold what a stranger sent.
const MAX_DETAIL: usize = 1024;

/// Sends the log to standard error: `info` and above, in colour only on a terminal. Lines that it does not take are lost.
pub fn start_logging() {
    let filter = EnvFilter::try_from_env(LOG_VARIABLE).unwrap_or_else(|_| EnvFilter::new(DEFAULT_FILTER));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(log_writer::line)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
}

/// Logs an error that is ours and makes the wire's `internal` error, which repeats the log's reference. Of many from one
/// place in the code only the first are logged: the others are like them.
#[track_caller]
pub fn internal_error(detail: &str) -> WireError {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let reference = format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    sampled!(error, reference, "internal error: {}", bounded(detail));
    WireError::new(ErrorKind::Internal, format!("the gateway failed; its log says more under {reference}"))
}

/// What a stranger may have chosen, as it can stand in a log: one line, bounded, without control characters.
pub fn bounded(text: &str) -> impl std::fmt::Display {
    text[..text.floor_char_boundary(MAX_DETAIL)].escape_debug()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    /// What is logged while `act` runs.
    pub(crate) fn logged(act: impl FnOnce()) -> String {
        #[derive(Clone, Default)]
        struct Log(Arc<Mutex<Vec<u8>>>);
        impl Write for Log {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.lock().unwrap().write(bytes)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).finish();
        tracing::subscriber::with_default(subscriber, act);
        let text = log.0.lock().unwrap().clone();
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn all_internal_errors_have_a_reference_and_few_are_logged() {
        let mut messages = HashSet::new();
        let log = logged(|| messages.extend((0..1000).map(|_| internal_error("no descriptors").message)));
        assert_eq!(messages.len(), 1000);
        let lines = log.matches("internal error: no descriptors").count();
        assert!((1..=20).contains(&lines), "{lines} lines");
        let other = logged(|| drop(internal_error("another cause")));
        assert!(other.contains("another cause"), "{other}");
    }
}
