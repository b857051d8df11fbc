//! What becomes of whole journals by what disks and people do to files: flipped bits, sectors of zeros, short, missing,
//! old and exchanged files. No record may come out that nobody has put in.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::sync::mpsc::channel;

use super::input::Input;
use super::memory::Memory;
use super::{Records, open, open_checked, records};
use crate::check_on;
use crate::ids::BlobDigest;

/// A first byte from here on opens the journal too, which takes many times as long as reading it.
const OPENS_FROM: u8 = 0xE0;
/// A disk loses whole sectors.
const SECTOR: usize = 512;
/// The most things that happen to one journal.
const MAX_DAMAGE: usize = 8;
/// Batches of each journal: enough to use every segment several times.
const BATCHES: u64 = 400;
/// Records that live in a journal, mostly.
const LIVE: usize = 24;

/// A journal, and all that was ever put into it.
struct Written {
    files: Memory,
    /// Whether it was closed: of what a crash leaves, the last batch cannot be told from a torn one.
    closed: bool,
    /// What an earlier moment has left: files that a backup may bring back.
    earlier: Memory,
    put: Records,
    live: Records,
}

static JOURNALS: LazyLock<Vec<Written>> =
    LazyLock::new(|| (0..4).map(|seed| write(seed, seed % 2 == 0)).collect());

/// Damages a journal, reads it and opens it. The first byte says which journal, and whether it is opened; the rest is
/// what happens to it.
///
/// # Panics
/// If a record comes out that was not put, a single flipped bit loses records without a word, or two readings of the
/// same files find different records.
pub fn damage(data: &[u8]) {
    let mut input = Input(data);
    let choice = input.byte();
    let written = &JOURNALS[usize::from(choice) % JOURNALS.len()];
    let memory = written.files.copied();
    let mut flips = 0;
    let mut others = 0;
    for _ in 0..MAX_DAMAGE {
        if input.is_empty() {
            break;
        }
        match happen(&memory, &written.earlier, &mut input) {
            true => flips += 1,
            false => others += 1,
        }
    }
    let Ok(recovery) = check_on(&memory) else { return };
    let found = records(&memory, &recovery);
    for (id, record) in &found {
        assert!(written.put.get(id) == Some(record), "record {id} was never put");
    }
    if written.closed && flips <= 1 && others == 0 && found != written.live {
        assert!(!recovery.damage.is_empty(), "one bit has changed what lives, and nothing was said");
    }
    if choice >= OPENS_FROM {
        open_checked(&memory, &found);
        if let Some(again) = open_checked(&memory, &found) {
            assert!(again.damage.is_empty(), "damage is reported once: {:?}", again.damage);
        }
    }
}

/// One thing happens to one file. Returns whether it was a single bit.
fn happen(memory: &Memory, earlier: &Memory, input: &mut Input<'_>) -> bool {
    let files = memory.files();
    let Some(file) = files.get(input.below(files.len().max(1))) else { return false };
    match input.byte() % 6 {
        0 => {
            // The headers are few bytes: half of the flips go there.
            let (in_header, bit) =
                (input.byte() & 1 == 0, 8 * input.below(1 << 16) + usize::from(input.byte() % 8));
            memory.change(file, |bytes| {
                let bits = if in_header { 8 * 64 } else { 8 * bytes.len() };
                if let Some(byte) = bytes.get_mut(bit % bits.max(1) / 8) {
                    *byte ^= 1 << (bit % 8);
                }
            });
            return true;
        }
        1 => {
            let (first, count) = (input.below(64), usize::from(input.byte() % 8));
            memory.change(file, |bytes| {
                let end = bytes.len().min((first + count) * SECTOR);
                if let Some(sectors) = bytes.get_mut(first * SECTOR..end) {
                    sectors.fill(0);
                }
            });
        }
        2 => {
            let length = input.below(1 << 16);
            memory.change(file, |bytes| bytes.truncate(length));
        }
        3 => memory.change(file, Vec::clear),
        4 => {
            let name = file.clone();
            if let Some((_, old)) = earlier.snapshot().into_iter().find(|(found, _)| *found == name) {
                memory.put(&name, old);
            }
        }
        _ => {
            let other = files[input.below(files.len())].clone();
            let content = |name: &str| {
                let mut content = Vec::new();
                memory.change(name, |bytes| content.clone_from(bytes));
                content
            };
            let (one, two) = (content(file), content(&other));
            memory.put(file, two);
            memory.put(&other, one);
        }
    }
    false
}

/// A journal that this seed has written: closed, or as a crash leaves it.
fn write(seed: u64, closed: bool) -> Written {
    let files = Memory::default();
    let (journal, _) = open(&files).expect("an empty folder");
    let mut put = BTreeMap::new();
    let mut live: Records = BTreeMap::new();
    let mut earlier = Memory::default();
    let mut number = seed;
    let mut random = move |end: u64| {
        // A linear congruential generator (D. Knuth, MMIX).
        number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (number >> 33) % end
    };
    for batch_number in 0..BATCHES {
        let mut batch = journal.batch();
        for _ in 0..=random(3) {
            let victim = live.keys().copied().nth(random(LIVE as u64) as usize);
            if let Some(id) = victim.filter(|_| live.len() > LIVE) {
                batch.remove(crate::RecordId(id));
                live.remove(&id);
                continue;
            }
            let (kind, length) = (random(256) as u8, random(300) as usize);
            let bytes = vec![random(256) as u8; length];
            let content = (random(6) == 0).then(|| vec![random(3) as u8; 700]);
            let blob = content
                .as_ref()
                .map(|content| journal.write_blob(BlobDigest::of(content), content).expect("there is room"));
            let id = match &blob {
                Some(blob) => batch.put_blob(kind, &bytes, blob),
                None => batch.put(kind, &bytes),
            };
            put.insert(id.0, (kind, bytes.clone(), content.clone()));
            live.insert(id.0, (kind, bytes, content));
        }
        let (done, durable) = channel();
        journal.append(batch, move |result| drop(done.send(result))).expect("there is room");
        durable.recv().expect("every batch is completed").expect("nothing fails");
        if batch_number == BATCHES / 2 {
            earlier = files.copied();
        }
    }
    let killed = files.copied();
    journal.close().expect("nothing fails");
    Written { files: if closed { files } else { killed }, closed, earlier, put, live }
}
