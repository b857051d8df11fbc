//! A guest's standard input and outputs: in memory, and bounded.

use super::limit_reached::LimitReached;
use crate::stream::Stream;
use bytes::{Bytes, BytesMut};
use offload_protocol::error::ErrorKind;
use std::sync::{Arc, Mutex, MutexGuard};
use wasmtime::Result;

/// Bytes that one read returns at the most: a short read, which every caller must expect.
pub const MAX_READ: usize = 64 << 10;

/// What the request sent in, and what will be sent back.
pub struct Stdio {
    /// What the guest has not read yet.
    pub stdin: Bytes,
    /// Standard output: over its limit the guest is ended.
    pub stdout: Output,
    /// Standard error: cut at its limit.
    pub stderr: Output,
}

impl Stdio {
    /// This input, and empty outputs of at most `max_stdout` and `max_stderr` bytes.
    pub fn new(stdin: Bytes, max_stdout: usize, max_stderr: usize) -> Stdio {
        let output =
            |limit, fails_when_full| Output { buffer: BytesMut::new(), limit, fails_when_full, stream: None };
        Stdio { stdin, stdout: output(max_stdout, true), stderr: output(max_stderr, false) }
    }

    /// Locked for a moment: the lock is the guest's alone, and is only there because its streams are owned apart.
    pub fn lock(shared: &Mutex<Stdio>) -> MutexGuard<'_, Stdio> {
        shared.lock().expect("no panic while the lock is held")
    }

    /// What was written to stdout and stderr.
    pub fn take_outputs(&mut self) -> (Bytes, Bytes) {
        (self.stdout.buffer.split().freeze(), self.stderr.buffer.split().freeze())
    }
}

/// A bounded output of the guest.
pub struct Output {
    buffer: BytesMut,
    limit: usize,
    /// Standard output over its limit is an error, standard error over its limit is cut.
    fails_when_full: bool,
    /// Gets it as it is written, too.
    stream: Option<Arc<Stream>>,
}

impl Output {
    /// What is written from now on goes there, too.
    pub fn stream_to(&mut self, stream: Arc<Stream>) {
        stream.begin();
        self.stream = Some(stream);
    }

    /// Takes what the guest writes.
    ///
    /// # Errors
    ///
    /// `output`, where more than the limit is no longer an answer.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let room = self.limit - self.buffer.len();
        let taken = &bytes[..bytes.len().min(room)];
        self.buffer.extend_from_slice(taken);
        if let Some(stream) = &self.stream {
            stream.write(taken);
        }
        if bytes.len() > room && self.fails_when_full {
            let message = format!("stdout is over the limit of {} bytes", self.limit);
            return Err(LimitReached { kind: ErrorKind::Output, message }.into());
        }
        Ok(())
    }
}
