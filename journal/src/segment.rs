//! The frames of one segment, past what is damaged among them.

use crate::format::{ALIGNMENT, FRAME_HEADER_BYTES, Frame, FrameTrace, HEADER_BYTES, frame_bytes};

/// How far a walk over a segment has come.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Position {
    at: usize,
    /// Frames come in the order of their sequence numbers: what is not above the last one is from elsewhere. `None` at
    /// the beginning of a segment without a header.
    last: Option<u64>,
}

impl Position {
    /// The first frame of a segment; its sequence number is in the header.
    pub fn first(sequence: Option<u64>) -> Position {
        Position { at: HEADER_BYTES, last: sequence.map(|sequence| sequence.saturating_sub(1)) }
    }
}

/// Walks over the whole frames of a segment that is in memory.
#[derive(Debug)]
pub(crate) struct Frames<'a> {
    bytes: &'a [u8],
    salt: u64,
    segment: u64,
    position: Position,
    /// The end of the last trace of a frame that is not whole.
    traces_end: usize,
}

impl<'a> Frames<'a> {
    pub fn new(bytes: &'a [u8], salt: u64, segment: u64, position: Position) -> Frames<'a> {
        Frames { bytes, salt, segment, position, traces_end: 0 }
    }

    /// Where the walk is to go on.
    pub fn position(&self) -> Position {
        self.position
    }

    /// The next whole frame and where it is. It follows on the one before it unless there is something else between.
    pub fn next(&mut self) -> Option<(usize, Frame<'a>)> {
        while self.position.at < self.bytes.len() {
            let rest = &self.bytes[self.position.at..];
            if let Some(trace) = FrameTrace::at(rest).filter(|trace| self.is_ours(trace)) {
                if let Some(frame) = Frame::decode(self.salt, rest) {
                    let at = self.position.at;
                    self.position.at += frame.bytes();
                    self.position.last = Some(frame.sequence);
                    return Some((at, frame));
                }
                let end = self.position.at.saturating_add(trace.bytes).min(self.bytes.len());
                self.traces_end = self.traces_end.max(end);
            }
            self.position.at += ALIGNMENT;
        }
        None
    }

    /// Where the last trace of a frame ends that is not whole, or zero: as far as a write is known to have come.
    pub fn traces_end(&self) -> usize {
        self.traces_end
    }

    fn is_ours(&self, trace: &FrameTrace) -> bool {
        // An older frame's numbers, read a little later than they begin, look like these, but for the length: no frame
        // is without a body.
        let most = (self.bytes.len() / FRAME_HEADER_BYTES) as u64;
        trace.segment == self.segment
            && trace.bytes > frame_bytes(0)
            && trace.synced <= trace.sequence
            && self.position.last.is_none_or(|last| trace.sequence > last && trace.sequence - last <= most)
    }
}

/// Which segment the frames are of, where the header does not tell. Frames of an older use of the file may be behind
/// those of the last one, never in front.
pub(crate) fn identify(bytes: &[u8], salt: u64) -> Option<u64> {
    // A frame takes at most a whole segment, so a few false traces, each hashed to its end, cost more than all true
    // ones.
    let mut hashed = 0;
    for at in (HEADER_BYTES..bytes.len()).step_by(ALIGNMENT) {
        let rest = &bytes[at..];
        let Some(trace) = FrameTrace::at(rest) else { break };
        let plausible = trace.segment != 0
            && trace.bytes > frame_bytes(0)
            && trace.synced <= trace.sequence
            && trace.bytes <= rest.len();
        if plausible {
            hashed += trace.bytes;
            if let Some(frame) = Frame::decode(salt, rest) {
                return Some(frame.segment);
            }
            if hashed > 8 * bytes.len() {
                break;
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const SALT: u64 = 5;

    fn segment(frames: &[(u64, u64)]) -> Vec<u8> {
        let mut bytes = vec![0; HEADER_BYTES];
        for (segment, sequence) in frames {
            let frame = Frame { segment: *segment, sequence: *sequence, synced: 0, body: b"body" };
            frame.encode(SALT, &mut bytes);
        }
        bytes.resize(bytes.len() + 100, 0);
        bytes
    }

    fn sequences(bytes: &[u8], segment: u64) -> Vec<u64> {
        let mut frames = Frames::new(bytes, SALT, segment, Position::first(None));
        std::iter::from_fn(|| frames.next()).map(|(_, frame)| frame.sequence).collect()
    }

    #[test]
    fn frames_are_found_behind_a_damaged_one() {
        let mut bytes = segment(&[(1, 10), (1, 11), (1, 12)]);
        assert_eq!(sequences(&bytes, 1), [10, 11, 12]);
        bytes[HEADER_BYTES + 40 + 33] ^= 1;
        assert_eq!(sequences(&bytes, 1), [10, 12]);
        // Its length is not to be trusted.
        bytes[HEADER_BYTES + 40 + 5] = 200;
        assert_eq!(sequences(&bytes, 1), [10, 12]);
        bytes[HEADER_BYTES + 40 + 7] = 200;
        assert_eq!(sequences(&bytes, 1), [10, 12]);
    }

    #[test]
    fn old_frames_of_a_recycled_file_do_not_pass() {
        let bytes = segment(&[(9, 50), (9, 51), (2, 12), (9, 13)]);
        assert_eq!(sequences(&bytes, 9), [50, 51]);
        assert_eq!(identify(&bytes, SALT), Some(9));
        assert_eq!(identify(&bytes, SALT + 1), None);
        assert_eq!(identify(&[0; 2 * HEADER_BYTES], SALT), None);
    }
}
