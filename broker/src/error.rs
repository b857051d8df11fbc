//! What can go wrong for whoever embeds the broker. What clients do wrong never comes this far.

/// Errors of [`Broker::serve`](crate::Broker::serve) and [`Tls`](crate::Tls).
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A limit of the configuration contradicts another or the standard.
    #[error("configuration: {0}")]
    Config(&'static str),
    /// Something that TLS needs cannot be used.
    #[error("{what}: {error}")]
    Certificates {
        /// Which it is.
        what: &'static str,
        /// What is wrong with it.
        error: Box<dyn std::error::Error + Send + Sync>,
    },
}
