//! The storage of a real file system.

use std::any::Any;
use std::fs::{DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, FlockOperation, fallocate, flock};
use rustix::io::Errno;

use super::{Access, File, Storage};

/// Only the owner reads, writes and enters.
const FOLDER_MODE: u32 = 0o700;
/// Only the owner reads and writes.
const FILE_MODE: u32 = 0o600;
/// The file that is locked.
const LOCK: &str = "lock";

/// A folder of the file system.
#[derive(Debug)]
pub struct Disk {
    path: PathBuf,
}

impl Disk {
    /// A folder that is made when it is not there (mode 0700); its parent has to exist.
    ///
    /// # Errors
    /// What the system says.
    pub fn create(path: &Path) -> io::Result<Disk> {
        match DirBuilder::new().mode(FOLDER_MODE).create(path) {
            Ok(()) => std::fs::File::open(parent(path))?.sync_all()?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
            Err(error) => return Err(error),
        }
        Ok(Disk { path: path.to_owned() })
    }

    /// A folder that is there.
    ///
    /// # Errors
    /// `NotFound` or `NotADirectory` when it is not.
    pub fn existing(path: &Path) -> io::Result<Disk> {
        match std::fs::metadata(path)?.is_dir() {
            true => Ok(Disk { path: path.to_owned() }),
            false => Err(io::ErrorKind::NotADirectory.into()),
        }
    }
}

impl Storage for Disk {
    fn lock(&self, exclusive: bool) -> io::Result<Box<dyn Any + Send + Sync>> {
        let path = self.path.join(LOCK);
        // A reader makes no file: where there is none, nobody has the lock.
        let opened = match exclusive {
            true => OpenOptions::new().create(true).truncate(false).write(true).mode(FILE_MODE).open(path),
            false => std::fs::File::open(path),
        };
        let file = match opened {
            Err(error) if !exclusive && error.kind() == io::ErrorKind::NotFound => return Ok(Box::new(())),
            opened => opened?,
        };
        let operation = match exclusive {
            true => FlockOperation::NonBlockingLockExclusive,
            false => FlockOperation::NonBlockingLockShared,
        };
        flock(&file, operation)?;
        Ok(Box::new(file))
    }

    fn create_folder(&self, name: &str) -> io::Result<()> {
        match DirBuilder::new().mode(FOLDER_MODE).create(self.path.join(name)) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            result => result,
        }
    }

    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        let entries = std::fs::read_dir(self.path.join(folder))?;
        // A name that is not UTF-8 is none of ours.
        entries
            .filter_map(|entry| entry.map(|entry| entry.file_name().into_string().ok()).transpose())
            .collect()
    }

    fn open(&self, name: &str, access: Access) -> io::Result<Box<dyn File>> {
        let mut options = OpenOptions::new();
        options.read(true).mode(FILE_MODE).write(access != Access::Read);
        options.create(access == Access::Create).truncate(access == Access::Create);
        Ok(Box::new(options.open(self.path.join(name))?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.path.join(name))
    }

    fn sync_folder(&self, folder: &str) -> io::Result<()> {
        std::fs::File::open(self.path.join(folder))?.sync_all()
    }
}

impl File for std::fs::File {
    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn preallocate(&self, bytes: u64) -> io::Result<()> {
        match fallocate(self, FallocateFlags::empty(), 0, bytes) {
            // The zeros that are written afterwards take the room.
            Err(Errno::OPNOTSUPP) => self.set_len(bytes),
            result => Ok(result?),
        }
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn read_at(&self, mut buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut filled = 0;
        while !buffer.is_empty() {
            match FileExt::read_at(self, buffer, offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => {
                    filled += count;
                    buffer = &mut buffer[count..];
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn sync_data(&self) -> io::Result<()> {
        std::fs::File::sync_data(self)
    }
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}
