//! The file of suspects: a page cache that outlives the process.
//!
//! It is mapped into memory and never synced. What a process has stored there is in the kernel's hands at once, and
//! survives it, however it ends; a machine that loses its power has crashed by no request. A store costs no system
//! call, so each execution can be written down before it begins.

use super::record::{Damaged, FREE, Record, Words, seal, stores, unseal};
use super::table::{Change, End, Table};
use crate::boot::Boot;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicU64, Ordering, compiler_fence};

/// Its name in the data directory.
pub const NAME: &str = "suspects";
/// Where one goes that cannot be read.
const DAMAGED: &str = "suspects.damaged";
/// Only the owner reads and writes.
const FILE_MODE: u32 = 0o600;

/// Slots, the header's included: a broker has as many requests in flight to a gateway by default
/// (`broker.receive_maximum`). 256 KiB.
const SLOTS: usize = 4096;
/// Records that there is room for.
const CAPACITY: usize = SLOTS - 1;
/// Bytes of the file.
const SIZE: usize = SLOTS * size_of::<Words>();

/// The first word of the header. Of another byte order it would be another.
const MAGIC: u64 = u64::from_ne_bytes(*b"suspects");
/// The version of the layout.
const VERSION: u64 = 1;
/// The value of the header while the process runs.
const RUNNING: u32 = 1;
/// The value of the header from when the gateway was told to stop.
const STOPPING: u32 = 2;

/// The open file.
pub struct SuspectsFile {
    /// The header, then the records.
    slots: &'static [[AtomicU64; size_of::<Words>() / size_of::<u64>()]],
}

/// What a file holds.
struct Content {
    records: Vec<Record>,
    end: End,
    /// Slots that nobody has written like this.
    damaged: usize,
}

impl SuspectsFile {
    /// Opens the file of this directory, or makes it, and says what follows from it. One that is not ours, or is
    /// damaged, is set aside with a warning; what can be read of it still counts.
    ///
    /// # Errors
    ///
    /// When the system refuses.
    pub fn open(directory: &Path, boot: Boot, now: u64) -> io::Result<(SuspectsFile, Table)> {
        let path = directory.join(NAME);
        let content = match read(&path)? {
            None => Content { records: Vec::new(), end: End::Planned, damaged: 0 },
            Some(bytes) => {
                let content = Content::of(&bytes, boot);
                if content.damaged > 0 {
                    let aside = directory.join(DAMAGED);
                    fs::rename(&path, &aside)?;
                    tracing::warn!(
                        slots = content.damaged,
                        "{} is damaged, or not from a gateway: set aside as {}; requests that have crashed the gateway \
                         may run again",
                        path.display(),
                        aside.display()
                    );
                }
                content
            }
        };
        let table = Table::recover(content.records, content.end, CAPACITY, now);
        // Written anew and moved into place: there is no moment at which a crash loses what is known. And every page of
        // it has its place on the disk before anything is stored there.
        let temporary = directory.join(format!("{NAME}.new"));
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true).mode(FILE_MODE);
        let mut file = options.open(&temporary)?;
        file.write_all(&image(&table, boot))?;
        let file = SuspectsFile::map(&file)?;
        fs::rename(&temporary, &path)?;
        Ok((file, table))
    }

    /// Writes a change down. It is safe from the end of the process when this returns; if that ends before, the slot
    /// holds what it held, or nothing.
    pub fn store(&self, Change { slot, record }: Change) {
        self.put(slot + 1, &record.as_ref().map_or(FREE, Record::encode));
    }

    /// The gateway was told to stop: what still runs accuses nobody.
    pub fn stop(&self) {
        let header = self.slots[0].each_ref().map(|word| word.load(Ordering::Relaxed));
        self.put(0, &seal(header, STOPPING));
    }

    /// Callers take turns: one slot has one writer.
    fn put(&self, at: usize, new: &Words) {
        let words = &self.slots[at];
        let old = words.each_ref().map(|word| word.load(Ordering::Relaxed));
        for (word, value) in stores(&old, new) {
            words[word].store(value, Ordering::Relaxed);
            // The kernel keeps what this thread has executed; the compiler alone could change the order.
            compiler_fence(Ordering::SeqCst);
        }
    }

    fn map(file: &File) -> io::Result<SuspectsFile> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice. The file has SIZE bytes, and nobody makes it
        // shorter: it lies in the data directory, which is locked by this process and closed to other users.
        let start = unsafe { mmap(null_mut(), SIZE, protection, MapFlags::SHARED, file, 0) }?;
        // SAFETY: the mapping has SIZE bytes and begins at a page, which is aligned for words; it is unmapped when
        // `self` is dropped, and no reference leaves `self`. All accesses are by atomic operations.
        let slots = unsafe { std::slice::from_raw_parts(start.cast(), SLOTS) };
        Ok(SuspectsFile { slots })
    }
}

impl Drop for SuspectsFile {
    fn drop(&mut self) {
        let start = self.slots.as_ptr().cast_mut().cast();
        // SAFETY: the mapping that `map` made, to which nothing else refers. That it cannot fail is in its manual.
        let _ = unsafe { munmap(start, SIZE) };
    }
}

impl Content {
    /// Reads all that can be read. A process of another boot was not crashed by a request: the machine went down.
    fn of(bytes: &[u8], boot: Boot) -> Content {
        let (slots, rest) = bytes.as_chunks::<{ size_of::<Words>() }>();
        let mut slots = slots.iter().map(|slot| {
            let (words, _) = slot.as_chunks::<{ size_of::<u64>() }>();
            let words: Words = std::array::from_fn(|word| u64::from_ne_bytes(words[word]));
            words
        });
        let end = match slots.next().map(|header| (header, unseal(&header))) {
            Some(([MAGIC, VERSION, first, second, ..], Ok(Some(value @ (RUNNING | STOPPING))))) => {
                if value == RUNNING && [first, second] == boot { End::Crash } else { End::Planned }
            }
            // Not ours, or of a version that means something else by its records.
            _ => return Content { records: Vec::new(), end: End::Planned, damaged: SLOTS },
        };
        let mut records = Vec::new();
        let missing = SIZE.saturating_sub(bytes.len()).div_ceil(size_of::<Words>());
        let mut damaged = missing + usize::from(!rest.is_empty());
        for words in slots {
            match Record::decode(&words) {
                Ok(record) => records.extend(record),
                Err(Damaged) => damaged += 1,
            }
        }
        Content { records, end, damaged }
    }
}

/// The bytes of a file that holds what a table remembers.
fn image(table: &Table, boot: Boot) -> Vec<u8> {
    let mut slots = vec![FREE; SLOTS];
    slots[0] = seal([MAGIC, VERSION, boot[0], boot[1], 0, 0, 0, 0], RUNNING);
    for (slot, record) in table.records() {
        slots[slot + 1] = record.encode();
    }
    slots.into_iter().flatten().flat_map(u64::to_ne_bytes).collect()
}

/// The file's bytes, one more than it may have at the most. `None` where there is no file.
fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::with_capacity(SIZE + 1);
    file.take(SIZE as u64 + 1).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fingerprint::Fingerprint;
    use crate::suspects::record::State;
    use crate::suspects::table::Verdict;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use tempfile::TempDir;

    const NOW: u64 = 1_800_000_000;
    const BOOT: Boot = [1, 2];

    fn print(number: u8) -> Fingerprint {
        Fingerprint([number; 32])
    }

    fn open(folder: &TempDir) -> (SuspectsFile, Table) {
        SuspectsFile::open(folder.path(), BOOT, NOW).unwrap()
    }

    /// A folder in whose file these executions are under way, by a process that crashed.
    fn crashed(running: &[u8]) -> TempDir {
        let folder = TempDir::new().unwrap();
        let (file, mut table) = open(&folder);
        for number in running {
            let (_, change) = table.begin(print(*number), false).unwrap();
            file.store(change);
        }
        folder
    }

    fn suspects(table: &Table) -> Vec<u8> {
        let mut suspects: Vec<u8> = table.records().map(|(_, record)| record.fingerprint.0[0]).collect();
        suspects.sort_unstable();
        suspects
    }

    /// Opens it again after it was changed from outside; whether it was set aside as it was.
    fn reopened(folder: &TempDir, change: impl FnOnce(&mut Vec<u8>)) -> (Table, bool) {
        let path = folder.path().join(NAME);
        let mut bytes = fs::read(&path).unwrap();
        change(&mut bytes);
        fs::write(&path, &bytes).unwrap();
        let (_, table) = open(folder);
        assert_eq!(fs::metadata(&path).unwrap().len(), SIZE as u64);
        let aside = fs::read(folder.path().join(DAMAGED)).ok();
        assert!(aside.is_none() || aside == Some(bytes));
        (table, folder.path().join(DAMAGED).exists())
    }

    #[test]
    fn what_is_stored_is_found_by_the_next_process() {
        let folder = TempDir::new().unwrap();
        let (file, mut table) = open(&folder);
        let (first, change) = table.begin(print(1), false).unwrap();
        file.store(change);
        let (_, change) = table.begin(print(2), false).unwrap();
        file.store(change);
        file.store(table.end(first));
        // As a process does that is killed: the mapping is not written back, synced or closed in any order.
        std::mem::forget(file);
        let (file, mut table) = open(&folder);
        assert_eq!(suspects(&table), [2]);
        assert_eq!(table.verdict(&print(2), NOW), Verdict::Suspect);
        let (alone, change) = table.begin(print(2), true).unwrap();
        file.store(change);
        file.store(table.end(alone));
        assert!(open(&folder).1.is_clear());
    }

    #[test]
    fn a_crash_alone_is_counted_across_processes() {
        let folder = crashed(&[1, 2]);
        for expected in [Verdict::Suspect, Verdict::Suspect, Verdict::Poison(2), Verdict::Poison(2)] {
            let (file, mut table) = open(&folder);
            assert_eq!(table.verdict(&print(1), NOW), expected);
            assert_eq!(table.verdict(&print(2), NOW), Verdict::Suspect);
            if expected == Verdict::Suspect {
                file.store(table.begin(print(1), true).unwrap().1);
            }
        }
    }

    #[test]
    fn a_stop_that_was_planned_and_another_boot_accuse_nobody() {
        let folder = crashed(&[1]);
        let (_, table) = SuspectsFile::open(folder.path(), [3, 4], NOW).unwrap();
        assert!(table.is_clear());

        let folder = TempDir::new().unwrap();
        let (file, mut table) = open(&folder);
        file.store(table.begin(print(1), false).unwrap().1);
        file.stop();
        file.store(table.begin(print(2), false).unwrap().1);
        assert!(open(&folder).1.is_clear());
    }

    #[test]
    fn a_damaged_record_is_left_out_and_the_others_count() {
        // The slots are given out in order, behind the header.
        for bit in [0, 200, 64 * 8 - 1] {
            let folder = crashed(&[1, 2, 3]);
            let (table, aside) =
                reopened(&folder, |bytes| bytes[2 * size_of::<Words>() + bit / 8] ^= 1 << (bit % 8));
            assert!(aside);
            assert_eq!(suspects(&table), [1, 3]);
        }
    }

    #[test]
    fn a_file_that_is_shorter_or_longer_is_set_aside_and_what_is_whole_in_it_counts() {
        let (table, aside) = reopened(&crashed(&[1, 2, 3]), |bytes| bytes.truncate(3 * 64 + 20));
        assert!(aside);
        assert_eq!(suspects(&table), [1, 2]);
        let (table, aside) = reopened(&crashed(&[1, 2, 3]), |bytes| bytes.push(0));
        assert!(aside);
        assert_eq!(suspects(&table), [1, 2, 3]);
    }

    #[test]
    fn what_is_not_ours_is_set_aside_and_nothing_of_it_counts() {
        fn another_version(bytes: &mut [u8]) {
            let header = seal([MAGIC, VERSION + 1, BOOT[0], BOOT[1], 0, 0, 0, 0], RUNNING);
            let header: Vec<u8> = header.into_iter().flat_map(u64::to_ne_bytes).collect();
            bytes[..header.len()].copy_from_slice(&header);
        }
        let changes: [fn(&mut Vec<u8>); 5] = [
            Vec::clear,
            |bytes| bytes[0] ^= 1,
            |bytes| bytes.fill(0),
            |bytes| *bytes = b"suspects: nobody\n".repeat(20_000),
            |bytes| another_version(bytes),
        ];
        for (number, change) in changes.into_iter().enumerate() {
            let (table, aside) = reopened(&crashed(&[1, 2]), change);
            assert!(aside && table.is_clear(), "{number}");
        }
    }

    #[test]
    fn every_slot_can_be_used_and_is_its_own() {
        let folder = TempDir::new().unwrap();
        let (file, mut table) = open(&folder);
        let print = |number: usize| {
            let mut print = Fingerprint([7; 32]);
            print.0[..size_of::<usize>()].copy_from_slice(&number.to_ne_bytes());
            print
        };
        for number in 0..CAPACITY {
            file.store(table.begin(print(number), false).unwrap().1);
        }
        assert!(table.begin(print(CAPACITY), false).is_none());
        assert_eq!(open(&folder).1.records().count(), CAPACITY);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Whatever has happened to a file: no record is taken for another, and what is missing is known.
        #[test]
        fn any_bytes_are_a_file_or_damaged(
            running in vec(1..=u8::MAX, 0..8),
            changes in vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
            length in prop_oneof![Just(SIZE), 0..=SIZE + 1],
        ) {
            let run = |number| Record { fingerprint: print(number), since: 0, state: State::Running };
            let table = Table::recover(running.into_iter().map(run), End::Crash, CAPACITY, NOW);
            let mut before: Vec<Record> = table.records().map(|(_, record)| record).collect();
            before.sort_unstable_by_key(|record| record.fingerprint.0);
            let mut bytes = image(&table, BOOT);
            let whole = bytes.clone();
            bytes.resize(length, 0);
            for (at, byte) in changes {
                // Where there is something, four times out of five.
                let reach = if byte % 5 == 0 { bytes.len() } else { bytes.len().min(10 * size_of::<Words>()) };
                if reach > 0 {
                    bytes[at.index(reach)] ^= byte;
                }
            }
            let Content { mut records, end, damaged } = Content::of(&bytes, BOOT);
            records.sort_unstable_by_key(|record| record.fingerprint.0);
            prop_assert!(records.iter().all(|record| before.contains(record)));
            prop_assert!(damaged > 0 || bytes.len() == SIZE);
            prop_assert!(bytes != whole || (damaged == 0 && records == before));
            Table::recover(records, end, CAPACITY, NOW);
        }
    }
}
