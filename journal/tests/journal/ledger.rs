//! What a journal's user knows: which batches it has appended, and which completions came. It judges what recovery
//! finds.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::channel;

use offload_journal::{Batch, Blob, BlobDigest, Config, Journal, Record, RecordId, Recovery, Refused};

use crate::faulty_disk::FaultyDisk;
use crate::random::Random;

/// Small enough for a script of a second to use every segment several times.
pub fn small() -> Config {
    Config { segment_bytes: 16 * 1024, log_bytes: 8 * 16 * 1024, ..Config::default() }
}

pub fn open(disk: &FaultyDisk) -> (Journal, Recovery) {
    Journal::open_on(Arc::new(disk.clone()), &small()).expect("a disk without faults")
}

/// A record as its user knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    pub kind: u8,
    pub bytes: Vec<u8>,
    pub blob: Option<Vec<u8>>,
}

/// All that lives, by id.
pub type Live = BTreeMap<u64, Known>;

/// All batches, in the order in which they were appended.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    batches: Vec<Appended>,
    /// How many completions have come.
    pub completed: usize,
}

#[derive(Clone, Debug, Default)]
struct Appended {
    put: Vec<(u64, Known)>,
    removed: Vec<u64>,
}

impl Ledger {
    /// What lives after this many batches.
    pub fn live_after(&self, batches: usize) -> Live {
        let mut live = Live::new();
        for batch in &self.batches[..batches] {
            live.extend(batch.put.iter().cloned());
            batch.removed.iter().for_each(|id| drop(live.remove(id)));
        }
        live
    }

    /// What lives if all that was appended counts.
    pub fn live(&self) -> Live {
        self.live_after(self.batches.len())
    }

    /// Every record that ever was.
    pub fn all(&self) -> Live {
        self.batches.iter().flat_map(|batch| batch.put.iter().cloned()).collect()
    }

    pub fn batches(&self) -> usize {
        self.batches.len()
    }

    /// Finds the batch after which the journal was cut off, not before any that was completed, and forgets the later
    /// ones.
    pub fn judge(&mut self, found: &Live) -> Result<(), String> {
        self.judge_after(found, self.completed)
    }

    /// The same where this many batches have to be there.
    pub fn judge_after(&mut self, found: &Live, least: usize) -> Result<(), String> {
        let cut = (least..=self.batches.len()).find(|cut| self.live_after(*cut) == *found);
        let Some(cut) = cut else {
            let expected = self.live_after(least);
            let lost: Vec<_> = expected.keys().filter(|id| !found.contains_key(id)).collect();
            let back: Vec<_> = found.keys().filter(|id| !expected.contains_key(id)).collect();
            return Err(format!("{least} batches completed; lost: {lost:?}, not expected: {back:?}"));
        };
        self.batches.truncate(cut);
        self.completed = cut;
        Ok(())
    }
}

/// What recovery has found, with the blobs; its order is checked.
pub fn live(journal: &Journal, recovery: &Recovery) -> Live {
    let ids: Vec<RecordId> = recovery.records.iter().map(|record| record.id).collect();
    assert!(ids.is_sorted(), "records come in the order in which they were put: {ids:?}");
    let known = |record: &Record| Known {
        kind: record.kind,
        bytes: record.bytes.clone(),
        blob: record.blob.as_ref().map(|blob| journal.read_blob(blob).expect("a live record's blob")),
    };
    recovery.records.iter().map(|record| (record.id.0, known(record))).collect()
}

/// A user of a journal: appends what its numbers say.
pub struct User<'a> {
    pub journal: &'a Journal,
    pub disk: &'a FaultyDisk,
    pub ledger: &'a mut Ledger,
    pub random: Random,
}

impl User<'_> {
    /// Appends this many groups, until the journal fails.
    pub fn run(&mut self, groups: usize) {
        for _ in 0..groups {
            let batches = if self.random.one_in(3) { 1 + self.random.below(5) } else { 1 };
            if self.append_group(batches).is_err() {
                return;
            }
        }
    }

    /// Appends this many batches, one after the other, until the journal fails.
    pub fn run_single(&mut self, batches: usize) {
        let _ = (0..batches).try_for_each(|_| self.append_group(1));
    }

    /// Appends batches: the first one alone, the others in the next group, however the threads run.
    fn append_group(&mut self, batches: usize) -> Result<(), ()> {
        let (done, completions) = channel();
        let mut live = self.ledger.live();
        let built = (0..batches).map(|_| self.batch(&mut live)).collect::<Result<Vec<_>, ()>>()?;
        self.disk.set_hold(batches > 1);
        let mut failed = false;
        for (index, (batch, appended)) in built.into_iter().enumerate() {
            if index > 0 && self.random.one_in(3) {
                self.withdraw_one();
            }
            let done = done.clone();
            match self.journal.append(batch, move |result| drop(done.send((index, result)))) {
                Ok(()) => self.ledger.batches.push(appended),
                // What comes behind it may remove what it would have put.
                Err(Refused::Full) => break,
                Err(_) => {
                    failed = true;
                    break;
                }
            }
            if index == 0 && batches > 1 {
                self.disk.wait_until_held();
            }
        }
        self.disk.release();
        drop(done);
        for (expected, (index, result)) in completions.iter().enumerate() {
            assert_eq!(index, expected, "completions come in order");
            assert!(!(failed && result.is_ok()), "no completion succeeds after one that has failed");
            failed |= result.is_err();
            self.ledger.completed += usize::from(result.is_ok());
        }
        if failed {
            return Err(());
        }
        assert_eq!(self.ledger.completed, self.ledger.batches.len(), "every batch is completed");
        Ok(())
    }

    /// A batch that is taken back while another one is on its way to the disk leaves no trace.
    fn withdraw_one(&mut self) {
        let mut batch = self.journal.batch();
        batch.put(0, b"withdrawn");
        if let Ok(ticket) = self.journal.stage(batch, |_| panic!("it was withdrawn")) {
            assert!(self.journal.withdraw(ticket));
        }
    }

    /// A batch that puts and removes a few records, more of the one or the other by how many there are.
    fn batch(&mut self, live: &mut Live) -> Result<(Batch, Appended), ()> {
        let mut batch = self.journal.batch();
        let mut appended = Appended::default();
        let many = live.len() > 15;
        for _ in 0..=self.random.below(3) {
            let removes = self.random.below(8) < if many { 5 } else { 2 };
            if removes && let Some(id) = live.keys().copied().nth(self.random.below(live.len().max(1))) {
                batch.remove(RecordId(id));
                live.remove(&id);
                appended.removed.push(id);
                continue;
            }
            let kind = self.random.next() as u8;
            let length = self.random.below(900);
            let bytes = self.random.bytes(length);
            let blob = match self.random.one_in(4) {
                // Few seeds, so that some blobs are the same.
                true => {
                    let seed = self.random.below(5) as u64;
                    let content = Random::new(seed).bytes(3000 + seed as usize);
                    let blob: Blob =
                        self.journal.write_blob(BlobDigest::of(&content), &content).map_err(drop)?;
                    Some((blob, content))
                }
                false => None,
            };
            let id = match &blob {
                Some((_, content)) if self.random.one_in(2) => {
                    batch.put_payload(kind, &bytes, content.clone())
                }
                Some((blob, _)) => batch.put_blob(kind, &bytes, blob),
                None => batch.put(kind, &bytes),
            };
            let known = Known { kind, bytes, blob: blob.map(|(_, content)| content) };
            live.insert(id.0, known.clone());
            appended.put.push((id.0, known));
        }
        Ok((batch, appended))
    }
}

impl FaultyDisk {
    fn set_hold(&self, hold: bool) {
        let faults = self.faults();
        self.set(crate::faulty_disk::Faults { hold_sync: hold, ..faults });
    }
}
