//! The errors of a program that embeds the broker. What clients do wrong is none of them.

/// Errors of [`Broker::serve`](crate::Broker::serve) and [`Tls`](crate::Tls).
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A limit of the configuration contradicts another or the standard.
    #[error("configuration: {0}")]
    Config(&'static str),
    /// Something that TLS needs cannot be used.
    #[error("{what}: {error}")]
    Certificates {
        /// Which file or part of TLS it is.
        what: &'static str,
        /// What is wrong with it.
        error: Box<dyn std::error::Error + Send + Sync>,
    },
}
