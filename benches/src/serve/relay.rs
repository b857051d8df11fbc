//! What carries bytes and does nothing else: a chain of these has the sockets and the processes of a request to another
//! site, and no work.

use super::{announce, told_to_stop};
use anyhow::{Context, Result};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;

/// Bytes carried at a time.
const BUFFER: usize = 16 * 1024;

/// Hands on what comes to a server at `next`, and back what that says; without one it hands back what comes.
pub async fn serve(next: Option<&str>) -> Result<()> {
    let next = next.map(str::parse).transpose().context("where to hand it on")?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    announce(listener.local_addr()?)?;
    // It ends with the process.
    thread::spawn(move || {
        for stream in listener.incoming() {
            if let Err(error) = stream.map_err(Into::into).and_then(|stream| relay(stream, next)) {
                eprintln!("a relay: {error:#}");
            }
        }
    });
    told_to_stop().await
}

/// Each direction has a thread that blocks: the cheapest way to carry bytes one after the other.
fn relay(stream: TcpStream, next: Option<SocketAddr>) -> Result<()> {
    stream.set_nodelay(true)?;
    let Some(next) = next else {
        let back = stream.try_clone()?;
        thread::spawn(move || carry(stream, back));
        return Ok(());
    };
    let next = TcpStream::connect(next)?;
    next.set_nodelay(true)?;
    let (there, back) = ((stream.try_clone()?, next.try_clone()?), (next, stream));
    thread::spawn(move || carry(there.0, there.1));
    thread::spawn(move || carry(back.0, back.1));
    Ok(())
}

/// Until either end is closed.
fn carry(mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = [0; BUFFER];
    while let Ok(count @ 1..) = from.read(&mut buffer)
        && to.write_all(&buffer[..count]).is_ok()
    {}
    let _ = to.shutdown(std::net::Shutdown::Both);
}
