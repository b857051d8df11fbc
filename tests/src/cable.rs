//! A cable into a network namespace, which a test can cut. It takes root.

use std::net::{Ipv4Addr, TcpListener};

use anyhow::{Result, ensure};
use tokio::process::Command;

/// Becomes a program, in a namespace that a cable leads into: `$1` is its end outside, `$2` the address there, `$3`
/// that inside. The cable goes with the namespace.
const CABLE: &str = "set -e; outside=$1; near=$2; far=$3; shift 3; ip link set lo up; \
                     ip link add inside type veth peer name \"$outside\" netns \"$PPID\"; \
                     nsenter --net=/proc/$PPID/ns/net ip address add \"$near/30\" dev \"$outside\"; \
                     nsenter --net=/proc/$PPID/ns/net ip link set \"$outside\" up; \
                     ip address add \"$far/30\" dev inside; ip link set inside up; exec \"$@\"";

/// A cable, as this side has it.
pub struct Cable {
    outside: String,
    near: Ipv4Addr,
    far: Ipv4Addr,
}

impl Cable {
    /// One whose name and addresses are nobody else's: a port that is free now stands for them.
    pub fn new() -> Result<Cable> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        // A quarter of a million addresses of a private network, four for each port.
        let base = u32::from(Ipv4Addr::new(10, 216, 0, 0)) + 4 * u32::from(port);
        Ok(Cable { outside: format!("cable{port}"), near: (base + 1).into(), far: (base + 2).into() })
    }

    /// The address of this side.
    pub fn near(&self) -> Ipv4Addr {
        self.near
    }

    /// The address of the other side.
    pub fn far(&self) -> Ipv4Addr {
        self.far
    }

    /// What has a program run at the other end of the cable, when the program's command line is behind it.
    pub fn wrapper(&self) -> Vec<String> {
        let (near, far) = (self.near.to_string(), self.far.to_string());
        ["unshare", "--net", "sh", "-c", CABLE, "sh", &self.outside, &near, &far].map(str::to_owned).to_vec()
    }

    /// Cuts it: `down`; mends it: `up`.
    pub async fn set(&self, state: &str) -> Result<()> {
        let output = Command::new("ip").args(["link", "set", &self.outside, state]).output().await?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }
}
