//! One who behaves: a client with a connection of its own that asks and waits for the answer.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::packet::{self, Answer, Connect, Publish};
use crate::stage::PASSWORD;

/// Longest wait for one packet.
const PATIENCE: Duration = Duration::from_secs(60);

/// Disconnected without a word when dropped.
pub struct Client {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Client {
    /// Connects under this client id, by a user's name where there are names, and subscribes to `result/<id>`.
    pub fn connect(gateway: SocketAddr, id: &str, user: Option<&str>) -> Result<Client> {
        let stream = TcpStream::connect(gateway)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut client = Client { stream, received: Vec::new() };
        let connect = Connect::new(id);
        let connect = user.map_or(connect.clone(), |user| connect.login(user, PASSWORD));
        client.send(&connect.bytes())?;
        let connack = client.packet(packet::CONNACK).context("no CONNACK")?;
        ensure!(
            connack.get(1) == Some(&0),
            "refused with {:#x}",
            connack.get(1).copied().unwrap_or_default()
        );
        client.send(&packet::subscribe(1, 1, [format!("result/{id}")]))?;
        let suback = client.packet(packet::SUBACK).context("no SUBACK")?;
        ensure!(suback.last() == Some(&1), "the subscription is not granted: {suback:x?}");
        Ok(client)
    }

    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.stream.write_all(bytes)?)
    }

    /// Sends a request at QoS 0, and waits for the next answer, which has to be `ok`.
    pub fn ask(&mut self, request: &Publish) -> Result<Vec<u8>> {
        self.send(&request.bytes())?;
        loop {
            let (first, body) = self.next().context("no answer")?;
            let Some(answer) = Answer::read(first, &body) else { continue };
            if let Some(id) = answer.packet_id {
                self.stream.write_all(&packet::puback(id))?;
            }
            ensure!(answer.status == Some(b"ok"), "answered {}", answer.payload.escape_ascii());
            return Ok(answer.payload.to_vec());
        }
    }

    /// The body of the next packet of this kind; others are dropped.
    fn packet(&mut self, kind: u8) -> Result<Vec<u8>> {
        loop {
            let (first, body) = self.next()?;
            if first == kind {
                return Ok(body);
            }
        }
    }

    fn next(&mut self) -> Result<(u8, Vec<u8>)> {
        let mut space = [0; 16 * 1024];
        loop {
            if let Some((first, body, length)) = packet::first(&self.received) {
                let next = (first, body.to_vec());
                self.received.drain(..length);
                return Ok(next);
            }
            match self.stream.read(&mut space).context("nothing came")? {
                0 => bail!("closed by the gateway"),
                count => self.received.extend(&space[..count]),
            }
        }
    }

    /// The connection, and what was received and not asked for.
    pub fn into_parts(self) -> (TcpStream, Vec<u8>) {
        (self.stream, self.received)
    }
}
