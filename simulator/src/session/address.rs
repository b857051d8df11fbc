//! Addresses: local ones, which each network has anew, and global ones, which are between networks.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Where a session can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Address {
    /// `10.0.0.HOST` (RFC 1918): the same addresses in each network.
    Local {
        /// The last byte.
        host: u8,
    },
    /// `198.18.NETWORK.HOST` (RFC 2544): the one for each router, and for each local address behind it.
    Global {
        /// The third byte: zero is the master's own network.
        network: u8,
        /// The last byte.
        host: u8,
    },
}

impl Address {
    /// The broker of each network.
    pub const BROKER: Self = Self::Local { host: 1 };
    /// The router of each network, on its inner side.
    pub const ROUTER: Self = Self::Local { host: Self::ROUTER_HOST };
    /// The master, which joins the routers.
    pub const MASTER: Self = Self::Global { network: 0, host: 1 };
    /// A router's last byte, on both of its sides.
    pub const ROUTER_HOST: u8 = 254;
    /// The last bytes of clients.
    pub const CLIENT_HOSTS: std::ops::RangeInclusive<u8> = 2..=199;

    /// Whether it is one between networks.
    pub fn is_global(self) -> bool {
        matches!(self, Self::Global { .. })
    }

    /// Local or global, in a word.
    pub fn scope(self) -> &'static str {
        if self.is_global() { "global" } else { "local" }
    }

    /// What other networks know a local address of this network by.
    #[must_use]
    pub fn outside(self, network: u8) -> Self {
        match self {
            Self::Local { host } => Self::Global { network, host },
            global @ Self::Global { .. } => global,
        }
    }

    /// What a global address is within its own network.
    #[must_use]
    pub fn inside(self) -> Self {
        match self {
            Self::Global { host, .. } => Self::Local { host },
            local @ Self::Local { .. } => local,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local { host } => write!(f, "10.0.0.{host}"),
            Self::Global { network, host } => write!(f, "198.18.{network}.{host}"),
        }
    }
}

impl From<Address> for String {
    fn from(address: Address) -> Self {
        address.to_string()
    }
}

impl TryFrom<String> for Address {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let bytes: Vec<u8> = text.split('.').map_while(|byte| byte.parse().ok()).collect();
        match bytes[..] {
            [10, 0, 0, host] => Ok(Self::Local { host }),
            [198, 18, network, host] => Ok(Self::Global { network, host }),
            _ => Err(format!("{text:?} is no address of the virtual network")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_they_are_written() {
        for address in [Address::BROKER, Address::MASTER, Address::ROUTER.outside(3)] {
            assert_eq!(Address::try_from(address.to_string()), Ok(address));
        }
        assert_eq!(Address::ROUTER.outside(3).inside(), Address::ROUTER);
        for wrong in ["", "10.0.0", "10.0.0.1.2", "10.0.0.300", "192.168.0.1"] {
            assert!(Address::try_from(wrong.to_owned()).is_err(), "{wrong}");
        }
    }
}
