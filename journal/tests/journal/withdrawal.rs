//! Batches that are staged, taken back, or appended without anybody who waits.

use std::sync::Arc;
use std::sync::mpsc::channel;

use offload_journal::{BlobDigest, Config, Journal, RecordId, Refused, Ticket};

use crate::faulty_disk::{Faults, FaultyDisk};
use crate::ledger::{open, small};

/// Brings a journal into the middle of a sync: whatever comes now waits.
fn keep_busy(disk: &FaultyDisk, journal: &Journal) {
    disk.set(Faults { hold_sync: true, ..Faults::default() });
    let mut batch = journal.batch();
    batch.put(0, b"is being written");
    journal.append(batch, |result| result.unwrap()).unwrap();
    disk.wait_until_held();
}

fn stage(journal: &Journal, bytes: &[u8]) -> Result<(RecordId, Ticket), Refused> {
    let mut batch = journal.batch();
    let id = batch.put(0, bytes);
    journal.stage(batch, |result| result.unwrap()).map(|ticket| (id, ticket))
}

fn records(disk: &FaultyDisk) -> Vec<Vec<u8>> {
    open(disk).1.records.into_iter().map(|record| record.bytes).collect()
}

#[test]
fn what_waits_can_be_taken_back_once_and_is_never_written() {
    let disk = FaultyDisk::default();
    let (journal, _) = open(&disk);
    keep_busy(&disk, &journal);
    let (dropped, completions) = channel::<()>();
    let mut batch = journal.batch();
    batch.put(0, b"withdrawn");
    let ticket = journal.stage(batch, move |_| drop(dropped)).unwrap();
    let (_, kept) = stage(&journal, b"kept").unwrap();
    assert!(journal.withdraw(ticket));
    assert!(completions.recv().is_err(), "its completion is dropped");
    assert!(!journal.withdraw(ticket));
    assert_eq!(journal.stats().records, 2);
    disk.release();
    journal.close().unwrap();
    assert!(!journal.withdraw(kept), "it was written");
    assert_eq!(records(&disk), [&b"is being written"[..], b"kept"]);
}

#[test]
fn what_is_being_written_stays() {
    let disk = FaultyDisk::default();
    let (journal, _) = open(&disk);
    disk.set(Faults { hold_sync: true, ..Faults::default() });
    let (done, completion) = channel();
    let mut batch = journal.batch();
    batch.put(0, b"late");
    let ticket = journal.stage(batch, move |result| done.send(result.is_ok()).unwrap()).unwrap();
    journal.commit();
    disk.wait_until_held();
    assert!(!journal.withdraw(ticket));
    disk.release();
    assert!(completion.recv().unwrap());
    journal.close().unwrap();
    assert_eq!(records(&disk), [b"late"]);
}

#[test]
fn what_was_taken_back_gives_its_room_back() {
    let disk = FaultyDisk::default();
    let config = Config { records: 3, queued_bytes: 400, ..small() };
    let (journal, _) = Journal::open_on(Arc::new(disk.clone()), &config).expect("a disk without faults");
    let blob = journal.write_blob(BlobDigest::of(b"a blob"), b"a blob").unwrap();
    keep_busy(&disk, &journal);
    let mut before = None;
    for round in 0..1000 {
        let (_, ticket) = stage(&journal, &[0; 100]).unwrap();
        let mut batch = journal.batch();
        batch.put_blob(0, &[0; 100], &blob);
        let with_blob = journal.stage(batch, |_| panic!("it was withdrawn")).unwrap();
        assert!(matches!(stage(&journal, b"one more"), Err(Refused::Full)));
        assert!(journal.withdraw(ticket), "{round}");
        if let Some(before) = before.replace(with_blob) {
            assert!(!journal.withdraw(before));
        }
        assert!(journal.withdraw(with_blob));
    }
    drop(blob);
    disk.release();
    journal.close().unwrap();
    assert_eq!(records(&disk).len(), 1);
    assert_eq!(journal.stats().blob_bytes, 0);
}

#[test]
fn what_is_staged_waits_for_its_commit_or_for_another_batch() {
    let disk = FaultyDisk::default();
    let (journal, _) = open(&disk);
    let (_, staged) = stage(&journal, b"taken back").unwrap();
    assert!(journal.withdraw(staged), "nothing has woken the journal's thread");
    journal.commit();
    let (_, first) = stage(&journal, b"first").unwrap();
    let (done, completion) = channel();
    let mut batch = journal.batch();
    batch.put(0, b"second");
    journal.append(batch, move |result| done.send(result.is_ok()).unwrap()).unwrap();
    assert!(completion.recv().unwrap());
    assert!(!journal.withdraw(first));
    journal.close().unwrap();
    assert_eq!(records(&disk), [&b"first"[..], b"second"]);
}

#[test]
fn a_removal_that_nobody_waits_for_is_written_all_the_same() {
    let disk = FaultyDisk::default();
    let (journal, _) = open(&disk);
    let (first, _) = stage(&journal, b"first").unwrap();
    let (second, _) = stage(&journal, b"second").unwrap();
    journal.commit();
    for id in [first, second] {
        let mut batch = journal.batch();
        batch.remove(id);
        journal.append_lazily(batch).unwrap();
    }
    // Nothing else comes: it is the delay that ends.
    while journal.stats().records > 0 {
        std::thread::yield_now();
    }
    let (third, _) = stage(&journal, b"third").unwrap();
    journal.commit();
    let mut batch = journal.batch();
    batch.remove(third);
    journal.append_lazily(batch).unwrap();
    journal.close().unwrap();
    assert!(records(&disk).is_empty(), "closing waits for no delay");
}

#[test]
fn a_journal_that_was_closed_takes_nothing_and_lets_another_open_it() {
    let disk = FaultyDisk::default();
    let (journal, _) = open(&disk);
    stage(&journal, b"staged").unwrap();
    journal.close().unwrap();
    assert!(matches!(stage(&journal, b"late"), Err(Refused::Closed)));
    assert!(matches!(journal.append_lazily(journal.batch()), Err(Refused::Closed)));
    assert_eq!(records(&disk), [b"staged"]);
    journal.close().unwrap();
}
