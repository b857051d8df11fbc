//! What a journal's files hold after whatever has happened to them: the live records, the torn tail, the damage.
//!
//! The sequence numbers of frames have no gaps, so whatever is missing is known to be missing. Each frame and header
//! says which frames were durable when it was written. A frame that is missing and was durable is *damage*: what is
//! whole on both sides of it counts. The first frame that is missing and was not known to be durable is the *torn tail*
//! of a crash: it and all frames behind it are cut, since they were written in the same moment and acknowledged by
//! nobody.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::ops::Range;

use crate::blobs::{self, Blob, BlobDamage};
use crate::error::{OpenError, While};
use crate::format::{BlobName, Entry, Frame, HEADER_BYTES, HeaderState, Malformed, SegmentHeader, entries};
use crate::ids::{BlobDigest, RecordId};
use crate::record::Record;
use crate::segment::{Frames, Position, identify};
use crate::storage::{Access, File, Storage};

/// How the files of segments are called, before their numbers.
pub(crate) const SEGMENT_PREFIX: &str = "segment-";

/// What was found in a journal.
#[derive(Debug)]
pub struct Recovery {
    /// The live records, in the order in which they were put.
    pub records: Vec<Record>,
    /// Bytes of the last writes that a crash has cut short, as far as they left traces. Nobody was told that they were
    /// durable.
    pub torn_bytes: u64,
    /// What should be there and is not.
    pub damage: Vec<Damage>,
}

/// Something that was durable and cannot be read. What is around it counts.
#[derive(Debug)]
pub enum Damage {
    /// Batches are missing: their records are lost, and records that they removed may be back.
    Batches {
        /// Their sequence numbers.
        sequences: Range<u64>,
        /// Where they were, as far as that is known: nowhere, when a file is missing.
        regions: Vec<Region>,
    },
    /// The header of a segment cannot be read. Its batches could be.
    Header {
        /// The segment.
        file: String,
    },
    /// The blob of a record is missing or altered. The record is not among the live ones, and is removed.
    Blob {
        /// The record, without the blob.
        record: Record,
        /// The blob.
        digest: BlobDigest,
        /// What is wrong with it.
        damage: BlobDamage,
    },
}

impl Damage {
    /// The record that has lost its blob.
    pub(crate) fn lost_record(&self) -> Option<RecordId> {
        match self {
            Damage::Blob { record, .. } => Some(record.id),
            Damage::Batches { .. } | Damage::Header { .. } => None,
        }
    }
}

/// Bytes of a file. [`Journal::open`](crate::Journal::open) copies them into the folder `damaged` before it uses the
/// file again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    /// The file.
    pub file: String,
    /// Where they begin and end in it.
    pub bytes: Range<u64>,
}

/// The journal as its files have it.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    /// In the order of their use, blank ones first.
    pub segments: Vec<ScannedSegment>,
    /// Of the newest header; `None` for a journal that has none.
    pub header: Option<SegmentHeader>,
    /// Frames before this one hold nothing live.
    pub start: u64,
    /// The sequence number of the next frame.
    pub end: u64,
    pub next_segment: u64,
    pub next_record: u64,
    pub live: BTreeMap<RecordId, LiveRecord>,
    pub torn_bytes: u64,
    pub damage: Vec<Damage>,
}

/// A segment's file.
#[derive(Debug)]
pub(crate) struct ScannedSegment {
    pub file: String,
    /// Zero for one that was never used.
    pub id: u64,
    pub first_sequence: u64,
    pub bytes: u64,
    /// Whether frames in it may hold something live.
    pub in_use: bool,
    /// Whether it has frames that count.
    pub has_frames: bool,
    /// Whether frames are missing in it.
    pub damaged: bool,
    header: Option<SegmentHeader>,
    /// Where the last trace of an incomplete write ends.
    traces_end: u64,
}

/// A live record and where its frame is.
#[derive(Debug)]
pub(crate) struct LiveRecord {
    /// An index of [`Scan::segments`].
    pub segment: usize,
    pub kind: u8,
    pub bytes: Vec<u8>,
    pub blob: Option<BlobName>,
}

/// Frames that follow on each other in one segment.
#[derive(Clone, Copy, Debug)]
struct Run {
    segment: usize,
    first: u64,
    /// The one behind the last.
    end: u64,
    at: usize,
    bytes_end: usize,
    synced: u64,
}

/// Reads a journal and changes nothing.
pub(crate) fn scan(storage: &dyn Storage) -> Result<Scan, OpenError> {
    let mut scan = Scan::default();
    scan.read_headers(storage)?;
    let Some(newest) = scan.header else { return Ok(scan) };
    let (mut runs, seals) = scan.find_runs(storage, newest.salt).doing("read a segment")?;
    scan.drop_superseded(&mut runs);
    scan.cut_torn_tail(&mut runs, &seals);
    scan.report_gaps(&runs);
    scan.apply(storage, newest.salt, &runs).doing("read a segment")?;
    Ok(scan)
}

impl Scan {
    /// The first step: which segments there are.
    fn read_headers(&mut self, storage: &dyn Storage) -> Result<(), OpenError> {
        let mut files = storage.list("").doing("list the segments")?;
        files.retain(|file| file.starts_with(SEGMENT_PREFIX));
        files.sort();
        let mut unknown = Vec::new();
        for file in files {
            let open = storage.open(&file, Access::Read).doing("open a segment")?;
            let bytes = open.len().doing("open a segment")?;
            let mut header = vec![0; HEADER_BYTES];
            let count = open.read_at(&mut header, 0).doing("read a segment")?;
            match SegmentHeader::decode(&header[..count]) {
                HeaderState::Valid(header) => {
                    self.segments.push(ScannedSegment::new(file, header.id, bytes, Some(header)));
                }
                HeaderState::OtherVersion(found) => return Err(OpenError::Version { file, found }),
                HeaderState::Blank | HeaderState::Damaged => unknown.push((file, bytes)),
            }
        }
        self.header =
            self.segments.iter().filter_map(|segment| segment.header).max_by_key(|header| header.id);
        if let Some(newest) = self.header {
            let foreign =
                |segment: &&ScannedSegment| segment.header.is_some_and(|header| header.salt != newest.salt);
            if let Some(foreign) = self.segments.iter().find(foreign) {
                return Err(OpenError::Foreign { file: foreign.file.clone() });
            }
        }
        for (file, bytes) in unknown {
            let whole = read_whole(storage, &file).doing("read a segment")?;
            let id = self.header.and_then(|newest| identify(&whole, newest.salt));
            // A crash while the first segments are made leaves a torn header and zeros behind it.
            if self.header.is_none() && whole.iter().skip(HEADER_BYTES).any(|byte| *byte != 0) {
                self.damage.push(Damage::Header { file: file.clone() });
            }
            self.segments.push(ScannedSegment::new(file, id.unwrap_or(0), bytes, None));
        }
        self.segments.sort_by_key(|segment| segment.id);
        let headers = || self.segments.iter().filter_map(|segment| segment.header);
        self.next_record = headers().map(|header| header.next_record).max().unwrap_or(0);
        self.next_segment = self.segments.last().map_or(0, |last| last.id) + 1;
        Ok(())
    }

    /// The second step: which frames there are, and what they say of the log's start.
    fn find_runs(&mut self, storage: &dyn Storage, salt: u64) -> io::Result<(Vec<Run>, Vec<Seal>)> {
        let durable_start = self.headers().map(|header| header.start).max().unwrap_or(0);
        let (mut runs, mut seals) = (Vec::<Run>::new(), Vec::new());
        for index in 0..self.segments.len() {
            let ended_before = self.segments[index + 1..]
                .iter()
                .any(|later| later.header.is_some_and(|header| header.first_sequence <= durable_start));
            let segment = &mut self.segments[index];
            if segment.id == 0 || ended_before {
                continue;
            }
            segment.in_use = true;
            let bytes = read_whole(storage, &segment.file)?;
            let mut frames = Frames::new(&bytes, salt, segment.id, segment.beginning());
            while let Some((at, frame)) = frames.next() {
                seals.extend(Seal::of(index, &frame));
                let bytes_end = at + frame.bytes();
                match runs.last_mut() {
                    Some(run) if run.segment == index && run.bytes_end == at && run.end == frame.sequence => {
                        run.end += 1;
                        run.bytes_end = bytes_end;
                        run.synced = run.synced.max(frame.synced);
                    }
                    _ => runs.push(Run {
                        segment: index,
                        first: frame.sequence,
                        end: frame.sequence + 1,
                        at,
                        bytes_end,
                        synced: frame.synced,
                    }),
                }
            }
            segment.traces_end = frames.traces_end() as u64;
        }
        Ok((runs, seals))
    }

    /// The third step: a segment ends where a later one begins. What is behind that was cut by an earlier recovery.
    fn drop_superseded(&mut self, runs: &mut Vec<Run>) {
        let mut limit = u64::MAX;
        for index in (0..self.segments.len()).rev() {
            let lowest = runs.iter().filter(|run| run.segment == index).map(|run| run.first).min();
            for run in runs.iter_mut().filter(|run| run.segment == index) {
                run.end = run.end.min(limit);
            }
            let header = self.segments[index].header.filter(|_| self.segments[index].in_use);
            let first = header.map(|header| header.first_sequence).or(lowest);
            self.segments[index].first_sequence = first.unwrap_or(limit);
            limit = limit.min(first.unwrap_or(u64::MAX));
        }
        runs.retain(|run| run.first < run.end);
    }

    /// The fourth step: where the log ends, and then, by what counts of it, where it starts.
    fn cut_torn_tail(&mut self, runs: &mut Vec<Run>, seals: &[Seal]) {
        let by_headers = self.headers().map(|header| header.first_sequence);
        let durable = by_headers.chain(runs.iter().map(|run| run.synced)).max().unwrap_or(0);
        self.end = durable;
        for run in runs.iter() {
            if run.first <= self.end {
                self.end = self.end.max(run.end);
            }
        }
        let last = self.segments.len() - 1;
        let of_last = |run: &&Run| run.segment == last;
        let traced = runs.iter().filter(of_last).map(|run| run.bytes_end as u64).max();
        let traced = traced.unwrap_or(0).max(self.segments[last].traces_end);
        runs.retain(|run| run.first < self.end);
        let whole = runs.iter().filter(of_last).map(|run| run.bytes_end).max().unwrap_or(HEADER_BYTES);
        self.torn_bytes = traced.saturating_sub(whole as u64);
        let by_seals =
            seals.iter().filter(|seal| runs.iter().any(|run| run.has(seal))).map(|seal| seal.start);
        self.start = self.headers().map(|header| header.start).chain(by_seals).max().unwrap_or(0);
        runs.retain(|run| run.end > self.start);
    }

    /// The fifth step: what is missing between start and end.
    fn report_gaps(&mut self, runs: &[Run]) {
        let last = self.segments.len() - 1;
        for index in 0..=last {
            let next = self.segments.get(index + 1).map_or(u64::MAX, |next| next.first_sequence);
            let segment = &mut self.segments[index];
            segment.has_frames = runs.iter().any(|run| run.segment == index);
            segment.in_use &= segment.has_frames || index == last || next > self.start;
            if segment.in_use && segment.header.is_none() && segment.has_frames {
                self.damage.push(Damage::Header { file: segment.file.clone() });
                segment.damaged = true;
            }
        }
        let mut expected = self.start;
        let mut before: Option<&Run> = None;
        for run in runs {
            if run.first > expected {
                self.report_gap(expected..run.first, before, Some(run));
            }
            expected = expected.max(run.end);
            before = Some(run);
        }
        if expected < self.end {
            self.report_gap(expected..self.end, before, None);
        }
    }

    fn report_gap(&mut self, sequences: Range<u64>, before: Option<&Run>, behind: Option<&Run>) {
        let from = before.map_or(0, |run| run.segment);
        let to = behind.map_or(self.segments.len() - 1, |run| run.segment);
        let mut regions = Vec::new();
        for (index, segment) in self.segments.iter_mut().enumerate().take(to + 1).skip(from) {
            let begin =
                before.filter(|run| run.segment == index).map_or(HEADER_BYTES, |run| run.bytes_end) as u64;
            let end = behind.filter(|run| run.segment == index).map_or(segment.bytes, |run| run.at as u64);
            // A file that ends behind a whole frame leaves no bytes to set aside, and its frames are missing even so.
            segment.damaged |=
                segment.in_use && (begin < end || before.is_some_and(|run| run.segment == index));
            if segment.in_use && begin < end {
                regions.push(Region { file: segment.file.clone(), bytes: begin..end });
            }
        }
        self.damage.push(Damage::Batches { sequences, regions });
    }

    /// The last step: what lives.
    fn apply(&mut self, storage: &dyn Storage, salt: u64, runs: &[Run]) -> io::Result<()> {
        for index in 0..self.segments.len() {
            let of_segment = || runs.iter().filter(|run| run.segment == index);
            if of_segment().next().is_none() {
                continue;
            }
            let bytes = read_whole(storage, &self.segments[index].file)?;
            let mut frames =
                Frames::new(&bytes, salt, self.segments[index].id, self.segments[index].beginning());
            while let Some((at, frame)) = frames.next() {
                let sequence = frame.sequence;
                let counts = sequence >= self.start && of_segment().any(|run| run.contains(sequence));
                if counts && self.apply_batch(index, frame.body).is_err() {
                    let bytes = at as u64..(at + frame.bytes()) as u64;
                    let regions = vec![Region { file: self.segments[index].file.clone(), bytes }];
                    self.damage.push(Damage::Batches { sequences: sequence..sequence + 1, regions });
                    self.segments[index].damaged = true;
                }
            }
        }
        Ok(())
    }

    fn apply_batch(&mut self, segment: usize, body: &[u8]) -> Result<(), Malformed> {
        let entries: Vec<Entry<'_>> = entries(body).collect::<Result<_, _>>()?;
        for entry in entries {
            match entry {
                Entry::Put { id, kind, blob, bytes } => {
                    self.next_record = self.next_record.max(id.0.saturating_add(1));
                    self.live.insert(id, LiveRecord { segment, kind, bytes: bytes.to_owned(), blob });
                }
                Entry::Remove { id } => {
                    self.next_record = self.next_record.max(id.0.saturating_add(1));
                    self.live.remove(&id);
                }
                Entry::Start { .. } => {}
            }
        }
        Ok(())
    }

    /// Takes the records whose blobs are not whole out of the live ones, and reports them.
    pub fn check_blobs(&mut self, storage: &dyn Storage) -> io::Result<()> {
        let mut known = HashMap::new();
        let mut damaged = Vec::new();
        for (id, record) in &self.live {
            let Some(name) = record.blob else { continue };
            let state = match known.get(&name.digest) {
                Some(state) => *state,
                None => *known.entry(name.digest).or_insert(blobs::verify(storage, name)?),
            };
            if let Err(damage) = state {
                damaged.push((*id, name.digest, damage));
            }
        }
        for (id, digest, damage) in damaged {
            let LiveRecord { kind, bytes, .. } = self.live.remove(&id).expect("found above");
            let record = Record { id, kind, bytes, blob: None };
            self.damage.push(Damage::Blob { record, digest, damage });
        }
        Ok(())
    }

    /// What the journal's owner is told.
    pub fn into_recovery(self, mut blob: impl FnMut(BlobName) -> Blob) -> Recovery {
        let records = self.live.into_iter().map(|(id, record)| Record {
            id,
            kind: record.kind,
            bytes: record.bytes,
            blob: record.blob.map(&mut blob),
        });
        Recovery { records: records.collect(), torn_bytes: self.torn_bytes, damage: self.damage }
    }

    fn headers(&self) -> impl Iterator<Item = SegmentHeader> {
        self.segments.iter().filter_map(|segment| segment.header)
    }
}

impl ScannedSegment {
    fn new(file: String, id: u64, bytes: u64, header: Option<SegmentHeader>) -> ScannedSegment {
        ScannedSegment {
            file,
            id,
            first_sequence: 0,
            bytes,
            in_use: false,
            has_frames: false,
            damaged: false,
            header,
            traces_end: 0,
        }
    }

    fn beginning(&self) -> Position {
        Position::first(self.header.map(|header| header.first_sequence))
    }
}

/// A frame that says where the log starts.
struct Seal {
    segment: usize,
    sequence: u64,
    start: u64,
}

impl Seal {
    fn of(segment: usize, frame: &Frame<'_>) -> Option<Seal> {
        match entries(frame.body).next() {
            Some(Ok(Entry::Start { sequence: start })) => {
                Some(Seal { segment, sequence: frame.sequence, start })
            }
            _ => None,
        }
    }
}

impl Run {
    fn contains(&self, sequence: u64) -> bool {
        (self.first..self.end).contains(&sequence)
    }

    fn has(&self, seal: &Seal) -> bool {
        self.segment == seal.segment && self.contains(seal.sequence)
    }
}

fn read_whole(storage: &dyn Storage, file: &str) -> io::Result<Vec<u8>> {
    let file = storage.open(file, Access::Read)?;
    read_segment(&*file)
}

/// All bytes of a segment, or as many as the largest has.
pub(crate) fn read_segment(file: &dyn File) -> io::Result<Vec<u8>> {
    let bytes = file.len()?.min(crate::config::MAX_SEGMENT_BYTES);
    let mut buffer = vec![0; bytes as usize];
    let count = file.read_at(&mut buffer, 0)?;
    buffer.truncate(count);
    Ok(buffer)
}
