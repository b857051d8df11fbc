//! Segments and blobs of any content: bytes as they come, and headers and frames whose checksums are right and whose
//! numbers are anybody's. No disk leaves such frames behind; what reads them may refuse them, and must not panic.

use super::input::Input;
use super::memory::Memory;
use super::{SEGMENT_BYTES, open_checked, records};
use crate::blobs;
use crate::check_on;
use crate::format::{BlobName, Entry, Frame, HEADER_BYTES, SegmentHeader};
use crate::ids::{BlobDigest, RecordId};
use crate::recovery::SEGMENT_PREFIX;

/// The most files of one input.
const MAX_FILES: usize = 6;
/// What all segments have in common, unless an input says otherwise.
const SALT: u64 = 7;

/// Reads a folder of files. Of the first byte the lowest bit says whether it is opened, the next one whether it is read
/// again then. The rest says of each file what it is, and what is in it.
///
/// # Panics
/// If any of this panics, a check changes anything, or an opening finds other records than the check before it.
pub fn segments(data: &[u8]) {
    let mut input = Input(data);
    let choice = input.byte();
    let memory = Memory::default();
    let mut blob = None;
    for number in 0..MAX_FILES {
        if input.is_empty() {
            break;
        }
        let name = format!("{SEGMENT_PREFIX}{number:04}");
        match input.byte() % 4 {
            0 => memory.put(&name, input.text().to_vec()),
            1 => {
                let content = input.text();
                let digest = BlobDigest::of(content);
                memory.put(&blobs::path(&digest), content.to_vec());
                blob = Some(BlobName { digest, bytes: content.len() as u64 });
            }
            _ => memory.put(&name, segment(&mut input, blob)),
        }
    }
    let before = memory.snapshot();
    let checked = check_on(&memory);
    assert!(memory.snapshot() == before, "a check changes nothing");
    if let Ok(checked) = checked
        && choice & 1 != 0
    {
        open_checked(&memory, &records(&memory, &checked));
        if choice & 2 != 0 {
            // Numbers that contradict each other may be damage a second time.
            let _ = check_on(&memory);
        }
    }
}

/// A segment: a header, and frames with whatever is between them.
fn segment(input: &mut Input<'_>, blob: Option<BlobName>) -> Vec<u8> {
    let mut header = SegmentHeader {
        id: input.number(),
        first_sequence: input.number(),
        start: input.number(),
        next_record: input.number(),
        segment_bytes: SEGMENT_BYTES,
        salt: SALT,
    };
    let (mut sequence, mut synced) = (header.first_sequence, header.first_sequence);
    let choice = input.byte();
    if choice & 1 != 0 {
        header.salt = input.number();
    }
    if choice & 2 != 0 {
        // Around the smallest: of large ones an opening would make several.
        header.segment_bytes = input.number() % (2 * SEGMENT_BYTES);
    }
    let mut bytes = header.encode();
    if choice & 4 != 0 {
        let bit = input.below(8 * HEADER_BYTES);
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
    while !input.is_empty() && (bytes.len() as u64) < SEGMENT_BYTES {
        let begin = bytes.len();
        match input.byte() % 8 {
            // The file ends here, or is as long as it was made.
            0 => break,
            1 => {
                bytes.resize(SEGMENT_BYTES as usize, 0);
                break;
            }
            2 => bytes.extend(input.text()),
            3 => bytes.resize(begin + input.below(2048), 0),
            step => {
                let segment = if step == 4 { input.number() } else { header.id };
                if step == 5 {
                    (sequence, synced) = (input.number(), input.number());
                }
                let body = body(input, blob);
                Frame { segment, sequence, synced, body: &body }.encode(SALT, &mut bytes);
                if step == 6 {
                    let bit = input.below(8 * (bytes.len() - begin));
                    bytes[begin + bit / 8] ^= 1 << (bit % 8);
                }
                sequence = sequence.wrapping_add(1);
                if step == 7 {
                    synced = sequence;
                }
            }
        }
        bytes.resize(bytes.len().next_multiple_of(crate::format::ALIGNMENT), 0);
    }
    bytes.truncate(SEGMENT_BYTES as usize);
    bytes
}

/// The body of a frame: entries, or bytes that are none.
fn body(input: &mut Input<'_>, known: Option<BlobName>) -> Vec<u8> {
    let mut body = Vec::new();
    for _ in 0..=input.byte() % 4 {
        let entry = match input.byte() % 8 {
            0 => Entry::Remove { id: RecordId(input.number()) },
            1 => Entry::Start { sequence: input.number() },
            2 => {
                body.extend(input.text());
                continue;
            }
            3 => {
                let bytes = input.number();
                let blob = Some(BlobName { bytes, digest: BlobDigest([input.byte(); 32]) });
                Entry::Put { id: RecordId(input.number()), kind: input.byte(), blob, bytes: input.text() }
            }
            step => {
                let blob = known.filter(|_| step == 4);
                Entry::Put { id: RecordId(input.number()), kind: input.byte(), blob, bytes: input.text() }
            }
        };
        entry.encode(&mut body);
    }
    body
}
