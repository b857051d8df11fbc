//! Who a client is: decided once, when it connects.
//!
//! A client is known by its certificate, or by its name and password. Where neither is set up nothing tells who a client
//! is: a name that nobody checks is nobody's, and all are anonymous.

use crate::config::Config;
use crate::passwords::{PasswordChecker, PasswordFileError, Passwords, check_name};
use offload_broker::{Login, TransportKind};
use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

/// Why a client is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Its name or password is wrong, or nothing could check it.
    Credentials,
    /// It has no name, and those are not let in.
    Anonymous,
    /// Its client id is another's user name.
    ClientId,
}

/// Why nobody can be checked.
#[derive(Debug, thiserror::Error)]
pub enum AuthenticationError {
    /// The password file.
    #[error(transparent)]
    Passwords(#[from] PasswordFileError),
    /// The system has no randomness.
    #[error("no randomness for a key: {0}")]
    Random(#[from] getrandom::Error),
}

/// Checks clients.
pub struct Authentication {
    passwords: Option<(PathBuf, PasswordChecker)>,
    /// Whether client certificates are verified.
    certificates: bool,
    /// As configured.
    anonymous: Option<bool>,
    /// Names that rules know.
    named: HashSet<String>,
    /// Ends the connections of users that there are no more.
    dismiss: OnceLock<Dismiss>,
}

/// Told the names of users that are not let in any more.
pub type Dismiss = Box<dyn Fn(&HashSet<String>) + Send + Sync>;

impl Authentication {
    /// As `config` says.
    ///
    /// # Errors
    ///
    /// When the password file cannot be used.
    pub fn new(config: &Config) -> Result<Authentication, AuthenticationError> {
        let passwords = match &config.access.passwords {
            Some(path) => Some((path.clone(), PasswordChecker::new(Passwords::load(path)?)?)),
            None => None,
        };
        let rules = &config.access.rule;
        let named = rules.iter().flat_map(|rule| &rule.users).map(|user| user.to_string()).collect();
        Ok(Authentication {
            passwords,
            certificates: config.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some()),
            anonymous: config.access.anonymous,
            named,
            dismiss: OnceLock::new(),
        })
    }

    /// Has `dismiss` called, on a thread that may block, when users have been removed from the password file. Once.
    pub fn on_removal(&self, dismiss: Dismiss) {
        assert!(self.dismiss.set(dismiss).is_ok(), "there is one broker");
    }

    /// Whether nothing tells who a client is.
    pub fn is_open(&self) -> bool {
        self.passwords.is_none() && !self.certificates
    }

    /// Whether strangers may reach a listener: those who cannot say who they are, are kept out or expressly let in.
    pub fn may_be_exposed(&self) -> bool {
        !self.is_open() || self.anonymous == Some(true)
    }

    /// Who the client is; `None` is an anonymous one.
    ///
    /// # Errors
    ///
    /// When it is not let in.
    pub async fn check(&self, login: &Login) -> Result<Option<Arc<str>>, Refused> {
        let user = self.user(login).await?;
        if user.is_none() && !self.anonymous.unwrap_or(self.is_open() && !is_web(login.transport)) {
            return Err(Refused::Anonymous);
        }
        // `%c` is the client id, and must not be what `%u` is for another.
        if user.as_deref() != Some(&login.client_id) && self.is_user(&login.client_id) {
            return Err(Refused::ClientId);
        }
        Ok(user)
    }

    /// Takes the password file's content from now on, and dismisses whom it has no line for any more.
    ///
    /// # Errors
    ///
    /// When it cannot be used: what was read before stays in force.
    pub fn reload(&self) -> Result<(), PasswordFileError> {
        if let Some((path, checker)) = &self.passwords {
            let removed = checker.replace(Passwords::load(path)?);
            if let Some(dismiss) = self.dismiss.get()
                && !removed.is_empty()
            {
                dismiss(&removed);
            }
        }
        Ok(())
    }

    async fn user(&self, login: &Login) -> Result<Option<Arc<str>>, Refused> {
        if let Some(name) = &login.certificate {
            return if check_name(name).is_ok() {
                Ok(Some(name.as_str().into()))
            } else {
                Err(Refused::Credentials)
            };
        }
        let Some(name) = login.user_name.as_deref().filter(|name| !name.is_empty()) else { return Ok(None) };
        match &self.passwords {
            Some((_, checker)) => {
                let password = login.password.as_deref().unwrap_or_default();
                if checker.check(name, password).await {
                    Ok(Some(name.into()))
                } else {
                    Err(Refused::Credentials)
                }
            }
            None if self.is_open() => Ok(None),
            None => Err(Refused::Credentials),
        }
    }

    fn is_user(&self, name: &str) -> bool {
        let has_password = |(_, checker): &(PathBuf, PasswordChecker)| checker.contains(name);
        self.named.contains(name) || self.passwords.as_ref().is_some_and(has_password)
    }
}

/// Whether a client came in a way that any web page can.
pub fn is_web(transport: TransportKind) -> bool {
    matches!(transport, TransportKind::WebSocket | TransportKind::WebSocketTls)
}
