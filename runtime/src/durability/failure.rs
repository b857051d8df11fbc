//! What the journal says of itself: what was damaged when it was opened, and that it has failed.

use offload_journal::{Failed, Recovery};
use std::path::Path;
use std::sync::{Arc, OnceLock};
use tokio_util::sync::CancellationToken;

/// Exit code of a gateway whose journal has failed: `EX_IOERR` of BSD's sysexits.
pub const EXIT_JOURNAL_FAILED: u8 = 74;

/// Whether the journal has failed: never, or for good.
#[derive(Clone, Default)]
pub struct Failure {
    cause: Arc<OnceLock<String>>,
    told: CancellationToken,
}

impl Failure {
    /// The journal has failed.
    pub(super) fn tell(&self, failed: &Failed) {
        tracing::error!(
            cause = %failed.cause(),
            "the journal has failed: nothing more is accepted, and the gateway ends; what was acknowledged is run \
             after the next start. Look at the disk of the data directory (`dmesg`, `df`), then start the gateway again"
        );
        let _ = self.cause.set(failed.cause().to_string());
        self.told.cancel();
    }

    /// Why it has failed, if it has.
    pub fn cause(&self) -> Option<&str> {
        self.cause.get().map(|cause| &**cause)
    }

    /// Returns when it has failed.
    pub async fn failed(&self) {
        self.told.cancelled().await;
    }
}

/// Logs what was not whole.
pub(super) fn report(path: &Path, recovery: &Recovery) {
    if recovery.torn_bytes > 0 {
        tracing::info!(
            bytes = recovery.torn_bytes,
            "the journal ended in the middle of a write: that was not acknowledged, and is cut off"
        );
    }
    for damage in &recovery.damage {
        tracing::error!(
            ?damage,
            "the journal is damaged: what is whole counts, the damaged bytes are in {}",
            path.join("damaged").display()
        );
    }
}
