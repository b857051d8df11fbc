//! What joins the routers of sites.

use super::{announce, told_to_stop};
use anyhow::Result;
use offload_rt::config::{self, HostPort};
use offload_rt::network::master::Master;

pub async fn serve() -> Result<()> {
    let config = config::Master { address: HostPort::new("127.0.0.1", 0), ..config::Master::default() };
    let master = Master::start(&config, "bench").await?;
    announce(master.address())?;
    told_to_stop().await?;
    master.shutdown().await;
    Ok(())
}
