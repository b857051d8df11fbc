//! A connection that publishes at QoS 0: whoever publishes writes to the socket.
//!
//! Without acknowledgements there is nothing to keep of a message, so it need not pass through the task that reads.
//! [`Publisher::publish`] encodes it, and [`Publisher::flush`] writes on the caller's thread what the socket takes at
//! once. What it does not take is written while [`Qos0Connection::next`] is polled, and so is what is published while
//! that hands out messages: the answers to those that came together go out together.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker, ready};
use std::thread::{self, ThreadId};
use std::time::Duration;

use bytes::{Buf, BufMut, BytesMut};
use futures_util::{SinkExt, StreamExt};
use rumqttc::v5::mqttbytes::v5::{Packet, Subscribe, SubscribeReasonCode};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf, ReadHalf, WriteHalf, split};
use tokio::time::{Instant, Interval, Sleep, sleep_until, timeout};
use tokio_util::codec::Decoder;

use super::codec::Codec;
use super::event_loop::{connect, keep_alive, pings};
use super::{connected, filters, message, rumqttc_options};
use crate::stream::Stream;
use crate::{Connected, ConnectionError, ConnectionOptions, Message, Reason, Subscription, Version};

/// Messages that are handed out before what was published meanwhile is written.
const MAX_BATCH: usize = 8;
/// Bytes taken from the socket at a time. On the stack, so that a connection needs none of its own to listen.
const READ_SIZE: usize = 16 << 10;
/// First byte of a PUBLISH at QoS 0 that is not retained (MQTT 5, section 3.3.1).
const PUBLISH: u8 = 0x30;
/// A PUBACK without reason code, up to its packet identifier (MQTT 5, section 3.4.2.1).
const PUBACK: [u8; 2] = [0x40, 2];
/// Packets that are nothing but a header.
const PINGREQ: [u8; 2] = [0xC0, 0];
const DISCONNECT: [u8; 2] = [0xE0, 0];

/// A connection whose messages come when it is polled. Its end is final. Dropped, it is closed.
pub struct Qos0Connection {
    reader: ReadHalf<Box<dyn Stream>>,
    codec: Codec,
    /// Received and not yet decoded.
    input: BytesMut,
    /// Messages that came before the connection was handed out.
    early: VecDeque<Message>,
    /// Messages that were handed out since something was written.
    handed_out: usize,
    output: Arc<Output>,
    pings: Option<Interval>,
    /// PINGREQ was sent, and is not answered.
    is_asked: bool,
    write_timeout: Option<Duration>,
    /// Ends when the broker has taken nothing for too long.
    stalled: Option<Pin<Box<Sleep>>>,
}

/// Publishes on a connection, as long as that lives, and into nothing afterwards. Clones are handles to the same one.
#[derive(Clone)]
pub struct Publisher(Arc<Output>);

/// What the connection and its publishers share.
struct Output(Mutex<Unwritten>);

struct Unwritten {
    /// `None` once the connection is gone.
    writer: Option<WriteHalf<Box<dyn Stream>>>,
    bytes: BytesMut,
    /// A layer above the socket, such as TLS, may have kept back some of what it took.
    unflushed: bool,
    /// Since when the broker has taken nothing, though there was something to take.
    stalled: Option<Instant>,
    /// Of the task that polls the connection, while that waits.
    waker: Option<Waker>,
    /// The thread on which that task handles messages; it writes afterwards.
    handling: Option<ThreadId>,
}

/// A connection that was made.
pub struct Opened {
    /// What reads.
    pub connection: Qos0Connection,
    /// What publishes.
    pub publisher: Publisher,
    /// What the broker says of itself.
    pub connected: Connected,
    /// Whether it has granted all subscriptions.
    pub is_subscribed: bool,
}

impl Qos0Connection {
    /// Connects by MQTT 5, and makes these subscriptions. What of the options is about messages in flight, sessions and
    /// queues does not count.
    ///
    /// # Errors
    ///
    /// When no connection comes about in time.
    pub async fn open(
        options: &ConnectionOptions,
        subscriptions: &[Subscription],
    ) -> Result<Opened, ConnectionError> {
        let longest = Duration::from_secs(options.connect_timeout_seconds());
        timeout(longest, open(options, subscriptions)).await.map_err(|_| ConnectionError::TimedOut)?
    }

    /// Waits for the next message. What waits to be written is written meanwhile. It may be dropped half way.
    ///
    /// # Errors
    ///
    /// When the connection has ended.
    pub async fn next(&mut self) -> Result<Message, ConnectionError> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// Writes what waits, says DISCONNECT, and waits until the broker closes the connection: closed with something
    /// unread it would be reset, and the last words could be lost with it.
    ///
    /// # Errors
    ///
    /// When the connection has ended before all was written.
    pub async fn disconnect(mut self) -> Result<(), ConnectionError> {
        self.output.lock().bytes.extend_from_slice(&DISCONNECT);
        poll_fn(|cx| self.output.lock().poll_write(cx)).await?;
        let mut rest = [0; 1024];
        while let Ok(1..) = self.reader.read(&mut rest).await {}
        Ok(())
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Message, ConnectionError>> {
        loop {
            if self.handed_out < MAX_BATCH
                && let Some(message) =
                    self.early.pop_front().map_or_else(|| self.decode(), |it| Ok(Some(it)))?
            {
                if self.handed_out == 0 {
                    self.output.lock().handling = Some(thread::current().id());
                }
                self.handed_out += 1;
                return Poll::Ready(Ok(message));
            }
            self.write(cx)?;
            if std::mem::take(&mut self.handed_out) == MAX_BATCH {
                continue;
            }
            let mut buffer = [MaybeUninit::uninit(); READ_SIZE];
            let mut buffer = ReadBuf::uninit(&mut buffer);
            if pin!(&mut self.reader).poll_read(cx, &mut buffer)?.is_ready() {
                if buffer.filled().is_empty() {
                    return Poll::Ready(Err(ConnectionError::Closed));
                }
                self.input.extend_from_slice(buffer.filled());
                continue;
            }
            ready!(self.poll_ping(cx))?;
        }
    }

    /// Decodes packets up to the next message.
    fn decode(&mut self) -> Result<Option<Message>, ConnectionError> {
        while !self.input.is_empty() {
            let Some(packet) = self.codec.decode(&mut self.input)? else { return Ok(None) };
            match packet {
                Packet::Publish(publish) => {
                    if publish.pkid != 0 {
                        self.output.lock().acknowledge(publish.pkid);
                    }
                    return Ok(Some(message(publish)));
                }
                Packet::PingResp(_) => self.is_asked = false,
                Packet::Disconnect(disconnect) => {
                    let text = disconnect.properties.and_then(|properties| properties.reason_string);
                    let code = disconnect.reason_code.into();
                    return Err(ConnectionError::Disconnected(Reason { code, text }));
                }
                Packet::PubAck(_) | Packet::SubAck(_) => {}
                _ => return Err(ConnectionError::protocol(Version::V5, "a packet that was not asked for")),
            }
        }
        // Its memory is given back while nothing comes.
        self.input = BytesMut::new();
        Ok(None)
    }

    /// Writes what waits, as far as the broker takes it.
    fn write(&mut self, cx: &mut Context<'_>) -> Result<(), ConnectionError> {
        let stalled = {
            let mut output = self.output.lock();
            output.handling = None;
            if output.waker.as_ref().is_none_or(|waker| !waker.will_wake(cx.waker())) {
                output.waker = Some(cx.waker().clone());
            }
            if let Poll::Ready(written) = output.poll_write(cx) {
                written?;
            }
            output.stalled
        };
        let Some((since, longest)) = stalled.zip(self.write_timeout) else {
            self.stalled = None;
            return Ok(());
        };
        let timer = self.stalled.get_or_insert_with(|| Box::pin(sleep_until(since + longest)));
        if timer.deadline() != since + longest {
            timer.as_mut().reset(since + longest);
        }
        if timer.as_mut().poll(cx).is_ready() { Err(ConnectionError::Stalled) } else { Ok(()) }
    }

    /// Asks whether the broker is there, when it is time to.
    fn poll_ping(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ConnectionError>> {
        let Some(pings) = &mut self.pings else { return Poll::Pending };
        ready!(pings.poll_tick(cx));
        if self.is_asked {
            return Poll::Ready(Err(ConnectionError::TimedOut));
        }
        self.is_asked = true;
        self.output.lock().bytes.extend_from_slice(&PINGREQ);
        Poll::Ready(Ok(()))
    }
}

async fn open(
    options: &ConnectionOptions,
    subscriptions: &[Subscription],
) -> Result<Opened, ConnectionError> {
    let mqtt = rumqttc_options(options);
    let (mut packets, connack) = connect(&mqtt, options.tls.as_ref()).await?;
    let pings = pings(keep_alive(&mqtt, &connack));
    let subscribe = Subscribe { pkid: 1, ..Subscribe::new_many(filters(subscriptions), None) };
    packets.send(Packet::Subscribe(subscribe)).await?;
    let mut early = VecDeque::new();
    let mut acknowledgements = BytesMut::new();
    let is_subscribed = loop {
        match packets.next().await.ok_or(ConnectionError::Closed)?? {
            Packet::SubAck(suback) => {
                break suback.return_codes.iter().all(|code| matches!(code, SubscribeReasonCode::Success(_)));
            }
            Packet::Publish(publish) => {
                if publish.pkid != 0 {
                    put_acknowledgement(publish.pkid, &mut acknowledgements);
                }
                early.push_back(message(publish));
            }
            _ => return Err(ConnectionError::protocol(Version::V5, "another packet than SUBACK")),
        }
    };
    let parts = packets.into_parts();
    let (reader, writer) = split(parts.io);
    let output = Arc::new(Output(Mutex::new(Unwritten {
        writer: Some(writer),
        bytes: acknowledgements,
        unflushed: false,
        stalled: None,
        waker: None,
        handling: None,
    })));
    let connection = Qos0Connection {
        reader,
        codec: parts.codec,
        input: parts.read_buf,
        early,
        handed_out: 0,
        output: output.clone(),
        pings,
        is_asked: false,
        write_timeout: options.write_timeout,
        stalled: None,
    };
    Ok(Opened { connection, publisher: Publisher(output), connected: connected(connack), is_subscribed })
}

impl Drop for Qos0Connection {
    fn drop(&mut self) {
        let mut output = self.output.lock();
        (output.writer, output.bytes, output.waker) = (None, BytesMut::new(), None);
    }
}

impl Publisher {
    /// Has a message written by the next [`flush`](Self::flush), whosever that is, or when the connection is polled.
    /// One that is no packet, because its topic or all of it is too long, is not sent.
    pub fn publish(&self, topic: &str, payload: &[u8]) {
        let mut output = self.0.lock();
        if output.writer.is_some() {
            put_publish(topic, payload, &mut output.bytes);
        }
    }

    /// Writes what was published, as far as the socket takes it at once; the connection's task has the rest. What that
    /// task publishes itself while it handles messages it writes when it polls the connection again.
    pub fn flush(&self) {
        let mut output = self.0.lock();
        if output.bytes.is_empty() || output.handling == Some(thread::current().id()) {
            return;
        }
        // The task hears of an error by its own attempt.
        if !matches!(output.poll_write(&mut Context::from_waker(Waker::noop())), Poll::Ready(Ok(()))) {
            output.wake();
        }
    }

    /// Has the connection's task write what was published.
    pub fn wake(&self) {
        let mut output = self.0.lock();
        if output.handling != Some(thread::current().id()) {
            output.wake();
        }
    }

    /// Bytes that wait to be written.
    pub fn unwritten(&self) -> usize {
        self.0.lock().bytes.len()
    }
}

impl Output {
    fn lock(&self) -> MutexGuard<'_, Unwritten> {
        self.0.lock().expect("no panic while it is held")
    }
}

impl Unwritten {
    /// Ready when all is written.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ConnectionError>> {
        let written = self.poll_send(cx);
        match &written {
            Poll::Pending => _ = self.stalled.get_or_insert_with(Instant::now),
            Poll::Ready(_) => self.stalled = None,
        }
        written
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ConnectionError>> {
        let Some(writer) = &mut self.writer else { return Poll::Ready(Ok(())) };
        while !self.bytes.is_empty() {
            match ready!(Pin::new(&mut *writer).poll_write(cx, &self.bytes))? {
                0 => return Poll::Ready(Err(ConnectionError::Closed)),
                count => self.bytes.advance(count),
            }
            (self.unflushed, self.stalled) = (true, None);
        }
        if self.unflushed {
            self.bytes = BytesMut::new();
            ready!(Pin::new(writer).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn acknowledge(&mut self, packet_id: u16) {
        put_acknowledgement(packet_id, &mut self.bytes);
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

fn put_acknowledgement(packet_id: u16, bytes: &mut BytesMut) {
    bytes.extend_from_slice(&PUBACK);
    bytes.put_u16(packet_id);
}

/// Appends a PUBLISH at QoS 0 without properties, if there is such a packet (MQTT 5, section 3.3).
fn put_publish(topic: &str, payload: &[u8], bytes: &mut BytesMut) {
    let Ok(topic_length) = u16::try_from(topic.len()) else { return };
    // With the lengths of the topic and of the properties.
    let mut length = 2 + topic.len() + 1 + payload.len();
    if length + 5 > crate::MAX_PACKET {
        return;
    }
    bytes.reserve(length + 5);
    bytes.put_u8(PUBLISH);
    loop {
        let low = (length & 0x7F) as u8;
        length >>= 7;
        bytes.put_u8(if length > 0 { low | 0x80 } else { low });
        if length == 0 {
            break;
        }
    }
    bytes.put_u16(topic_length);
    bytes.extend_from_slice(topic.as_bytes());
    bytes.put_u8(0);
    bytes.extend_from_slice(payload);
}
