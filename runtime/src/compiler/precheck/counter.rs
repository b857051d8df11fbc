//! A count that has a limit in `[compiler]`.

use offload_protocol::error::{ErrorKind, WireError};

/// What was found of something, at all levels so far, and how much of it there may be.
pub struct Counter {
    key: &'static str,
    what: &'static str,
    limit: usize,
    found: usize,
}

impl Counter {
    /// Nothing found yet. `key` is the limit's in `[compiler]`, `what` says in the plural what is counted.
    pub fn new(key: &'static str, what: &'static str, limit: usize) -> Counter {
        Counter { key, what, limit, found: 0 }
    }

    /// Counts this number more.
    ///
    /// # Errors
    ///
    /// `compile` over the limit, with its key and both figures. More may be found behind what was counted.
    pub fn add(&mut self, more: impl TryInto<usize>) -> Result<(), WireError> {
        self.found = self.found.saturating_add(more.try_into().unwrap_or(usize::MAX));
        if self.found > self.limit {
            let Counter { key, what, limit, found } = self;
            let message = format!("it has at least {found} {what}, the limit compiler.{key} is {limit}");
            return Err(WireError::new(ErrorKind::Compile, message));
        }
        Ok(())
    }
}
