//! Who a client is: decided once, when it connects, and taken back when the password file no longer says so.
//!
//! A client is known by its certificate, or by its name and password. Where neither is set up nothing tells who a
//! client is: a name that nobody checks is nobody's, and all are anonymous.

use crate::auth::passwords::Passwords;
use crate::auth::passwords::checker::{NotTaken, PasswordChecker};
use crate::config::password_file::{PasswordFileError, check_name};
use crate::config::{self, Config};
use arc_swap::ArcSwap;
use offload_broker::{Identity, Login, TransportKind};
use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock};

/// Why a client is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Its name or password is wrong, or nothing could check it.
    Credentials,
    /// It has no name, and its client id is a user's. The client is told what one with wrong credentials is told.
    Nameless,
    /// It has no name, and anonymous clients are not let in.
    Anonymous,
    /// Its client id is another's user name.
    ClientId,
    /// Too many wait for their passwords to be checked.
    Busy,
}

impl From<NotTaken> for Refused {
    fn from(reason: NotTaken) -> Refused {
        match reason {
            NotTaken::Wrong => Refused::Credentials,
            NotTaken::Busy => Refused::Busy,
        }
    }
}

/// How clients are identified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KnownBy {
    /// Not at all: all clients are anonymous.
    Nothing,
    /// By passwords alone: all names are in the password file and in rules, and no client id can be another's name.
    Passwords,
    /// By certificates, with passwords or without: any client id may be the name of a client that has not connected
    /// yet.
    Certificates,
}

/// Why clients cannot be authenticated.
#[derive(Debug, thiserror::Error)]
pub enum AuthenticationError {
    /// The password file cannot be used.
    #[error(transparent)]
    Passwords(#[from] PasswordFileError),
    /// The system has no randomness.
    #[error("no randomness for a key: {0}")]
    Random(#[from] getrandom::Error),
}

/// Authenticates clients.
pub struct Authentication {
    passwords: Option<(PathBuf, PasswordChecker)>,
    /// Held while the password file is read and put into force, so that no older reading follows a newer one.
    reading: Mutex<()>,
    /// Whether client certificates are verified.
    certificates: bool,
    /// `[access] anonymous`.
    anonymous: Option<bool>,
    /// User names that rules name.
    named: ArcSwap<HashSet<String>>,
    /// Ends the connections and sessions of the clients that [`Authentication::confirm`] refuses now.
    dismiss: OnceLock<Dismiss>,
}

/// Called when some clients may no longer be let in.
pub type Dismiss = Box<dyn Fn() + Send + Sync>;

impl Authentication {
    /// Reads the password file of `config`, where it names one.
    ///
    /// # Errors
    ///
    /// When the password file cannot be used.
    pub fn new(config: &Config) -> Result<Authentication, AuthenticationError> {
        let passwords = match &config.access.passwords {
            Some(path) => Some((path.clone(), PasswordChecker::new(Passwords::load(path)?)?)),
            None => None,
        };
        Ok(Authentication {
            passwords,
            reading: Mutex::new(()),
            certificates: config.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some()),
            anonymous: config.access.anonymous,
            named: ArcSwap::from_pointee(named(&config.access)),
            dismiss: OnceLock::new(),
        })
    }

    /// Has `dismiss` called, on a thread that may block, after the password file or the rules were read again. Once.
    pub fn on_reload(&self, dismiss: Dismiss) {
        assert!(self.dismiss.set(dismiss).is_ok(), "there is one broker");
    }

    /// What tells who a client is.
    pub fn known_by(&self) -> KnownBy {
        match (&self.passwords, self.certificates) {
            (_, true) => KnownBy::Certificates,
            (Some(_), false) => KnownBy::Passwords,
            (None, false) => KnownBy::Nothing,
        }
    }

    /// Whether a listener may be reached from other machines: clients are identified, or anonymous ones are expressly
    /// let in.
    pub fn may_be_exposed(&self) -> bool {
        self.known_by() != KnownBy::Nothing || self.anonymous == Some(true)
    }

    /// Who the client is. Its credential is its line of the password file, or 0 where no password told who it is.
    ///
    /// # Errors
    ///
    /// When it is not let in.
    pub async fn check(&self, login: &Login) -> Result<Identity, Refused> {
        let identity = self.identity(login).await?;
        if identity.user.is_none() && !self.lets_in_anonymous(login.transport) {
            return Err(Refused::Anonymous);
        }
        match self.confirm(identity.user.as_deref(), identity.credential, &login.client_id) {
            // Whether there is a user of this name is not for strangers to know cheaply: one that asks by its client id
            // is answered what a wrong password is answered, and as late.
            Err(Refused::ClientId) if identity.user.is_none() => {
                match self.by_password(login, &login.client_id).await {
                    Err(Refused::Busy) => Err(Refused::Busy),
                    _ => Err(Refused::Nameless),
                }
            }
            confirmed => confirmed.map(|()| identity),
        }
    }

    /// Whether one that has been let in still is, by what the password file says now.
    ///
    /// # Errors
    ///
    /// When its line has changed or gone, or its client id has become another's user name.
    pub fn confirm(&self, user: Option<&str>, credential: u64, client_id: &str) -> Result<(), Refused> {
        if let (Some((_, checker)), Some(user)) = (&self.passwords, user)
            && credential != 0
            && !checker.is_current(user, credential)
        {
            return Err(Refused::Credentials);
        }
        // `%c` is the client id, and must not be what `%u` is for another.
        if user != Some(client_id) && self.is_user(client_id) {
            return Err(Refused::ClientId);
        }
        Ok(())
    }

    /// Whether a session that an earlier process has left may stay: its client could still be let in, as far as that is
    /// known without its password or certificate.
    pub fn keeps(&self, user: Option<&str>, client_id: &str, transport: TransportKind) -> bool {
        let has_password = |user| self.passwords.as_ref().is_some_and(|(_, checker)| checker.contains(user));
        let is_let_in = match (user, self.known_by()) {
            (None, _) => self.lets_in_anonymous(transport),
            (Some(_), KnownBy::Nothing) => false,
            (Some(user), KnownBy::Passwords) => has_password(user),
            (Some(_), KnownBy::Certificates) => true,
        };
        is_let_in && self.confirm(user, 0, client_id).is_ok()
    }

    /// Takes the password file's content from now on, and dismisses whom it no longer lets in.
    ///
    /// # Errors
    ///
    /// When it cannot be used: what was read before stays in force.
    pub fn reload(&self) -> Result<(), PasswordFileError> {
        self.read_again()?;
        self.dismiss();
        Ok(())
    }

    /// The same, and dismisses nobody yet.
    ///
    /// # Errors
    ///
    /// As [`Authentication::reload`].
    pub fn read_again(&self) -> Result<(), PasswordFileError> {
        if let Some((path, checker)) = &self.passwords {
            let _reading = self.reading.lock();
            checker.replace(Passwords::load(path)?);
        }
        Ok(())
    }

    /// Takes the names in these rules for those of users, and in others no more.
    pub fn set_rules(&self, access: &config::Access) {
        self.named.store(Arc::new(named(access)));
    }

    /// Ends the connections and sessions of whom the password file or the rules no longer let in.
    pub fn dismiss(&self) {
        if let Some(dismiss) = self.dismiss.get() {
            dismiss();
        }
    }

    async fn identity(&self, login: &Login) -> Result<Identity, Refused> {
        if let Some(name) = &login.certificate {
            check_name(name).map_err(|_| Refused::Credentials)?;
            return Ok(Identity { user: Some(name.as_str().into()), credential: 0 });
        }
        match login.user_name.as_deref().filter(|name| !name.is_empty()) {
            Some(name) if self.known_by() != KnownBy::Nothing => self.by_password(login, name).await,
            _ => Ok(Identity::default()),
        }
    }

    /// As the user `name`, by the password that the client gives.
    async fn by_password(&self, login: &Login, name: &str) -> Result<Identity, Refused> {
        let (_, checker) = self.passwords.as_ref().ok_or(Refused::Credentials)?;
        let password = login.password.as_deref().unwrap_or_default();
        let credential = checker.check(login.source(), name, password).await?;
        Ok(Identity { user: Some(name.into()), credential })
    }

    fn lets_in_anonymous(&self, transport: TransportKind) -> bool {
        self.anonymous.unwrap_or(self.known_by() == KnownBy::Nothing && !is_web(transport))
    }

    /// Whether this is the name of a user, as far as is known. Where clients are not identified there are no users.
    fn is_user(&self, name: &str) -> bool {
        let has_password = |(_, checker): &(PathBuf, PasswordChecker)| checker.contains(name);
        self.known_by() != KnownBy::Nothing
            && (self.named.load().contains(name) || self.passwords.as_ref().is_some_and(has_password))
    }
}

/// The users that rules name.
fn named(access: &config::Access) -> HashSet<String> {
    access.rule.iter().flat_map(|rule| &rule.users).map(|user| user.to_string()).collect()
}

/// Whether a client came in a way that any web page can.
pub fn is_web(transport: TransportKind) -> bool {
    matches!(transport, TransportKind::WebSocket | TransportKind::WebSocketTls)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Access;
    use std::io::Write;
    use std::net::SocketAddr;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Users, whose passwords are their names, and how they are let in.
    struct Set {
        file: tempfile::NamedTempFile,
        authentication: Authentication,
    }

    fn set(users: &[&str], access: &str) -> Set {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        write!(file, "{}", lines(users)).unwrap();
        let access: Access = toml::from_str(access).unwrap();
        let access = Access { passwords: Some(file.path().to_owned()), ..access };
        let authentication = Authentication::new(&Config { access, ..Config::default() }).unwrap();
        Set { file, authentication }
    }

    fn lines(users: &[&str]) -> String {
        users.iter().map(|name| format!("{name}:{}\n", crate::auth::passwords::tests::cheap(name))).collect()
    }

    impl Set {
        /// Changes the file's text and reads it again.
        fn edit(&self, edit: impl FnOnce(String) -> String) {
            let text = std::fs::read_to_string(self.file.path()).unwrap();
            std::fs::write(self.file.path(), edit(text)).unwrap();
            self.authentication.reload().unwrap();
        }

        async fn login(&self, client_id: &str, user: Option<&str>) -> Result<Identity, Refused> {
            self.authentication.check(&login(client_id, user)).await
        }
    }

    fn login(client_id: &str, user: Option<&str>) -> Login {
        Login {
            client_id: client_id.to_owned(),
            user_name: user.map(str::to_owned),
            password: user.map(|name| name.as_bytes().to_vec()),
            certificate: None,
            peer: SocketAddr::from(([127, 0, 0, 1], 1883)),
            transport: TransportKind::Tcp,
            version: offload_broker::Version::V5,
            origin: None,
        }
    }

    #[tokio::test]
    async fn a_strangers_client_id_tells_no_more_than_a_wrong_password() {
        let set = set(&["plc", "panel"], "anonymous = true\n[[rule]]\nusers = [\"certified\"]");
        for name in ["plc", "certified"] {
            assert_eq!(set.login(name, None).await.err(), Some(Refused::Nameless), "{name}");
            assert_eq!(set.login(name, Some("panel")).await.err(), Some(Refused::ClientId), "{name}");
        }
        let guess = Login { password: Some(b"plc".to_vec()), ..login("plc", None) };
        assert_eq!(set.authentication.check(&guess).await.err(), Some(Refused::Nameless));
        assert!(set.login("free", None).await.is_ok_and(|identity| identity.user.is_none()));
        assert!(set.login("plc", Some("plc")).await.is_ok());
        assert!(set.login("free", Some("plc")).await.is_ok());
    }

    #[tokio::test]
    async fn where_strangers_are_not_let_in_they_are_all_answered_alike() {
        let set = set(&["plc"], "");
        assert_eq!(set.login("plc", None).await.err(), Some(Refused::Anonymous));
        assert_eq!(set.login("free", None).await.err(), Some(Refused::Anonymous));
        for client_id in ["plc", "free"] {
            assert_eq!(set.login(client_id, Some("nobody")).await.err(), Some(Refused::Credentials));
        }
    }

    #[tokio::test]
    async fn where_nothing_tells_who_a_client_is_no_client_id_is_anothers() {
        let access = toml::from_str("[[rule]]\nusers = [\"panel\"]").unwrap();
        let authentication = Authentication::new(&Config { access, ..Config::default() }).unwrap();
        assert_eq!(authentication.known_by(), KnownBy::Nothing);
        for user in [None, Some("panel"), Some("whoever")] {
            let identity = authentication.check(&login("panel", user)).await.unwrap();
            assert!(identity.user.is_none() && identity.credential == 0);
        }
    }

    #[tokio::test]
    async fn who_was_let_in_is_confirmed_until_its_line_changes_or_its_client_id_is_anothers_name() {
        let set = set(&["plc", "panel"], "anonymous = true");
        let plc = set.login("press", Some("plc")).await.unwrap();
        let panel = set.login("p", Some("panel")).await.unwrap();
        let confirm = |identity: &Identity, client_id: &str| {
            set.authentication.confirm(identity.user.as_deref(), identity.credential, client_id)
        };
        let stranger = Identity::default();
        let certified = Identity { user: Some("certified".into()), credential: 0 };
        let all = [(&plc, "press"), (&panel, "p"), (&stranger, "late"), (&certified, "c")];
        let refusals = || all.map(|(identity, client_id)| confirm(identity, client_id).err());
        let dismissed = Arc::new(AtomicUsize::new(0));
        let count = dismissed.clone();
        set.authentication.on_reload(Box::new(move || {
            count.fetch_add(1, Ordering::Relaxed);
        }));

        set.edit(|text| text + &lines(&["other"]));
        assert_eq!(refusals(), [None; 4]);
        set.edit(|text| text + &lines(&["late"]));
        assert_eq!(refusals(), [None, None, Some(Refused::ClientId), None]);
        // Another hash of the same password, and a line that is gone.
        set.edit(|_| lines(&["plc"]));
        assert_eq!(refusals(), [Some(Refused::Credentials), Some(Refused::Credentials), None, None]);
        assert_eq!(dismissed.load(Ordering::Relaxed), 3);
    }
}
