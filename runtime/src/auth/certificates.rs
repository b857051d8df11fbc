//! The certificates of `[tls]`, read from their files.

use crate::config;
use offload_broker::{Certificates, ClientCertificates, Tls};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Largest certificate or key file that is read, in bytes.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Why certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificatesError {
    /// A file cannot be read.
    #[error("cannot read {}: {error}; `offload-rt keygen` makes certificates to start with", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// They do not fit together, or hold no certificates.
    #[error("the certificates of [tls] cannot be used: {0}")]
    Refused(#[from] offload_broker::Error),
}

/// Reads the files.
///
/// # Errors
///
/// When one of them cannot be read, or they do not fit together.
pub fn load(config: &config::Tls) -> Result<Tls, CertificatesError> {
    with_files(config, Tls::new)
}

/// Reads the files again, for connections from now on.
///
/// # Errors
///
/// As [`load`]; the former certificates are then kept.
pub fn reload(tls: &Tls, config: &config::Tls) -> Result<(), CertificatesError> {
    with_files(config, |certificates| tls.replace(certificates))
}

fn with_files<T>(
    config: &config::Tls,
    make: impl FnOnce(&Certificates) -> Result<T, offload_broker::Error>,
) -> Result<T, CertificatesError> {
    let (chain, key) = (read(&config.certificate)?, read(&config.key)?);
    let ca = config.client_ca.as_deref().map(read).transpose()?;
    let clients = match &ca {
        None => ClientCertificates::NotAsked,
        Some(ca) if config.require_certificate => ClientCertificates::Required { ca },
        Some(ca) => ClientCertificates::Optional { ca },
    };
    Ok(make(&Certificates { chain: &chain, key: &key, clients })?)
}

fn read(path: &Path) -> Result<Vec<u8>, CertificatesError> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(MAX_FILE_BYTES).read_to_end(&mut bytes))
        .map_err(|error| CertificatesError::Read { path: path.to_owned(), error })?;
    Ok(bytes)
}
