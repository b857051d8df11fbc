//! Which sessions there are.

pub(crate) mod deadlines;
pub(crate) mod empty_sessions;
