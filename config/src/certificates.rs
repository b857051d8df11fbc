//! The certificates of `[tls]`, read from their files.

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

/// The certificates' files, as they were read: they fit together.
pub struct Files {
    chain: Vec<u8>,
    key: Vec<u8>,
    ca: Option<Vec<u8>>,
    require_certificate: bool,
}

impl Files {
    /// Reads the files.
    ///
    /// # Errors
    ///
    /// When one of them cannot be read, or they do not fit together.
    pub fn read(config: &super::Tls) -> Result<Files, CertificatesError> {
        let files = Files {
            chain: read(&config.certificate)?,
            key: read(&config.key)?,
            ca: config.client_ca.as_deref().map(read).transpose()?,
            require_certificate: config.require_certificate,
        };
        Tls::new(&files.certificates())?;
        Ok(files)
    }

    /// Shows these certificates from now on, to new connections.
    ///
    /// # Errors
    ///
    /// When the system has no randomness; the former certificates are then kept.
    pub fn replace(&self, tls: &Tls) -> Result<(), CertificatesError> {
        Ok(tls.replace(&self.certificates())?)
    }

    fn certificates(&self) -> Certificates<'_> {
        let clients = match &self.ca {
            None => ClientCertificates::NotAsked,
            Some(ca) if self.require_certificate => ClientCertificates::Required { ca },
            Some(ca) => ClientCertificates::Optional { ca },
        };
        Certificates { chain: &self.chain, key: &self.key, clients }
    }
}

/// Reads the files for a listener.
///
/// # Errors
///
/// As [`Files::read`].
pub fn load(config: &super::Tls) -> Result<Tls, CertificatesError> {
    Ok(Tls::new(&Files::read(config)?.certificates())?)
}

/// Reads the files again, for connections from now on.
///
/// # Errors
///
/// As [`Files::read`]; the former certificates are then kept.
pub fn reload(tls: &Tls, config: &super::Tls) -> Result<(), CertificatesError> {
    Files::read(config)?.replace(tls)
}

fn read(path: &Path) -> Result<Vec<u8>, CertificatesError> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(MAX_FILE_BYTES).read_to_end(&mut bytes))
        .map_err(|error| CertificatesError::Read { path: path.to_owned(), error })?;
    Ok(bytes)
}
