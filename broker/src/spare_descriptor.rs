//! A descriptor that is kept for when there is no other. Given up for a moment, it lets a connection be accepted and
//! closed: its client hears at once that it is not served, where it would wait in the kernel's queue for as long as
//! descriptors lack.

use std::{
    fs::File,
    io,
    net::SocketAddr,
    pin::pin,
    task::{Context, Poll, Waker},
};

use tokio::net::TcpListener;

/// What is always there to be opened.
const FILE: &str = "/dev/null";

/// Linux's numbers for "too many open files": of the whole system, and of this process.
const NO_DESCRIPTOR: [i32; 2] = [23, 24];

/// Whether this process, or the system, has no descriptor left.
pub(crate) fn is_lack_of_descriptors(error: &io::Error) -> bool {
    error.raw_os_error().is_some_and(|number| NO_DESCRIPTOR.contains(&number))
}

pub(crate) struct SpareDescriptor(Option<File>);

impl SpareDescriptor {
    pub fn new() -> SpareDescriptor {
        SpareDescriptor(File::open(FILE).ok())
    }

    /// Closes a connection that waits, and says whose it was; `None` where none does, or somebody else was faster and
    /// has the descriptor now.
    pub fn refuse(&mut self, listener: &TcpListener) -> Option<SocketAddr> {
        self.0 = None;
        let accepted = pin!(listener.accept()).poll(&mut Context::from_waker(Waker::noop()));
        let peer = match accepted {
            Poll::Ready(Ok((_socket, peer))) => Some(peer),
            Poll::Ready(Err(_)) | Poll::Pending => None,
        };
        self.0 = File::open(FILE).ok();
        peer
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::{io::AsyncReadExt, net::TcpStream};

    #[tokio::test]
    async fn a_connection_that_waits_is_closed() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut spare = SpareDescriptor::new();
        assert_eq!(spare.refuse(&listener), None);
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        // The listener has to hear of it first.
        let peer = loop {
            match spare.refuse(&listener) {
                Some(peer) => break peer,
                None => tokio::task::yield_now().await,
            }
        };
        assert_eq!(peer, client.local_addr().unwrap());
        assert_eq!(client.read(&mut [0]).await.unwrap(), 0, "closed");
    }

    #[test]
    fn a_lack_of_descriptors_is_told_from_other_errors() {
        assert!(is_lack_of_descriptors(&io::Error::from_raw_os_error(24)));
        assert!(!is_lack_of_descriptors(&io::ErrorKind::ConnectionAborted.into()));
    }
}
