//! Users of a password file, changed as an operator changes them: by `offload-rt passwd`.

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::time::timeout;

use crate::{PATIENCE, built};

/// Gives a user this password; adds one that is not there.
pub async fn set_password(file: &Path, user: &str, password: &str) -> Result<()> {
    let mut child = Command::new(built::program("offload-rt")?)
        .arg("passwd")
        .args([file.as_os_str(), user.as_ref()])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    child.stdin.take().context("stdin is a pipe")?.write_all(format!("{password}\n").as_bytes()).await?;
    ensure!(timeout(PATIENCE, child.wait()).await??.success(), "passwd failed");
    Ok(())
}
