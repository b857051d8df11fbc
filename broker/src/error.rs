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
        /// Which of them it is.
        what: TlsPart,
        /// What is wrong with it.
        error: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// What TLS needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TlsPart {
    /// The chain of certificates that the server shows.
    #[error("server certificate")]
    Certificate,
    /// The key of its first certificate.
    #[error("private key")]
    Key,
    /// The two together.
    #[error("server certificate and private key")]
    Pair,
    /// The authorities of clients' certificates.
    #[error("CA of the clients")]
    ClientCa,
    /// The protocol itself.
    #[error("TLS")]
    Protocol,
}
