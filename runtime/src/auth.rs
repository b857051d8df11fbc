//! Authentication and authorization: who a client of the embedded broker is, asked when it connects, and what it may
//! do, asked for each publish, subscription and request.

pub mod access;
pub mod authentication;
pub mod passwords;
pub mod reload;

use crate::config::certificates::{self, CertificatesError};
use crate::config::{self, Config};
use crate::site::Site;
use access::Access;
use arc_swap::ArcSwap;
use authentication::{Authentication, AuthenticationError};
use offload_broker::Tls;
use reload::{Reload, WatchedFiles};
use std::path::PathBuf;
use std::sync::Arc;

/// The authentication and authorization stack, shared by all listeners. Clones are handles to the same one.
#[derive(Clone)]
pub struct Auth {
    /// Who may do what.
    pub access: Arc<ArcSwap<Access>>,
    /// Who a client is.
    pub authentication: Arc<Authentication>,
    /// The certificates, where there is a `[tls]`.
    pub tls: Option<Tls>,
    site: Arc<Site>,
}

/// A file of the stack cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// Clients cannot be told apart.
    #[error(transparent)]
    Authentication(#[from] AuthenticationError),
    /// The certificates of the configuration cannot be used.
    #[error(transparent)]
    Certificates(#[from] CertificatesError),
}

impl Auth {
    /// As `config` says, at this site; the password file and the certificates are watched until the returned [`Reload`]
    /// is dropped. Call it within a tokio runtime.
    ///
    /// # Errors
    ///
    /// When a file cannot be used.
    pub fn new(config: &Config, site: Arc<Site>) -> Result<(Auth, Reload), AuthError> {
        // Before they are read: what changes from here on is seen.
        let files = WatchedFiles::new(files(config));
        let authentication = Arc::new(Authentication::new(config)?);
        let access = Access::new(&config.access, authentication.known_by(), site.clone());
        let access = Arc::new(ArcSwap::from_pointee(access));
        let tls = config.tls.as_ref().map(certificates::load).transpose()?;
        let (again, certified) = (authentication.clone(), config.tls.clone().zip(tls.clone()));
        let reload = files.watch(move || {
            again.reload().map_err(AuthenticationError::from)?;
            if let Some((config, tls)) = &certified {
                certificates::reload(tls, config)?;
            }
            Ok::<(), AuthError>(())
        });
        Ok((Auth { access, authentication, tls, site }, reload))
    }
}

impl Auth {
    /// Takes these rules from now on, with what the password file and the certificates hold now: all of it, or nothing.
    /// May block. Whoever is no longer let in, or had leave to subscribe to more than now, is dismissed.
    ///
    /// # Errors
    ///
    /// When a file cannot be used: all stays as it was.
    pub fn reload(&self, access: &config::Access, tls: Option<&config::Tls>) -> Result<(), AuthError> {
        let certificates = tls.map(certificates::Files::read).transpose()?;
        self.authentication.read_again().map_err(AuthenticationError::from)?;
        if let (Some(tls), Some(files)) = (&self.tls, &certificates) {
            files.replace(tls)?;
        }
        self.authentication.set_rules(access);
        let access = Access::new(access, self.authentication.known_by(), self.site.clone());
        self.access.store(Arc::new(access));
        self.authentication.dismiss();
        Ok(())
    }
}

fn files(config: &Config) -> impl Iterator<Item = PathBuf> {
    let tls =
        config.tls.iter().flat_map(|tls| [Some(&tls.certificate), Some(&tls.key), tls.client_ca.as_ref()]);
    tls.chain([config.access.passwords.as_ref()]).flatten().cloned()
}
