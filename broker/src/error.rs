//! What can go wrong for whoever embeds the broker. What clients do wrong never comes this far.

/// Errors of [`Broker::serve`](crate::Broker::serve).
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A limit of the configuration contradicts another or the standard.
    #[error("configuration: {0}")]
    Config(&'static str),
}
