//! Where things are.

use std::path::PathBuf;

use anyhow::Result;
use cargo_metadata::MetadataCommand;

/// The folders of this checkout.
pub struct Workspace {
    /// Where the main `Cargo.toml` is.
    pub root: PathBuf,
    /// Where cargo builds, which `CARGO_TARGET_DIR` can move.
    pub target: PathBuf,
}

impl Workspace {
    /// Asks cargo.
    pub fn find() -> Result<Workspace> {
        // The program's own place, not the current folder: `cargo xtask` works from everywhere in the checkout.
        let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
        let metadata = MetadataCommand::new().manifest_path(manifest).no_deps().exec()?;
        Ok(Workspace {
            root: metadata.workspace_root.into_std_path_buf(),
            target: metadata.target_directory.into_std_path_buf(),
        })
    }

    /// One folder a guest.
    pub fn guest_examples(&self) -> PathBuf {
        self.root.join("guest-examples")
    }

    /// Where the built guests go.
    pub fn built_guests(&self) -> PathBuf {
        self.target.join("guests")
    }
}
