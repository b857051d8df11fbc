//! What a store holds for its guest, and host calls look at.

use super::limiter::MemoryLimiter;
use super::open_files::OpenFiles;
use super::standard_streams::StandardStreams;
use super::stdio::Stdio;
use offload_protocol::request::RequestId;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::{HostMonotonicClock, HostWallClock, WasiCtxView, WasiView};

/// What a store holds for its guest.
pub struct GuestState {
    pub(super) wasi: WasiP1Ctx,
    /// Shared with the streams that a component holds.
    pub(super) stdio: Arc<Mutex<Stdio>>,
    /// Where a module has them; a component asks for its streams.
    pub(super) streams: StandardStreams,
    /// What a module has open of its folder.
    pub(super) files: OpenFiles,
    pub(super) clock: Clock,
    pub(super) context: Context,
    /// When it is ended.
    pub(super) deadline: Instant,
    pub(super) limiter: MemoryLimiter,
}

impl WasiView for GuestState {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        self.wasi.ctx()
    }
}

/// Which request a guest was started for.
#[derive(Clone, Debug)]
pub struct Context {
    /// The reply id of the topic that the request came on.
    pub reply_id: Arc<str>,
    /// The request's own id.
    pub request_id: Option<RequestId>,
}

/// The guest's monotonic clock: zero at its start.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Instant);

impl Clock {
    /// A clock that starts now.
    pub(super) fn start() -> Clock {
        Clock(Instant::now())
    }

    /// Time since the guest's start.
    pub fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

impl HostMonotonicClock for Clock {
    fn resolution(&self) -> u64 {
        1
    }

    fn now(&self) -> u64 {
        self.elapsed().as_nanos() as u64
    }
}

/// The guest's wall clock. WASI has no time before 1970, which a device without a battery may have until it has asked
/// the network: 1970 stands for it.
#[derive(Clone, Copy, Debug)]
pub struct WallClock;

impl WallClock {
    /// Time since 1970.
    pub fn since_epoch(now: SystemTime) -> Duration {
        now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
    }
}

impl HostWallClock for WallClock {
    fn resolution(&self) -> Duration {
        Duration::from_nanos(1)
    }

    fn now(&self) -> Duration {
        WallClock::since_epoch(SystemTime::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_before_1970_says_1970() {
        let before = SystemTime::UNIX_EPOCH - Duration::from_secs(1);
        assert_eq!(WallClock::since_epoch(before), Duration::ZERO);
        let after = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
        assert_eq!(WallClock::since_epoch(after), Duration::from_secs(1));
    }
}
