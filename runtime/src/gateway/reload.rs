//! A gateway that runs takes over another configuration: whole, or not at all.

use crate::auth::{Auth, AuthError};
use crate::config::{Config, Refusals};
use crate::keys::{Keys, KeysError};
use crate::modules::Modules;
use crate::programs::{ProgramError, Programs};
use crate::request::Settings;
use arc_swap::ArcSwap;
use std::sync::Arc;
use tokio::sync::Mutex;
use tokio::task::{JoinError, spawn_blocking};

/// Why a configuration is not taken over. What was in force before stays so.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// It is not one to run with.
    #[error(transparent)]
    Config(#[from] Refusals),
    /// A program cannot be offered.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// The password file or the certificates cannot be used.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// The keys cannot be used.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// The gateway failed while it read the files.
    #[error("the files were not read: {0}")]
    Failed(#[from] JoinError),
}

/// What became of a configuration that was taken over.
#[derive(Debug, PartialEq, Eq)]
pub struct Reloaded {
    /// The keys whose new values are in force.
    pub changed: Vec<String>,
    /// The keys whose new values would need a restart. Their old ones are in force.
    pub need_restart: Vec<String>,
}

/// What can be another while the gateway runs.
pub(super) struct Reloading {
    /// The configuration of the start.
    pub started: Config,
    /// The one in force. Locked while another is taken over.
    pub running: Mutex<Config>,
    pub auth: Auth,
    pub settings: Arc<ArcSwap<Settings>>,
    pub modules: Arc<Modules>,
    pub keys: Option<Arc<Keys>>,
}

impl Reloading {
    /// Takes over all of `new` that can change. Nothing is in force before all of it can be.
    pub async fn reload(&self, mut new: Config) -> Result<Reloaded, ReloadError> {
        new.settle()?;
        let mut running = self.running.lock().await;
        let config = self.started.reloaded(&new);
        let programs = Programs::load(&config.program, &config.modules.preload, &self.modules).await?;
        // Rules first: no new program is open to a client from whom the new rules keep it.
        let (auth, access, tls) = (self.auth.clone(), config.access.clone(), config.tls.clone());
        spawn_blocking(move || auth.reload(&access, tls.as_ref())).await??;
        let (keys, grace) = (self.keys.clone(), config.keys.grace.duration());
        spawn_blocking(move || keys.map_or(Ok(()), |keys| keys.reload(grace))).await??;
        self.settings.store(Arc::new(Settings::new(&config, programs)));
        let changed = running.differences(&config);
        let need_restart = config.differences(&new);
        *running = config;
        Ok(Reloaded { changed, need_restart })
    }
}
