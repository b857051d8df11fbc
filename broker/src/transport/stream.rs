//! The buffers between a socket and its packets. Both are empty, and hold no memory, while nothing happens.

use std::{
    io,
    mem::MaybeUninit,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf},
    time::Instant,
};

use crate::context::BrokerContext;

/// How long a client has to take the last packet and close.
pub(crate) const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// Bytes taken from the socket at a time. On the stack, so that connections need none of their own to listen.
const READ_SIZE: usize = 16 * 1024;

pub(crate) struct Stream<S> {
    socket: S,
    /// Whose counters have what passes here.
    context: Arc<BrokerContext>,
    /// Received and not yet handled.
    pub input: BytesMut,
    /// Bytes to come that are thrown away before any goes into `input`.
    pub skip: usize,
    /// To be sent.
    pub output: BytesMut,
    /// A layer above the socket, such as TLS, may have kept back some of what it took.
    unflushed: bool,
    /// Since when the other end has taken nothing, though there was something to take.
    pub stalled: Option<Instant>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Stream<S> {
    pub fn new(socket: S, context: Arc<BrokerContext>) -> Self {
        Self {
            socket,
            context,
            input: BytesMut::new(),
            skip: 0,
            output: BytesMut::new(),
            unflushed: false,
            stalled: None,
        }
    }

    /// Appends what has come to `input`, but for what is to be skipped; returns how many bytes came, 0 at the end of
    /// the stream.
    pub fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut buffer = [MaybeUninit::uninit(); READ_SIZE];
        let mut buffer = ReadBuf::uninit(&mut buffer);
        ready!(Pin::new(&mut self.socket).poll_read(cx, &mut buffer))?;
        let skipped = self.skip.min(buffer.filled().len());
        self.skip -= skipped;
        self.input.extend_from_slice(&buffer.filled()[skipped..]);
        self.context.counters.received.bytes(buffer.filled().len());
        Poll::Ready(Ok(buffer.filled().len()))
    }

    /// Whether there is something to be sent.
    pub fn unsent(&self) -> bool {
        !self.output.is_empty() || self.unflushed
    }

    /// Sends `output`; ready when all of it is sent.
    pub fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let sent = self.poll_send(cx);
        match sent {
            Poll::Pending => _ = self.stalled.get_or_insert_with(Instant::now),
            Poll::Ready(_) => self.stalled = None,
        }
        sent
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.output.is_empty() {
            match ready!(Pin::new(&mut self.socket).poll_write(cx, &self.output))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                sent => {
                    self.output.advance(sent);
                    self.context.counters.sent.bytes(sent);
                }
            }
            self.unflushed = true;
            self.stalled = None;
        }
        self.output = BytesMut::new();
        ready!(Pin::new(&mut self.socket).poll_flush(cx))?;
        self.unflushed = false;
        Poll::Ready(Ok(()))
    }

    /// Gives back the memory of `input` once all of it is handled.
    pub fn handled(&mut self) {
        if self.input.is_empty() {
            self.input = BytesMut::new();
        }
    }

    /// Says goodbye, which plain TCP does by itself when the socket is dropped.
    pub async fn shutdown(&mut self) -> io::Result<()> {
        self.socket.shutdown().await
    }

    /// Sends what is left and says goodbye, then waits for the other end to do the same: closing a socket
    /// with unread input would reset the connection, and the last packet could be lost with it.
    pub async fn close(&mut self) -> io::Result<()> {
        std::future::poll_fn(|cx| self.poll_write(cx)).await?;
        self.socket.shutdown().await?;
        loop {
            self.input = BytesMut::new();
            if std::future::poll_fn(|cx| self.poll_read(cx)).await? == 0 {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt, BufStream};

    use super::*;
    use crate::config::Config;

    #[tokio::test]
    async fn what_a_layer_above_the_socket_keeps_back_is_still_to_be_sent() {
        let (socket, mut other_end) = tokio::io::duplex(4);
        let context = Arc::new(BrokerContext::new(Config::default(), None));
        let mut stream = Stream::new(BufStream::new(socket), context);
        stream.output.extend_from_slice(b"ten bytes.");
        let mut received = [0; 4];
        for expected in [b"ten ", b"byte"] {
            // The layer has taken all of it, but the socket only so much.
            assert!(poll_fn(|cx| Poll::Ready(stream.poll_write(cx))).await.is_pending());
            assert!(stream.output.is_empty() && stream.unsent() && stream.stalled.is_some());
            other_end.read_exact(&mut received).await.unwrap();
            assert_eq!(&received, expected);
        }
        poll_fn(|cx| stream.poll_write(cx)).await.unwrap();
        assert!(!stream.unsent() && stream.stalled.is_none());
        assert_eq!(stream.context.counters.snapshot().bytes_sent, 10);
    }
}
