//! What one writes without us: a client of a broker that answers requests, as fast as its client library lets it.

use super::mosquitto::Mosquitto;
use super::{announce, told_to_stop};
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

/// Publishes back what it gets on a Mosquitto.
pub async fn echo_on_mosquitto() -> Result<()> {
    let mosquitto = Mosquitto::start().await?;
    let address = mosquitto.address();
    serve(address, || announce(address), echo).await
}

/// Serves on the broker at `address` until standard input ends; `ready` is called once requests are answered. For each
/// one `answer` is called with the client, the topic of the answer and what was sent.
pub async fn serve(
    address: SocketAddr,
    ready: impl FnOnce() -> Result<()>,
    answer: impl Fn(&AsyncClient, String, Bytes) -> Result<()>,
) -> Result<()> {
    let (client, events) = timeout(PATIENCE, subscribe(address)).await??;
    ready()?;
    tokio::select! {
        ended = take_requests(client, events, answer) => ended,
        told = told_to_stop() => told,
    }
}

/// Publishes back what was sent.
pub fn echo(client: &AsyncClient, topic: String, payload: Bytes) -> Result<()> {
    // Not awaited: only the loop that calls this empties the channel.
    Ok(client.try_publish(topic, QoS::AtLeastOnce, false, payload)?)
}

async fn subscribe(address: SocketAddr) -> Result<(AsyncClient, EventLoop)> {
    let mut options = MqttOptions::new("service", address.ip().to_string(), address.port());
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

async fn take_requests(
    client: AsyncClient,
    mut events: EventLoop,
    answer: impl Fn(&AsyncClient, String, Bytes) -> Result<()>,
) -> Result<()> {
    loop {
        let Event::Incoming(Packet::Publish(publish)) = events.poll().await? else { continue };
        let request = str::from_utf8(&publish.topic)?;
        let request = topic::parse_request(request).context("a message that was not subscribed to")?;
        answer(&client, topic::result(request.reply_id), publish.payload)?;
    }
}
