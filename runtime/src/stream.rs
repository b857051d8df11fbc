//! What a program writes to stdout, published while it runs: in order, in parts, as far as its receiver takes them.

use crate::ingress::Parts;
use bytes::{Bytes, BytesMut};
use offload_protocol::topic;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout_at};

/// Bytes of one part at the most: what the contract says.
pub const MAX_PART: usize = 4 << 10;

/// How long bytes wait for the end of their line: what the contract says.
const LINE_WAIT: Duration = Duration::from_millis(100);

/// How long after one look at what was written the next one comes: a program that writes many short lines makes few
/// messages of them, and nobody who reads along notices.
const PACE: Duration = Duration::from_millis(5);

/// Bytes that wait to be published; whoever writes more publishes them.
const MAX_PENDING: usize = 32 << 10;

/// The stream of one request.
pub struct Stream {
    parts: Box<dyn Parts>,
    /// The topic of the answer.
    answers: String,
    /// The request's own name.
    id: String,
    max_part: usize,
    state: Mutex<State>,
    /// Told when there is something to publish, or the end has come.
    written: Notify,
}

struct State {
    phase: Phase,
    pending: BytesMut,
    /// Where in stdout what is pending begins.
    offset: u64,
    /// When the first byte of it was written.
    since: Instant,
    /// Whether there is the end of a line in it.
    has_line: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nothing runs yet.
    New,
    /// The program runs.
    Open,
    /// Nothing more is published.
    Ended,
}

impl Stream {
    /// To whoever waits on the topic `answers`, in parts of at most `max_part` bytes if that is less than [`MAX_PART`].
    pub fn new(parts: Box<dyn Parts>, answers: &str, id: &str, max_part: Option<usize>) -> Arc<Stream> {
        let state = State {
            phase: Phase::New,
            pending: BytesMut::new(),
            offset: 0,
            since: Instant::now(),
            has_line: false,
        };
        Arc::new(Stream {
            parts,
            answers: answers.to_owned(),
            id: id.to_owned(),
            max_part: max_part.map_or(MAX_PART, |max| max.clamp(1, MAX_PART)),
            state: Mutex::new(state),
            written: Notify::new(),
        })
    }

    /// The program starts. One that starts a second time, since its worker was lost, writes all again: the stream has
    /// ended then, and the answer has it all.
    pub fn begin(&self) {
        let mut state = self.lock();
        state.phase = if state.phase == Phase::New { Phase::Open } else { Phase::Ended };
    }

    /// The program has written this.
    pub fn write(&self, bytes: &[u8]) {
        let mut state = self.lock();
        if state.phase != Phase::Open || bytes.is_empty() {
            return;
        }
        let was_empty = state.pending.is_empty();
        let had_line = state.has_line;
        if was_empty {
            state.since = Instant::now();
        }
        state.pending.extend_from_slice(bytes);
        state.has_line |= bytes.contains(&b'\n');
        if state.pending.len() >= MAX_PENDING {
            self.publish(&mut state);
        } else if was_empty || state.has_line != had_line {
            drop(state);
            self.written.notify_one();
        }
    }

    /// Another site has streamed this: it is published at once, in order. Where that begins again, since the program
    /// was run again there, the stream has ended, as for [`begin`](Self::begin).
    pub fn relay(&self, offset: u64, mut bytes: Bytes) {
        let mut state = self.lock();
        if offset < state.offset {
            state.phase = Phase::Ended;
        }
        if state.phase == Phase::Ended {
            return;
        }
        state.offset = offset;
        while !bytes.is_empty() {
            let part = bytes.split_to(bytes.len().min(self.max_part));
            self.publish_part(&mut state, part);
        }
    }

    /// The program has ended: publishes what is left. The answer is to follow.
    pub fn end(&self) {
        let mut state = self.lock();
        if state.phase == Phase::Open {
            self.publish(&mut state);
        }
        state.phase = Phase::Ended;
        drop(state);
        self.written.notify_one();
    }

    /// Publishes what is written, as it is written, until the end.
    pub async fn follow(self: Arc<Stream>) {
        loop {
            match self.due() {
                Due::Never => return,
                Due::Later(None) => self.written.notified().await,
                Due::Later(Some(at)) => {
                    // Told, or due: looked at again in either case.
                    let _ = timeout_at(at, self.written.notified()).await;
                }
                Due::Published => sleep(PACE).await,
            }
        }
    }

    /// Publishes what is due.
    fn due(&self) -> Due {
        let mut state = self.lock();
        if state.phase == Phase::Ended {
            return Due::Never;
        }
        if state.pending.is_empty() {
            return Due::Later(None);
        }
        let at = state.since + LINE_WAIT;
        if !state.has_line && Instant::now() < at {
            return Due::Later(Some(at));
        }
        self.publish(&mut state);
        Due::Published
    }

    /// Under the lock, so that parts stay in order.
    fn publish(&self, state: &mut State) {
        let mut bytes: Bytes = state.pending.split().freeze();
        state.has_line = false;
        while !bytes.is_empty() {
            let part = bytes.split_to(bytes.len().min(self.max_part));
            self.publish_part(state, part);
        }
    }

    fn publish_part(&self, state: &mut State, part: Bytes) {
        let offset = state.offset;
        state.offset += part.len() as u64;
        self.parts.publish(topic::stream(&self.answers, &self.id, offset), offset, part);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic while the lock is held")
    }
}

/// A stream that ends when this is dropped.
pub struct EndOfStream(pub Arc<Stream>);

impl Drop for EndOfStream {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// When there is something to do.
enum Due {
    /// There was; after a pause there may be more.
    Published,
    /// When something is written, or at this time.
    Later(Option<Instant>),
    /// The end has come.
    Never,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Recorder(Arc<Mutex<Vec<(String, Bytes)>>>);

    impl Parts for Recorder {
        fn publish(&self, topic: String, _: u64, part: Bytes) {
            self.0.lock().unwrap().push((topic, part));
        }
    }

    /// Topics and payloads, as they were published.
    type Published = Arc<Mutex<Vec<(String, Bytes)>>>;

    fn stream(max_part: Option<usize>) -> (Arc<Stream>, Published) {
        let recorder = Recorder::default();
        let parts = recorder.0.clone();
        (Stream::new(Box::new(recorder), "result/d", "a", max_part), parts)
    }

    fn taken(parts: &Mutex<Vec<(String, Bytes)>>) -> Vec<(String, Bytes)> {
        std::mem::take(&mut *parts.lock().unwrap())
    }

    fn part(offset: u64, text: &'static str) -> (String, Bytes) {
        (format!("result/d/stream/a/{offset}"), Bytes::from(text))
    }

    async fn next(parts: &Mutex<Vec<(String, Bytes)>>) -> Vec<(String, Bytes)> {
        while parts.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
        taken(parts)
    }

    #[tokio::test]
    async fn a_line_goes_and_what_is_none_goes_too_and_the_rest_at_the_end() {
        let (stream, parts) = stream(None);
        stream.begin();
        tokio::spawn(stream.clone().follow());
        stream.write(b"one\n");
        assert_eq!(next(&parts).await, [part(0, "one\n")]);
        stream.write(b"tw");
        assert_eq!(next(&parts).await, [part(4, "tw")]);
        stream.write(b"o");
        stream.write(b"\nthree");
        drop(EndOfStream(stream.clone()));
        stream.write(b"lost");
        assert_eq!(taken(&parts), [part(6, "o\nthree")]);
    }

    #[test]
    fn parts_are_short_and_what_waits_is_bounded() {
        let (stream, parts) = stream(None);
        stream.begin();
        stream.write(&vec![b'x'; MAX_PENDING + 1]);
        let mut offset = 0;
        for (topic, part) in taken(&parts) {
            assert_eq!(topic, format!("result/d/stream/a/{offset}"));
            assert!(part.len() <= MAX_PART);
            offset += part.len();
        }
        assert_eq!(offset, MAX_PENDING + 1);
        let (stream, parts) = self::stream(Some(2));
        stream.begin();
        stream.write(b"abc");
        stream.end();
        assert_eq!(taken(&parts), [part(0, "ab"), part(2, "c")]);
    }

    #[test]
    fn what_another_site_streams_comes_in_order_and_not_twice() {
        let (stream, parts) = stream(Some(4));
        stream.relay(0, Bytes::from("first"));
        // One between was left out on the way.
        stream.relay(9, Bytes::from("x"));
        assert_eq!(taken(&parts), [part(0, "firs"), part(4, "t"), part(9, "x")]);
        stream.relay(0, Bytes::from("again"));
        stream.relay(20, Bytes::from("more"));
        assert_eq!(taken(&parts), []);
    }

    #[test]
    fn what_runs_again_is_not_streamed_again() {
        let (stream, parts) = stream(None);
        stream.begin();
        stream.write(&[b'x'; MAX_PENDING]);
        stream.begin();
        taken(&parts);
        stream.write(&[b'y'; MAX_PENDING]);
        stream.end();
        assert_eq!(taken(&parts), []);
    }
}
