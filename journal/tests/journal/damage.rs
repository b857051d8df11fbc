//! What was durable and is not what it was.

use std::sync::Arc;

use offload_journal::{BlobDamage, Damage, Journal, OpenError, check_on};

use crate::faulty_disk::FaultyDisk;
use crate::ledger::{Ledger, User, live, open, small};
use crate::random::Random;

/// A disk with a journal that has several segments in use, and what it holds.
fn journal(script: u64) -> (FaultyDisk, Ledger) {
    let disk = FaultyDisk::default();
    let (journal, _) = open(&disk);
    let mut ledger = Ledger::default();
    User { journal: &journal, disk: &disk, ledger: &mut ledger, random: Random::new(script) }.run(90);
    drop(journal);
    (disk, ledger)
}

fn segments(disk: &FaultyDisk) -> Vec<String> {
    disk.files().into_iter().filter(|file| file.starts_with("segment-")).collect()
}

#[test]
fn a_flipped_bit_is_reported_and_costs_one_batch_at_most() {
    let (whole, ledger) = journal(11);
    let mut random = Random::new(12);
    let mut damaged = 0;
    for round in 0..600 {
        let disk = whole.after_kill();
        let files = segments(&disk);
        let file = &files[random.below(files.len())];
        // The headers are few bytes: half of the rounds go there.
        let bits = if round % 2 == 0 { 16 * 1024 * 8 } else { 64 * 8 };
        disk.flip(file, random.below(bits));
        let calls = disk.calls();
        check_on(&disk).expect("readable");
        assert_eq!(disk.calls(), calls, "a check changes nothing");
        let (journal, recovery) = open(&disk);
        let found = live(&journal, &recovery);
        let expected = ledger.live();
        let all = ledger.all();
        for (id, record) in &found {
            assert_eq!(Some(record), all.get(id), "round {round}: no record is misread");
        }
        let lost = expected.keys().filter(|id| !found.contains_key(id)).count();
        let back = found.keys().filter(|id| !expected.contains_key(id)).count();
        assert!(
            lost == 0 || !recovery.damage.is_empty(),
            "round {round}: {lost} records lost without a word"
        );
        assert!(
            back == 0 || !recovery.damage.is_empty(),
            "round {round}: {back} records back without a word"
        );
        assert!(lost <= 60, "round {round}: {lost} records lost by one bit");
        let in_batches = recovery.damage.iter().any(|damage| matches!(damage, Damage::Batches { .. }));
        if in_batches {
            damaged += 1;
            let set_aside = disk.files().into_iter().filter(|file| file.starts_with("damaged/")).count();
            assert!(set_aside > 0);
        }
        drop(journal);
        let (journal, recovery) = open(&disk);
        assert!(recovery.damage.is_empty(), "damage is reported once: {:?}", recovery.damage);
        assert_eq!(live(&journal, &recovery), found);
    }
    assert!(damaged > 50, "{damaged} rounds with damage");
}

#[test]
fn a_missing_segment_is_damage_and_the_others_count() {
    let (whole, ledger) = journal(11);
    let mut reported = 0;
    // Without the last one the journal looks as if it had ended before it.
    let id = |file: &String| u64::from_le_bytes(whole.read(file)[16..24].try_into().unwrap());
    let mut files = segments(&whole);
    files.sort_by_key(id);
    files.pop();
    for file in files {
        let disk = whole.after_kill();
        disk.forget(&file);
        let (journal, recovery) = open(&disk);
        let (found, expected) = (live(&journal, &recovery), ledger.live());
        if found != expected {
            assert!(!recovery.damage.is_empty(), "without {file}");
        }
        reported += usize::from(!recovery.damage.is_empty());
        drop(journal);
        assert!(open(&disk).1.damage.is_empty());
    }
    assert!(reported > 1, "{reported} segments were in use");
}

#[test]
fn a_blob_that_is_missing_or_altered_is_damage_of_its_records_alone() {
    let (disk, ledger) = journal(11);
    let blobs: Vec<String> = disk.files().into_iter().filter(|file| file.starts_with("blobs/")).collect();
    assert!(blobs.len() > 1);
    disk.flip(&blobs[0], 99);
    disk.forget(&blobs[1]);
    let (journal, recovery) = open(&disk);
    let found = live(&journal, &recovery);
    let mut lost = ledger.live();
    lost.retain(|id, _| !found.contains_key(id));
    let mut reported = 0;
    for damage in &recovery.damage {
        let Damage::Blob { record, digest, damage } = damage else { panic!("{damage:?}") };
        let known = lost.remove(&record.id.0).expect("it is not among the live records");
        assert_eq!(record.bytes, known.bytes, "the record itself is whole");
        let altered = blobs[0].ends_with(&digest.to_string());
        assert_eq!(*damage, if altered { BlobDamage::Altered } else { BlobDamage::Missing });
        reported += 1;
    }
    assert!(reported > 1 && lost.is_empty());
    assert!(disk.files().contains(&blobs[0].replace("blobs/", "damaged/blob-")));
    drop(journal);
    assert!(open(&disk).1.damage.is_empty());
}

#[test]
fn another_version_is_refused_and_not_touched() {
    let (disk, _) = journal(11);
    let file = &segments(&disk)[0];
    let mut header = disk.read(file)[..12].to_vec();
    header[8..].copy_from_slice(&2_u32.to_le_bytes());
    disk.patch(file, 0, &header);
    disk.patch(file, 12, &crc32c(&header).to_le_bytes());
    let calls = disk.calls();
    match Journal::open_on(Arc::new(disk.clone()), &small()) {
        Err(OpenError::Version { found: 2, .. }) => {}
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("a newer format was opened"),
    }
    assert!(matches!(check_on(&disk), Err(OpenError::Version { found: 2, .. })));
    assert_eq!(disk.calls(), calls);
}

#[test]
fn a_segment_of_another_journal_is_refused() {
    let ((disk, _), (other, _)) = (journal(11), journal(12));
    let file = &segments(&other)[0];
    disk.patch(file, 0, &other.read(file));
    assert!(matches!(check_on(&disk), Err(OpenError::Foreign { .. })));
}

/// Bit by bit, so that the tests do not trust the library's.
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg());
    !bytes.iter().fold(!0_u32, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}
