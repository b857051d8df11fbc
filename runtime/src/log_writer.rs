//! Writes log lines to standard error, as long as that takes them.
//!
//! A line that cannot be written at once is lost and counted: a full disk, a reader that has left, or one that has
//! stopped reading never costs a request, and never ends the gateway. When lines are taken again, the first of them
//! says how many are missing. The number of all lost lines is in the gateway's status.

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::time::Timespec;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Bytes that a pipe takes in one piece when it takes any (PIPE_BUF of Linux): this many are written without waiting.
const CHUNK: usize = 4096;

/// The process has one log.
static LOG: Log = Log { missing: Mutex::new(0), lost: AtomicU64::new(0) };

/// Lines that were lost since the process started.
pub fn lost_lines() -> u64 {
    LOG.lost.load(Ordering::Relaxed)
}

/// One line on its way to standard error: what `tracing_subscriber` asks for with each event.
pub fn line() -> impl Write {
    Line
}

struct Log {
    /// Lines that were lost since the last one that was written. The lock keeps lines apart.
    missing: Mutex<u64>,
    lost: AtomicU64,
}

impl Log {
    fn write(&self, to: impl AsFd, line: &[u8]) {
        let mut missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
        let gap =
            format!(" WARN {} lines of the log are missing here: they could not be written\n", *missing);
        let written = (*missing == 0 || write(&to, gap.as_bytes())) && {
            *missing = 0;
            write(&to, line)
        };
        if !written {
            *missing += 1;
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Writes all of it without waiting; `false` if some of it was not taken.
fn write(to: &impl AsFd, bytes: &[u8]) -> bool {
    bytes.chunks(CHUNK).all(|chunk| takes_more(to) && write_chunk(to, chunk))
}

fn takes_more(to: &impl AsFd) -> bool {
    let mut watched = [PollFd::new(to, PollFlags::OUT)];
    // An error counts as well: writing then says at once what it is.
    poll(&mut watched, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|ready| ready > 0)
}

fn write_chunk(to: &impl AsFd, mut chunk: &[u8]) -> bool {
    while !chunk.is_empty() {
        match rustix::io::write(to, chunk) {
            Ok(0) => return false,
            Ok(count) => chunk = &chunk[count..],
            Err(Errno::INTR) => {}
            Err(_) => return false,
        }
    }
    true
}

struct Line;

impl Write for Line {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        LOG.write(io::stderr(), line);
        // Nobody else is to do anything about a line that is lost: it would be told on standard error.
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::Read;

    fn log() -> Log {
        Log { missing: Mutex::new(0), lost: AtomicU64::new(0) }
    }

    fn lost(log: &Log) -> u64 {
        log.lost.load(Ordering::Relaxed)
    }

    #[test]
    fn a_full_disk_and_a_reader_that_has_left_cost_lines_and_nothing_else() {
        let log = log();
        let full = File::options().write(true).open("/dev/full").unwrap();
        log.write(&full, b"one\n");
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        log.write(&writer, b"two\n");
        assert_eq!(lost(&log), 2);
    }

    #[test]
    fn a_reader_that_has_stopped_is_not_waited_for_and_the_next_line_says_what_is_missing() {
        let log = log();
        let (mut reader, writer) = io::pipe().unwrap();
        let line = [b"x".repeat(CHUNK - 1), b"\n".to_vec()].concat();
        let mut written = 0;
        while lost(&log) == 0 {
            log.write(&writer, &line);
            written += 1;
        }
        log.write(&writer, &line);
        assert_eq!(lost(&log), 2);
        let mut taken = vec![0; CHUNK * (written - 1)];
        reader.read_exact(&mut taken).unwrap();
        log.write(&writer, b"again\n");
        log.write(&writer, b"and again\n");
        drop(writer);
        let mut rest = String::new();
        reader.read_to_string(&mut rest).unwrap();
        let missing = " WARN 2 lines of the log are missing here: they could not be written\n";
        assert_eq!(rest, format!("{missing}again\nand again\n"));
        assert_eq!(lost(&log), 2);
    }
}
