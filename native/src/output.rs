//! One output stream of a sandbox, read without ever holding more than its limit.

use std::fmt;
use std::fs::File;
use std::io::{self, PipeReader, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// What happens to bytes beyond the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Excess {
    /// They are read and dropped.
    Dropped,
    /// The sandbox is ended.
    Ends,
}

/// One output stream of a sandbox.
pub struct Output {
    pipe: Option<File>,
    bytes: Vec<u8>,
    limit: usize,
    excess: Excess,
    on_read: OnStdout,
}

/// Takes bytes as they come.
type Tap = dyn Fn(&[u8]) + Send + Sync;

/// Gets what a program writes, while it runs.
#[derive(Clone, Default)]
pub struct OnStdout(Option<Arc<Tap>>);

impl OnStdout {
    /// Calls this with what was read last.
    pub fn new(take: impl Fn(&[u8]) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(take)))
    }

    fn tell(&self, bytes: &[u8]) {
        if let Some(take) = &self.0 {
            take(bytes);
        }
    }
}

impl fmt::Debug for OnStdout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OnStdout").field(&self.0.is_some()).finish()
    }
}

/// Reads in a row before deadlines and other streams have their turn.
const READS: usize = 16;
const READ_SIZE: usize = 64 * 1024;

impl Output {
    /// `pipe` is read without blocking from now on.
    pub fn new(pipe: PipeReader, limit: usize, excess: Excess) -> io::Result<Self> {
        let pipe = OwnedFd::from(pipe);
        rustix::io::ioctl_fionbio(&pipe, true)?;
        Ok(Self { pipe: Some(pipe.into()), bytes: Vec::new(), limit, excess, on_read: OnStdout::default() })
    }

    /// What is read from now on is told, too.
    pub fn told_to(self, on_read: OnStdout) -> Self {
        Self { on_read, ..self }
    }

    /// To wait for, until it has ended.
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.pipe.as_ref().map(File::as_fd)
    }

    /// Takes what is there. True once the limit ends the sandbox.
    pub fn read(&mut self) -> io::Result<bool> {
        let mut buffer = [0; READ_SIZE];
        for _ in 0..READS {
            let Some(pipe) = &mut self.pipe else { return Ok(false) };
            let read = match pipe.read(&mut buffer) {
                Ok(0) => {
                    self.pipe = None;
                    return Ok(false);
                }
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let room = self.limit - self.bytes.len();
            let taken = &buffer[..read.min(room)];
            self.bytes.extend_from_slice(taken);
            self.on_read.tell(taken);
            if read > room && self.excess == Excess::Ends {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The whole of what was kept.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// What was kept so far.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn the_limit_holds_either_way() {
        for (excess, ends) in [(Excess::Dropped, false), (Excess::Ends, true)] {
            let (reader, mut writer) = io::pipe().unwrap();
            let mut output = Output::new(reader, 4, excess).unwrap();
            assert!(!output.read().unwrap());
            writer.write_all(b"1234").unwrap();
            assert!(!output.read().unwrap());
            writer.write_all(b"5").unwrap();
            assert_eq!(output.read().unwrap(), ends);
            drop(writer);
            output.read().unwrap();
            assert!(output.descriptor().is_none());
            assert_eq!(output.into_bytes(), b"1234");
        }
    }
}
