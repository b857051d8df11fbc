//! A client that hides nothing: packets are built and looked at byte by byte.

use offload_broker::Version::{self, V5, V311};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::server::{DEADLINE, Server};

pub fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![first];
    variable(&mut packet, body.len());
    packet.extend_from_slice(body);
    packet
}

fn variable(out: &mut Vec<u8>, mut value: usize) {
    while value > 127 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub fn string(text: impl AsRef<[u8]>) -> Vec<u8> {
    let text = text.as_ref();
    [&(text.len() as u16).to_be_bytes(), text].concat()
}

/// A property section.
pub fn section(properties: &[u8]) -> Vec<u8> {
    let mut section = Vec::new();
    variable(&mut section, properties.len());
    section.extend_from_slice(properties);
    section
}

/// CONNECT, as builder.
#[derive(Clone)]
pub struct Connect {
    pub version: Version,
    pub id: String,
    pub clean: bool,
    pub keep_alive: u16,
    pub properties: Vec<u8>,
    pub will: Option<Will>,
    pub user: Option<String>,
    pub password: Option<Vec<u8>>,
}

#[derive(Clone)]
pub struct Will {
    pub topic: String,
    pub payload: String,
    pub qos: u8,
    pub retain: bool,
    pub properties: Vec<u8>,
}

impl Will {
    pub fn new(topic: &str) -> Self {
        Self { topic: topic.into(), payload: "gone".into(), qos: 1, retain: false, properties: Vec::new() }
    }

    pub fn delay(mut self, seconds: u32) -> Self {
        self.properties = [&[24], &seconds.to_be_bytes()[..]].concat();
        self
    }
}

impl Connect {
    pub fn new(version: Version, id: &str) -> Self {
        Self {
            version,
            id: id.into(),
            clean: true,
            keep_alive: 0,
            properties: Vec::new(),
            will: None,
            user: None,
            password: None,
        }
    }

    /// A session that stays: Clean Start 0 with an expiry, or Clean Session 0.
    pub fn persistent(version: Version, id: &str) -> Self {
        let mut connect = Self::new(version, id);
        connect.clean = false;
        if version == V5 { connect.expiry(1000) } else { connect }
    }

    pub fn keep_alive(mut self, seconds: u16) -> Self {
        self.keep_alive = seconds;
        self
    }

    pub fn property(mut self, id: u8, value: &[u8]) -> Self {
        self.properties.push(id);
        self.properties.extend_from_slice(value);
        self
    }

    pub fn expiry(self, seconds: u32) -> Self {
        self.property(17, &seconds.to_be_bytes())
    }

    pub fn receive_maximum(self, maximum: u16) -> Self {
        self.property(33, &maximum.to_be_bytes())
    }

    pub fn max_packet_size(self, size: u32) -> Self {
        self.property(39, &size.to_be_bytes())
    }

    pub fn will(mut self, will: Will) -> Self {
        self.will = Some(will);
        self
    }

    pub fn user(mut self, user: &str) -> Self {
        self.user = Some(user.into());
        self
    }

    pub fn password(mut self, password: impl AsRef<[u8]>) -> Self {
        self.password = Some(password.as_ref().to_vec());
        self
    }

    pub fn bytes(&self) -> Vec<u8> {
        let v5 = self.version == V5;
        let mut flags = u8::from(self.clean) << 1;
        let mut payload = string(&self.id);
        if let Some(will) = &self.will {
            flags |= 4 | will.qos << 3 | u8::from(will.retain) << 5;
            if v5 {
                payload.extend(section(&will.properties));
            }
            payload.extend(string(&will.topic));
            payload.extend(string(&will.payload));
        }
        if let Some(user) = &self.user {
            flags |= 0x80;
            payload.extend(string(user));
        }
        if let Some(password) = &self.password {
            flags |= 0x40;
            payload.extend(string(password));
        }
        let mut body = string("MQTT");
        body.extend([if v5 { 5 } else { 4 }, flags]);
        body.extend(self.keep_alive.to_be_bytes());
        if v5 {
            body.extend(section(&self.properties));
        }
        body.extend(payload);
        packet(0x10, &body)
    }
}

#[derive(Debug, PartialEq, Eq)]
pub struct Packet {
    pub first: u8,
    pub body: Vec<u8>,
}

/// A PUBLISH from the broker.
#[derive(Debug, PartialEq, Eq)]
pub struct Publish {
    pub topic: String,
    pub payload: Vec<u8>,
    pub qos: u8,
    pub retain: bool,
    pub dup: bool,
    pub id: u16,
    /// The property section without its length.
    pub properties: Vec<u8>,
}

impl Publish {
    pub fn text(&self) -> &str {
        str::from_utf8(&self.payload).unwrap()
    }
}

/// What MQTT is spoken on.
pub trait Socket: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Socket for S {}

pub struct Client {
    pub stream: Box<dyn Socket>,
    pub version: Version,
    /// The body of CONNACK.
    pub connack: Vec<u8>,
}

impl Client {
    /// Connected by TCP, nothing sent.
    pub async fn open(server: &Server, version: Version) -> Self {
        let stream = TcpStream::connect(server.address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self::on(stream, version)
    }

    /// On a connection that is there, nothing sent.
    pub fn on(stream: impl Socket + 'static, version: Version) -> Self {
        Self { stream: Box::new(stream), version, connack: Vec::new() }
    }

    pub async fn connect(server: &Server, connect: &Connect) -> Self {
        let client = Self::try_connect(server, connect).await;
        assert_eq!(client.connack[1], 0, "connection refused");
        client
    }

    /// Reads the CONNACK, whatever it says.
    pub async fn try_connect(server: &Server, connect: &Connect) -> Self {
        let mut client = Self::open(server, connect.version).await;
        client.say_hello(connect).await;
        client
    }

    /// Sends CONNECT and reads the CONNACK, whatever it says.
    pub async fn say_hello(&mut self, connect: &Connect) {
        self.send(&connect.bytes()).await;
        let packet = self.receive().await;
        assert_eq!(packet.first, 0x20);
        self.connack = packet.body;
    }

    pub async fn new(server: &Server, version: Version, id: &str) -> Self {
        Self::connect(server, &Connect::new(version, id)).await
    }

    pub fn session_present(&self) -> bool {
        self.connack[0] == 1
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    pub async fn receive(&mut self) -> Packet {
        self.receive_or_end().await.expect("the broker closed the connection")
    }

    /// The next packet; `None` when the broker has closed.
    pub async fn receive_or_end(&mut self) -> Option<Packet> {
        timeout(DEADLINE, async {
            let first = self.stream.read_u8().await.ok()?;
            let (mut length, mut shift) = (0, 0);
            loop {
                let byte = self.stream.read_u8().await.ok()?;
                length |= usize::from(byte & 0x7F) << shift;
                shift += 7;
                if byte & 0x80 == 0 {
                    break;
                }
            }
            let mut body = vec![0; length];
            self.stream.read_exact(&mut body).await.ok()?;
            Some(Packet { first, body })
        })
        .await
        .expect("nothing came from the broker")
    }

    pub async fn expect(&mut self, first: u8, body: &[u8]) {
        assert_eq!(self.receive().await, Packet { first, body: body.to_vec() });
    }

    /// The broker closes with this reason (MQTT 5), or just closes (3.1.1).
    pub async fn expect_disconnect(&mut self, reason: u8) {
        if self.version == V5 {
            self.expect(0xE0, &[reason]).await;
        }
        self.expect_end().await;
    }

    pub async fn expect_end(&mut self) {
        assert_eq!(self.receive_or_end().await, None);
    }

    pub async fn ping(&mut self) {
        self.send(&[0xC0, 0]).await;
        self.expect(0xD0, &[]).await;
    }

    pub fn publish_bytes(
        &self,
        first: u8,
        topic: &str,
        id: u16,
        properties: &[u8],
        payload: &[u8],
    ) -> Vec<u8> {
        let mut body = string(topic);
        if first & 0x06 != 0 {
            body.extend(id.to_be_bytes());
        }
        if self.version == V5 {
            body.extend(section(properties));
        }
        body.extend_from_slice(payload);
        packet(first, &body)
    }

    /// Publishes without waiting for anything.
    pub async fn publish(&mut self, topic: &str, payload: &str, qos: u8, id: u16) {
        let bytes = self.publish_bytes(0x30 | qos << 1, topic, id, &[], payload.as_bytes());
        self.send(&bytes).await;
    }

    /// Publishes at QoS 1 and waits until it is acknowledged; returns the reason.
    pub async fn publish_acknowledged(&mut self, topic: &str, payload: &str) -> u8 {
        self.publish(topic, payload, 1, 0x7777).await;
        self.acknowledged(0x40, 0x7777).await
    }

    pub async fn retain(&mut self, topic: &str, payload: &str, qos: u8) {
        let bytes = self.publish_bytes(0x31 | qos << 1, topic, 0x7778, &[], payload.as_bytes());
        self.send(&bytes).await;
        match qos {
            0 => self.ping().await,
            _ => assert!(self.acknowledged(0x40, 0x7778).await < 0x80),
        }
    }

    /// PUBACK, PUBREC, PUBREL or PUBCOMP of this identifier; returns the reason.
    pub async fn acknowledged(&mut self, first: u8, id: u16) -> u8 {
        let packet = self.receive().await;
        assert_eq!((packet.first, &packet.body[..2]), (first, &id.to_be_bytes()[..]), "{packet:?}");
        packet.body.get(2).copied().unwrap_or(0)
    }

    pub async fn acknowledge(&mut self, first: u8, id: u16) {
        self.send(&packet(first, &id.to_be_bytes())).await;
    }

    /// Subscribes to filters with their options; returns the codes of SUBACK.
    pub async fn subscribe_all(&mut self, filters: &[(&str, u8)], properties: &[u8]) -> Vec<u8> {
        let mut body = vec![0, 9];
        if self.version == V5 {
            body.extend(section(properties));
        }
        for (filter, options) in filters {
            body.extend(string(filter));
            body.push(*options);
        }
        self.send(&packet(0x82, &body)).await;
        let suback = self.receive().await;
        assert_eq!((suback.first, &suback.body[..2]), (0x90, &[0, 9][..]));
        suback.body[if self.version == V5 { 3 } else { 2 }..].to_vec()
    }

    pub async fn subscribe(&mut self, filter: &str, options: u8) {
        let codes = self.subscribe_all(&[(filter, options)], &[]).await;
        assert_eq!(codes, [options & 3]);
    }

    /// Returns the codes of UNSUBACK, which 3.1.1 does not have.
    pub async fn unsubscribe(&mut self, filters: &[&str]) -> Vec<u8> {
        let mut body = vec![0, 8];
        if self.version == V5 {
            body.push(0);
        }
        for filter in filters {
            body.extend(string(filter));
        }
        self.send(&packet(0xA2, &body)).await;
        let unsuback = self.receive().await;
        assert_eq!((unsuback.first, &unsuback.body[..2]), (0xB0, &[0, 8][..]));
        unsuback.body[if self.version == V5 { 3 } else { 2 }..].to_vec()
    }

    /// The next packet, which is a PUBLISH; it is not acknowledged.
    pub async fn message(&mut self) -> Publish {
        let packet = self.receive().await;
        self.publish_of(&packet)
    }

    pub fn publish_of(&self, packet: &Packet) -> Publish {
        assert_eq!(packet.first & 0xF0, 0x30, "{packet:?}");
        let (first, mut rest) = (packet.first, &packet.body[..]);
        let mut take = |len: usize| {
            let (taken, left) = rest.split_at(len);
            rest = left;
            taken.to_vec()
        };
        let len = take(2);
        let topic = String::from_utf8(take(usize::from(len[0]) << 8 | usize::from(len[1]))).unwrap();
        let qos = first >> 1 & 3;
        let id = if qos == 0 { vec![0, 0] } else { take(2) };
        let properties = if self.version == V5 {
            let len = take(1)[0];
            assert!(len < 128, "tests use short property sections");
            take(len.into())
        } else {
            Vec::new()
        };
        Publish {
            topic,
            payload: rest.to_vec(),
            qos,
            retain: first & 1 != 0,
            dup: first & 8 != 0,
            id: u16::from_be_bytes([id[0], id[1]]),
            properties,
        }
    }

    /// This number of messages, with all acknowledgements, which may come in any order.
    pub async fn take_many(&mut self, number: usize) -> Vec<Publish> {
        let (mut messages, mut releases) = (Vec::new(), 0);
        while messages.len() < number || releases > 0 {
            let packet = self.receive().await;
            if packet.first == 0x62 {
                let id = u16::from_be_bytes([packet.body[0], packet.body[1]]);
                self.acknowledge(0x70, id).await;
                releases -= 1;
                continue;
            }
            let message = self.publish_of(&packet);
            match message.qos {
                0 => {}
                1 => self.acknowledge(0x40, message.id).await,
                _ => {
                    self.acknowledge(0x50, message.id).await;
                    releases += 1;
                }
            }
            messages.push(message);
        }
        messages
    }

    /// Sends SUBSCRIBE and waits for nothing.
    pub async fn request_subscription(&mut self, filter: &str, options: u8) {
        let properties: &[u8] = if self.version == V5 { &[0] } else { &[] };
        self.send(&packet(0x82, &[&[0, 9], properties, &string(filter), &[options]].concat())).await;
    }

    /// Sends UNSUBSCRIBE and waits for nothing.
    pub async fn request_unsubscription(&mut self, filter: &str) {
        let properties: &[u8] = if self.version == V5 { &[0] } else { &[] };
        self.send(&packet(0xA2, &[&[0, 8], properties, &string(filter)].concat())).await;
    }

    /// Reads, and keeps nothing, until a packet comes that begins so.
    pub async fn until(&mut self, first: u8) {
        while self.receive().await.first != first {}
    }

    /// All packets that come before the answer to a ping.
    pub async fn until_pong(&mut self) -> Vec<Packet> {
        self.send(&[0xC0, 0]).await;
        let mut packets = Vec::new();
        loop {
            match self.receive().await {
                Packet { first: 0xD0, .. } => return packets,
                packet => packets.push(packet),
            }
        }
    }

    /// Answers all that has come with one step of its exchange (1), or with all of them (2); with none at 0.
    pub async fn advance(&mut self, progress: u8) {
        let mut packets = self.until_pong().await;
        while let Some(packet) = (!packets.is_empty()).then(|| packets.remove(0)) {
            if packet.first & 0xF0 == 0x30 {
                let message = self.publish_of(&packet);
                match message.qos {
                    1 if progress > 0 => self.acknowledge(0x40, message.id).await,
                    2 if progress > 0 => self.acknowledge(0x50, message.id).await,
                    _ => {}
                }
                if message.qos == 2 && progress == 2 {
                    loop {
                        let packet = self.receive().await;
                        if packet.first == 0x62 {
                            self.acknowledge(0x70, u16::from_be_bytes([packet.body[0], packet.body[1]]))
                                .await;
                            break;
                        }
                        packets.push(packet);
                    }
                }
            }
        }
    }

    /// The next message, with all its acknowledgements.
    pub async fn take(&mut self) -> Publish {
        let message = self.message().await;
        match message.qos {
            0 => {}
            1 => self.acknowledge(0x40, message.id).await,
            _ => {
                self.acknowledge(0x50, message.id).await;
                self.acknowledged(0x62, message.id).await;
                self.acknowledge(0x70, message.id).await;
            }
        }
        message
    }

    pub async fn take_text(&mut self) -> String {
        self.take().await.text().to_owned()
    }

    /// Says goodbye and waits until the broker has closed.
    pub async fn disconnect(mut self) {
        self.send(&[0xE0, 0]).await;
        self.expect_end().await;
    }
}

pub const BOTH: [Version; 2] = [V311, V5];
