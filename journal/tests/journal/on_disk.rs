//! The real file system.

use std::path::Path;
use std::sync::mpsc::channel;

use offload_journal::{Batch, BlobDigest, Config, Journal, OpenError, check, salvage};

fn append(journal: &Journal, batch: Batch) {
    let (done, completion) = channel();
    journal.append(batch, move |result| done.send(result).unwrap()).unwrap();
    completion.recv().unwrap().unwrap();
}

fn blob_files(journal: &Path) -> usize {
    std::fs::read_dir(journal.join("blobs")).unwrap().count()
}

#[test]
fn records_outlive_the_journal_and_only_one_has_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    assert!(matches!(check(&path), Err(OpenError::Io { .. })), "there is none");
    let (journal, recovery) = Journal::open(&path, &Config::default()).unwrap();
    assert!(recovery.records.is_empty() && recovery.damage.is_empty() && recovery.torn_bytes == 0);
    let mut batch = journal.batch();
    let first = batch.put(1, b"one");
    batch.put(2, b"two");
    append(&journal, batch);
    let mut batch = journal.batch();
    batch.remove(first);
    batch.put(3, b"three");
    append(&journal, batch);
    assert!(matches!(Journal::open(&path, &Config::default()), Err(OpenError::InUse)));
    assert!(matches!(check(&path), Err(OpenError::InUse)));
    drop(journal);
    assert_eq!(check(&path).unwrap().records.len(), 2);
    let (_journal, recovery) = Journal::open(&path, &Config::default()).unwrap();
    let found: Vec<(u8, &[u8])> =
        recovery.records.iter().map(|record| (record.kind, record.bytes.as_slice())).collect();
    assert_eq!(found, [(2, b"two".as_slice()), (3, b"three".as_slice())]);
}

#[test]
fn a_blob_is_kept_once_for_as_long_as_a_record_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    let (journal, _) = Journal::open(&path, &Config::default()).unwrap();
    let content = vec![7; 3 * 1024 * 1024];
    let blob = journal.write_blob(BlobDigest::of(&content), &content).unwrap();
    let mut batch = journal.batch();
    let ids = [
        batch.put_blob(1, b"a", &blob),
        batch.put_blob(1, b"b", &journal.write_blob(BlobDigest::of(&content), &content).unwrap()),
    ];
    append(&journal, batch);
    assert_eq!((blob_files(&path), journal.stats().blob_bytes), (1, content.len() as u64));
    drop(blob);
    let mut batch = journal.batch();
    batch.remove(ids[0]);
    append(&journal, batch);
    assert_eq!(blob_files(&path), 1);
    drop(journal);
    let (journal, recovery) = Journal::open(&path, &Config::default()).unwrap();
    let found = recovery.records[0].blob.as_ref().unwrap();
    assert!(journal.read_blob(found).unwrap() == content);
    drop(recovery);
    let mut batch = journal.batch();
    batch.remove(ids[1]);
    append(&journal, batch);
    journal.close().unwrap();
    assert_eq!(blob_files(&path), 0);
}

#[test]
fn what_is_whole_is_salvaged_into_another_folder() {
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (folder.path().join("old"), folder.path().join("new"));
    let (journal, _) = Journal::open(&old, &Config::default()).unwrap();
    for index in 0..5 {
        let mut batch = journal.batch();
        batch.put_blob(
            index,
            &[index; 50],
            &journal.write_blob(BlobDigest::of(&[index; 100_000]), &[index; 100_000]).unwrap(),
        );
        append(&journal, batch);
    }
    drop(journal);
    let segment = old.join("segment-0000");
    let mut bytes = std::fs::read(&segment).unwrap();
    // The third frame: 32 bytes and an entry of 54 with 50 each, 136 with the padding.
    bytes[4096 + 2 * 136 + 60] ^= 1;
    std::fs::write(&segment, &bytes).unwrap();
    let recovery = salvage(&old, &new, &Config::default()).unwrap();
    assert_eq!((recovery.records.len(), recovery.damage.len()), (4, 1));
    assert!(std::fs::read(&segment).unwrap() == bytes, "the old one is not changed");
    let (journal, recovery) = Journal::open(&new, &Config::default()).unwrap();
    assert!(recovery.damage.is_empty());
    let kinds: Vec<u8> = recovery.records.iter().map(|record| record.kind).collect();
    assert_eq!(kinds, [0, 1, 3, 4]);
    for record in &recovery.records {
        assert!(journal.read_blob(record.blob.as_ref().unwrap()).unwrap() == vec![record.kind; 100_000]);
    }
    drop(journal);
    assert!(matches!(salvage(&old, &new, &Config::default()), Err(OpenError::Occupied)));
}
