//! Whether the request outlives a crash.

use super::answer::Refusal;
use super::deduplicate::First;
use super::journal::kept::Kept;
use super::journal::refusal;

/// Puts a request that is to be run, and to be kept, into the journal.
pub fn keep(first: First) -> Result<First, Refusal> {
    match first.pending.way_back.kept.as_ref().map_or(Ok(()), Kept::put) {
        Ok(()) => Ok(first),
        Err(refused) => Err(Refusal::of_waiting(first.pending, refusal(&refused), first.waiting)),
    }
}
