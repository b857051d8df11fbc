//! What the operator sees: the log, and errors of ours that a client can refer to.

use crate::log_sampling::sampled;
use crate::log_writer;
use offload_protocol::error::{ErrorKind, WireError};
use std::io::IsTerminal;
use std::sync::atomic::{AtomicU64, Ordering};
use tracing_subscriber::EnvFilter;

/// Environment variable that says what is logged: a level, or levels of parts by the name of their crate
/// (`debug`, `info,offload_broker=trace`). Default: `info`.
pub const LOG_VARIABLE: &str = "OFFLOAD_LOG";

/// Level of the gateway's own crates unless [`LOG_VARIABLE`] says otherwise.
const DEFAULT_LEVEL: &str = "info";

/// Prefix of the names of the gateway's own crates. A level without a target applies to these.
const OWN_CRATES: &str = "offload";

/// What is logged of libraries unless that variable names them. wasmtime-wasi opens a span for each host call at
/// `info`, which costs a tenth of a short request, and warns of what a guest calls, as often as it does. What rumqttc
/// says, the ingress on another broker says better.
const LIBRARIES: &str = "warn,wasmtime_wasi=error,wiggle=error,rumqttc=off";

/// The levels by name.
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// Most bytes of one logged detail, which may hold what a client sent.
const MAX_DETAIL: usize = 1024;

/// The log filter cannot be understood.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{LOG_VARIABLE}: `{}` is no filter; accepted: one of {}, or TARGET=LEVEL, or several of these with commas between \
     them, such as `debug` or `info,offload_broker=trace`",
    .0,
    LEVELS.join(", ")
)]
pub struct LogFilterError(String);

/// Sends the log to standard error: `info` and above, in colour only on a terminal. Lines that it does not take are
/// lost.
///
/// # Errors
///
/// When [`LOG_VARIABLE`] holds no filter.
pub fn start_logging() -> Result<(), LogFilterError> {
    let wanted = std::env::var_os(LOG_VARIABLE).unwrap_or_default();
    tracing_subscriber::fmt()
        .with_env_filter(filter(&wanted.to_string_lossy())?)
        .with_writer(log_writer::line)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
    Ok(())
}

/// What is to be logged: the default, and what is wanted in its place. (Filters of fields, which tracing has too, are
/// none here.)
fn filter(wanted: &str) -> Result<EnvFilter, LogFilterError> {
    let mut filter = EnvFilter::new(format!("{LIBRARIES},{OWN_CRATES}={DEFAULT_LEVEL}"));
    for directive in wanted.split(',').map(str::trim).filter(|directive| !directive.is_empty()) {
        let refused = || LogFilterError(bounded(directive).to_string());
        let (target, level) = own_or_named(directive).ok_or_else(refused)?;
        filter = filter.add_directive(format!("{target}={level}").parse().map_err(|_| refused())?);
    }
    Ok(filter)
}

/// The target and the level of a directive; `None` if it is none.
fn own_or_named(directive: &str) -> Option<(&str, String)> {
    let (target, level) = directive.split_once('=').unwrap_or((OWN_CRATES, directive));
    let level = level.to_ascii_lowercase();
    let is_name =
        !target.is_empty() && target.chars().all(|c| c.is_ascii_alphanumeric() || "_:-".contains(c));
    (is_name && LEVELS.contains(&level.as_str())).then_some((target, level))
}

/// Logs an error that is ours and makes the wire's `internal` error, which repeats the log's reference. Of many from
/// one place in the code only the first are logged: the others are like them.
#[track_caller]
pub fn internal_error(detail: &str) -> WireError {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let reference = format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    sampled!(error, reference, "internal error: {}", bounded(detail));
    WireError::new(ErrorKind::Internal, format!("the gateway failed; its log says more under {reference}"))
}

/// A text that a client may have chosen, fit for a log: one line, bounded, without control characters.
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
    fn a_level_is_for_our_own_lines_and_libraries_are_named() {
        for (wanted, expected) in [
            ("", "offload=info"),
            (" ", "offload=info"),
            ("debug", "offload=debug"),
            ("TRACE,", "offload=trace"),
            ("off", "offload=off"),
            ("warn,offload_broker=trace", "offload_broker=trace"),
            ("offload_broker=trace", "offload=info"),
            ("debug, wasmtime=debug", "wasmtime=debug"),
            ("rumqttc=info", "rumqttc=info"),
        ] {
            let filter = filter(wanted).unwrap().to_string();
            assert!(filter.split(',').any(|directive| directive == expected), "{wanted:?}: {filter}");
            assert!(filter.contains("wiggle=error"), "{filter}");
        }
        assert!(!filter("rumqttc=info").unwrap().to_string().contains("rumqttc=off"));
    }

    #[test]
    fn what_is_no_filter_is_refused_with_what_would_be_one() {
        for (wanted, named) in [
            ("verbose", "verbose"),
            ("debug,loud", "loud"),
            ("offload_broker", "offload_broker"),
            ("offload_broker=loud", "offload_broker=loud"),
            ("a=b=info", "a=b=info"),
            ("=info", "=info"),
            ("info;debug", "info;debug"),
            ("[span{x=1}]=info", "[span{x=1}]=info"),
            ("7", "7"),
        ] {
            let error = filter(wanted).unwrap_err();
            assert_eq!(error, LogFilterError(named.to_owned()));
            assert!(error.to_string().contains("OFFLOAD_LOG: ") && error.to_string().contains("debug"));
        }
        let long = filter(&"x".repeat(100_000)).unwrap_err();
        assert!(long.to_string().len() < 2 * MAX_DETAIL);
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
