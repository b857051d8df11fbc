//! The buffers between a socket and its packets. Both are empty, and hold no memory, while nothing happens.

use std::{
    io,
    mem::MaybeUninit,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Buf, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf},
    time::Instant,
};

/// Bytes taken from the socket at a time. On the stack, so that connections need none of their own to listen.
const READ_SIZE: usize = 16 * 1024;

pub(crate) struct Stream<S> {
    socket: S,
    /// Received and not yet handled.
    pub input: BytesMut,
    /// To be sent.
    pub output: BytesMut,
    /// Since when the other end has taken nothing, though there was something to take.
    pub stalled: Option<Instant>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Stream<S> {
    pub fn new(socket: S) -> Self {
        Self { socket, input: BytesMut::new(), output: BytesMut::new(), stalled: None }
    }

    /// Appends what has come to `input`; 0 at the end of the stream.
    pub fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut buffer = [MaybeUninit::uninit(); READ_SIZE];
        let mut buffer = ReadBuf::uninit(&mut buffer);
        std::task::ready!(Pin::new(&mut self.socket).poll_read(cx, &mut buffer))?;
        self.input.extend_from_slice(buffer.filled());
        Poll::Ready(Ok(buffer.filled().len()))
    }

    /// Sends `output`; ready when all of it is sent.
    pub fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.output.is_empty() {
            match Pin::new(&mut self.socket).poll_write(cx, &self.output) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(sent)) => {
                    self.output.advance(sent);
                    self.stalled = None;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    self.stalled.get_or_insert_with(Instant::now);
                    return Poll::Pending;
                }
            }
        }
        self.output = BytesMut::new();
        // A socket does nothing here; a layer above it, such as TLS, may have kept something back.
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    /// Gives back the memory of `input` once all of it is handled.
    pub fn handled(&mut self) {
        if self.input.is_empty() {
            self.input = BytesMut::new();
        }
    }

    /// Sends what is left and says goodbye, then waits for the other end to do the same: closing a socket with
    /// unread input would reset the connection, and the last packet could be lost with it.
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
