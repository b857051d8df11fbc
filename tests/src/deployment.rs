//! A gateway with the broker that its devices use: its own, or Mosquitto.

use std::net::SocketAddr;

use anyhow::Result;

use crate::device::{Device, Version};
use crate::gateway::Gateway;
use crate::mosquitto::Mosquitto;

/// All of it ends when dropped.
pub struct Deployment {
    /// Before the broker, so that it ends first.
    pub gateway: Gateway,
    /// The other broker, if it is one.
    pub mosquitto: Option<Mosquitto>,
    address: SocketAddr,
}

impl Deployment {
    /// The gateway's own broker; the configuration is the gateway's.
    pub async fn embedded(configuration: &str) -> Result<Deployment> {
        let gateway = Gateway::embedded(configuration).await?;
        Ok(Deployment { address: gateway.address()?, gateway, mosquitto: None })
    }

    /// A gateway that joined a Mosquitto.
    pub async fn on_mosquitto(configuration: &str) -> Result<Deployment> {
        let mosquitto = Mosquitto::start().await?;
        let gateway = Gateway::start(&["--broker", &mosquitto.url()], configuration).await?;
        Ok(Deployment { gateway, address: mosquitto.address(), mosquitto: Some(mosquitto) })
    }

    /// Where devices connect to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A device with a clean session that listens on `result/<id>`.
    pub async fn device(&self, version: Version, id: &str) -> Result<Device> {
        let mut device = Device::connect(self.address, version, id).await?;
        device.subscribe(&format!("result/{id}")).await?;
        Ok(device)
    }
}

/// Makes two tests of each function that is named: one on the gateway's own broker, one on Mosquitto.
///
/// The function takes a [`Deployment`] with the configuration behind `with` (of both, or of the one and of the other),
/// by default an empty one.
#[macro_export]
macro_rules! on_each_broker {
    () => {};
    ($name:ident with [$embedded:expr, $mosquitto:expr], $($rest:tt)*) => {
        mod $name {
            use super::*;

            #[tokio::test]
            async fn on_the_embedded_broker() -> ::anyhow::Result<()> {
                $name($crate::deployment::Deployment::embedded($embedded).await?).await
            }

            #[tokio::test]
            async fn on_mosquitto() -> ::anyhow::Result<()> {
                $name($crate::deployment::Deployment::on_mosquitto($mosquitto).await?).await
            }
        }
        $crate::on_each_broker!($($rest)*);
    };
    ($name:ident with $both:expr, $($rest:tt)*) => {
        $crate::on_each_broker!($name with [$both, $both], $($rest)*);
    };
    ($name:ident, $($rest:tt)*) => {
        $crate::on_each_broker!($name with ["", ""], $($rest)*);
    };
}
