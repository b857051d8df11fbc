//! A storage in memory, without faults of its own.

use std::any::Any;
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::storage::{Access, File, Storage};

/// Clones are the same storage; [`Memory::copied`] is another one.
#[derive(Clone, Default)]
pub struct Memory(Arc<Mutex<BTreeMap<String, Content>>>);

#[derive(Clone, Default)]
struct Content(Arc<Mutex<Vec<u8>>>);

impl Memory {
    /// The same files elsewhere.
    pub fn copied(&self) -> Memory {
        let copy = |(name, content): (&String, &Content)| (name.clone(), Content::of(content.lock().clone()));
        Memory(Arc::new(Mutex::new(self.lock().iter().map(copy).collect())))
    }

    /// Puts a file in place of one that has its name.
    pub fn put(&self, name: &str, bytes: Vec<u8>) {
        self.lock().insert(name.to_owned(), Content::of(bytes));
    }

    pub fn files(&self) -> Vec<String> {
        self.lock().keys().cloned().collect()
    }

    /// Changes what a file holds, if it is there.
    pub fn change(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        if let Some(content) = self.lock().get(name) {
            change(&mut content.lock());
        }
    }

    /// What all files hold, to see whether anything has changed.
    pub fn snapshot(&self) -> Vec<(String, Vec<u8>)> {
        self.lock().iter().map(|(name, content)| (name.clone(), content.lock().clone())).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Content>> {
        self.0.lock().expect("no panic while the lock is held")
    }
}

impl Content {
    fn of(bytes: Vec<u8>) -> Content {
        Content(Arc::new(Mutex::new(bytes)))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0.lock().expect("no panic while the lock is held")
    }
}

impl Storage for Memory {
    fn lock(&self, _exclusive: bool) -> io::Result<Box<dyn Any + Send + Sync>> {
        Ok(Box::new(()))
    }

    fn create_folder(&self, _name: &str) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        let within = |name: &String| match folder {
            "" => Some(name.clone()).filter(|name| !name.contains('/')),
            _ => name.strip_prefix(folder)?.strip_prefix('/').map(str::to_owned),
        };
        Ok(self.lock().keys().filter_map(within).collect())
    }

    fn open(&self, name: &str, access: Access) -> io::Result<Box<dyn File>> {
        let mut files = self.lock();
        let content = match access {
            Access::Read | Access::Write => files.get(name).ok_or(io::ErrorKind::NotFound)?.clone(),
            Access::Create => files.entry(name.to_owned()).insert_entry(Content::default()).get().clone(),
        };
        Ok(Box::new(content))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut files = self.lock();
        let content = files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        files.insert(to.to_owned(), content);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.lock().remove(name).map(drop).ok_or(io::ErrorKind::NotFound.into())
    }

    fn sync_folder(&self, _folder: &str) -> io::Result<()> {
        Ok(())
    }
}

impl File for Content {
    fn len(&self) -> io::Result<u64> {
        Ok(self.lock().len() as u64)
    }

    fn preallocate(&self, bytes: u64) -> io::Result<()> {
        let mut content = self.lock();
        if (content.len() as u64) < bytes {
            content.resize(bytes as usize, 0);
        }
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let (mut content, at) = (self.lock(), offset as usize);
        let end = at + bytes.len();
        if content.len() < end {
            content.resize(end, 0);
        }
        content[at..end].copy_from_slice(bytes);
        Ok(())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let content = self.lock();
        let rest = content.get(offset as usize..).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }
}
