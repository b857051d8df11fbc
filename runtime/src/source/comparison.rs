//! What source would be as wasm, beside what it is: the differences, each told once.

use super::buildable::Buildable;
use crate::client::Client;
use crate::log_sampling::sampled;
use crate::telemetry;
use crate::wasm::guest::Ended;
use lru::LruCache;
use offload_protocol::error::WireError;
use offload_protocol::request::Digest;
use std::fmt;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Sources and kinds of differences that are remembered as told; after this many others one is told again.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(4096).unwrap();

/// Bytes of an output that are told, from the first that differs.
const EXCERPT: usize = 32;

/// The differences that have been told. A device that sends every few seconds fills no log.
pub struct Comparisons {
    told: Mutex<LruCache<(Digest, Told), ()>>,
    /// One permit for each comparison, until it is done.
    at_once: Arc<Semaphore>,
}

/// What has been told of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Told {
    /// How it differs, if it does.
    Compared(Difference),
    /// A run of it was not compared.
    Skipped,
}

/// How a run differs as wasm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Difference {
    /// It was not built, or not compiled.
    build: bool,
    /// The exit code, or the error.
    end: bool,
    stdout: bool,
    stderr: bool,
}

impl Comparisons {
    /// Nothing is told yet; `at_once` runs are compared at once, or wait for that.
    pub fn new(at_once: usize) -> Comparisons {
        Comparisons {
            told: Mutex::new(LruCache::new(REMEMBERED)),
            at_once: Arc::new(Semaphore::new(at_once)),
        }
    }

    /// Leave to compare a run of this source. While there are as many as there may be, one more is not compared: no
    /// answer is to wait for that, and no request to be refused. Logs that once for each source.
    pub fn begin(&self, client: &Client, source: &Buildable) -> Option<OwnedSemaphorePermit> {
        let permit = self.at_once.clone().try_acquire_owned().ok();
        if permit.is_none() {
            let digest = source.digest();
            if self.is_new(digest, Told::Skipped) {
                let (name, client) = (telemetry::bounded(source.name()), telemetry::bounded(client.name()));
                let logged = sampled!(
                    info,
                    source = %digest.hex(),
                    %name,
                    %client,
                    "some runs of this source are not compared with wasm: too many are compared at once"
                );
                if !logged {
                    self.forget(digest, Told::Skipped);
                }
            }
        }
        permit
    }

    /// Logs how a run as wasm differs from the native one, or that there is no such run; or, once, that it does not
    /// differ.
    pub fn tell(
        &self,
        client: &Client,
        source: &Buildable,
        native: &Ended,
        wasm: Result<&Ended, &WireError>,
    ) {
        let (difference, detail) = match wasm {
            Ok(wasm) => (Difference::between(native, wasm), details(native, wasm)),
            Err(error) => (Difference { build: true, ..Difference::default() }, error.line()),
        };
        let digest = source.digest();
        let (name, client) = (source.name(), client.name());
        let (name, client) = (telemetry::bounded(name), telemetry::bounded(client));
        if !self.is_new(digest, Told::Compared(difference)) {
            tracing::debug!(source = %digest.hex(), %difference, "compared with wasm, with the same result as before");
            return;
        }
        let logged = if difference == Difference::default() {
            sampled!(info, source = %digest.hex(), %name, %client, "as wasm this source does the same")
        } else {
            sampled!(
                warn,
                source = %digest.hex(),
                %name,
                %client,
                "as wasm this source differs in {difference}: {detail}"
            )
        };
        if !logged {
            self.forget(digest, Told::Compared(difference));
        }
    }

    fn is_new(&self, source: Digest, what: Told) -> bool {
        let mut told = self.told.lock().expect("no panic while the lock is held");
        told.put((source, what), ()).is_none()
    }

    /// What the log had no room for is told the next time.
    fn forget(&self, source: Digest, what: Told) {
        self.told.lock().expect("no panic while the lock is held").pop(&(source, what));
    }
}

impl Difference {
    fn between(native: &Ended, wasm: &Ended) -> Difference {
        let kind = |ended: &Ended| ended.result.as_ref().map_err(|error| error.kind).copied();
        Difference {
            build: false,
            end: kind(native) != kind(wasm),
            stdout: native.stdout != wasm.stdout,
            stderr: native.stderr != wasm.stderr,
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = [
            (self.build, "its build"),
            (self.end, "its end"),
            (self.stdout, "stdout"),
            (self.stderr, "stderr"),
        ];
        let names: Vec<&str> = all.iter().filter(|(differs, _)| *differs).map(|(_, name)| *name).collect();
        f.write_str(&names.join(" and "))
    }
}

/// Where they differ, natively first, in one bounded line: `exit code 0 and exit code 1; stdout from byte 9: "64" and
/// "32"`.
fn details(native: &Ended, wasm: &Ended) -> String {
    let difference = Difference::between(native, wasm);
    let mut details = Vec::new();
    if difference.end {
        details.push(format!("{} and {}", end(native), end(wasm)));
    }
    for (differs, name, native, wasm) in [
        (difference.stdout, "stdout", &native.stdout, &wasm.stdout),
        (difference.stderr, "stderr", &native.stderr, &wasm.stderr),
    ] {
        if differs {
            let from = native.iter().zip(wasm.iter()).take_while(|(native, wasm)| native == wasm).count();
            let excerpt = |output: &[u8]| output[from..].iter().take(EXCERPT).copied().collect::<Vec<_>>();
            let (native, wasm) = (excerpt(native), excerpt(wasm));
            details.push(format!(
                "{name} from byte {from}: \"{}\" and \"{}\"",
                native.escape_ascii(),
                wasm.escape_ascii()
            ));
        }
    }
    details.join("; ")
}

fn end(ended: &Ended) -> String {
    match &ended.result {
        Ok(code) => format!("exit code {code}"),
        Err(error) => error.line(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use offload_protocol::error::ErrorKind;
    use offload_protocol::request::Files;

    fn ended(result: Result<i32, WireError>, stdout: &'static str, stderr: &'static str) -> Ended {
        let (stdout, stderr) = (stdout.as_bytes().into(), stderr.as_bytes().into());
        Ended { result, stdout, stderr, fuel: 0 }
    }

    fn trap(message: &str) -> Result<i32, WireError> {
        Err(WireError::new(ErrorKind::Trap, message))
    }

    #[test]
    fn differences_are_named_with_their_place() {
        let native = ended(Ok(0), "long has 64 bits", "");
        for (wasm, in_what, detail) in [
            (ended(Ok(0), "long has 64 bits", ""), "", ""),
            (
                ended(Ok(0), "long has 32 bits", ""),
                "stdout",
                r#"stdout from byte 9: "64 bits" and "32 bits""#,
            ),
            (
                ended(Ok(3), "long\n", "x\n"),
                "its end and stdout and stderr",
                concat!(
                    r#"exit code 0 and exit code 3; stdout from byte 4: " has 64 bits" and "\n"; "#,
                    r#"stderr from byte 0: "" and "x\n""#
                ),
            ),
            (ended(trap("why"), "long has 64 bits", ""), "its end", "exit code 0 and error: trap: why"),
        ] {
            assert_eq!(Difference::between(&native, &wasm).to_string(), in_what);
            assert_eq!(details(&native, &wasm), detail);
        }
    }

    #[test]
    fn what_was_told_is_new_again_only_when_much_else_was() {
        let comparisons = Comparisons::new(1);
        let same = Difference::default();
        let is_new = |n: usize, difference| {
            comparisons.is_new(Digest::of(&n.to_le_bytes()), Told::Compared(difference))
        };
        assert!(is_new(0, same) && is_new(0, Difference { end: true, ..same }) && !is_new(0, same));
        assert!((1..=REMEMBERED.get()).all(|n| is_new(n, same)));
        assert!(is_new(0, same));
    }

    #[test]
    fn there_are_so_many_at_once_and_no_more() {
        const AT_ONCE: usize = 3;
        let (comparisons, client) = (
            Comparisons::new(AT_ONCE),
            Client { principal: None, flow: "a".into(), account: "a".into(), web: false },
        );
        let source = Buildable::Files(Files { files: Vec::new(), makefile: None, target: None });
        let mut begun: Vec<_> = (0..AT_ONCE).map(|_| comparisons.begin(&client, &source)).collect();
        assert!(begun.iter().all(Option::is_some) && comparisons.begin(&client, &source).is_none());
        begun.pop();
        assert!(comparisons.begin(&client, &source).is_some());
    }

    #[test]
    fn an_error_is_the_same_by_its_kind() {
        let (native, wasm) = (ended(trap("SIGSEGV"), "", ""), ended(trap("unreachable"), "", ""));
        assert_eq!(Difference::between(&native, &wasm), Difference::default());
    }
}
