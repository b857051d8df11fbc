//! The gateway, as `offload-rt serve` runs it.

use super::{announce, on_any_port, told_to_stop};
use anyhow::{Context, Result};
use offload_rt::Gateway;
use offload_rt::config::Config;

pub async fn serve() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let config = Config { data_dir: folder.path().join("data"), ..on_any_port() };
    let gateway = Gateway::start(config).await?;
    announce(gateway.address().context("the embedded broker has an address")?)?;
    told_to_stop().await?;
    gateway.shutdown().await;
    Ok(())
}
