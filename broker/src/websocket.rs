//! MQTT on WebSocket (section 6): the handshake, and frames taken apart and made as the bytes come, so that nobody
//! has to be trusted with the memory for a whole one.

use std::{
    io,
    mem::MaybeUninit,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::{
    accept_hdr_async_with_config,
    tungstenite::{
        self,
        handshake::server::{ErrorResponse, Request, Response},
        http::{HeaderMap, HeaderValue, StatusCode, header},
        protocol::{
            WebSocketConfig,
            frame::{
                CloseFrame, Frame, FrameHeader,
                coding::{CloseCode, Control, Data, OpCode},
            },
        },
    },
};

use crate::{core::clip, error::Error, tls::Tls};

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
    pub(crate) async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        socket: S,
        max_frame: usize,
    ) -> io::Result<(Frames<S>, Option<String>)> {
        let mut judged = Ok(None);
        // Only the handshake is left to this; it reads nothing beyond it.
        let config = WebSocketConfig::default().read_buffer_size(0).write_buffer_size(0);
        #[expect(clippy::result_large_err, reason = "the handshake wants it so")]
        let answer = |request: &Request, mut response: Response| {
            judged = self.judge(request.headers());
            if let Err(refused) = &judged {
                return Err(refused.response());
            }
            let subprotocol = HeaderValue::from_static(SUBPROTOCOL);
            response.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, subprotocol);
            Ok(response)
        };
        let head = Head { socket, left: MAX_HEAD };
        let accepted = accept_hdr_async_with_config(head, answer, Some(config)).await;
        let invalid = |error| io::Error::new(io::ErrorKind::InvalidData, error);
        match (judged, accepted) {
            (Ok(origin), Ok(accepted)) => Ok((Frames::new(accepted.into_inner().socket, max_frame), origin)),
            (_, Err(tungstenite::Error::Io(error))) => Err(error),
            (Err(refused), _) => Err(invalid(refused.why)),
            (_, Err(error)) => Err(invalid(error.to_string())),
        }
    }

    /// The origin that a request names, if it may come in.
    fn judge(&self, headers: &HeaderMap) -> Result<Option<String>, Refused> {
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
        Ok(known.cloned())
    }
}

/// Why a request is refused.
struct Refused {
    status: StatusCode,
    why: String,
}

impl Refused {
    fn response(&self) -> ErrorResponse {
        let mut response = ErrorResponse::new(None);
        *response.status_mut() = self.status;
        response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        response
    }
}

/// A socket of which only so much is read.
struct Head<S> {
    socket: S,
    left: usize,
}

impl<S: AsyncRead + Unpin> AsyncRead for Head<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.left == 0 {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "HTTP request too long")));
        }
        let mut bytes = [0; 1024];
        let most = self.left.min(buffer.remaining()).min(bytes.len());
        let mut bytes = ReadBuf::new(&mut bytes[..most]);
        ready!(Pin::new(&mut self.socket).poll_read(cx, &mut bytes))?;
        buffer.put_slice(bytes.filled());
        self.left -= bytes.filled().len();
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Head<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
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
    fn new(socket: S, max_frame: usize) -> Self {
        Self {
            socket,
            max_frame,
            input: BytesMut::new(),
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
