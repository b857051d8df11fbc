//! A connected client that waits for answers on topics of its own.

use super::mqtt::{self, Packet};
use super::{LOOPBACK, PATIENCE, Request};
use anyhow::{Context, Result, bail, ensure};
use socket2::{Domain, Socket, Type};
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};

/// Bytes read at once; room for many whole packets.
const READ_BUFFER: usize = 16 * mqtt::MAX_PACKET;

/// Bytes of an unexpected answer that an error repeats.
const ANSWER_SHOWN: usize = 200;

/// The root of the topics on which answers come.
pub const ANSWERS: &str = "result";

/// The client of a load, or one that asks now and then.
pub struct Connection {
    stream: TcpStream,
    /// What its reply ids begin with.
    client: String,
    answer_prefix: Vec<u8>,
    unsent: Vec<u8>,
    buffer: Vec<u8>,
    /// The part of `buffer` that was received and not yet consumed.
    start: usize,
    end: usize,
}

impl Connection {
    /// Connects, and subscribes to `result/<client>/#`.
    pub fn open(address: SocketAddr, client: &str) -> Result<Connection> {
        Connection::open_from(LOOPBACK, address, client, ANSWERS)
    }

    /// Connects from this address, and subscribes to `<root>/<client>/#`.
    pub fn open_from(source: IpAddr, address: SocketAddr, client: &str, root: &str) -> Result<Connection> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        socket.bind(&SocketAddr::new(source, 0).into())?;
        socket.connect(&address.into())?;
        let stream = TcpStream::from(socket);
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut connection = Connection {
            stream,
            client: client.to_owned(),
            answer_prefix: format!("{root}/{client}/").into_bytes(),
            unsent: Vec::new(),
            buffer: vec![0; READ_BUFFER],
            start: 0,
            end: 0,
        };
        connection.queue(&mqtt::connect(client));
        connection.expect(&Packet::ConnAck(0))?;
        connection.queue(&mqtt::subscribe(1, &format!("{root}/{client}/#")));
        connection.expect(&Packet::SubAck(1))?;
        Ok(connection)
    }

    /// The packet of a request with this number.
    pub fn request(&self, request: &Request, number: u16) -> Vec<u8> {
        let topic = format!("{}/{}/{number}", request.topic, self.client);
        mqtt::publish(&topic, number + 1, &request.payload)
    }

    /// Sends a request with this number, which no other one in flight has.
    pub fn send(&mut self, request: &Request, number: u16) -> Result<()> {
        let packet = self.request(request, number);
        self.queue(&packet);
        self.flush()
    }

    /// Waits for the next answer, to whichever request of this client.
    pub fn answer(&mut self) -> Result<Vec<u8>> {
        loop {
            match mqtt::decode(self.received())? {
                Some((Packet::Publish { topic, packet_id, payload }, length)) => {
                    self.number_in(topic).context("an answer to no request")?;
                    let payload = payload.to_vec();
                    self.consume(length);
                    self.acknowledge(packet_id);
                    self.flush()?;
                    return Ok(payload);
                }
                Some((Packet::PubAck(_), length)) => self.consume(length),
                Some((packet, _)) => bail!("unexpected: {packet:?}"),
                None => self.read()?,
            }
        }
    }

    /// Sends one request and waits for its answer, whatever it is.
    pub fn ask(&mut self, request: &Request) -> Result<Vec<u8>> {
        self.send(request, 0)?;
        self.answer()
    }

    /// Sends one request and waits for its answer.
    ///
    /// # Errors
    ///
    /// An answer that is not the request's.
    pub fn ask_rightly(&mut self, request: &Request) -> Result<()> {
        let answer = self.ask(request)?;
        ensure!(answer == request.answer, "an unexpected answer: {}", shown(&answer));
        Ok(())
    }

    /// Says goodbye.
    pub fn close(mut self) -> Result<()> {
        self.queue(&mqtt::disconnect());
        self.flush()
    }

    pub(super) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    pub(super) fn into_stream(self) -> TcpStream {
        self.stream
    }

    pub(super) fn queue(&mut self, packet: &[u8]) {
        self.unsent.extend(packet);
    }

    pub(super) fn acknowledge(&mut self, packet_id: u16) {
        self.queue(&mqtt::puback(packet_id));
    }

    /// Sends what is queued.
    pub(super) fn flush(&mut self) -> Result<()> {
        if !self.unsent.is_empty() {
            self.stream.write_all(&self.unsent).context("cannot send")?;
            self.unsent.clear();
        }
        Ok(())
    }

    /// Waits for something to read, and reads it.
    pub(super) fn read(&mut self) -> Result<()> {
        self.buffer.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        let count = self.stream.read(&mut self.buffer[self.end..]).context("no answer")?;
        ensure!(count > 0, "the server closed the connection");
        self.end += count;
        Ok(())
    }

    pub(super) fn received(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    pub(super) fn consume(&mut self, length: usize) {
        self.start += length;
    }

    /// Which request an answer on this topic is for.
    pub(super) fn number_in(&self, topic: &[u8]) -> Option<usize> {
        str::from_utf8(topic.strip_prefix(self.answer_prefix.as_slice())?).ok()?.parse().ok()
    }

    fn expect(&mut self, expected: &Packet<'_>) -> Result<()> {
        self.flush()?;
        loop {
            if let Some((packet, length)) = mqtt::decode(self.received())? {
                ensure!(packet == *expected, "{packet:?} instead of {expected:?}");
                self.consume(length);
                return Ok(());
            }
            self.read()?;
        }
    }
}

/// An answer, as an error repeats it.
pub(super) fn shown(payload: &[u8]) -> impl std::fmt::Display {
    payload[..payload.len().min(ANSWER_SHOWN)].escape_ascii()
}
