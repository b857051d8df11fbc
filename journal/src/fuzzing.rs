//! What the fuzz targets in `fuzz/` run: any bytes may be handed over, and nothing here may panic. Built for them and
//! for the tests only, which replay the seeds and whatever was found.

mod damage;
mod input;
mod memory;
mod segments;

pub use self::damage::damage;
pub use self::segments::segments;

use std::collections::BTreeMap;
use std::sync::Arc;

use self::memory::Memory;
use crate::{Config, Journal, OpenError, Recovery};

/// The smallest segments that there are: an input says much about few bytes.
fn small() -> Config {
    Config { segment_bytes: SEGMENT_BYTES, log_bytes: 8 * SEGMENT_BYTES, ..Config::default() }
}

const SEGMENT_BYTES: u64 = crate::MIN_SEGMENT_BYTES;

/// Records as they compare: kind, bytes, and the blob's content.
type Records = BTreeMap<u64, (u8, Vec<u8>, Option<Vec<u8>>)>;

fn open(memory: &Memory) -> Result<(Journal, Recovery), OpenError> {
    Journal::open_on(Arc::new(memory.clone()), &small())
}

/// # Panics
/// If the records come in another order than that in which they were put, or a live record's blob is not whole.
fn records(memory: &Memory, recovery: &Recovery) -> Records {
    assert!(recovery.records.is_sorted_by_key(|record| record.id));
    let content = |blob: &crate::Blob| crate::blobs::read(memory, blob.name()).expect("a live record's blob");
    let known = recovery
        .records
        .iter()
        .map(|record| (record.id.0, (record.kind, record.bytes.clone(), record.blob.as_ref().map(content))));
    known.collect()
}

/// Opens what a check has found these records in. `None` where that is refused.
///
/// # Panics
/// If the opening finds other records than the check.
fn open_checked(memory: &Memory, checked: &Records) -> Option<Recovery> {
    let (_journal, recovery) = open(memory).ok()?;
    assert_eq!(&records(memory, &recovery), checked, "what an opening finds is what a check has found");
    Some(recovery)
}

#[cfg(test)]
mod tests {
    /// Each line of a file of seeds is a name, a colon and bytes in hexadecimal.
    fn replay(seeds: &str, target: fn(&[u8])) {
        let lines = seeds.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        for line in lines {
            let (name, hex) = line.rsplit_once(": ").expect("a seed has a name");
            let byte = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).expect(name);
            let bytes: Vec<u8> = hex.as_bytes().chunks(2).map(byte).collect();
            println!("{name}"); // shown if it panics
            target(&bytes);
            // Cut short anywhere, too, and with each byte another.
            for at in 0..bytes.len() {
                target(&bytes[..at]);
                let mut changed = bytes.clone();
                for other in [0, 0xFF, bytes[at] ^ 1, bytes[at] ^ 0x80] {
                    changed[at] = other;
                    target(&changed);
                }
            }
        }
    }

    #[test]
    fn seeds_of_segments_are_survived() {
        replay(include_str!("../fuzz/seeds/segments.hex"), super::segments);
    }

    #[test]
    fn seeds_of_damage_are_survived() {
        replay(include_str!("../fuzz/seeds/damage.hex"), super::damage);
    }
}
