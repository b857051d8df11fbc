//! Who subscribes to what, and what is retained.

pub(crate) mod fan_out;
pub(crate) mod retained;
pub(crate) mod sys;
pub(crate) mod topic;
pub(crate) mod trie;
