//! What can go wrong.

use std::io;
use std::sync::Arc;

use crate::format::FORMAT_VERSION;

/// Why a journal cannot be opened or read.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A limit contradicts another.
    #[error("configuration: {0}")]
    Config(&'static str),
    /// Another process has it open.
    #[error("the journal is in use by another process")]
    InUse,
    /// Another version of this program has written it.
    #[error(
        "{file} has version {found} of the journal's format; this program reads version {FORMAT_VERSION} alone"
    )]
    Version {
        /// The segment that says so.
        file: String,
        /// Its version.
        found: u32,
    },
    /// Segments of two journals are in one folder.
    #[error("{file} belongs to another journal: move it away")]
    Foreign {
        /// The segment of the other one.
        file: String,
    },
    /// The folder that a journal is to be salvaged into has one already.
    #[error("the folder has a journal already")]
    Occupied,
    /// The journal that was salvaged into has no room for all records, or has failed.
    #[error("cannot copy a record: {0}")]
    Copy(#[from] Refused),
    /// The system refuses.
    #[error("cannot {doing}: {source}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// The system's reason.
        source: io::Error,
    },
}

/// Why a batch or blob was not taken.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Refused {
    /// A limit on records, bytes or queued bytes is reached, or the disk is full. Removing records makes room.
    #[error("the journal is full")]
    Full,
    /// The batch, one of its records, or the blob is longer than any may be.
    #[error("{bytes} bytes are more than the journal takes at once ({most})")]
    TooLarge {
        /// Its bytes.
        bytes: u64,
        /// The limit.
        most: u64,
    },
    /// It was closed.
    #[error("the journal is closed")]
    Closed,
    /// The journal takes nothing any more.
    #[error(transparent)]
    Failed(#[from] Failed),
}

/// Why a journal has stopped for good. A write or fsync that failed is never tried again, since the kernel may have
/// dropped what it could not write: what is durable is known only after a restart.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the journal has failed and takes nothing any more: {cause}")]
pub struct Failed {
    #[source]
    cause: Arc<io::Error>,
}

impl Failed {
    /// With the system's reason.
    pub fn new(cause: io::Error) -> Failed {
        Failed { cause: Arc::new(cause) }
    }

    /// The system's reason, as it can be told again.
    pub(crate) fn into_cause(self) -> io::Error {
        Arc::try_unwrap(self.cause).unwrap_or_else(|cause| io::Error::new(cause.kind(), cause.to_string()))
    }

    /// The system's reason.
    pub fn cause(&self) -> &io::Error {
        &self.cause
    }
}

/// Says what was tried when the system refused.
pub(crate) trait While<T> {
    fn doing(self, doing: &'static str) -> Result<T, OpenError>;
}

impl<T> While<T> for io::Result<T> {
    fn doing(self, doing: &'static str) -> Result<T, OpenError> {
        self.map_err(|source| OpenError::Io { doing, source })
    }
}
