//! Who keeps the doors of the embedded broker: what is asked when a client connects, and when it does something there.

use crate::access::Access;
use crate::authentication::{Authentication, AuthenticationError};
use crate::certificates::{self, CertificatesError};
use crate::config::Config;
use crate::reload::{Reload, WatchedFiles};
use offload_broker::Tls;
use std::path::PathBuf;
use std::sync::Arc;

/// Shared by all listeners.
pub struct Doors {
    /// Who may do what.
    pub access: Arc<Access>,
    /// Who a client is.
    pub authentication: Arc<Authentication>,
    /// The certificates, where there is a `[tls]`.
    pub tls: Option<Tls>,
}

/// Why the doors cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum DoorsError {
    /// Clients cannot be told apart.
    #[error(transparent)]
    Authentication(#[from] AuthenticationError),
    /// The certificates of the configuration cannot be used.
    #[error(transparent)]
    Certificates(#[from] CertificatesError),
}

impl Doors {
    /// As `config` says; the password file and the certificates are watched until what is returned with the doors is
    /// dropped. Call it within a tokio runtime.
    ///
    /// # Errors
    ///
    /// When a file cannot be used.
    pub fn new(config: &Config) -> Result<(Doors, Reload), DoorsError> {
        // Before they are read: what changes from here on is seen.
        let files = WatchedFiles::new(files(config));
        let authentication = Arc::new(Authentication::new(config)?);
        let access = Arc::new(Access::new(&config.access, authentication.known_by()));
        let tls = config.tls.as_ref().map(certificates::load).transpose()?;
        let (again, certified) = (authentication.clone(), config.tls.clone().zip(tls.clone()));
        let reload = files.watch(move || {
            again.reload().map_err(AuthenticationError::from)?;
            if let Some((config, tls)) = &certified {
                certificates::reload(tls, config)?;
            }
            Ok::<(), DoorsError>(())
        });
        Ok((Doors { access, authentication, tls }, reload))
    }
}

fn files(config: &Config) -> impl Iterator<Item = PathBuf> {
    let tls =
        config.tls.iter().flat_map(|tls| [Some(&tls.certificate), Some(&tls.key), tls.client_ca.as_ref()]);
    tls.chain([config.access.passwords.as_ref()]).flatten().cloned()
}
