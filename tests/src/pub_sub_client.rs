//! A device as small as they come: MQTT 3.1.1 by PubSubClient for Arduino, which publishes at QoS 0 alone and has one
//! buffer for a whole packet.

use std::net::SocketAddr;

use anyhow::{Context, Result, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

use crate::PATIENCE;
use crate::device::Message;

/// `MQTT_MAX_PACKET_SIZE`: bytes of the buffer, which holds a packet with its fixed header.
pub const BUFFER: usize = 256;

/// `MQTT_MAX_HEADER_SIZE`: what the library sets aside for the fixed header of whatever it publishes.
const HEADER: usize = 5;

/// Seconds; the connection says nothing else meanwhile.
const KEEP_ALIVE: u16 = 600;

/// First byte of a packet, flags included (MQTT 3.1.1, section 2.2).
const CONNECT: u8 = 0x10;
const CONNACK: u8 = 0x20;
const PUBLISH: u8 = 0x30;
const SUBSCRIBE: u8 = 0x82;
const SUBACK: u8 = 0x90;

/// A connection; closed when dropped.
pub struct PubSubClient {
    stream: TcpStream,
}

/// What came in.
#[derive(Debug)]
pub enum Received {
    /// A message, and the bytes of its packet.
    Message(Message, usize),
    /// A packet of this many bytes, which does not fit in the buffer: the library drops it without a word.
    Dropped(usize),
}

impl PubSubClient {
    /// Connects with a clean session and listens on `result/<id>` at QoS 0.
    pub async fn connect(address: SocketAddr, id: &str) -> Result<PubSubClient> {
        let mut client = PubSubClient { stream: TcpStream::connect(address).await? };
        client.stream.set_nodelay(true)?;
        const CLEAN_SESSION: u8 = 2;
        let level_and_flags = [4, CLEAN_SESSION];
        let body = [&text("MQTT")[..], &level_and_flags, &KEEP_ALIVE.to_be_bytes(), &text(id)].concat();
        client.stream.write_all(&packet(CONNECT, &body)).await?;
        let accepted = client.packet().await?;
        ensure!(accepted.first == CONNACK && accepted.body == [0, 0], "no CONNACK: {accepted:?}");
        client.listen(&format!("result/{id}")).await?;
        Ok(client)
    }

    /// Subscribes to one topic more at QoS 0.
    pub async fn listen(&mut self, topic: &str) -> Result<()> {
        let packet_id = [0, 1];
        let body = [&packet_id[..], &text(topic), &[0]].concat();
        self.stream.write_all(&packet(SUBSCRIBE, &body)).await?;
        let granted = self.packet().await?;
        ensure!(granted.first == SUBACK && granted.body == [0, 1, 0], "no SUBACK: {granted:?}");
        Ok(())
    }

    /// Publishes, and returns the bytes of the packet. Fails where the library's buffer is too small.
    pub async fn publish(&mut self, topic: &str, payload: &[u8]) -> Result<usize> {
        let packet = published(topic, payload)?;
        self.stream.write_all(&packet).await?;
        Ok(packet.len())
    }

    /// The connection is lost in the middle of a packet.
    pub async fn lose(mut self, topic: &str, payload: &[u8]) -> Result<()> {
        let packet = published(topic, payload)?;
        Ok(self.stream.write_all(&packet[..packet.len() / 2]).await?)
    }

    /// Whether there is something to receive, waiting for it until then.
    pub async fn has_some(&self, until: Instant) -> Result<bool> {
        match timeout_at(until, self.stream.peek(&mut [0])).await {
            Ok(peeked) => Ok(peeked.map(|_| true)?),
            Err(_) => Ok(false),
        }
    }

    /// The next message.
    pub async fn receive(&mut self) -> Result<Received> {
        let Packet { first, body, size } = self.packet().await?;
        ensure!(first & 0xF0 == PUBLISH, "not PUBLISH: {first:#x}");
        if size > BUFFER {
            return Ok(Received::Dropped(size));
        }
        ensure!(first & 0x06 == 0, "not at QoS 0: {first:#x}");
        let (length, rest) = body.split_first_chunk().context("no topic")?;
        let (topic, payload) =
            rest.split_at_checked(u16::from_be_bytes(*length).into()).context("no topic")?;
        let message = Message {
            topic: String::from_utf8(topic.to_vec())?,
            payload: payload.to_vec().into(),
            qos: 0,
            retain: first & 1 == 1,
            user_properties: Vec::new(),
            correlation_data: None,
        };
        Ok(Received::Message(message, size))
    }

    async fn packet(&mut self) -> Result<Packet> {
        timeout(PATIENCE, self.read_packet()).await.context("no packet came")?
    }

    async fn read_packet(&mut self) -> Result<Packet> {
        let first = self.stream.read_u8().await?;
        let mut length = 0;
        for digit in 0..4 {
            let byte = self.stream.read_u8().await?;
            length |= usize::from(byte & 0x7F) << (7 * digit);
            if byte & 0x80 == 0 {
                let mut body = vec![0; length];
                self.stream.read_exact(&mut body).await?;
                return Ok(Packet { first, body, size: 2 + digit + length });
            }
        }
        bail!("a length of more than four bytes")
    }
}

#[derive(Debug)]
struct Packet {
    first: u8,
    body: Vec<u8>,
    size: usize,
}

/// PUBLISH at QoS 0, where it fits in the buffer as the library counts.
fn published(topic: &str, payload: &[u8]) -> Result<Vec<u8>> {
    let topic = text(topic);
    let needed = HEADER + topic.len() + payload.len();
    ensure!(needed <= BUFFER, "{needed} bytes are needed of a buffer of {BUFFER}");
    Ok(packet(PUBLISH, &[&topic[..], payload].concat()))
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![first];
    let mut length = body.len();
    loop {
        let more = if length > 0x7F { 0x80 } else { 0 };
        packet.push((length & 0x7F) as u8 | more);
        length >>= 7;
        if length == 0 {
            break;
        }
    }
    packet.extend(body);
    packet
}

fn text(text: &str) -> Vec<u8> {
    let length = u16::try_from(text.len()).expect("topics of tests are short");
    [&length.to_be_bytes(), text.as_bytes()].concat()
}
