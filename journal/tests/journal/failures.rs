//! A disk that fails, or is full.

use std::sync::Arc;
use std::sync::mpsc::channel;

use offload_journal::{BlobDigest, Health, Journal, Refused};

use crate::faulty_disk::{Faults, FaultyDisk};
use crate::ledger::{Ledger, User, live, open, small};
use crate::random::Random;

#[test]
fn no_completion_succeeds_after_a_call_has_failed() {
    let script = 5;
    let disk = FaultyDisk::default();
    let (journal, _) = open(&disk);
    let opened = disk.calls();
    let mut ledger = Ledger::default();
    User { journal: &journal, disk: &disk, ledger: &mut ledger, random: Random::new(script) }.run(60);
    for call in opened..disk.calls() {
        let disk = FaultyDisk::with(Faults { error_at: Some(call), ..Faults::default() });
        let (journal, _) = open(&disk);
        let (told, failures) = channel();
        journal.on_failure(move |failed| told.send(failed.to_string()).unwrap());
        let mut ledger = Ledger::default();
        // The user checks the order of completions.
        User { journal: &journal, disk: &disk, ledger: &mut ledger, random: Random::new(script) }.run(60);
        if matches!(journal.health(), Health::Failed(_)) {
            assert!(matches!(journal.append(journal.batch(), drop), Err(Refused::Failed(_))));
            assert!(matches!(journal.write_blob(BlobDigest::of(b"blob"), b"blob"), Err(Refused::Failed(_))));
            assert!(journal.close().is_err());
        } else {
            panic!("call {call} has failed, and the journal goes on");
        }
        assert_eq!(failures.iter().count(), 1, "the failure is told once");
        let left = disk.after_power_cut(call);
        let (journal, recovery) = open(&left);
        ledger.judge(&live(&journal, &recovery)).unwrap_or_else(|lost| panic!("call {call}: {lost}"));
    }
}

#[test]
fn what_waits_is_told_of_the_failure_and_whoever_asks_later_too() {
    let disk = FaultyDisk::default();
    let (journal, _) = open(&disk);
    disk.set(Faults { hold_sync: true, ..Faults::default() });
    let (done, completions) = channel();
    for index in 0..3 {
        let mut batch = journal.batch();
        batch.put(0, b"record");
        let done = done.clone();
        journal.append(batch, move |result| done.send((index, result.is_ok())).unwrap()).unwrap();
        disk.wait_until_held();
    }
    disk.set(Faults { error_at: Some(disk.calls()), ..Faults::default() });
    drop(done);
    // The first sync had begun before.
    assert_eq!(completions.iter().collect::<Vec<_>>(), [(0, true), (1, false), (2, false)]);
    let (told, failures) = channel();
    journal.on_failure(move |failed| told.send(failed).unwrap());
    assert_eq!(failures.recv().unwrap().cause().raw_os_error(), Some(5));
}

#[test]
fn a_full_disk_refuses_and_goes_on_when_records_are_removed() {
    // Six segments and a bit.
    let disk = FaultyDisk::with(Faults { capacity: Some(6 * 16 * 1024 + 4000), ..Faults::default() });
    let (journal, _) = Journal::open_on(Arc::new(disk.clone()), &small()).unwrap();
    let (done, completions) = channel();
    let put = |bytes: &[u8]| {
        let mut batch = journal.batch();
        let id = batch.put(1, bytes);
        let done = done.clone();
        journal.append(batch, move |result| done.send(result).unwrap())?;
        completions.recv().unwrap().unwrap();
        Ok::<_, Refused>(id)
    };
    let mut ids = Vec::new();
    let refused = loop {
        match put(&[7; 1000]) {
            Ok(id) => ids.push(id),
            Err(refused) => break refused,
        }
    };
    assert!(matches!(refused, Refused::Full));
    assert!(ids.len() > 10, "{} records", ids.len());
    assert!(matches!(journal.write_blob(BlobDigest::of(&[1; 8000]), &[1; 8000]), Err(Refused::Full)));
    assert!(matches!(journal.health(), Health::Sound));
    for id in ids.drain(..) {
        let mut batch = journal.batch();
        batch.remove(id);
        let done = done.clone();
        journal.append(batch, move |result| done.send(result).unwrap()).unwrap();
        completions.recv().unwrap().unwrap();
    }
    put(&[8; 1000]).expect("there is room again");
    drop(journal);
    assert_eq!(open(&disk).1.records.len(), 1);
}

#[test]
fn a_completion_that_panics_harms_nobody_else() {
    let disk = FaultyDisk::default();
    let (journal, _) = open(&disk);
    for bytes in [&b"one"[..], b"two"] {
        let mut batch = journal.batch();
        batch.put(0, bytes);
        journal.stage(batch, |_| panic!("a fault of whoever waits")).unwrap();
        let (done, completion) = channel();
        let mut batch = journal.batch();
        batch.put(0, b"behind");
        journal.append(batch, move |result| done.send(result.is_ok()).unwrap()).unwrap();
        assert!(completion.recv().unwrap());
    }
    // Nor when the journal has failed.
    disk.set(Faults { error_at: Some(disk.calls()), ..Faults::default() });
    let (done, completion) = channel();
    let mut batch = journal.batch();
    batch.put(0, b"lost");
    let on_durable = move |result: Result<(), _>| {
        done.send(result.is_ok()).unwrap();
        panic!("a fault of whoever waits");
    };
    journal.append(batch, on_durable).unwrap();
    assert!(!completion.recv().unwrap());
    assert!(journal.close().is_err());
    drop(journal);
    disk.set(Faults::default());
    let left: Vec<_> = open(&disk).1.records.into_iter().map(|record| record.bytes).collect();
    assert_eq!(left[..4], [&b"one"[..], b"behind", b"two", b"behind"]);
}
