//! MQTT on WebSocket (section 6): the handshake, and frames that are decoded and encoded as the bytes come, so
//! that memory for a whole one is given to no client.

use std::{
    io,
    mem::MaybeUninit,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    time::timeout,
};
use tungstenite::{
    error::ProtocolError,
    handshake::{
        machine::TryParse,
        server::{Request, Response, create_response, write_response},
    },
    http::{self, HeaderValue, StatusCode, header},
    protocol::frame::{
        CloseFrame, Frame, FrameHeader,
        coding::{CloseCode, Control, Data, OpCode},
    },
};

use crate::{
    error::Error,
    throttle::clip,
    transport::{protocol_mismatch, stream::CLOSE_TIMEOUT, tls::Tls},
};

/// Longest request of a WebSocket handshake, in bytes.
const MAX_HEAD: usize = 8 * 1024;
/// Bytes taken from the socket at a time.
const READ_SIZE: usize = 8 * 1024;
/// Payload of the largest frame that is sent. A longer packet is spread over several.
const FRAME_SIZE: usize = 32 * 1024;
/// Frames that wait for the socket, in bytes: with more, nothing is taken to be sent.
const MAX_UNSENT: usize = 64 * 1024;
/// Longest payload of a control frame (RFC 6455, section 5.5).
const MAX_CONTROL: u64 = 125;
/// MQTT's name among the protocols of WebSocket [MQTT-6.0.0-3].
const SUBPROTOCOL: &str = "mqtt";
/// What people are told who look at the port with a browser.
const HINT: &str = "This is an MQTT broker, over WebSocket: a client's URL begins with ws:// or wss://, and its \
                    subprotocol is mqtt.";

/// MQTT on WebSocket, on any path.
#[derive(Clone, Debug, Default)]
pub struct WebSocket {
    /// The origins of the web pages that may connect, each as a browser says it: `https://example.org`,
    /// `http://localhost:8080`; others get 403. Any page that a browser shows can reach whatever its machine can,
    /// loopback as well, so this is what stands between the page and the broker. A client that names no origin is
    /// no browser, and allowed.
    pub origins: Vec<String>,
    /// For `wss://`; without it everyone on the way can read and change what is sent.
    pub tls: Option<Tls>,
}

impl WebSocket {
    /// An origin that no browser can send is a mistake, better found now.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let possible = |origin: &String| {
            let host = origin.split_once("://").map_or("", |(_, host)| host);
            !host.is_empty() && !host.contains('/') && !origin.contains(char::is_uppercase)
        };
        if self.origins.iter().all(possible) {
            Ok(())
        } else {
            Err(Error::Config("an allowed origin must be scheme://host or scheme://host:port, in lower case"))
        }
    }

    /// Shakes hands; returns the origin that the client named. Frames of more than `max_frame` bytes are refused.
    ///
    /// A request that is refused is answered with a status of HTTP and a line for people, since a browser may be what
    /// shows it; what is no HTTP is not answered.
    pub(crate) async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        mut socket: S,
        max_frame: usize,
    ) -> io::Result<(Frames<S>, Option<String>)> {
        let mut input = BytesMut::new();
        let judged = match read_request(&mut socket, &mut input).await? {
            Ok(request) => self.judge(&request),
            Err(refused) => Err(refused),
        };
        match judged {
            Ok((response, origin)) => {
                socket.write_all(&head(&response)?).await?;
                socket.flush().await?;
                Ok((Frames::new(socket, input, max_frame), origin))
            }
            Err(refused) => {
                let _ = timeout(CLOSE_TIMEOUT, refused.answer(&mut socket)).await;
                Err(invalid_data(refused.why))
            }
        }
    }

    /// The answer to a request, and the origin that it names, if it may come in.
    fn judge(&self, request: &Request) -> Result<(Response, Option<String>), Refused> {
        let mut response = create_response(request).map_err(Refused::by_protocol)?;
        let headers = request.headers();
        let mut origins = headers.get_all(header::ORIGIN).iter();
        let mut known = None;
        if let Some(origin) = origins.next() {
            known = self.origins.iter().find(|allowed| origin == allowed.as_str());
            if known.is_none() || origins.next().is_some() {
                let why = format!("origin {} is not allowed", clip(&format!("{origin:?}")));
                return Err(Refused { status: StatusCode::FORBIDDEN, why });
            }
        }
        let offered = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
        let mut offered = offered.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
        if !offered.any(|protocol| protocol.trim() == SUBPROTOCOL) {
            let why = format!("subprotocol {SUBPROTOCOL} is not offered");
            return Err(Refused { status: StatusCode::BAD_REQUEST, why });
        }
        let subprotocol = HeaderValue::from_static(SUBPROTOCOL);
        response.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, subprotocol);
        Ok((response, known.cloned()))
    }
}

/// Reads a request into `input`, in pieces of any size; what came after it is left there.
async fn read_request<S: AsyncRead + Unpin>(
    socket: &mut S,
    input: &mut BytesMut,
) -> io::Result<Result<Request, Refused>> {
    loop {
        let room = MAX_HEAD - input.len();
        if room == 0 {
            let why = format!("the request has more than {MAX_HEAD} bytes");
            return Ok(Err(Refused { status: StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, why }));
        }
        let known = input.len();
        if socket.take(room as u64).read_buf(input).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(other) = protocol_mismatch::on_websocket(input) {
            return Err(invalid_data(other));
        }
        // It ends with a line, so it is looked at once a line, of which it may have some hundred.
        if !input[known..].contains(&b'\n') {
            continue;
        }
        match Request::try_parse(input) {
            Ok(Some((size, request))) => {
                input.advance(size);
                return Ok(Ok(request));
            }
            Ok(None) => {}
            Err(error) => return Ok(Err(Refused::by_protocol(error))),
        }
    }
}

fn invalid_data(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// The bytes of a response without a body.
fn head<T>(response: &http::Response<T>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    write_response(&mut bytes, response).map_err(|error| invalid_data(error.to_string()))?;
    Ok(bytes)
}

/// Why a request is refused.
struct Refused {
    status: StatusCode,
    why: String,
}

impl Refused {
    /// What is no request for WebSocket, or for another version of it, could be one (426); all else could not (400).
    fn by_protocol(error: tungstenite::Error) -> Self {
        use ProtocolError::{
            MissingConnectionUpgradeHeader, MissingSecWebSocketVersionHeader, MissingUpgradeWebSocketHeader,
        };
        let status = match &error {
            tungstenite::Error::Protocol(
                MissingConnectionUpgradeHeader
                | MissingUpgradeWebSocketHeader
                | MissingSecWebSocketVersionHeader,
            ) => StatusCode::UPGRADE_REQUIRED,
            _ => StatusCode::BAD_REQUEST,
        };
        Self { status, why: error.to_string() }
    }

    /// Answers, and reads until the other end has closed: closing with unread input could take the answer back.
    async fn answer<S: AsyncRead + AsyncWrite + Unpin>(&self, socket: &mut S) -> io::Result<()> {
        let body = format!("{}. {HINT}\n", self.why);
        let mut response = http::Response::new(());
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_LENGTH, body.len().into());
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        if self.status == StatusCode::UPGRADE_REQUIRED {
            headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade, close"));
            headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
            headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        }
        socket.write_all(&head(&response)?).await?;
        socket.write_all(body.as_bytes()).await?;
        socket.shutdown().await?;
        let mut thrown_away = [0; 1024];
        while socket.read(&mut thrown_away).await? > 0 {}
        Ok(())
    }
}

/// The bytes in the binary frames of a connection, in both directions. Pings are answered.
pub(crate) struct Frames<S> {
    socket: S,
    max_frame: usize,
    /// Received and not yet taken apart.
    input: BytesMut,
    /// Frames to be sent.
    output: BytesMut,
    /// The data frame in whose payload `input` stands.
    frame: Option<Payload>,
    /// The last data frame was not the last of its message.
    fragmented: bool,
    state: State,
}

/// What is still to come of a frame's payload.
struct Payload {
    left: u64,
    mask: [u8; 4],
    /// Bytes of it that came already, modulo the length of the mask.
    at: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// Our Close frame is sent, or about to be: no frame follows it.
    Closing,
    /// The client broke the rules of WebSocket: what it sends is not looked at any more.
    Broken,
    /// The client's Close frame came: it sends no more.
    Closed,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Frames<S> {
    /// `input` came after the handshake.
    fn new(socket: S, input: BytesMut, max_frame: usize) -> Self {
        Self {
            socket,
            max_frame,
            input,
            output: BytesMut::new(),
            frame: None,
            fragmented: false,
            state: State::Open,
        }
    }

    /// Takes the next frame's header from the input, and the whole of a control frame; false if more must come.
    fn next_frame(&mut self) -> Result<bool, (CloseCode, &'static str)> {
        let violation = |what| Err((CloseCode::Protocol, what));
        let mut cursor = io::Cursor::new(&self.input);
        let (header, length) = match FrameHeader::parse(&mut cursor) {
            Ok(Some(parsed)) => parsed,
            Ok(None) => return Ok(false),
            Err(_) => return violation("malformed WebSocket frame"),
        };
        let header_length = cursor.position() as usize;
        let Some(mask) = header.mask else { return violation("WebSocket frame without mask") };
        if header.rsv1 || header.rsv2 || header.rsv3 {
            return violation("WebSocket frame of an extension that was not agreed on");
        }
        match header.opcode {
            OpCode::Control(_) if length > MAX_CONTROL || !header.is_final => {
                violation("WebSocket control frame that is too long or divided")
            }
            OpCode::Control(control) => {
                let end = header_length + length as usize;
                if self.input.len() < end {
                    return Ok(false);
                }
                let mut payload = self.input.split_to(end);
                payload.advance(header_length);
                unmask(&mut payload, mask, 0);
                self.control(control, payload.freeze());
                Ok(true)
            }
            OpCode::Data(Data::Text) => Err((CloseCode::Unsupported, "WebSocket text frame")),
            OpCode::Data(data) if (data == Data::Continue) != self.fragmented => {
                violation("WebSocket frame that does not continue the one before")
            }
            OpCode::Data(_) if length > self.max_frame as u64 => {
                Err((CloseCode::Size, "WebSocket frame too large"))
            }
            OpCode::Data(_) => {
                self.input.advance(header_length);
                self.fragmented = !header.is_final;
                self.frame = Some(Payload { left: length, mask, at: 0 }).filter(|frame| frame.left > 0);
                Ok(true)
            }
        }
    }

    fn control(&mut self, control: Control, payload: Bytes) {
        match control {
            // Whoever sends pings and does not read gets no more answers than this.
            Control::Ping if self.state == State::Open && self.output.len() < MAX_UNSENT => {
                self.send(Frame::pong(payload));
            }
            Control::Close => {
                if self.state == State::Open {
                    self.send(Frame::close(None));
                }
                self.state = State::Closed;
            }
            _ => {}
        }
    }

    fn send(&mut self, frame: Frame) {
        frame.format(&mut (&mut self.output).writer()).expect("memory takes all that is written");
    }

    /// Sends what waits, as far as the socket takes it.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.output.is_empty() {
            match ready!(Pin::new(&mut self.socket).poll_write(cx, &self.output))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                sent => self.output.advance(sent),
            }
        }
        self.output = BytesMut::new();
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    /// Hands on what there is of the payload; nothing if there is none.
    fn take_payload(&mut self, buffer: &mut ReadBuf<'_>) {
        let Some(frame) = &mut self.frame else { return };
        let left = usize::try_from(frame.left).unwrap_or(usize::MAX);
        let length = self.input.len().min(buffer.remaining()).min(left);
        unmask(&mut self.input[..length], frame.mask, frame.at);
        buffer.put_slice(&self.input[..length]);
        self.input.advance(length);
        frame.at = (frame.at + length) % frame.mask.len();
        frame.left -= length as u64;
        if frame.left == 0 {
            self.frame = None;
        }
    }
}

fn unmask(bytes: &mut [u8], mut mask: [u8; 4], at: usize) {
    mask.rotate_left(at);
    for four in bytes.chunks_mut(mask.len()) {
        for (byte, mask) in four.iter_mut().zip(mask) {
            *byte ^= mask;
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Frames<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            // Answers to control frames; the socket wakes the task when it can take the rest.
            if !this.output.is_empty()
                && let Poll::Ready(Err(error)) = this.poll_send(cx)
            {
                return Poll::Ready(Err(error));
            }
            match this.state {
                // Read only to be thrown away, until the other end closes.
                State::Broken => return Pin::new(&mut this.socket).poll_read(cx, buffer),
                State::Closed => return Poll::Ready(Ok(())),
                State::Open | State::Closing => {}
            }
            if this.frame.is_some() && !this.input.is_empty() {
                this.take_payload(buffer);
                return Poll::Ready(Ok(()));
            }
            if this.frame.is_none() {
                match this.next_frame() {
                    Ok(true) => continue,
                    Ok(false) => {}
                    Err((code, what)) => {
                        if this.state == State::Open {
                            this.send(Frame::close(Some(CloseFrame { code, reason: what.into() })));
                        }
                        this.state = State::Broken;
                        this.input = BytesMut::new();
                        let _ = this.poll_send(cx);
                        return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, what)));
                    }
                }
            }
            if this.input.is_empty() {
                this.input = BytesMut::new(); // gives its memory back
            }
            let mut bytes = [MaybeUninit::uninit(); READ_SIZE];
            let mut bytes = ReadBuf::uninit(&mut bytes);
            ready!(Pin::new(&mut this.socket).poll_read(cx, &mut bytes))?;
            if bytes.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            this.input.extend_from_slice(bytes.filled());
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Frames<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.state != State::Open {
            return Poll::Ready(Ok(bytes.len())); // nobody would hear it
        }
        if self.output.len() >= MAX_UNSENT {
            ready!(self.poll_send(cx))?;
        }
        let part = &bytes[..bytes.len().min(FRAME_SIZE)];
        let header = FrameHeader { opcode: OpCode::Data(Data::Binary), ..FrameHeader::default() };
        let mut output = (&mut self.output).writer();
        header.format(part.len() as u64, &mut output).expect("memory takes all that is written");
        self.output.extend_from_slice(part);
        if let Poll::Ready(Err(error)) = self.poll_send(cx) {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(part.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_send(cx)
    }

    /// Closes our direction; what the client still sends, its Close frame at last, is read until it closes too.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.state == State::Open {
            self.send(Frame::close(Some(CloseFrame { code: CloseCode::Normal, reason: "".into() })));
            self.state = State::Closing;
        }
        ready!(self.poll_send(cx))?;
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
