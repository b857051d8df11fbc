//! The log: the segments in use, oldest first, the free ones, and where each live record is. It has no thread, and no
//! lock: [`crate::writer`] drives it.
//!
//! Segments are used and recycled first in, first out. So a removal always outlives the record that it removes, and a
//! segment is free as soon as no record in it is live. What lives long is copied forward by the cleaner.
//!
//! A file is used again only when the frame that says that nothing in it is needed is durable.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::blobs::Blob;
use crate::config::{INITIAL_SEGMENTS, Layout, RESERVED_SEGMENTS, SEAL_BYTES};
use crate::format::{
    BLOB_BYTES, Entry, Frame, HEADER_BYTES, PUT_BYTES, REMOVE_BYTES, SegmentHeader, entries, frame_bytes,
};
use crate::ids::RecordId;
use crate::record::Usage;
use crate::recovery::{SEGMENT_PREFIX, Scan, read_segment};
use crate::segment::{Frames, Position};
use crate::storage::{Access, File, Storage};

/// Bytes that the cleaner reads through after a group at least, and how many times the group's bytes: with half of the
/// log live it has to read two bytes for each one that comes.
const CLEAN_BYTES: usize = 256 * 1024;
const CLEAN_RATIO: usize = 4;

/// Bytes of a new segment that are written after a group at least, and how many times the group's bytes.
const GROW_BYTES: usize = 1024 * 1024;
const GROW_RATIO: usize = 4;

/// The sequence number of a journal's first frame.
const FIRST_SEQUENCE: u64 = 1;

/// How long a full disk is left alone.
const GROW_RETRY: Duration = Duration::from_secs(1);

pub(crate) struct Log {
    storage: Arc<dyn Storage>,
    layout: Layout,
    salt: u64,
    slots: Vec<Slot>,
    /// Indices of slots, the oldest first; the last one is written to.
    used: VecDeque<usize>,
    free: VecDeque<usize>,
    cleaning: Option<Cleaning>,
    growing: Option<Growing>,
    /// When the disk had no room for another segment.
    disk_full: Option<Instant>,
    /// Where the next write goes in the last used slot.
    end: usize,
    /// Frames that are to be written there.
    group: Vec<u8>,
    next_segment: u64,
    next_sequence: u64,
    next_record: u64,
    /// All frames before this one are durable.
    synced: u64,
    index: Index,
    /// What removed records took, until somebody asks.
    freed: Usage,
    syncs: u64,
}

/// A segment's file.
struct Slot {
    name: String,
    file: Box<dyn File>,
    /// Of its present use.
    id: u64,
    first_sequence: u64,
    /// Live records.
    live: u64,
    /// Something has cut it short, and the disk is too full to mend it: it is not used again.
    short: bool,
}

/// Where the live records are.
#[derive(Default)]
struct Index {
    records: HashMap<RecordId, Location>,
    /// Of those that name one.
    blobs: HashMap<RecordId, Blob>,
    live_bytes: u64,
}

/// Kept small, since there are as many as there are live records.
#[derive(Clone, Copy)]
struct Location {
    slot: u32,
    /// What the record takes, as [`Usage`] counts it.
    usage: u32,
}

/// The oldest segment, while its live records are copied forward.
struct Cleaning {
    slot: usize,
    bytes: Vec<u8>,
    position: Position,
}

/// A segment in the making.
struct Growing {
    name: String,
    file: Box<dyn File>,
    zeroed: u64,
}

impl Log {
    /// Goes on where the scan has found the log to end, in a segment of its own: what is behind that end may look like
    /// frames, and is cut off by the new segment's header.
    ///
    /// `damaged` are records whose blobs are not whole; they are removed. `blobs` has those of all others.
    pub fn open(
        storage: Arc<dyn Storage>,
        layout: Layout,
        salt: u64,
        scan: &Scan,
        blobs: impl Fn(RecordId) -> Option<Blob>,
        damaged: &[RecordId],
    ) -> io::Result<Log> {
        let mut log = Log {
            storage,
            layout,
            salt,
            slots: Vec::new(),
            used: VecDeque::new(),
            free: VecDeque::new(),
            cleaning: None,
            growing: None,
            disk_full: None,
            end: 0,
            group: Vec::new(),
            next_segment: scan.next_segment,
            next_sequence: scan.end.max(FIRST_SEQUENCE),
            next_record: scan.next_record,
            synced: scan.end.max(FIRST_SEQUENCE),
            index: Index::default(),
            freed: Usage::default(),
            syncs: 0,
        };
        log.take_over(scan, blobs)?;
        let dead: Vec<usize> = log.used.drain(..log.leading_dead(log.used.len())).collect();
        // One to go on in, and one for the cleaner to begin with.
        while log.slots.len() < INITIAL_SEGMENTS || log.free.is_empty() || log.free.len() + dead.len() < 2 {
            log.begin_growing()?;
            while log.growing.is_some() {
                log.go_on_growing(GROW_BYTES)?;
            }
        }
        // What a killed process has written was read from memory, and is to be durable before anything builds on it.
        for slot in &log.used {
            log.slots[*slot].file.sync_data()?;
        }
        log.storage.sync_folder("")?;
        let start = log.used.front().map_or(log.next_sequence, |oldest| log.slots[*oldest].first_sequence);
        log.begin_segment(start)?;
        log.recycle(dead)?;
        log.remove(damaged)?;
        let last_damaged =
            scan.segments.iter().filter(|segment| segment.damaged).map(|segment| segment.id).max();
        log.clean_through(last_damaged.unwrap_or(0))?;
        log.refill_reserve()?;
        log.sync()?;
        Ok(log)
    }

    /// Bytes of the frames that wait to be written.
    pub fn group_bytes(&self) -> usize {
        self.group.len()
    }

    /// Whether a batch with so long a body fits behind the frames that wait.
    pub fn has_room(&self, body: usize) -> bool {
        let end = self.end + self.group.len() + frame_bytes(body) + SEAL_BYTES;
        end as u64 <= self.layout.segment_bytes
    }

    /// Adds a batch to the frames that wait. It has to fit.
    pub fn stage(&mut self, body: &[u8], blobs: Vec<(RecordId, Blob)>) {
        // A batch that changes nothing waits for those before it, and leaves no frame.
        if !body.is_empty() {
            self.index.blobs.extend(blobs);
            self.push_frame(body);
            self.apply(body);
        }
    }

    /// Writes the frames that wait.
    pub fn write(&mut self) -> io::Result<()> {
        if !self.group.is_empty() {
            self.current().file.write_at(&self.group, self.end as u64)?;
            self.end += self.group.len();
            self.group.clear();
        }
        Ok(())
    }

    /// Makes durable what was written.
    pub fn sync(&mut self) -> io::Result<()> {
        self.write()?;
        if self.is_dirty() {
            self.current().file.sync_data()?;
            self.syncs += 1;
            self.synced = self.next_sequence;
        }
        Ok(())
    }

    /// Whether something was written that is not durable.
    pub fn is_dirty(&self) -> bool {
        self.synced < self.next_sequence
    }

    /// Goes on in another segment. What waits has to be written.
    pub fn next_segment(&mut self) -> io::Result<()> {
        // Each pass through all segments leaves what is live packed, so that at most two are needed.
        for _ in 0..=2 * self.slots.len() {
            if self.free.len() + self.dead() >= 2 {
                return self.rotate();
            }
            self.clean(usize::MAX)?;
        }
        Err(io::Error::other("live records fill the whole log"))
    }

    /// What is due after a group of this many bytes: room for the next ones.
    pub fn maintain(&mut self, group_bytes: usize) -> io::Result<()> {
        if self.growing.is_some() || self.should_grow() {
            return self.grow(GROW_BYTES.max(GROW_RATIO * group_bytes));
        }
        if self.free.len() + self.dead() < RESERVED_SEGMENTS {
            self.clean(CLEAN_BYTES.max(CLEAN_RATIO * group_bytes))?;
        }
        Ok(())
    }

    /// Everything that was written counts as durable for whoever reads this, even if nothing comes behind it.
    pub fn finish(&mut self) -> io::Result<()> {
        self.sync()?;
        self.seal()
    }

    /// Bytes that live records may take.
    pub fn capacity(&self) -> u64 {
        self.layout.capacity(if self.disk_full.is_some() { self.slots.len() } else { self.layout.segments })
    }

    /// What live records take.
    pub fn usage(&self) -> Usage {
        Usage { records: self.index.records.len() as u64, bytes: self.index.live_bytes }
    }

    /// What removed records took since the last call.
    pub fn take_freed(&mut self) -> Usage {
        std::mem::take(&mut self.freed)
    }

    /// No frame has used this record id, or a later one.
    pub fn next_record(&self) -> u64 {
        self.next_record
    }

    /// Bytes of all segments.
    pub fn bytes(&self) -> u64 {
        self.slots.len() as u64 * self.layout.segment_bytes
    }

    /// How often fdatasync was called for batches.
    pub fn syncs(&self) -> u64 {
        self.syncs
    }

    fn take_over(&mut self, scan: &Scan, blobs: impl Fn(RecordId) -> Option<Blob>) -> io::Result<()> {
        let mut slot_of = HashMap::new();
        let last = scan.segments.len().saturating_sub(1);
        for (index, segment) in scan.segments.iter().enumerate() {
            let short = segment.bytes < self.layout.segment_bytes;
            let unused = !segment.in_use || (index == last && !segment.has_frames && !segment.damaged);
            if unused && short {
                self.storage.remove(&segment.file)?;
                continue;
            }
            let slot = self.slots.len();
            slot_of.insert(index, slot);
            let file = self.storage.open(&segment.file, Access::Write)?;
            // As long as the others it can be used again: without, the cleaner would run out of segments.
            let short = short && !has_room(file.preallocate(self.layout.segment_bytes))?;
            self.slots.push(Slot {
                name: segment.file.clone(),
                file,
                id: segment.id,
                first_sequence: segment.first_sequence,
                live: 0,
                short,
            });
            match unused {
                // A crash after a crash: nothing has come into the last one's segment.
                true if index == last => self.free.push_front(slot),
                true => self.free.push_back(slot),
                false => self.used.push_back(slot),
            }
        }
        for (id, record) in &scan.live {
            let slot = slot_of[&record.segment];
            let usage = Usage::of_record(record.bytes.len(), record.blob.is_some());
            self.slots[slot].live += 1;
            self.index.live_bytes += usage.bytes;
            self.index.records.insert(*id, Location { slot: slot as u32, usage: usage.bytes as u32 });
            self.index.blobs.extend(blobs(*id).map(|blob| (*id, blob)));
        }
        Ok(())
    }

    fn remove(&mut self, ids: &[RecordId]) -> io::Result<()> {
        for ids in ids.chunks(self.layout.longest_batch() / REMOVE_BYTES) {
            let mut body = Vec::new();
            ids.iter().for_each(|id| Entry::Remove { id: *id }.encode(&mut body));
            self.append_own(&body)?;
        }
        Ok(())
    }

    fn current(&self) -> &Slot {
        &self.slots[*self.used.back().expect("a segment is written to")]
    }

    fn push_frame(&mut self, body: &[u8]) {
        let segment = self.current().id;
        let frame = Frame { segment, sequence: self.next_sequence, synced: self.synced, body };
        frame.encode(self.salt, &mut self.group);
        self.next_sequence += 1;
    }

    /// Keeps the index true to a batch that goes to the current segment.
    fn apply(&mut self, body: &[u8]) {
        let current = *self.used.back().expect("a segment is written to");
        for entry in entries(body) {
            match entry.expect("a batch that this crate has encoded") {
                Entry::Put { id, blob, bytes, .. } => {
                    let usage = Usage::of_record(bytes.len(), blob.is_some());
                    let location = Location { slot: current as u32, usage: usage.bytes as u32 };
                    self.slots[current].live += 1;
                    self.next_record = self.next_record.max(id.0 + 1);
                    match self.index.records.insert(id, location) {
                        Some(copied) => self.slots[copied.slot as usize].live -= 1,
                        None => self.index.live_bytes += usage.bytes,
                    }
                }
                Entry::Remove { id } => {
                    self.next_record = self.next_record.max(id.0.saturating_add(1));
                    if let Some(removed) = self.index.records.remove(&id) {
                        self.index.blobs.remove(&id);
                        self.slots[removed.slot as usize].live -= 1;
                        self.index.live_bytes -= u64::from(removed.usage);
                        self.freed.add(Usage { records: 1, bytes: u64::from(removed.usage) });
                    }
                }
                Entry::Start { .. } => {}
            }
        }
    }

    /// How many of the oldest segments hold nothing live.
    fn dead(&self) -> usize {
        self.leading_dead(self.used.len() - 1)
    }

    /// The same of the first this many.
    fn leading_dead(&self, first: usize) -> usize {
        self.used.iter().take(first).take_while(|slot| self.slots[**slot].live == 0).count()
    }

    /// Ends the current segment, and begins another one.
    fn rotate(&mut self) -> io::Result<()> {
        let dead: Vec<usize> = self.used.drain(..self.dead()).collect();
        self.seal()?;
        self.recycle(dead)?;
        self.begin_segment(self.start())
    }

    /// Takes over segments that the durable start of the log has passed.
    fn recycle(&mut self, dead: Vec<usize>) -> io::Result<()> {
        for slot in dead {
            self.cleaning.take_if(|cleaning| cleaning.slot == slot);
            match self.slots[slot].short {
                true => self.storage.remove(&self.slots[slot].name)?,
                false => self.free.push_back(slot),
            }
        }
        Ok(())
    }

    /// Says durably where the log starts, and with that, that all before this frame is durable.
    fn seal(&mut self) -> io::Result<()> {
        let mut body = Vec::new();
        Entry::Start { sequence: self.start() }.encode(&mut body);
        self.push_frame(&body);
        self.sync()
    }

    fn start(&self) -> u64 {
        self.slots[self.used[0]].first_sequence
    }

    fn begin_segment(&mut self, start: u64) -> io::Result<()> {
        let slot = self.free.pop_front().ok_or_else(|| io::Error::other("no segment is free"))?;
        let header = SegmentHeader {
            id: self.next_segment,
            first_sequence: self.next_sequence,
            start,
            next_record: self.next_record,
            segment_bytes: self.layout.segment_bytes,
            salt: self.salt,
        };
        // Durable before any frame, so that no frame is ever found in a segment of another name.
        let file = &self.slots[slot].file;
        file.write_at(&header.encode(), 0)?;
        file.sync_data()?;
        self.next_segment += 1;
        self.slots[slot].id = header.id;
        self.slots[slot].first_sequence = header.first_sequence;
        self.used.push_back(slot);
        self.end = HEADER_BYTES;
        Ok(())
    }

    /// Cleans all segments up to one by its id.
    fn clean_through(&mut self, id: u64) -> io::Result<()> {
        while self.used.len() > 1 && self.slots[self.used[0]].id <= id {
            // Moves the start of the log past those that are clean.
            match self.dead() {
                0 => self.clean(usize::MAX)?,
                _ => self.rotate()?,
            }
        }
        Ok(())
    }

    /// Each recovery takes a segment, however little comes into it.
    fn refill_reserve(&mut self) -> io::Result<()> {
        for _ in 0..self.slots.len() {
            if self.free.len() + self.dead() >= RESERVED_SEGMENTS {
                break;
            }
            self.clean(usize::MAX)?;
        }
        Ok(())
    }

    /// Copies live records of the oldest segment that has any to the end of the log, after reading through this many
    /// bytes of it at most.
    fn clean(&mut self, most: usize) -> io::Result<()> {
        let mut cleaning = match self.cleaning.take() {
            Some(cleaning) => cleaning,
            None => match self.used.iter().take(self.used.len() - 1).nth(self.dead()) {
                Some(slot) => {
                    let bytes = read_segment(&*self.slots[*slot].file)?;
                    Cleaning { slot: *slot, bytes, position: Position::first(None) }
                }
                None => return Ok(()),
            },
        };
        let (mut read, mut body, mut copied) = (0, Vec::new(), 0);
        let id = self.slots[cleaning.slot].id;
        while read < most && self.slots[cleaning.slot].live > copied {
            let mut frames = Frames::new(&cleaning.bytes, self.salt, id, cleaning.position);
            let Some((_, frame)) = frames.next() else {
                // What is live was there when it was written, or when the journal was opened.
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a segment was altered on the disk"));
            };
            read += frame.bytes();
            cleaning.position = frames.position();
            for entry in entries(frame.body).flatten() {
                let Entry::Put { id, bytes, .. } = &entry else { continue };
                if self.index.records.get(id).is_some_and(|location| location.slot as usize == cleaning.slot)
                {
                    if body.len() + PUT_BYTES + BLOB_BYTES + bytes.len() > self.layout.longest_batch() {
                        self.append_own(&std::mem::take(&mut body))?;
                        copied = 0;
                    }
                    entry.encode(&mut body);
                    copied += 1;
                }
            }
        }
        self.append_own(&body)?;
        if self.slots[cleaning.slot].live > 0 {
            self.cleaning = Some(cleaning);
        }
        Ok(())
    }

    /// Writes a batch of the log's own.
    fn append_own(&mut self, body: &[u8]) -> io::Result<()> {
        if body.is_empty() {
            return Ok(());
        }
        if !self.has_room(body.len()) {
            self.write()?;
            self.rotate()?;
        }
        self.push_frame(body);
        self.apply(body);
        self.write()
    }

    fn should_grow(&self) -> bool {
        self.slots.len() < self.layout.segments
            && self.index.live_bytes + self.layout.room() as u64 / 2 > self.layout.capacity(self.slots.len())
            && self.disk_full.is_none_or(|since| since.elapsed() >= GROW_RETRY)
    }

    /// Makes a part of a new segment. A disk that is full is no failure: the log stays as it is.
    fn grow(&mut self, bytes: usize) -> io::Result<()> {
        let grown = match self.growing {
            Some(_) => self.go_on_growing(bytes),
            None => self.begin_growing(),
        };
        if has_room(grown)? {
            return Ok(());
        }
        self.disk_full = Some(Instant::now());
        match self.growing.take() {
            Some(growing) => self.storage.remove(&growing.name),
            None => Ok(()),
        }
    }

    fn begin_growing(&mut self) -> io::Result<()> {
        let name = (0..).map(|number| format!("{SEGMENT_PREFIX}{number:04}"));
        let name = { name }
            .find(|name| self.slots.iter().all(|slot| slot.name != *name))
            .expect("numbers do not end");
        let file = self.storage.open(&name, Access::Create)?;
        let growing = self.growing.insert(Growing { name, file, zeroed: 0 });
        growing.file.preallocate(self.layout.segment_bytes)
    }

    /// Writes zeros: the first write into room that was only reserved costs more than later ones.
    fn go_on_growing(&mut self, bytes: usize) -> io::Result<()> {
        let Some(growing) = &mut self.growing else { return Ok(()) };
        let rest = self.layout.segment_bytes - growing.zeroed;
        let zeros = vec![0; rest.min(bytes as u64) as usize];
        growing.file.write_at(&zeros, growing.zeroed)?;
        growing.file.sync_data()?;
        growing.zeroed += zeros.len() as u64;
        if growing.zeroed == self.layout.segment_bytes {
            self.storage.sync_folder("")?;
            self.disk_full = None;
            let Some(Growing { name, file, .. }) = self.growing.take() else { return Ok(()) };
            self.free.push_back(self.slots.len());
            self.slots.push(Slot { name, file, id: 0, first_sequence: 0, live: 0, short: false });
        }
        Ok(())
    }
}

/// Whether something was reserved: a disk that is full is no failure.
fn has_room(reserved: io::Result<()>) -> io::Result<bool> {
    match reserved {
        Err(error) if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {
            Ok(false)
        }
        reserved => reserved.map(|()| true),
    }
}
