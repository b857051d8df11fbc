//! A disk in memory that keeps apart what programs see, and what a power cut would leave.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use offload_journal::{Access, File, Storage};

use crate::random::Random;

/// A write is torn between sectors alone, as disks promise.
const SECTOR: usize = 512;

/// Clones are the same disk.
#[derive(Clone, Default)]
pub struct FaultyDisk(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Clone, Default)]
struct State {
    inodes: Vec<Inode>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    /// Since the folders were synced, in order.
    renames: Vec<NameChange>,
    folders: BTreeSet<String>,
    faults: Faults,
    calls: u64,
    syncs: u64,
    /// No call succeeds any more.
    off: bool,
    /// The call that fails was made.
    failed: bool,
    /// Whether a sync waits for [`FaultyDisk::release`].
    held: bool,
}

/// What goes wrong. Calls are those that change something or sync, from zero.
#[derive(Clone, Default)]
pub struct Faults {
    /// The power goes during this call.
    pub power_cut_at: Option<u64>,
    /// This call fails, and has done an unknown part of its work.
    pub error_at: Option<u64>,
    /// All files together have this many bytes.
    pub capacity: Option<u64>,
    /// A sync says that all is durable, and nothing is.
    pub lies_about_sync: bool,
    /// Syncs wait.
    pub hold_sync: bool,
}

#[derive(Clone, Default)]
struct Inode {
    content: Vec<u8>,
    durable: Vec<u8>,
    /// Since it was synced, in order.
    changes: Vec<Change>,
}

#[derive(Clone)]
enum Change {
    Length(usize),
    Write(usize, Vec<u8>),
}

#[derive(Clone)]
enum NameChange {
    Link(String, usize),
    Unlink(String),
}

impl FaultyDisk {
    pub fn with(faults: Faults) -> FaultyDisk {
        let disk = FaultyDisk::default();
        disk.set(faults);
        disk
    }

    pub fn set(&self, faults: Faults) {
        self.lock().faults = faults;
        self.0.changed.notify_all();
    }

    pub fn faults(&self) -> Faults {
        self.lock().faults.clone()
    }

    /// Calls until now that change something or sync.
    pub fn calls(&self) -> u64 {
        self.lock().calls
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.lock().bytes()
    }

    /// Waits until a sync waits, or none will, since a call has failed.
    pub fn wait_until_held(&self) {
        let mut state = self.lock();
        while !state.held && !state.off && !state.failed {
            state = self.0.changed.wait(state).unwrap();
        }
    }

    /// Lets syncs go on.
    pub fn release(&self) {
        self.lock().faults.hold_sync = false;
        self.0.changed.notify_all();
    }

    /// Waits until this many syncs were done.
    pub fn wait_for_syncs(&self, syncs: u64) {
        let mut state = self.lock();
        while state.syncs < syncs {
            state = self.0.changed.wait(state).unwrap();
        }
    }

    pub fn syncs(&self) -> u64 {
        self.lock().syncs
    }

    /// The same files after the process was killed: all that it has written is there, and what was not synced is not
    /// durable.
    pub fn after_kill(&self) -> FaultyDisk {
        let state = self.lock().clone();
        FaultyDisk::of(State {
            faults: Faults::default(),
            calls: 0,
            off: false,
            failed: false,
            held: false,
            ..state
        })
    }

    /// What a power cut leaves; the seed says what of the unsynced.
    pub fn after_power_cut(&self, seed: u64) -> FaultyDisk {
        let mut random = Random::new(seed);
        let state = self.lock().clone();
        let mut names = state.durable_names;
        // File systems keep changes of names in order.
        let kept = match seed % 4 {
            0 => 0,
            1 => state.renames.len(),
            _ => random.below(state.renames.len() + 1),
        };
        state.renames.into_iter().take(kept).for_each(|change| change.apply(&mut names));
        let inodes: Vec<Inode> =
            state.inodes.into_iter().map(|inode| inode.after_power_cut(seed, &mut random)).collect();
        FaultyDisk::of(State {
            inodes,
            durable_names: names.clone(),
            names,
            folders: state.folders,
            ..State::default()
        })
    }

    /// Flips a bit of a file, on the platter.
    pub fn flip(&self, file: &str, bit: usize) {
        let mut state = self.lock();
        let index = state.names[file];
        let inode = &mut state.inodes[index];
        inode.content[bit / 8] ^= 1 << (bit % 8);
        inode.durable[bit / 8] ^= 1 << (bit % 8);
    }

    /// Puts bytes into a file, on the platter.
    pub fn patch(&self, file: &str, at: usize, bytes: &[u8]) {
        let mut state = self.lock();
        let index = state.names[file];
        let inode = &mut state.inodes[index];
        inode.content[at..at + bytes.len()].copy_from_slice(bytes);
        inode.durable[at..at + bytes.len()].copy_from_slice(bytes);
    }

    pub fn read(&self, file: &str) -> Vec<u8> {
        let state = self.lock();
        state.inodes[state.names[file]].content.clone()
    }

    pub fn forget(&self, file: &str) {
        let mut state = self.lock();
        state.names.remove(file);
        state.durable_names.remove(file);
    }

    /// Names of all files.
    pub fn files(&self) -> Vec<String> {
        self.lock().names.keys().cloned().collect()
    }

    fn of(state: State) -> FaultyDisk {
        FaultyDisk(Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap()
    }

    /// A call that changes something or syncs: the state, and whether it is to fail after its change.
    fn call(&self) -> io::Result<(MutexGuard<'_, State>, io::Result<()>)> {
        let mut state = self.lock();
        if state.off {
            return Err(io::Error::other("the power is off"));
        }
        let call = state.calls;
        state.calls += 1;
        let mut outcome = Ok(());
        if state.faults.power_cut_at == Some(call) {
            state.off = true;
            self.0.changed.notify_all();
            outcome = Err(io::Error::other("the power is off"));
        } else if state.faults.error_at == Some(call) {
            state.failed = true;
            self.0.changed.notify_all();
            outcome = Err(io::Error::from_raw_os_error(5));
        }
        Ok((state, outcome))
    }
}

impl State {
    fn link(&mut self, name: &str, inode: usize) {
        self.change_names(NameChange::Link(name.to_owned(), inode));
    }

    fn change_names(&mut self, change: NameChange) {
        change.clone().apply(&mut self.names);
        self.renames.push(change);
    }

    fn bytes(&self) -> u64 {
        self.names.values().map(|inode| self.inodes[*inode].content.len() as u64).sum()
    }

    fn change(&mut self, inode: usize, change: Change) -> io::Result<()> {
        let end = change.end();
        let more = end.saturating_sub(self.inodes[inode].content.len()) as u64;
        if self.faults.capacity.is_some_and(|capacity| more > 0 && self.bytes() + more > capacity) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let inode = &mut self.inodes[inode];
        change.apply(&mut inode.content);
        inode.changes.push(change);
        Ok(())
    }
}

impl Inode {
    fn after_power_cut(self, seed: u64, random: &mut Random) -> Inode {
        let mut content = self.durable;
        let kept = random.below(self.changes.len() + 1);
        for (index, change) in self.changes.into_iter().enumerate() {
            match seed % 4 {
                0 => {}
                1 => change.apply(&mut content),
                2 if index < kept => change.apply(&mut content),
                2 => {}
                _ => change.sectors(|sector| {
                    if random.one_in(2) {
                        sector.apply(&mut content);
                    }
                }),
            }
        }
        Inode { durable: content.clone(), content, changes: Vec::new() }
    }
}

impl Change {
    fn end(&self) -> usize {
        match self {
            Change::Length(length) => *length,
            Change::Write(at, bytes) => at + bytes.len(),
        }
    }

    fn apply(&self, content: &mut Vec<u8>) {
        if content.len() < self.end() {
            content.resize(self.end(), 0);
        }
        if let Change::Write(at, bytes) = self {
            content[*at..at + bytes.len()].copy_from_slice(bytes);
        }
    }

    /// The parts of it that survive on their own.
    fn sectors(self, mut each: impl FnMut(Change)) {
        match self {
            Change::Length(_) => each(self),
            Change::Write(mut at, bytes) => {
                let mut rest = &bytes[..];
                while !rest.is_empty() {
                    let (sector, behind) = rest.split_at((SECTOR - at % SECTOR).min(rest.len()));
                    each(Change::Write(at, sector.to_owned()));
                    at += sector.len();
                    rest = behind;
                }
            }
        }
    }
}

impl NameChange {
    fn apply(self, names: &mut BTreeMap<String, usize>) {
        match self {
            NameChange::Link(name, inode) => names.insert(name, inode),
            NameChange::Unlink(name) => names.remove(&name),
        };
    }
}

impl Storage for FaultyDisk {
    fn lock(&self, _exclusive: bool) -> io::Result<Box<dyn Any + Send + Sync>> {
        Ok(Box::new(()))
    }

    fn create_folder(&self, name: &str) -> io::Result<()> {
        self.lock().folders.insert(name.to_owned());
        Ok(())
    }

    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        let state = self.lock();
        let within = |name: &String| match folder {
            "" => Some(name.clone()).filter(|name| !name.contains('/')),
            _ => name.strip_prefix(folder)?.strip_prefix('/').map(str::to_owned),
        };
        Ok(state.names.keys().filter_map(within).collect())
    }

    fn open(&self, name: &str, access: Access) -> io::Result<Box<dyn File>> {
        let found = self.lock().names.get(name).copied();
        let inode = match (found, access) {
            (Some(inode), Access::Read | Access::Write) => inode,
            (None, Access::Read | Access::Write) => return Err(io::ErrorKind::NotFound.into()),
            (_, Access::Create) => {
                let (mut state, outcome) = self.call()?;
                state.inodes.push(Inode::default());
                let inode = state.inodes.len() - 1;
                state.link(name, inode);
                outcome?;
                inode
            }
        };
        Ok(Box::new(OpenFile { disk: self.clone(), inode }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let (mut state, outcome) = self.call()?;
        let inode = *state.names.get(from).ok_or(io::ErrorKind::NotFound)?;
        state.link(to, inode);
        state.change_names(NameChange::Unlink(from.to_owned()));
        outcome
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let (mut state, outcome) = self.call()?;
        state.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        state.change_names(NameChange::Unlink(name.to_owned()));
        outcome
    }

    fn sync_folder(&self, _folder: &str) -> io::Result<()> {
        let (mut state, outcome) = self.call()?;
        outcome?;
        if !state.faults.lies_about_sync {
            let changes = std::mem::take(&mut state.renames);
            changes.into_iter().for_each(|change| change.apply(&mut state.durable_names));
        }
        Ok(())
    }
}

struct OpenFile {
    disk: FaultyDisk,
    inode: usize,
}

impl File for OpenFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.lock().inodes[self.inode].content.len() as u64)
    }

    fn preallocate(&self, bytes: u64) -> io::Result<()> {
        let (mut state, outcome) = self.disk.call()?;
        state.change(self.inode, Change::Length(bytes as usize))?;
        outcome
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let (mut state, outcome) = self.disk.call()?;
        state.change(self.inode, Change::Write(offset as usize, bytes.to_owned()))?;
        outcome
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let state = self.disk.lock();
        let content = &state.inodes[self.inode].content;
        let rest = content.get(offset as usize..).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn sync_data(&self) -> io::Result<()> {
        let (mut state, outcome) = self.disk.call()?;
        outcome?;
        while state.faults.hold_sync {
            state.held = true;
            self.disk.0.changed.notify_all();
            state = self.disk.0.changed.wait(state).unwrap();
        }
        state.held = false;
        state.syncs += 1;
        if !state.faults.lies_about_sync {
            let inode = &mut state.inodes[self.inode];
            let changes = std::mem::take(&mut inode.changes);
            changes.iter().for_each(|change| change.apply(&mut inode.durable));
        }
        self.disk.0.changed.notify_all();
        Ok(())
    }
}
