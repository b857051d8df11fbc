//! What is bounded, and that removing always works.

use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use offload_journal::{BlobDigest, Config, Durability, Journal, OpenError, RecordId, Refused};

use crate::faulty_disk::{Faults, FaultyDisk};
use crate::ledger::{open, small};

fn open_with(disk: &FaultyDisk, config: &Config) -> Journal {
    Journal::open_on(Arc::new(disk.clone()), config).expect("a disk without faults").0
}

/// Puts a record and waits until it is durable.
fn put(journal: &Journal, bytes: &[u8]) -> Result<RecordId, Refused> {
    let mut batch = journal.batch();
    let id = batch.put(0, bytes);
    append(journal, batch).map(|()| id)
}

fn append(journal: &Journal, batch: offload_journal::Batch) -> Result<(), Refused> {
    let (done, completion) = channel();
    journal.append(batch, move |result| done.send(result).unwrap())?;
    completion.recv().unwrap().expect("a disk without faults");
    Ok(())
}

fn remove(journal: &Journal, id: RecordId) {
    let mut batch = journal.batch();
    batch.remove(id);
    append(journal, batch).expect("removing always works");
}

#[test]
fn records_are_bounded_in_number() {
    let journal = open_with(&FaultyDisk::default(), &Config { records: 2, ..small() });
    let first = put(&journal, b"1").unwrap();
    put(&journal, b"2").unwrap();
    assert!(matches!(put(&journal, b"3"), Err(Refused::Full)));
    remove(&journal, first);
    put(&journal, b"3").unwrap();
}

#[test]
fn records_are_bounded_in_bytes_and_a_full_log_can_be_used_for_ever() {
    let disk = FaultyDisk::default();
    let journal = open_with(&disk, &small());
    let mut live = std::collections::VecDeque::new();
    for round in 0..3000_usize {
        let bytes = vec![round as u8; 300 + round % 700];
        loop {
            match put(&journal, &bytes) {
                Ok(id) => break live.push_back(id),
                Err(Refused::Full) => {
                    // The oldest stays: it has to be copied forward, again and again.
                    let next = live.remove(1 + round % (live.len() - 1)).unwrap();
                    remove(&journal, next);
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
    let stats = journal.stats();
    assert!(stats.record_bytes <= stats.capacity_bytes);
    assert_eq!(stats.log_bytes, small().log_bytes);
    assert_eq!(stats.records, live.len() as u64);
    for id in &live {
        remove(&journal, *id);
    }
    drop(journal);
    assert!(open(&disk).1.records.is_empty());
}

#[test]
fn what_waits_is_bounded_but_for_removals() {
    let disk = FaultyDisk::default();
    let journal = open_with(&disk, &Config { queued_bytes: 100, ..small() });
    let id = put(&journal, b"record").unwrap();
    disk.set(Faults { hold_sync: true, ..Faults::default() });
    let mut batch = journal.batch();
    batch.put(0, b"is being written");
    journal.append(batch, drop).unwrap();
    disk.wait_until_held();
    let batch = || {
        let mut batch = journal.batch();
        batch.put(0, &[0; 80]);
        batch
    };
    journal.append(batch(), drop).unwrap();
    assert!(matches!(journal.append(batch(), drop), Err(Refused::Full)));
    let mut removal = journal.batch();
    removal.remove(id);
    journal.append(removal, drop).unwrap();
    disk.release();
    journal.close().unwrap();
    assert_eq!(open(&disk).1.records.len(), 2);
}

#[test]
fn what_is_too_large_is_refused() {
    let journal = open_with(&FaultyDisk::default(), &Config { blob_bytes: 1000, ..small() });
    assert!(matches!(put(&journal, &[0; 2000]), Err(Refused::TooLarge { bytes: 2000, .. })));
    let mut batch = journal.batch();
    for _ in 0..10 {
        batch.put(0, &[0; 1000]);
    }
    assert!(matches!(append(&journal, batch), Err(Refused::TooLarge { .. })));
    assert!(matches!(
        journal.write_blob(BlobDigest::of(&[0; 1001]), &[0; 1001]),
        Err(Refused::TooLarge { bytes: 1001, most: 1000 })
    ));
    let _blob = journal.write_blob(BlobDigest::of(&[0; 600]), &[0; 600]).unwrap();
    assert!(matches!(journal.write_blob(BlobDigest::of(&[1; 600]), &[1; 600]), Err(Refused::Full)));
    let contradiction = Config { segment_bytes: 1, ..small() };
    let opened = Journal::open_on(Arc::new(FaultyDisk::default()), &contradiction);
    assert!(matches!(opened, Err(OpenError::Config(_))));
}

#[test]
fn a_lone_batch_is_synced_at_once_and_those_that_come_meanwhile_share_the_next_sync() {
    let disk = FaultyDisk::default();
    let journal = open_with(&disk, &small());
    put(&journal, b"alone").unwrap();
    assert_eq!(journal.stats().syncs, 1);
    disk.set(Faults { hold_sync: true, ..Faults::default() });
    let (done, completions) = channel();
    for _ in 0..64 {
        let mut batch = journal.batch();
        batch.put(0, b"record");
        let done = done.clone();
        journal.append(batch, move |result| done.send(result.is_ok()).unwrap()).unwrap();
        disk.wait_until_held();
    }
    disk.release();
    drop(done);
    assert!(completions.iter().all(|durable| durable));
    journal.close().unwrap();
    assert_eq!(open(&disk).1.records.len(), 65);
}

#[test]
fn durability_batch_completes_before_the_sync_and_syncs_within_the_interval() {
    let disk = FaultyDisk::default();
    let sync_interval = Duration::from_millis(1);
    let config = Config { durability: Durability::Batch { sync_interval }, ..small() };
    let journal = open_with(&disk, &config);
    let opened = disk.syncs();
    disk.set(Faults { hold_sync: true, ..Faults::default() });
    put(&journal, b"completed while syncs wait").unwrap();
    disk.release();
    disk.wait_for_syncs(opened + 1);
    let (journal, recovery) = open(&disk.after_power_cut(0));
    assert_eq!(recovery.records.len(), 1);
    drop(journal);
}

#[test]
fn an_empty_batch_tells_when_all_before_it_is_durable_however_full_the_journal_is() {
    let disk = FaultyDisk::default();
    let journal = open_with(&disk, &Config { records: 1, ..small() });
    let lazily = |bytes: &[u8]| {
        let mut batch = journal.batch();
        batch.put(0, bytes);
        journal.append_lazily(batch)
    };
    lazily(b"whole").unwrap();
    assert!(matches!(lazily(b"refused"), Err(Refused::Full)));
    append(&journal, journal.batch()).unwrap();
    assert_eq!(open(&disk.after_power_cut(1)).1.records.len(), 1);
}
