//! Artifacts on disk: authenticated, bounded, replaced whole.
//!
//! wasmtime runs whatever an artifact says, and notices neither a flipped bit nor a forgery. So each file carries a
//! keyed MAC over the module's digest, the compatibility of the engine that made it, and its bytes; it is read once,
//! verified, and those same bytes are loaded. The key lies in the data directory and nowhere else.

use crate::data_dir;
use crate::log_sampling::sampled;
use hmac::{Hmac, KeyInit, Mac};
use offload_protocol::request::Digest;
use sha2::Sha256;
use std::hash::{Hash, Hasher};
use std::path::PathBuf;
use std::time::SystemTime;
use std::{fs, io};

/// Bytes of the MAC in front of the code.
const MAC_LEN: usize = 32;

/// File name ending of an artifact.
const EXTENSION: &str = "cwasm";

/// A directory of artifacts.
#[derive(Clone)]
pub struct ArtifactStore {
    directory: PathBuf,
    key: [u8; 32],
    /// Hash of the versions, processor features and settings that an artifact was made for.
    compatibility: u64,
    max_bytes: u64,
}

impl ArtifactStore {
    /// Opens (creates) the store in `directory`, whose parent is there, for artifacts of this `compatibility`. Past
    /// `max_bytes` the artifacts that were used least recently make room.
    ///
    /// # Errors
    ///
    /// When the directory cannot be created.
    pub fn open(
        directory: PathBuf,
        key: [u8; 32],
        compatibility: u64,
        max_bytes: u64,
    ) -> io::Result<ArtifactStore> {
        data_dir::make_folder(&directory)?;
        Ok(ArtifactStore { directory, key, compatibility, max_bytes })
    }

    /// The same store, bound included, for artifacts of another compatibility.
    pub fn with_compatibility(&self, compatibility: u64) -> ArtifactStore {
        ArtifactStore { compatibility, ..self.clone() }
    }

    /// The artifact of this module, if it is there and authentic.
    pub async fn load(&self, digest: &Digest) -> Option<Box<[u8]>> {
        let (store, digest) = (self.clone(), *digest);
        tokio::task::spawn_blocking(move || store.load_now(&digest)).await.ok()?
    }

    fn load_now(&self, digest: &Digest) -> Option<Box<[u8]>> {
        let path = self.path(digest);
        let mut file = fs::read(&path).ok()?;
        let authentic = file.len() >= MAC_LEN
            && self.mac(digest, &file[MAC_LEN..]).verify_slice(&file[..MAC_LEN]).is_ok();
        if !authentic {
            sampled!(warn, path = %path.display(), "an artifact in the store is not authentic and was removed");
            let _ = fs::remove_file(&path);
            return None;
        }
        // Eviction goes by the time of the last use. A store that cannot be touched is still a store.
        let _ = fs::File::open(&path).and_then(|file| file.set_modified(SystemTime::now()));
        file.drain(..MAC_LEN);
        Some(file.into_boxed_slice())
    }

    /// Keeps an artifact. A full or read-only disk costs a compile at the next start, not this request.
    pub async fn save(&self, digest: &Digest, code: &[u8]) {
        let mut file = self.mac(digest, code).finalize().into_bytes().to_vec();
        file.extend_from_slice(code);
        let (store, digest) = (self.clone(), *digest);
        let saved = tokio::task::spawn_blocking(move || store.save_now(&digest, &file)).await;
        if let Ok(Err(error)) = saved {
            sampled!(warn, directory = %self.directory.display(), %error, "cannot keep an artifact");
        }
    }

    fn save_now(&self, digest: &Digest, file: &[u8]) -> io::Result<()> {
        if file.len() as u64 > self.max_bytes {
            return Ok(());
        }
        data_dir::make_folder(&self.directory)?;
        self.make_room(file.len() as u64)?;
        let path = self.path(digest);
        // Whole or not at all, whatever stops us in between.
        let partial = path.with_extension("partial");
        let written = fs::write(&partial, file).and_then(|()| fs::rename(&partial, &path));
        if written.is_err() {
            let _ = fs::remove_file(&partial);
        }
        written
    }

    fn make_room(&self, bytes: u64) -> io::Result<()> {
        let mut files = Vec::new();
        // A file that another save removes meanwhile is one less to count.
        for entry in fs::read_dir(&self.directory)?.flatten() {
            if let Ok(metadata) = entry.metadata() {
                files.push((metadata.modified()?, metadata.len(), entry.path()));
            }
        }
        let mut total: u64 = files.iter().map(|(_, len, _)| len).sum();
        files.sort();
        for (_, len, path) in files {
            if total + bytes <= self.max_bytes {
                break;
            }
            if fs::remove_file(&path).is_ok() {
                total -= len;
            }
        }
        Ok(())
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.directory.join(format!("{}-{:016x}", digest.hex(), self.compatibility)).with_extension(EXTENSION)
    }

    fn mac(&self, digest: &Digest, code: &[u8]) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).expect("HMAC takes a key of any length");
        mac.update(&digest.0);
        mac.update(&self.compatibility.to_le_bytes());
        mac.update(code);
        mac
    }
}

/// The compatibility of what has this hash; an engine's hash covers all that shapes its code.
pub fn compatibility(of: impl Hash) -> u64 {
    // `DefaultHasher::new` is the same function in every process of one build; another build starts afresh.
    let mut hasher = std::hash::DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    fn store(directory: &Path, key: u8, max_bytes: u64) -> ArtifactStore {
        ArtifactStore::open(directory.into(), [key; 32], 0, max_bytes).unwrap()
    }

    #[tokio::test]
    async fn what_was_saved_is_loaded_with_the_same_key_only() {
        let directory = tempfile::tempdir().unwrap();
        let digest = Digest::of(b"module");
        store(directory.path(), 1, 1 << 20).save(&digest, b"code").await;
        assert_eq!(store(directory.path(), 1, 1 << 20).load(&digest).await.as_deref(), Some(&b"code"[..]));
        assert_eq!(store(directory.path(), 2, 1 << 20).load(&digest).await, None);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0, "a forgery is removed");
    }

    #[tokio::test]
    async fn a_flipped_bit_or_another_modules_artifact_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let store = store(directory.path(), 1, 1 << 20);
        let (one, other) = (Digest::of(b"one"), Digest::of(b"other"));
        for position in [0, MAC_LEN, MAC_LEN + 3] {
            store.save(&one, b"code").await;
            let mut file = fs::read(store.path(&one)).unwrap();
            file[position] ^= 1;
            fs::write(store.path(&one), file).unwrap();
            assert_eq!(store.load(&one).await, None);
        }
        store.save(&one, b"code").await;
        fs::rename(store.path(&one), store.path(&other)).unwrap();
        assert_eq!(store.load(&other).await, None);
        fs::write(store.path(&one), b"short").unwrap();
        assert_eq!(store.load(&one).await, None);
    }

    #[tokio::test]
    async fn a_data_directory_that_is_gone_is_not_made_again() {
        let data_dir = tempfile::tempdir().unwrap();
        let directory = data_dir.path().join("artifacts");
        let digest = Digest::of(b"module");
        let store = store(&directory, 1, 1 << 20);
        let mode = || fs::metadata(&directory).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(), 0o700);
        fs::remove_dir(&directory).unwrap();
        store.save(&digest, b"code").await;
        assert!(store.load(&digest).await.is_some(), "its own folder is made again");
        assert_eq!(mode(), 0o700);
        fs::remove_dir_all(&data_dir).unwrap();
        store.save(&digest, b"code").await;
        assert!(store.load(&digest).await.is_none() && !data_dir.path().exists());
    }

    #[tokio::test]
    async fn what_was_used_least_recently_makes_room() {
        let directory = tempfile::tempdir().unwrap();
        let file = (MAC_LEN + 100) as u64;
        let store = store(directory.path(), 1, 2 * file);
        let digests = [&b"a"[..], b"b", b"c"].map(Digest::of);
        for (age, digest) in [(2, &digests[0]), (3, &digests[1])] {
            store.save(digest, &[0; 100]).await;
            let used = SystemTime::now() - std::time::Duration::from_secs(age);
            fs::File::open(store.path(digest)).unwrap().set_modified(used).unwrap();
        }
        store.save(&digests[2], &[0; 100]).await;
        assert!(store.load(&digests[0]).await.is_some() && store.load(&digests[2]).await.is_some());
        assert_eq!(store.load(&digests[1]).await, None);
        store.save(&digests[1], &[0; 1000]).await;
        assert_eq!(store.load(&digests[1]).await, None, "one that is too large for the store is not kept");
        assert!(store.load(&digests[0]).await.is_some());
    }
}
