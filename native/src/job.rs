//! The life of one sandbox: started, held until its limits are set and it is bound to ours, watched, ended, reaped.
//!
//! ```text
//! this thread ── supervisor (sh) ─┬─ watcher (sh)
//! measurer                   └─ bwrap ── bwrap, first process inside ── the command and what it starts
//! ```
//!
//! Nothing of it outlives this process, whenever that dies. The supervisor (`supervisor.rs`) and bubblewrap die with
//! it, and bubblewrap's first process dies with bubblewrap: once it has asked the kernel for that. It does so
//! (`--die-with-parent`) while the command already starts, so the launcher in front of the command waits for our word,
//! which comes only when that has been seen, and when all that it starts will come after everyone else (`priority.rs`).
//! Before, a hang-up is the launcher's end.

use crate::bwrap_args::{BwrapArgs, FileInside};
use crate::error::Error;
use crate::landlock::Domain;
use crate::measurer::{Held, Measured, Measurer};
use crate::outcome::{Ending, Limit, Outcome};
use crate::output::{Excess, OnStdout, Output};
use crate::priority::{self, Share};
use crate::supervisor::{self, Supervisor};
use crate::syscalls::Calls;
use crate::{SandboxLimits, diagnostics, rlimits, usage};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, SeekFrom, memfd_create, seek};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::Deserialize;
use std::fs::File;
use std::io::{self, PipeReader, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long processes that are killed may take to be gone: they give back all their memory first, on a busy machine,
/// and still come after everyone else.
const FOLLOW_WITHIN: Duration = Duration::from_secs(30);

/// How often bubblewrap's first process is looked at until it is bound to the life of this one: a fraction of
/// what starting takes.
const LOOK_EVERY: Duration = Duration::from_micros(500);

/// Size of what bubblewrap reports: two lines.
const MAX_STATUS: usize = 4096;

/// Where a shell lies inside that waits for a line on its standard input, which it reads byte by byte, and ends itself
/// at a hang-up: whoever was to set the limits is gone. bubblewrap's `--block-fd`, which holds its first process back
/// until they are set, takes a hang-up for leave to go on; a sandbox whose starter died meanwhile would run without
/// them.
const LAUNCHER: &str = "/launch";

/// What the launcher does, and where it finds the command: as arguments of bubblewrap's, every user of this machine
/// could read that.
const LAUNCH: &str = "read -r go && . /command";
const COMMAND: &str = "/command";

/// Threads of a sandbox before its command runs: the first process and the launcher.
const LAUNCHED: u64 = 2;

/// One sandbox to be.
pub struct Job {
    pub bubblewrap: PathBuf,
    pub shell: PathBuf,
    /// User and group to become first, where the caller is root.
    pub uid: Option<u32>,
    pub filter: Vec<u8>,
    pub domain: Domain,
    pub measured: Measured,
    pub work: Work,
    /// Hangs up when nobody waits for the outcome any more.
    pub abandoned: PipeReader,
}

/// What differs between a build, a run and a trial.
pub struct Work {
    pub bwrap: BwrapArgs,
    /// Which system calls it may make.
    pub calls: Calls,
    pub files: Vec<FileInside>,
    /// What the shell in front of the command does first, in its place.
    pub prepare: &'static str,
    pub command: Vec<String>,
    pub stdin: Vec<u8>,
    pub limits: SandboxLimits,
    /// Whether standard error over its limit ends it.
    pub stderr: Excess,
    /// Gets standard output as it is read.
    pub on_stdout: OnStdout,
}

/// What bubblewrap reports, a line each.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Status {
    child_pid: Option<i32>,
    /// Only where the command was started.
    exit_code: Option<i32>,
}

impl Job {
    /// Runs it to its end.
    pub fn run(self) -> Result<Outcome, Error> {
        let started = Instant::now();
        let (status_reader, status_writer) = io::pipe()?;
        let (block_reader, mut block_writer) = io::pipe()?;
        let (stdin_reader, stdin_writer) = io::pipe()?;
        let (stdout_reader, stdout_writer) = io::pipe()?;
        let (stderr_reader, stderr_writer) = io::pipe()?;
        let (held, lifeline) = supervisor::lifeline(self.uid)?;

        let limits = &self.work.limits;
        let mut bwrap = self.work.bwrap;
        let mut inherited: Vec<OwnedFd> = Vec::new();
        let mut hand_over = |descriptor: OwnedFd| {
            let number = descriptor.as_raw_fd().to_string();
            inherited.push(descriptor);
            number
        };
        bwrap.add(["--json-status-fd", &hand_over(status_writer.into())]);
        bwrap.add(["--ro-bind".as_ref(), self.shell.as_os_str().as_encoded_bytes(), LAUNCHER.as_bytes()]);
        bwrap.add(["--block-fd", &hand_over(block_reader.into())]);
        bwrap.add(["--seccomp", &hand_over(in_memory(&self.filter)?)]);
        let mut largest = limits.file_size;
        let command = [self.work.prepare.as_bytes(), &quoted(&self.work.command)].concat();
        let command = (COMMAND.to_owned(), "0444", command);
        for (path, mode, bytes) in self.work.files.iter().chain([&command]) {
            largest = largest.max(bytes.len() as u64);
            bwrap.add(["--perms", mode, "--file", &hand_over(in_memory(bytes)?), path]);
        }
        let held = hand_over(held);
        // bubblewrap would hand it on to the command but for this option.
        bwrap.add(["--sync-fd", &held]);
        let options = hand_over(in_memory(&bwrap.finish())?);

        let mut command = supervisor::command(&self.shell, &held);
        command
            .arg(&self.bubblewrap)
            .arg("--args")
            .arg(options)
            .args(["--", LAUNCHER, "-c", LAUNCH])
            .stdin(stdin_reader)
            .stdout(stdout_writer)
            .stderr(stderr_writer);
        if let Some(uid) = self.uid {
            command.uid(uid).gid(uid);
        }
        let mut supervisor = Supervisor::spawn(command, inherited, self.domain, lifeline)?;

        let outer = pidfd_open(supervisor.pid(), PidfdFlags::empty()).map_err(io::Error::from)?;
        let filters_outside = usage::filters(supervisor.pid())?;
        let mut status = Output::new(status_reader, MAX_STATUS, Excess::Dropped)?;
        let mut stdout =
            Output::new(stdout_reader, limits.stdout, Excess::Ends)?.told_to(self.work.on_stdout);
        let mut stderr = Output::new(stderr_reader, limits.stderr, self.work.stderr)?;
        let mut stdin = Input::new(stdin_writer.into(), &self.work.stdin)?;
        let mut inner: Option<Inner> = None;
        let mut exceeded = None;
        let mut ended_at = None;
        let deadline = started + limits.wall;

        loop {
            let now = Instant::now();
            let until = match (&inner, exceeded) {
                (_, Some(_)) => now + FOLLOW_WITHIN,
                (Some(Inner { measurer: None, .. }), None) => now + LOOK_EVERY,
                _ => deadline,
            };
            let ready = wait(
                [
                    Some((outer.as_fd(), PollFlags::IN)),
                    Some((self.abandoned.as_fd(), PollFlags::IN)),
                    status.descriptor().map(|descriptor| (descriptor, PollFlags::IN)),
                    stdout
                        .descriptor()
                        .filter(|_| exceeded.is_none())
                        .map(|descriptor| (descriptor, PollFlags::IN)),
                    stderr
                        .descriptor()
                        .filter(|_| exceeded.is_none())
                        .map(|descriptor| (descriptor, PollFlags::IN)),
                    stdin
                        .descriptor()
                        .filter(|_| {
                            exceeded.is_none() && inner.as_ref().is_some_and(|inner| inner.measurer.is_some())
                        })
                        .map(|descriptor| (descriptor, PollFlags::OUT)),
                ],
                until.saturating_duration_since(now),
            )?;
            let (ended, abandoned) = (ready[0], ready[1]);
            status.read()?;
            if exceeded.is_none() {
                exceeded = if stdout.read()? {
                    Some(Limit::Stdout)
                } else if stderr.read()? {
                    Some(Limit::Stderr)
                } else {
                    None
                };
            }
            if ended {
                break;
            }
            if abandoned {
                if let Some(inner) = &inner {
                    // bubblewrap follows, and the supervisor reaps both.
                    inner.end();
                    ends(&outer)?;
                }
                // What is left ends by way of `Drop`.
                return Err(Error::Io(io::ErrorKind::Interrupted.into()));
            }
            match &mut inner {
                None => {
                    if let Some(pid) = first_process(status.bytes()) {
                        let mut release = || -> Result<Inner, Error> {
                            let descriptor = pidfd_open(pid, PidfdFlags::empty()).map_err(io::Error::from)?;
                            rlimits::set(self.uid, pid, limits, largest)?;
                            // When the machine runs out of memory, the kernel takes it before the gateway.
                            std::fs::write(format!("/proc/{}/oom_score_adj", pid.as_raw_nonzero()), "1000")?;
                            // A sandbox that cannot be measured is not let go.
                            if self.measured.usage {
                                usage::of(pid, limits.processes)?;
                            }
                            block_writer.write_all(b"\n")?;
                            Ok(Inner { pid, descriptor, measurer: None })
                        };
                        match release() {
                            Ok(released) => inner = Some(released),
                            // It is gone because its set-up failed, and bubblewrap says why.
                            Err(_) if ends(&outer)? => continue,
                            Err(error) => return Err(error),
                        }
                    }
                }
                // The filter is the next thing that it asks for after its death with bubblewrap.
                Some(Inner { pid, descriptor, measurer: measurer @ None })
                    if usage::filters(*pid).is_ok_and(|filters| filters > filters_outside) =>
                {
                    let hold = || -> io::Result<Measurer> {
                        priority::come_last(self.uid, *pid)?;
                        let mut share = Share::of(*pid);
                        share.fit(LAUNCHED);
                        Measurer::start(Held {
                            first: *pid,
                            descriptor: descriptor.try_clone()?,
                            share,
                            limits: limits.clone(),
                            measured: self.measured,
                            calls: self.work.calls,
                            deadline,
                        })
                    };
                    match hold() {
                        Ok(started) => *measurer = Some(started),
                        Err(_) if ends(&outer)? => continue,
                        Err(error) => return Err(error.into()),
                    }
                }
                Some(Inner { measurer: None, .. }) => {}
                Some(_) if exceeded.is_none() => stdin.write(),
                Some(_) => {}
            }
            let now = Instant::now();
            if exceeded.is_none() && now >= deadline {
                exceeded = Some(Limit::Wall);
            }
            if exceeded.is_some() {
                // All other processes of a namespace die with its first one; bubblewrap, outside, then says how.
                match &inner {
                    Some(inner) => inner.end(),
                    None => supervisor.end(),
                }
                let since = *ended_at.get_or_insert(now);
                if now >= since + FOLLOW_WITHIN {
                    supervisor.end();
                }
            }
        }

        if let Some(inner) = inner {
            // bubblewrap goes when its command has ended; daemons may be about to follow it.
            inner.end();
            if !ends(&inner.descriptor)? {
                return Err(Error::Sandbox("its processes do not end".to_owned()));
            }
            exceeded = exceeded.or(inner.measurer.and_then(Measurer::finish));
        }
        // No process is left that could write: what is in the pipes is all there is.
        while stdout.descriptor().is_some() || stderr.descriptor().is_some() {
            if stdout.read()? {
                exceeded.get_or_insert(Limit::Stdout);
            }
            if stderr.read()? {
                exceeded.get_or_insert(Limit::Stderr);
            }
        }
        status.read()?;
        let cpu = supervisor.reap()?;
        let ending = match (exceeded, exit_code(status.bytes())) {
            (Some(limit), _) => Ending::Limit(limit),
            (None, Some(code)) => Ending::from_exit_code(code),
            (None, None) => return Err(Error::Sandbox(diagnostics::first_error(stderr.bytes()))),
        };
        Ok(Outcome {
            ending,
            stdout: stdout.into_bytes(),
            stderr: stderr.into_bytes(),
            cpu,
            wall: started.elapsed(),
        })
    }
}

/// The first process inside.
struct Inner {
    pid: Pid,
    descriptor: OwnedFd,
    /// There once it dies with bubblewrap, and may be let go.
    measurer: Option<Measurer>,
}

impl Inner {
    /// Ends it, and with it all others of its namespace. It may have ended by itself.
    fn end(&self) {
        let _ = pidfd_send_signal(&self.descriptor, Signal::KILL);
        if let Some(measurer) = &self.measurer {
            measurer.killed();
        }
    }
}

/// Whether a process ends within [`FOLLOW_WITHIN`].
fn ends(process: &OwnedFd) -> io::Result<bool> {
    let until = Instant::now() + FOLLOW_WITHIN;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let [ended] = wait([Some((process.as_fd(), PollFlags::IN))], left)?;
        if ended || left.is_zero() {
            return Ok(ended);
        }
    }
}

/// Which of them are ready, after `timeout` at the latest. Hang-ups count.
fn wait<const N: usize>(
    wanted: [Option<(std::os::fd::BorrowedFd<'_>, PollFlags)>; N],
    timeout: Duration,
) -> io::Result<[bool; N]> {
    let timeout = Timespec { tv_sec: timeout.as_secs() as _, tv_nsec: timeout.subsec_nanos() as _ };
    let mut fds: Vec<PollFd<'_>> = wanted
        .iter()
        .flatten()
        .map(|(descriptor, flags)| PollFd::from_borrowed_fd(*descriptor, *flags))
        .collect();
    match poll(&mut fds, Some(&timeout)) {
        Ok(_) => {}
        Err(Errno::INTR) => return Ok([false; N]),
        Err(error) => return Err(error.into()),
    }
    let mut results = fds.iter().map(|fd| !fd.revents().is_empty());
    Ok(wanted.map(|one| one.is_some() && results.next().unwrap_or(false)))
}

/// The command as a shell takes it from a file.
fn quoted(command: &[String]) -> Vec<u8> {
    let mut line = String::from("exec");
    for word in command {
        line.extend([" '", &word.replace('\'', r"'\''"), "'"]);
    }
    line.push('\n');
    line.into_bytes()
}

/// Bytes as a file that only its descriptor leads to.
fn in_memory(bytes: &[u8]) -> io::Result<OwnedFd> {
    let mut file = File::from(memfd_create("sandbox", MemfdFlags::CLOEXEC)?);
    file.write_all(bytes)?;
    seek(&file, SeekFrom::Start(0))?;
    Ok(file.into())
}

fn statuses(lines: &[u8]) -> impl Iterator<Item = Status> {
    lines.split_inclusive(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok())
}

fn first_process(lines: &[u8]) -> Option<Pid> {
    statuses(lines).find_map(|status| Pid::from_raw(status.child_pid?))
}

fn exit_code(lines: &[u8]) -> Option<i32> {
    statuses(lines).find_map(|status| status.exit_code)
}

/// Standard input, written as far as it is taken. Its first line lets the launcher go on.
struct Input {
    pipe: Option<File>,
    bytes: Vec<u8>,
    written: usize,
}

impl Input {
    fn new(pipe: OwnedFd, bytes: &[u8]) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&pipe, true)?;
        Ok(Self { pipe: Some(pipe.into()), bytes: [b"\n", bytes].concat(), written: 0 })
    }

    fn descriptor(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
        self.pipe.as_ref().map(File::as_fd)
    }

    fn write(&mut self) {
        let Some(pipe) = &mut self.pipe else { return };
        match pipe.write(&self.bytes[self.written..]) {
            Ok(written) => self.written += written,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                return;
            }
            // A program need not read what it was sent.
            Err(_) => self.written = self.bytes.len(),
        }
        if self.written == self.bytes.len() {
            self.pipe = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_read_line_by_line() {
        let lines = b"{ \"child-pid\": 17, \"net-namespace\": 4026532183 }\n{ \"exit-code\": 3 }\n";
        assert_eq!(first_process(lines), Pid::from_raw(17));
        assert_eq!(exit_code(lines), Some(3));
        assert_eq!(first_process(b"{ \"child-pid\": 1"), None);
        assert_eq!(exit_code(b""), None);
    }

    #[test]
    fn no_word_of_a_command_is_more_than_a_word() {
        let words = ["/program/it's", "", "$(x) `y` \\\n;"].map(str::to_owned);
        assert_eq!(quoted(&words), b"exec '/program/it'\\''s' '' '$(x) `y` \\\n;'\n");
    }
}
