//! When requests are due, and how many.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

/// The shortest pause between two looks at what is due. A rate of more than one request in this time sends several at
/// once; shorter pauses would take most of a core.
const SHORTEST_PAUSE: Duration = Duration::from_micros(50);

/// How much is to be measured.
#[derive(Clone, Copy)]
pub enum Extent {
    Duration(Duration),
    Requests(u64),
}

/// A request that is due.
pub struct DueRequest {
    /// When it should be sent.
    pub due: Instant,
    /// Whether it counts: the warm-up is over.
    pub measured: bool,
}

/// Says to those who send when the next request is due.
pub struct Schedule {
    begin: Instant,
    stopped: AtomicBool,
    mode: Mode,
}

enum Mode {
    Closed(Closed),
    Open(Open),
}

/// The next request is due whenever there is somebody to send it.
struct Closed {
    extent: Extent,
    /// Requests that count and were taken, or asked for after the last one.
    taken: AtomicU64,
}

/// Requests are due at fixed times, whatever became of those before.
struct Open {
    timetable: Timetable,
    /// Requests that are due and not taken.
    due: Arc<Semaphore>,
    taken: AtomicU64,
    /// Ends the thread that sets the pace when it is dropped.
    _pace: Sender<()>,
}

/// The fixed times of an open loop.
#[derive(Clone, Copy)]
struct Timetable {
    first: Instant,
    /// A second.
    rate: u32,
    warm_up: u64,
    total: u64,
}

impl Timetable {
    fn new(first: Instant, rate: u32, warm_up: Duration, extent: Extent) -> Self {
        let within = |time: Duration| requests_before(time, rate);
        let (warm_up, total) = match extent {
            Extent::Duration(duration) => (within(warm_up), within(warm_up + duration)),
            Extent::Requests(requests) => (within(warm_up), within(warm_up).saturating_add(requests)),
        };
        Self { first, rate, warm_up, total }
    }

    fn due(&self, number: u64) -> Instant {
        let nanoseconds = u128::from(number) * 1_000_000_000 / u128::from(self.rate);
        self.first + Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
    }

    /// How many are due by `now`.
    fn due_by(&self, now: Instant) -> u64 {
        let elapsed = now.saturating_duration_since(self.first);
        requests_before(elapsed + Duration::from_nanos(1), self.rate).min(self.total)
    }
}

/// How many requests of a rate are due in a time, the first one at its start.
fn requests_before(time: Duration, rate: u32) -> u64 {
    let requests = (time.as_nanos() * u128::from(rate)).div_ceil(1_000_000_000);
    u64::try_from(requests).unwrap_or(u64::MAX)
}

impl Schedule {
    /// A closed loop from now on: each sender sends the next request when it has the answer to the one before.
    pub fn closed(warm_up: Duration, extent: Extent) -> Self {
        let mode = Mode::Closed(Closed { extent, taken: AtomicU64::new(0) });
        Self { begin: Instant::now() + warm_up, stopped: AtomicBool::new(false), mode }
    }

    /// An open loop from now on, of `rate` requests a second. What is not taken `patience` after the last one was due
    /// is given up.
    pub fn open(rate: u32, warm_up: Duration, extent: Extent, patience: Duration) -> Self {
        let first = Instant::now();
        let timetable = Timetable::new(first, rate, warm_up, extent);
        let due = Arc::new(Semaphore::new(0));
        let (pace, ended) = channel();
        let released = due.clone();
        thread::spawn(move || set_the_pace(timetable, patience, &released, &ended));
        let mode = Mode::Open(Open { timetable, due, taken: AtomicU64::new(0), _pace: pace });
        Self { begin: first + warm_up, stopped: AtomicBool::new(false), mode }
    }

    /// When the warm-up ends.
    pub fn begin(&self) -> Instant {
        self.begin
    }

    /// How long the measurement takes if every answer is there at once; `None` where only the number is known.
    pub fn planned(&self) -> Option<Duration> {
        match &self.mode {
            Mode::Closed(Closed { extent: Extent::Duration(duration), .. }) => Some(*duration),
            Mode::Closed(Closed { extent: Extent::Requests(_), .. }) => None,
            Mode::Open(Open { timetable, .. }) => {
                Some(timetable.due(timetable.total).saturating_duration_since(self.begin))
            }
        }
    }

    /// The next request, once it is due; `None` when there are no more.
    pub async fn next(&self) -> Option<DueRequest> {
        match &self.mode {
            Mode::Closed(closed) => self.next_closed(closed),
            Mode::Open(open) => open.next().await,
        }
        .filter(|_| !self.stopped.load(Ordering::Relaxed))
    }

    fn next_closed(&self, closed: &Closed) -> Option<DueRequest> {
        let due = Instant::now();
        let measured = due >= self.begin;
        let goes_on = match closed.extent {
            _ if !measured => true,
            Extent::Duration(duration) => due - self.begin < duration,
            Extent::Requests(requests) => closed.taken.fetch_add(1, Ordering::Relaxed) < requests,
        };
        goes_on.then_some(DueRequest { due, measured })
    }

    /// Ends it before its time. What was due and is not taken will not be.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
        if let Mode::Open(open) = &self.mode {
            open.due.close();
        }
    }

    /// Requests that count, were due by `now`, and were not taken.
    pub fn untaken(&self, now: Instant) -> u64 {
        match &self.mode {
            Mode::Closed(_) => 0,
            Mode::Open(Open { timetable, taken, .. }) => {
                let taken = taken.load(Ordering::Relaxed).max(timetable.warm_up);
                timetable.due_by(now).saturating_sub(taken)
            }
        }
    }
}

impl Open {
    async fn next(&self) -> Option<DueRequest> {
        self.due.acquire().await.ok()?.forget();
        let number = self.taken.fetch_add(1, Ordering::Relaxed);
        if number + 1 == self.timetable.total {
            self.due.close();
        }
        Some(DueRequest { due: self.timetable.due(number), measured: number >= self.timetable.warm_up })
    }
}

/// Releases requests when they are due. A thread of its own: the runtime's timers tell whole milliseconds apart, in
/// which a gateway answers many requests.
fn set_the_pace(timetable: Timetable, patience: Duration, due: &Semaphore, ended: &Receiver<()>) {
    wake_in_time();
    let mut released = 0;
    while released < timetable.total {
        let now = Instant::now();
        let by_now = timetable.due_by(now);
        due.add_permits(usize::try_from(by_now - released).unwrap_or(usize::MAX));
        released = by_now;
        let pause = timetable.due(released).saturating_duration_since(now).max(SHORTEST_PAUSE);
        if ended.recv_timeout(pause) != Err(RecvTimeoutError::Timeout) {
            return;
        }
    }
    if ended.recv_timeout(patience) == Err(RecvTimeoutError::Timeout) {
        due.close();
    }
}

/// Has the kernel end this thread's pauses when they should end, instead of up to 50 µs later.
fn wake_in_time() {
    #[cfg(target_os = "linux")]
    // Without it requests are sent a bit later, which the summary says.
    let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    #[test]
    fn a_timetable_is_fixed_by_its_rate() {
        let first = Instant::now();
        let timetable = Timetable::new(first, 3, SECOND, Extent::Duration(SECOND * 2));
        assert_eq!((timetable.warm_up, timetable.total), (3, 9));
        let due = |number| timetable.due(number) - first;
        assert_eq!([due(0), due(1), due(3)], [Duration::ZERO, Duration::from_nanos(333_333_333), SECOND]);
        assert_eq!(timetable.due_by(first), 1);
        assert_eq!(timetable.due_by(first + SECOND - Duration::from_nanos(1)), 3);
        assert_eq!(timetable.due_by(first + SECOND), 4);
        assert_eq!(timetable.due_by(first + SECOND * 60), 9);
        let by_number = Timetable::new(first, 3, Duration::ZERO, Extent::Requests(7));
        assert_eq!((by_number.warm_up, by_number.total), (0, 7));
    }

    #[test]
    fn an_open_loop_hands_out_every_request_at_its_time_and_ends() {
        let schedule = Schedule::open(10_000, Duration::from_millis(2), Extent::Requests(30), DEADLINE);
        let requests = runtime().block_on(async {
            let mut requests = Vec::new();
            while let Some(request) = schedule.next().await {
                assert!(Instant::now() >= request.due, "before its time");
                requests.push(request);
            }
            requests
        });
        assert_eq!(requests.len(), 20 + 30);
        assert_eq!(requests.iter().filter(|request| request.measured).count(), 30);
        assert!(requests.windows(2).all(|pair| pair[0].due < pair[1].due));
        assert_eq!(schedule.untaken(Instant::now()), 0);
    }

    #[test]
    fn what_nobody_takes_is_given_up_and_known() {
        // As long as it may take until the first one is taken here.
        let patience = Duration::from_secs(2);
        let schedule = Schedule::open(1_000_000, Duration::ZERO, Extent::Requests(100), patience);
        runtime().block_on(async {
            assert!(schedule.next().await.is_some());
            let Mode::Open(open) = &schedule.mode else { unreachable!() };
            // Waits until the pacing thread has given up.
            while !open.due.is_closed() {
                tokio::task::yield_now().await;
            }
            assert!(schedule.next().await.is_none());
        });
        assert_eq!(schedule.untaken(Instant::now()), 99);
    }

    #[test]
    fn a_closed_loop_ends_by_number_or_time() {
        let by_number = Schedule::closed(Duration::ZERO, Extent::Requests(3));
        let over = Schedule::closed(Duration::ZERO, Extent::Duration(Duration::ZERO));
        let warming_up = Schedule::closed(DEADLINE, Extent::Requests(0));
        runtime().block_on(async {
            for _ in 0..3 {
                assert!(by_number.next().await.is_some_and(|request| request.measured));
            }
            assert!(by_number.next().await.is_none());
            assert!(over.next().await.is_none());
            assert!(warming_up.next().await.is_some_and(|request| !request.measured));
            warming_up.stop();
            assert!(warming_up.next().await.is_none());
        });
    }

    const DEADLINE: Duration = Duration::from_secs(30);
}
