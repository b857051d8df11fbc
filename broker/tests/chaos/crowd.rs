//! More connections than anyone needs, which say nothing or half a CONNECT.

use std::{
    io::ErrorKind,
    net::{Ipv4Addr, SocketAddr},
};

use offload_broker::Version::V5;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpSocket, TcpStream},
};

use crate::client::Connect;

/// How many.
const CROWD: usize = 10_000;
/// An address of their own, whose ports they may use up.
const SOURCE: Ipv4Addr = Ipv4Addr::new(127, 0, 2, 1);

/// As many as the system allows, for this process and for the broker that it starts.
pub fn many_files() {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
}

pub struct Crowd(Vec<TcpStream>);

pub async fn gather(broker: SocketAddr) -> Crowd {
    let hello = Connect::new(V5, "half").bytes();
    let mut crowd = Vec::with_capacity(CROWD);
    for at in 0..CROWD {
        let socket = TcpSocket::new_v4().expect("a process may have more than 10 000 files");
        socket.set_reuseaddr(true).unwrap();
        socket.bind((SOURCE, 0).into()).unwrap();
        let mut stream = socket.connect(broker).await.unwrap();
        stream.write_all(&hello[..at % hello.len()]).await.unwrap();
        crowd.push(stream);
    }
    Crowd(crowd)
}

impl Crowd {
    /// All of them are still there.
    pub fn assert_open(&self) {
        for stream in &self.0 {
            let read = stream.try_read(&mut [0]).map_err(|error| error.kind());
            assert_eq!(read, Err(ErrorKind::WouldBlock), "one of the crowd was closed");
        }
    }
}
