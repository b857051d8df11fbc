//! The flags that name a gateway's state, for the commands that look at it without running one.

use crate::config::{Config, Draft};
use clap::Args;
use std::path::PathBuf;

/// Whose state it is.
#[derive(Args)]
pub struct StateFlags {
    /// Read this TOML file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Folder of the gateway's state [default: ~/.local/state/offload-rt, for root /var/lib/offload-rt]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

impl StateFlags {
    /// The gateway's configuration.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, or is refused.
    pub fn configuration(&self) -> anyhow::Result<Config> {
        let mut draft = match &self.config {
            Some(file) => Draft::read(file)?,
            None => Draft::default(),
        };
        if let Some(folder) = &self.data_dir {
            draft.set("data_dir", |config| config.data_dir = folder.clone());
        }
        Ok(draft.finish()?.config)
    }
}
