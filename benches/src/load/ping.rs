//! Bytes that go somewhere and come back: the least that a request could cost.

use super::{LATENCY_DIGITS, MAX_LATENCY_NS, Measured, PATIENCE, thread_cpu_time};
use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Sends this many bytes to the server at `address` again and again, each time when they are back, for a quarter of
/// the time to warm up and then while it is measured.
pub fn ping(address: SocketAddr, bytes: usize, time: Duration) -> Result<Measured> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut buffer = vec![0; bytes];
    let mut there_and_back = || {
        let sent = Instant::now();
        stream.write_all(&buffer)?;
        stream.read_exact(&mut buffer).context("nothing comes back")?;
        anyhow::Ok(sent.elapsed())
    };
    let begin = Instant::now() + time / 4;
    while Instant::now() < begin {
        there_and_back()?;
    }
    let mut latency_ns = Histogram::new_with_bounds(1, MAX_LATENCY_NS, LATENCY_DIGITS)?;
    let cpu_at_begin = thread_cpu_time();
    while begin.elapsed() < time {
        let took = there_and_back()?.as_nanos();
        latency_ns.saturating_record(took.try_into().unwrap_or(u64::MAX));
    }
    let (elapsed, cpu) = (begin.elapsed(), thread_cpu_time() - cpu_at_begin);
    Ok(Measured { requests: latency_ns.len(), elapsed, latency_ns, cpu })
}
