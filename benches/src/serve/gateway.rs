//! The gateway, as `offload-rt serve` runs it.

use super::{announce, on_any_port, told_to_stop};
use anyhow::Result;
use offload_rt::Gateway;
use offload_rt::config::Config;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

/// Where nobody connects to.
const NOWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

pub async fn serve(configuration: Option<&str>, data_dir: Option<PathBuf>) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let config = match configuration {
        Some(text) => {
            let file = folder.path().join("offload-rt.toml");
            std::fs::write(&file, text)?;
            Config::load(&file)?
        }
        None => Config::default(),
    };
    let data_dir = data_dir.unwrap_or_else(|| folder.path().join("data"));
    let gateway = Gateway::start(Config { data_dir, ..on_any_port(config) }).await?;
    // With another broker it has none of its own.
    announce(gateway.address().unwrap_or(NOWHERE))?;
    told_to_stop().await?;
    gateway.shutdown().await;
    Ok(())
}
