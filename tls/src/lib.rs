//! TLS towards a broker, for clients and for gateways that join one: by the files that say whom to trust and who one
//! is.
//!
//! TLS 1.2 and 1.3 by rustls, with ring for the cryptography.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{CertificateError, ClientConfig, Error, RootCertStore};

/// Most bytes of a file: one given by mistake is refused before it fills the memory.
pub const MAX_FILE_BYTES: u64 = 1 << 20;

/// Whom to trust and who we are, in PEM files. By default the authorities that the system trusts, and nobody.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificates of the authorities that may vouch for the broker; the system's where there are none.
    pub ca: Option<PathBuf>,
    /// Our own certificate, for a broker that wants one.
    pub identity: Option<Identity>,
}

/// A certificate of one's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The certificate, and those that lead to its authority.
    pub certificate: PathBuf,
    /// Its private key, not encrypted.
    pub key: PathBuf,
}

/// Why files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// One cannot be read.
    #[error("cannot read {}: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        error: io::Error,
    },
    /// One holds something else.
    #[error("{} holds no {expected} in PEM", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        expected: &'static str,
    },
    /// A certificate or key is not usable.
    #[error("{}: {error}", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// Why.
        error: Error,
    },
    /// The two are no pair.
    #[error("{} is not the key of the certificate {}", key.display(), certificate.display())]
    NoPair {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// There is no file of authorities, and the system has none.
    #[error("this system trusts no certificate authorities; name a file with those to trust")]
    NoSystemRoots,
    /// What ring offers does not do for TLS.
    #[error(transparent)]
    Tls(Error),
}

impl TlsFiles {
    /// Reads the files.
    ///
    /// # Errors
    /// When one cannot be read, is larger than [`MAX_FILE_BYTES`], or holds something else; when certificate and key
    /// are no pair; when there is nobody to trust.
    pub fn client_config(&self) -> Result<Arc<ClientConfig>, TlsError> {
        let roots = match &self.ca {
            Some(path) => roots_of(path)?,
            None => system_roots()?,
        };
        let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Tls)?
            .with_root_certificates(roots);
        let Some(Identity { certificate, key }) = &self.identity else {
            return Ok(Arc::new(builder.with_no_client_auth()));
        };
        let config = builder.with_client_auth_cert(certificates(certificate)?, private_key(key)?);
        config.map(Arc::new).map_err(|error| match error {
            Error::InconsistentKeys(_) => {
                TlsError::NoPair { certificate: certificate.clone(), key: key.clone() }
            }
            error => TlsError::Unusable { path: certificate.clone(), error },
        })
    }
}

fn roots_of(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|error| TlsError::Unusable { path: path.to_owned(), error })?;
    }
    Ok(roots)
}

fn system_roots() -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    // One that is not understood among hundreds is no reason to trust none.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() { Err(TlsError::NoSystemRoots) } else { Ok(roots) }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = read(path)?;
    match CertificateDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>() {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(TlsError::Content { path: path.to_owned(), expected: "certificate" }),
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(&read(path)?)
        .map_err(|_| TlsError::Content { path: path.to_owned(), expected: "private key without a password" })
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes));
    let error = match read {
        Ok(length) if length as u64 > MAX_FILE_BYTES => io::ErrorKind::FileTooLarge.into(),
        Ok(_) => return Ok(bytes),
        Err(error) => error,
    };
    Err(TlsError::Read { path: path.to_owned(), error })
}

/// Why a connection by TLS failed, for people: what rustls says, and where it helps what to look at.
pub fn explain(error: &(dyn std::error::Error + 'static)) -> String {
    let io = std::iter::successors(Some(error), |error| error.source())
        .find_map(|error| error.downcast_ref::<io::Error>());
    let tls = io.and_then(|error| error.get_ref()?.downcast_ref::<Error>());
    match tls {
        // A signature is wrong where another authority has the same name, as all have that `keygen` makes.
        Some(Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature)) => {
            "nobody who is trusted here vouches for the broker's certificate: is the CA file the right one?"
                .into()
        }
        Some(Error::InvalidCertificate(problem)) => format!("the broker's certificate is refused: {problem}"),
        Some(Error::AlertReceived(alert)) => {
            format!("the broker refuses the connection ({alert:?}): does it want another certificate?")
        }
        Some(Error::InvalidMessage(_)) => "the broker does not speak TLS on this port".into(),
        Some(problem) => problem.to_string(),
        None if io.is_some_and(|error| {
            matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset)
        }) =>
        {
            "the broker ended the connection: does it speak TLS on this port?".into()
        }
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair};
    use tempfile::TempDir;

    /// A folder with `<name>.pem` and `<name>.key` for each name.
    fn folder(names: &[&str]) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        for name in names {
            let key = KeyPair::generate().unwrap();
            let certificate = CertificateParams::new([name.to_string()]).unwrap().self_signed(&key).unwrap();
            let write = |ending, text| std::fs::write(folder.path().join(name).with_extension(ending), text);
            write("pem", certificate.pem()).unwrap();
            write("key", key.serialize_pem()).unwrap();
        }
        folder
    }

    fn error(files: TlsFiles) -> String {
        files.client_config().unwrap_err().to_string()
    }

    #[test]
    fn files_in_pem_are_taken() {
        let folder = folder(&["ca", "me"]);
        let file = |name: &str| folder.path().join(name);
        let mut files = TlsFiles { ca: Some(file("ca.pem")), identity: None };
        assert!(!files.client_config().unwrap().client_auth_cert_resolver.has_certs());
        files.identity = Some(Identity { certificate: file("me.pem"), key: file("me.key") });
        assert!(files.client_config().unwrap().client_auth_cert_resolver.has_certs());
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let folder = folder(&["ca", "me"]);
        let file = |name: &str| folder.path().join(name);
        let ca = |name: &str| error(TlsFiles { ca: Some(file(name)), identity: None });
        let identity = |certificate: &str, key: &str| {
            let identity = Some(Identity { certificate: file(certificate), key: file(key) });
            error(TlsFiles { ca: Some(file("ca.pem")), identity })
        };
        let shown = |name: &str| file(name).display().to_string();
        assert_eq!(
            ca("none"),
            format!("cannot read {}: No such file or directory (os error 2)", shown("none"))
        );
        assert_eq!(ca("me.key"), format!("{} holds no certificate in PEM", shown("me.key")));
        let no_key = format!("{} holds no private key without a password in PEM", shown("me.pem"));
        assert_eq!(identity("me.pem", "me.pem"), no_key);
        let no_pair = format!("{} is not the key of the certificate {}", shown("ca.key"), shown("me.pem"));
        assert_eq!(identity("me.pem", "ca.key"), no_pair);
        let wrong = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";
        std::fs::write(file("wrong.pem"), wrong).unwrap();
        assert!(ca("wrong.pem").starts_with(&format!("{}: ", shown("wrong.pem"))));
        File::create(file("large")).unwrap().set_len(MAX_FILE_BYTES + 1).unwrap();
        assert_eq!(ca("large"), format!("cannot read {}: file too large", shown("large")));
    }
}
