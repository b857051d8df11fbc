//! All that the journal asks of the system: files in one folder. The real one is [`Disk`]; tests have one that loses
//! what was not synced.

mod disk;

pub use disk::Disk;

use std::any::Any;
use std::io;

/// A folder of files. Names are relative to it, and have at most one `/`.
pub trait Storage: Send + Sync {
    /// Locks the folder, exclusively or shared with other readers, until what is returned is dropped.
    ///
    /// # Errors
    /// `WouldBlock` when another process has it, and what the system says.
    fn lock(&self, exclusive: bool) -> io::Result<Box<dyn Any + Send + Sync>>;

    /// Makes a folder inside, unless it is there.
    ///
    /// # Errors
    /// What the system says.
    fn create_folder(&self, name: &str) -> io::Result<()>;

    /// Names of the files and folders in a folder; `""` is the whole one.
    ///
    /// # Errors
    /// What the system says; `NotFound` where there is no such folder.
    fn list(&self, folder: &str) -> io::Result<Vec<String>>;

    /// Opens a file.
    ///
    /// # Errors
    /// What the system says; `NotFound` where there is no such file and it is not to be created.
    fn open(&self, name: &str, access: Access) -> io::Result<Box<dyn File>>;

    /// Gives a file another name, in place of a file that has it. Durable after the folders were synced.
    ///
    /// # Errors
    /// What the system says.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file. Durable after its folder was synced.
    ///
    /// # Errors
    /// What the system says.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Waits until the names of a folder's files are durable.
    ///
    /// # Errors
    /// What the system says.
    fn sync_folder(&self, folder: &str) -> io::Result<()>;
}

/// What a file is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reading alone.
    Read,
    /// Reading and writing.
    Write,
    /// Reading and writing a file that is empty, whether it was there or not.
    Create,
}

/// An open file.
#[expect(clippy::len_without_is_empty, reason = "nobody asks")]
pub trait File: Send + Sync {
    /// Its length in bytes.
    ///
    /// # Errors
    /// What the system says.
    fn len(&self) -> io::Result<u64>;

    /// Reserves this many bytes on the disk, and makes the file so long.
    ///
    /// # Errors
    /// What the system says: `StorageFull` where there is no room.
    fn preallocate(&self, bytes: u64) -> io::Result<()>;

    /// Writes all of the bytes at an offset. Durable after [`sync_data`](Self::sync_data).
    ///
    /// # Errors
    /// What the system says; any part of the bytes may have been written.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Fills the buffer from an offset on, as far as the file goes, and returns how many bytes that were.
    ///
    /// # Errors
    /// What the system says.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Waits until all that was written, and the length, is durable.
    ///
    /// # Errors
    /// What the system says. What was written before may be lost then, whatever a later call says.
    fn sync_data(&self) -> io::Result<()>;
}
