//! The bytes of a segment: its header, its frames, and the entries of a frame. The tables are in the crate's
//! documentation. Nothing here does I/O, and no input makes it panic.

use crate::ids::{BlobDigest, RecordId};

/// The smallest segment in bytes.
pub const MIN_SEGMENT_BYTES: u64 = 16 * 1024;
/// The largest segment in bytes: recovery and the cleaner hold one in memory.
pub const MAX_SEGMENT_BYTES: u64 = 64 * 1024 * 1024;

/// The version of the format that this crate writes, and the only one that it reads.
pub const FORMAT_VERSION: u32 = 1;

/// The first bytes of every segment, in every version of the format.
const MAGIC: [u8; 8] = *b"offloadJ";
/// Bytes of magic and version, which the first checksum covers; the same in every version of the format.
const VERSIONED_BYTES: usize = 12;
/// Where the fields of this version begin.
const FIELDS_AT: usize = 16;
/// Where the checksum of these fields is.
const FIELDS_CHECKSUM_AT: usize = 60;
/// The fields and their checksum end here; the rest of the header is zero.
const FIELDS_END: usize = 64;
/// Bytes that the header takes: a page, so that no write of a frame touches it.
pub(crate) const HEADER_BYTES: usize = 4096;

/// Frames begin at multiples of this, so that a search for the next whole one need not look at every byte.
pub(crate) const ALIGNMENT: usize = 8;
/// Bytes of a frame in front of its body.
pub(crate) const FRAME_HEADER_BYTES: usize = 32;

/// Numbers from here on are nobody's: with a million batches a second it would take a journal a thousand centuries to
/// come so far. What has them was not written by this crate.
const NUMBERS_END: u64 = 1 << 62;

const OP_PUT: u8 = 1;
const OP_PUT_BLOB: u8 = 2;
const OP_REMOVE: u8 = 3;
const OP_START: u8 = 4;

/// Bytes of a record's entry beside its own bytes.
pub(crate) const PUT_BYTES: usize = 14;
/// Where the digest of a blob is in the entry of a record that names one.
pub(crate) const DIGEST_AT: usize = PUT_BYTES;
/// Bytes that an entry has more when its record names a blob.
pub(crate) const BLOB_BYTES: usize = 40;
/// Bytes of the entry that removes a record, or tells where the log starts.
pub(crate) const REMOVE_BYTES: usize = 9;

/// What the header of a segment says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    /// Grows with each use of a file, so that a recycled file's old frames are told from its new ones.
    pub id: u64,
    /// The sequence number of the segment's first frame. All earlier ones were durable when this was written.
    pub first_sequence: u64,
    /// Frames before this one hold nothing live any more.
    pub start: u64,
    /// No frame before this segment has used this record id, or a later one.
    pub next_record: u64,
    /// Bytes of the file.
    pub segment_bytes: u64,
    /// Random, the same in all segments of a journal, and under every checksum: neither another journal's frame nor
    /// one that a client wrote into a record passes for one of this journal.
    pub salt: u64,
}

/// What is found where a header should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeaderState {
    Valid(SegmentHeader),
    /// Zeros: the file was made and never used.
    Blank,
    /// Another version of the format, and that for certain.
    OtherVersion(u32),
    Damaged,
}

impl SegmentHeader {
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES);
        bytes.extend(MAGIC);
        bytes.extend(FORMAT_VERSION.to_le_bytes());
        bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
        for field in [self.id, self.first_sequence, self.start, self.next_record, self.salt] {
            bytes.extend(field.to_le_bytes());
        }
        bytes.extend(u32::try_from(self.segment_bytes).expect("segments are below 4 GiB").to_le_bytes());
        bytes.extend(crc32c::crc32c(&bytes[FIELDS_AT..]).to_le_bytes());
        bytes.resize(HEADER_BYTES, 0);
        bytes
    }

    pub fn decode(bytes: &[u8]) -> HeaderState {
        if bytes.len() < FIELDS_END {
            return HeaderState::Damaged;
        }
        if bytes.iter().all(|byte| *byte == 0) {
            return HeaderState::Blank;
        }
        if bytes[..MAGIC.len()] != MAGIC
            || u32_at(bytes, VERSIONED_BYTES) != crc32c::crc32c(&bytes[..VERSIONED_BYTES])
        {
            return HeaderState::Damaged;
        }
        match u32_at(bytes, MAGIC.len()) {
            FORMAT_VERSION => {}
            other => return HeaderState::OtherVersion(other),
        }
        let fields = &bytes[FIELDS_AT..FIELDS_CHECKSUM_AT];
        if u32_at(bytes, FIELDS_CHECKSUM_AT) != crc32c::crc32c(fields) {
            return HeaderState::Damaged;
        }
        let segment_bytes = u64::from(u32_at(fields, 40));
        if !(MIN_SEGMENT_BYTES..=MAX_SEGMENT_BYTES).contains(&segment_bytes) {
            return HeaderState::Damaged;
        }
        let header = SegmentHeader {
            id: u64_at(fields, 0),
            first_sequence: u64_at(fields, 8),
            start: u64_at(fields, 16),
            next_record: u64_at(fields, 24),
            salt: u64_at(fields, 32),
            segment_bytes,
        };
        let numbers = [header.id, header.first_sequence, header.start, header.next_record];
        match numbers.iter().all(|number| *number < NUMBERS_END) {
            true => HeaderState::Valid(header),
            false => HeaderState::Damaged,
        }
    }
}

/// A frame: one batch, whole by its checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    pub segment: u64,
    pub sequence: u64,
    /// All frames before this one were durable when the frame was written.
    pub synced: u64,
    pub body: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Appends the frame to a buffer, padded to the alignment.
    pub fn encode(&self, salt: u64, buffer: &mut Vec<u8>) {
        let at = buffer.len();
        let length = u32::try_from(self.body.len()).expect("a body fits into a segment");
        buffer.extend([0; 4]);
        buffer.extend(length.to_le_bytes());
        for field in [self.segment, self.sequence, self.synced] {
            buffer.extend(field.to_le_bytes());
        }
        buffer.extend(self.body);
        let checksum = checksum(salt, &buffer[at + 4..]);
        buffer[at..at + 4].copy_from_slice(&checksum.to_le_bytes());
        buffer.resize(at + frame_bytes(self.body.len()), 0);
    }

    /// The frame at the beginning of `bytes`, if there is a whole one.
    pub fn decode(salt: u64, bytes: &'a [u8]) -> Option<Frame<'a>> {
        let header = bytes.get(..FRAME_HEADER_BYTES)?;
        let end = FRAME_HEADER_BYTES.checked_add(u32_at(header, 4) as usize)?;
        let covered = bytes.get(4..end)?;
        if u32_at(header, 0) != checksum(salt, covered) {
            return None;
        }
        let [segment, sequence, synced] = [8, 16, 24].map(|at| u64_at(header, at));
        let numbers = [segment, sequence, synced];
        let body = &bytes[FRAME_HEADER_BYTES..end];
        numbers.iter().all(|number| *number < NUMBERS_END).then_some(Frame {
            segment,
            sequence,
            synced,
            body,
        })
    }

    /// Bytes of the frame in the segment.
    pub fn bytes(&self) -> usize {
        frame_bytes(self.body.len())
    }
}

/// What a frame's header claims, whole or not: the trace that a write has left.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FrameTrace {
    pub segment: u64,
    pub sequence: u64,
    pub synced: u64,
    pub bytes: usize,
}

impl FrameTrace {
    pub fn at(bytes: &[u8]) -> Option<FrameTrace> {
        let header = bytes.get(..FRAME_HEADER_BYTES)?;
        Some(FrameTrace {
            segment: u64_at(header, 8),
            sequence: u64_at(header, 16),
            synced: u64_at(header, 24),
            bytes: frame_bytes(u32_at(header, 4) as usize),
        })
    }
}

/// Bytes that a frame with so long a body takes in a segment.
pub(crate) const fn frame_bytes(body: usize) -> usize {
    (FRAME_HEADER_BYTES + body).next_multiple_of(ALIGNMENT)
}

fn checksum(salt: u64, covered: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&salt.to_le_bytes()), covered)
}

/// A blob as an entry names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlobName {
    pub digest: BlobDigest,
    pub bytes: u64,
}

/// One change that a batch makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry<'a> {
    /// A record, new or copied forward.
    Put { id: RecordId, kind: u8, blob: Option<BlobName>, bytes: &'a [u8] },
    /// A record is gone.
    Remove { id: RecordId },
    /// Frames before this one hold nothing live any more.
    Start { sequence: u64 },
}

impl<'a> Entry<'a> {
    /// Appends the entry to the body of a frame.
    pub fn encode(&self, body: &mut Vec<u8>) {
        match self {
            Entry::Put { id, kind, blob, bytes } => {
                body.extend([if blob.is_some() { OP_PUT_BLOB } else { OP_PUT }, *kind]);
                body.extend(u32::try_from(bytes.len()).expect("a record fits into a segment").to_le_bytes());
                body.extend(id.0.to_le_bytes());
                if let Some(blob) = blob {
                    body.extend(blob.digest.0);
                    body.extend(blob.bytes.to_le_bytes());
                }
                body.extend(*bytes);
            }
            Entry::Remove { id } => {
                body.push(OP_REMOVE);
                body.extend(id.0.to_le_bytes());
            }
            Entry::Start { sequence } => {
                body.push(OP_START);
                body.extend(sequence.to_le_bytes());
            }
        }
    }
}

/// The entries of a frame's body, in order. Ends with an error where the body cannot be read.
pub(crate) fn entries(mut body: &[u8]) -> impl Iterator<Item = Result<Entry<'_>, Malformed>> {
    std::iter::from_fn(move || {
        if body.is_empty() {
            return None;
        }
        let entry = take_entry(&mut body).ok_or(Malformed);
        if entry.is_err() {
            body = &[];
        }
        Some(entry)
    })
}

/// A body that no batch of this version has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

fn take_entry<'a>(body: &mut &'a [u8]) -> Option<Entry<'a>> {
    let op = body.split_off_first()?;
    match *op {
        OP_PUT | OP_PUT_BLOB => {
            let kind = *body.split_off_first()?;
            let length = u32_at(body.split_off(..4)?, 0) as usize;
            let id = take_record_id(body)?;
            let blob = match *op {
                OP_PUT => None,
                _ => Some(BlobName {
                    digest: BlobDigest(body.split_off(..32)?.try_into().expect("32 bytes")),
                    bytes: u64_at(body.split_off(..8)?, 0),
                }),
            };
            Some(Entry::Put { id, kind, blob, bytes: body.split_off(..length)? })
        }
        OP_REMOVE => Some(Entry::Remove { id: take_record_id(body)? }),
        OP_START => Some(Entry::Start { sequence: take_number(body)? }),
        _ => None,
    }
}

fn take_record_id(body: &mut &[u8]) -> Option<RecordId> {
    take_number(body).map(RecordId)
}

fn take_number(body: &mut &[u8]) -> Option<u64> {
    Some(u64_at(body.split_off(..8)?, 0)).filter(|number| *number < NUMBERS_END)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEADER: SegmentHeader = SegmentHeader {
        id: 7,
        first_sequence: 40,
        start: 12,
        next_record: 99,
        segment_bytes: 1 << 20,
        salt: 3,
    };

    #[test]
    fn a_header_is_read_back() {
        assert_eq!(SegmentHeader::decode(&HEADER.encode()), HeaderState::Valid(HEADER));
        assert_eq!(SegmentHeader::decode(&[0; HEADER_BYTES]), HeaderState::Blank);
        assert_eq!(SegmentHeader::decode(&HEADER.encode()[..FIELDS_END - 1]), HeaderState::Damaged);
    }

    #[test]
    fn each_flipped_bit_of_a_header_is_damage() {
        for bit in 0..FIELDS_END * 8 {
            let mut bytes = HEADER.encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(SegmentHeader::decode(&bytes), HeaderState::Damaged, "bit {bit}");
        }
    }

    #[test]
    fn another_version_is_named_and_not_read() {
        let mut bytes = HEADER.encode();
        bytes[8..12].copy_from_slice(&9_u32.to_le_bytes());
        let checksum = crc32c::crc32c(&bytes[..12]).to_le_bytes();
        bytes[12..16].copy_from_slice(&checksum);
        bytes[16..].fill(0xff);
        assert_eq!(SegmentHeader::decode(&bytes), HeaderState::OtherVersion(9));
    }

    #[test]
    fn each_flipped_bit_of_a_frame_and_each_cut_is_seen() {
        let frame = Frame { segment: 5, sequence: 6, synced: 4, body: b"a body" };
        let mut whole = Vec::new();
        frame.encode(11, &mut whole);
        assert_eq!(Frame::decode(11, &whole), Some(frame));
        assert_eq!(Frame::decode(12, &whole), None, "another journal's");
        let covered = FRAME_HEADER_BYTES + frame.body.len();
        for bit in 0..covered * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Frame::decode(11, &bytes), None, "bit {bit}");
        }
        for cut in 0..covered {
            assert_eq!(Frame::decode(11, &whole[..cut]), None, "cut at {cut}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_decoding_panic(bytes: Vec<u8>) {
            Frame::decode(1, &bytes);
            SegmentHeader::decode(&bytes);
            entries(&bytes).for_each(drop);
        }

        #[test]
        fn entries_are_read_back(
            id in 0..NUMBERS_END,
            kind: u8,
            bytes: Vec<u8>,
            digest: [u8; 32],
            length in 0..NUMBERS_END,
        ) {
            let blob = Some(BlobName { digest: BlobDigest(digest), bytes: length });
            let id = RecordId(id);
            let written = [
                Entry::Put { id, kind, blob, bytes: &bytes },
                Entry::Remove { id },
                Entry::Put { id, kind, blob: None, bytes: &bytes },
                Entry::Start { sequence: length },
            ];
            let mut body = Vec::new();
            written.iter().for_each(|entry| entry.encode(&mut body));
            let read: Result<Vec<Entry<'_>>, Malformed> = entries(&body).collect();
            prop_assert_eq!(read.expect("what was written"), written);
        }
    }
}
