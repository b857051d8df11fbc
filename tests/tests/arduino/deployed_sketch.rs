//! The sketch that is in the field already: PubSubClient, `3 5` on `localCode/arduino0`, answers at QoS 0. What its
//! library sends, byte for byte, and what it can read.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use offload_tests::PATIENCE;
use offload_tests::deployment::Deployment;
use offload_tests::on_each_broker;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

on_each_broker! {
    its_bytes_are_answered,
}

/// `connect("arduino0")`: MQTT 3.1.1, a clean session, 15 seconds to keep alive.
const CONNECT: &[u8] = b"\x10\x14\x00\x04MQTT\x04\x02\x00\x0f\x00\x08arduino0";
const CONNACK: &[u8] = b"\x20\x02\x00\x00";

/// `subscribe("result/arduino0")`: at QoS 0. The library counts its packets from 2 on.
const SUBSCRIBE: &[u8] = b"\x82\x14\x00\x02\x00\x0fresult/arduino0\x00";
const SUBACK: &[u8] = b"\x90\x03\x00\x02\x00";

/// `publish("localCode/arduino0", "3 5")`: at QoS 0, not retained.
const PUBLISH: &[u8] = b"\x30\x17\x00\x12localCode/arduino03 5";
const ANSWER: &[u8] = b"\x30\x13\x00\x0fresult/arduino08\n";

/// What its `loop` sends after 15 seconds without other packets.
const PINGREQ: &[u8] = b"\xc0\x00";
const PINGRESP: &[u8] = b"\xd0\x00";

/// `disconnect()`.
const DISCONNECT: &[u8] = b"\xe0\x00";

async fn its_bytes_are_answered(deployment: Deployment) -> Result<()> {
    for _ in 0..2 {
        let mut sketch = Sketch::connect(deployment.address()).await?;
        sketch.says(CONNECT, CONNACK).await?;
        sketch.says(SUBSCRIBE, SUBACK).await?;
        for _ in 0..3 {
            sketch.says(PUBLISH, ANSWER).await?;
            sketch.says(PINGREQ, PINGRESP).await?;
        }
        sketch.says(DISCONNECT, b"").await?;
    }
    Ok(())
}

struct Sketch(TcpStream);

impl Sketch {
    async fn connect(address: SocketAddr) -> Result<Sketch> {
        Ok(Sketch(TcpStream::connect(address).await?))
    }

    /// Sends these bytes, and reads exactly those.
    async fn says(&mut self, bytes: &[u8], answer: &[u8]) -> Result<()> {
        self.0.write_all(bytes).await?;
        let mut read = vec![0; answer.len()];
        timeout(PATIENCE, self.0.read_exact(&mut read)).await.context("nothing comes")??;
        assert_eq!(read.escape_ascii().to_string(), answer.escape_ascii().to_string());
        Ok(())
    }
}
