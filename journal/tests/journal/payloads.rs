//! Records whose payload the journal itself makes a blob.

use std::sync::Arc;
use std::sync::mpsc::channel;

use offload_journal::{Config, Journal, Refused};

use crate::faulty_disk::{Faults, FaultyDisk};
use crate::ledger::{open, small};

fn put(journal: &Journal, bytes: &[u8], payload: &[u8]) -> Result<bool, Refused> {
    let (done, durable) = channel();
    let mut batch = journal.batch();
    batch.put_payload(3, bytes, payload.to_vec());
    journal.append(batch, move |result| done.send(result.is_ok()).unwrap())?;
    Ok(durable.recv().unwrap())
}

/// Records as they are found, with their payloads.
fn found(disk: &FaultyDisk) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
    let (journal, recovery) = open(disk);
    let read = |blob| journal.read_blob(blob).unwrap();
    recovery.records.iter().map(|record| (record.bytes.clone(), record.blob.as_ref().map(read))).collect()
}

#[test]
fn a_payload_is_there_again_and_kept_once_however_many_records_have_it() {
    let disk = FaultyDisk::default();
    let (journal, _) = open(&disk);
    let payload = vec![7; 5000];
    assert!(put(&journal, b"one", &payload).unwrap());
    let mut batch = journal.batch();
    batch.put(0, b"between");
    batch.put_payload(3, b"two", payload.clone());
    batch.put_payload(3, b"three", vec![8; 10]);
    journal.append(batch, |result| result.unwrap()).unwrap();
    journal.close().unwrap();
    assert_eq!(journal.stats().blob_bytes, 5010);
    drop(journal);
    assert_eq!(
        found(&disk),
        [
            (b"one".to_vec(), Some(payload.clone())),
            (b"between".to_vec(), None),
            (b"two".to_vec(), Some(payload)),
            (b"three".to_vec(), Some(vec![8; 10])),
        ]
    );
}

#[test]
fn payloads_have_the_room_of_blobs_and_give_it_back() {
    let disk = FaultyDisk::default();
    let config = Config { blob_bytes: 10_000, queued_bytes: 2_000, ..small() };
    let (journal, _) = Journal::open_on(Arc::new(disk.clone()), &config).expect("a disk without faults");
    assert!(matches!(put(&journal, b"", &[0; 10_001]), Err(Refused::TooLarge { .. })));
    // One that is longer than the queue is alone in it.
    let mut batch = journal.batch();
    let record = batch.put_payload(0, b"", vec![1; 8_000]);
    let ticket = journal.stage(batch, |_| panic!("it was withdrawn")).unwrap();
    assert!(matches!(put(&journal, b"", &[2; 3_000]), Err(Refused::Full)));
    assert!(journal.withdraw(ticket));
    assert!(put(&journal, b"", &[2; 9_000]).unwrap());
    assert!(matches!(put(&journal, b"", &[3; 3_000]), Err(Refused::Full)));
    let mut batch = journal.batch();
    batch.remove(record);
    journal.append(batch, |_| {}).unwrap();
    journal.close().unwrap();
}

#[test]
fn a_disk_without_room_for_a_payload_drops_its_batch_and_takes_the_next() {
    let disk = FaultyDisk::default();
    let (journal, _) = open(&disk);
    assert!(put(&journal, b"before", b"small").unwrap());
    disk.set(Faults { capacity: Some(0), ..Faults::default() });
    assert!(!put(&journal, b"dropped", &[1; 3000]).unwrap());
    disk.set(Faults::default());
    assert!(put(&journal, b"behind", &[2; 3000]).unwrap());
    assert_eq!(journal.stats().records, 2);
    drop(journal);
    let names: Vec<_> = found(&disk).into_iter().map(|(bytes, _)| bytes).collect();
    assert_eq!(names, [&b"before"[..], b"behind"]);
}
