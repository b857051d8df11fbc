//! A service that publishes back what it gets, as fast as its client library lets it be: on whichever broker.

use super::told_to_stop;
use anyhow::{Context, Result};
use bytes::Bytes;
use offload_protocol::topic::{self, LOCAL_CODE_FILTER};
use rumqttc::NetworkOptions;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::Packet;
use rumqttc::v5::{AsyncClient, Event, EventLoop, MqttOptions};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::timeout;

/// Messages that the broker may have on the way to the service, and answers that may wait in it: more than any load
/// has in flight, so that no window is what is measured.
const WINDOW: u16 = 8_192;

/// Longest time to the service's readiness.
const PATIENCE: Duration = Duration::from_secs(20);

/// Serves on the broker at `address` until standard input ends; `ready` is called once messages are echoed.
pub async fn serve(address: SocketAddr, ready: impl FnOnce() -> Result<()>) -> Result<()> {
    let (client, events) = timeout(PATIENCE, subscribe(address)).await??;
    ready()?;
    tokio::select! {
        ended = echo(client, events) => ended,
        told = told_to_stop() => told,
    }
}

async fn subscribe(address: SocketAddr) -> Result<(AsyncClient, EventLoop)> {
    let mut options = MqttOptions::new("echo", address.ip().to_string(), address.port());
    let mut network = NetworkOptions::new();
    network.set_tcp_nodelay(true);
    options.set_network_options(network);
    options.set_receive_maximum(Some(WINDOW));
    let (client, mut events) = AsyncClient::new(options, WINDOW.into());
    client.subscribe(LOCAL_CODE_FILTER, QoS::AtLeastOnce).await?;
    loop {
        if let Event::Incoming(Packet::SubAck(_)) = events.poll().await? {
            return Ok((client, events));
        }
    }
}

async fn echo(client: AsyncClient, mut events: EventLoop) -> Result<()> {
    loop {
        let Event::Incoming(Packet::Publish(publish)) = events.poll().await? else { continue };
        let request = str::from_utf8(&publish.topic)?;
        let request = topic::parse_request(request).context("a message that was not subscribed to")?;
        answer(&client, topic::result(request.reply_id), publish.payload)?;
    }
}

fn answer(client: &AsyncClient, topic: String, payload: Bytes) -> Result<()> {
    // Not awaited: only the loop above empties the channel.
    Ok(client.try_publish(topic, QoS::AtLeastOnce, false, payload)?)
}
