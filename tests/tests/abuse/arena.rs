//! What an attack has at hand: where the gateway is, how much it may do and for how long, and its connections.

use std::future::Future;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::OwnedWriteHalf;
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::packet::{self, Connect};
use crate::stage::{ABUSERS, Door, PASSWORD};

/// In a smoke test, this part of what makes an attack large.
const SMOKE_PART: usize = 20;

/// Longest wait for the gateway to say something, or to take something.
const PATIENCE: Duration = Duration::from_secs(30);

/// Between two looks at whether it is over.
const POLL: Duration = Duration::from_millis(20);

/// Shared by all tasks of one attack.
pub struct Arena {
    pub gateway: SocketAddr,
    pub passwords: PathBuf,
    /// A line of the password file for a user who is not in it yet.
    pub latecomer: (String, String),
    door: Door,
    full: bool,
    until: Instant,
    halted: AtomicBool,
    strikes: AtomicU64,
    refusals: AtomicU64,
    findings: Mutex<Vec<String>>,
}

impl Arena {
    pub fn new(
        stage: &crate::stage::Stage,
        latecomer: (String, String),
        full: bool,
        time: Duration,
    ) -> Arena {
        Arena {
            gateway: stage.address,
            passwords: stage.passwords.clone(),
            latecomer,
            door: stage.door,
            full,
            until: Instant::now() + time,
            halted: AtomicBool::new(false),
            strikes: AtomicU64::new(0),
            refusals: AtomicU64::new(0),
            findings: Mutex::default(),
        }
    }

    /// This many, or some of them in a smoke test.
    pub fn many(&self, full: usize) -> usize {
        if self.full { full } else { (full / SMOKE_PART).max(1) }
    }

    /// Whether the attack has to end.
    pub fn is_over(&self) -> bool {
        self.halted.load(Relaxed) || Instant::now() >= self.until
    }

    /// Ends the attack before its time.
    pub fn halt(&self) {
        self.halted.store(true, Relaxed);
    }

    /// Waits until it is over: what was taken stays taken.
    pub async fn hold(&self) {
        while !self.is_over() {
            sleep(POLL).await;
        }
    }

    /// Counts something that was done to the gateway.
    pub fn struck(&self) {
        self.strikes.fetch_add(1, Relaxed);
    }

    /// Counts something that the gateway did not let be done.
    pub fn refused(&self) {
        self.refusals.fetch_add(1, Relaxed);
    }

    /// How much was done, and how much was refused.
    pub fn counts(&self) -> (u64, u64) {
        (self.strikes.load(Relaxed), self.refusals.load(Relaxed))
    }

    /// Something happened that must not, besides what the watchers see.
    pub fn found(&self, what: impl Into<String>) {
        let findings = &mut *self.findings.lock().unwrap_or_else(PoisonError::into_inner);
        let what = what.into();
        if !findings.contains(&what) {
            findings.push(what);
        }
    }

    /// What was found.
    pub fn findings(&self) -> Vec<String> {
        self.findings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// CONNECT of an abuser under this client id, by the n-th account where there are accounts.
    pub fn connect(&self, id: &str, account: usize) -> Connect {
        match self.door {
            Door::Passwords => Connect::new(id).login(ABUSERS[account], PASSWORD),
            Door::Open => Connect::new(id),
        }
    }

    /// A connection that says nothing yet, from an address of the abusers' own, or there would soon be no port left.
    pub async fn open(&self) -> io::Result<Link> {
        self.open_from(0).await
    }

    /// The same from the n-th of their addresses.
    pub async fn open_from(&self, address: usize) -> io::Result<Link> {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.set_nodelay(true)?;
        socket.bind((Ipv4Addr::new(127, 0, 66, 1 + address as u8), 0).into())?;
        let stream = patient(socket.connect(self.gateway)).await?;
        Ok(Link { stream, received: Vec::new() })
    }

    /// A connection that was let in.
    pub async fn enter(&self, connect: &Connect) -> io::Result<Link> {
        let mut link = self.open().await?;
        link.send(&connect.bytes()).await?;
        self.let_in(link).await
    }

    /// Waits for the CONNACK. A refusal is counted, and an error.
    pub async fn let_in(&self, mut link: Link) -> io::Result<Link> {
        let (first, body) = link.packet().await?;
        if first != packet::CONNACK || body.get(1) != Some(&0) {
            self.refused();
            return Err(io::Error::other(format!("not let in: {first:#x} {body:x?}")));
        }
        self.struck();
        Ok(link)
    }

    /// Runs this many tasks to their end. One that fails has ended, too: the gateway may have had enough of it.
    pub async fn crowd<F>(self: &Arc<Self>, count: usize, task: impl Fn(Arc<Self>, usize) -> F)
    where
        F: Future<Output = io::Result<()>> + Send + 'static,
    {
        let mut crowd: JoinSet<_> = (0..count).map(|number| task(self.clone(), number)).collect();
        while crowd.join_next().await.is_some() {}
    }

    /// The same, but each task is run again and again until it is over.
    pub async fn restless<F>(
        self: &Arc<Self>,
        count: usize,
        task: impl Fn(Arc<Self>, usize) -> F + Clone + Send + 'static,
    ) where
        F: Future<Output = io::Result<()>> + Send + 'static,
    {
        let again = move |arena: Arc<Self>, number| {
            let task = task.clone();
            let running: std::pin::Pin<Box<dyn Future<Output = io::Result<()>> + Send>> =
                Box::pin(async move {
                    while !arena.is_over() {
                        if task(arena.clone(), number).await.is_err() {
                            // The gateway does not want it now; a client would wait, too.
                            sleep(POLL).await;
                        }
                    }
                    Ok(())
                });
            running
        };
        self.crowd(count, again).await;
    }
}

/// An abuser's connection.
pub struct Link {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Link {
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        patient(self.stream.write_all(bytes)).await
    }

    /// The next packet: its first byte and its body.
    pub async fn packet(&mut self) -> io::Result<(u8, Vec<u8>)> {
        loop {
            if let Some((first, body, length)) = packet::first(&self.received) {
                let packet = (first, body.to_vec());
                self.received.drain(..length);
                return Ok(packet);
            }
            if patient(self.stream.read_buf(&mut self.received)).await? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Waits for the next packet of this kind; others are dropped.
    pub async fn expect(&mut self, kind: u8) -> io::Result<Vec<u8>> {
        loop {
            let (first, body) = self.packet().await?;
            if first & 0xF0 == kind {
                return Ok(body);
            }
        }
    }

    /// Sends SUBSCRIBEs with these filters, `per_packet` in each, and counts what is granted and refused.
    pub async fn subscribe(
        &mut self,
        arena: &Arena,
        filters: &[String],
        per_packet: usize,
    ) -> io::Result<()> {
        for (number, filters) in filters.chunks(per_packet).enumerate() {
            self.send(&packet::subscribe(number as u16 + 1, 0, filters)).await?;
            let suback = self.expect(packet::SUBACK).await?;
            for reason in &suback[suback.len().saturating_sub(filters.len())..] {
                if *reason >= packet::REFUSED { arena.refused() } else { arena.struck() }
            }
        }
        Ok(())
    }

    /// From here on all that comes is read and dropped.
    pub fn reading(self) -> OwnedWriteHalf {
        let (mut reader, writer) = self.stream.into_split();
        tokio::spawn(async move {
            let mut space = vec![0; 64 * 1024];
            while matches!(reader.read(&mut space).await, Ok(1..)) {}
        });
        writer
    }

    /// Closed so that no port stays taken.
    pub fn reset(self) {
        let _ = self.stream.set_zero_linger();
    }
}

/// Writes to a connection that is [`Link::reading`].
pub async fn write(writer: &mut OwnedWriteHalf, bytes: &[u8]) -> io::Result<()> {
    patient(writer.write_all(bytes)).await
}

/// What may block for ever is given up after a while.
pub async fn patient<T>(doing: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(PATIENCE, doing).await.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into()))
}
