//! Programs that were built: each once, and kept for whoever sent its source, in memory and in the data directory.
//!
//! The same source, build and toolchain give the same program. What is kept has one owner unless `[modules] shared`
//! says otherwise, since a program may hold what only its sender knows, and the time of an answer tells what is there.

use super::buildable::Buildable;
use crate::client::Client;
use crate::config::Config;
use crate::data_dir::DataDir;
use crate::fingerprint::{Fingerprint, Fingerprinter};
use crate::modules::{ArtifactStore, Owner, compatibility};
use crate::once_cache::{Cached, MakeError, OnceCache};
use crate::wasm::folder::Folder;
use offload_native::{NativeProgram, Platform, TOOL_FOLDERS, Wasi};
use offload_protocol::request::Digest;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;
use std::{fs, io};

/// Name of the folder of built programs in the data directory.
const FOLDER: &str = "programs";

/// The tools that shape a program beside its source.
const TOOLS: [&str; 11] =
    ["cc", "c++", "gcc", "g++", "clang", "clang++", "tcc", "as", "ld", "wasm-ld", "make"];

/// The C library that is part of each program for WASI.
const WASI_LIBRARY: &str = "/usr/lib/wasm32-wasi/libc.a";

/// The form in which programs are stored: another number makes them anew.
const FORMAT: u32 = 2;

/// What tells a source's module from its native program.
const WASM: &[u8] = b"wasm";

/// The programs that were built.
pub struct BuiltPrograms {
    store: ArtifactStore,
    cache: OnceCache<BuiltProgram>,
    shared: bool,
}

/// A program that was built.
#[derive(Clone)]
pub struct BuiltProgram {
    /// The program.
    pub program: NativeProgram,
    /// Digest of its bytes, by which modules are named.
    pub digest: Digest,
    /// The folder that it finds when it runs as a module.
    pub folder: Option<Arc<Folder>>,
}

impl BuiltPrograms {
    /// Opens (creates) the folder of built programs.
    ///
    /// # Errors
    ///
    /// When it cannot be created.
    pub fn open(config: &Config, data_dir: &DataDir) -> io::Result<BuiltPrograms> {
        let folder = data_dir.path().join(FOLDER);
        let sandbox = &config.sandbox;
        let key = *data_dir.mac_key();
        let compatibility = compatibility((FORMAT, toolchain(), sandbox.compilers, Wasi::recipe()));
        let store = ArtifactStore::open(folder, key, compatibility, sandbox.disk_cache.bytes())?;
        let cache = OnceCache::new(sandbox.memory_cache.bytes(), |made: &BuiltProgram| {
            let folder = made.program.folder().map_or(0, |folder| folder.archive().len());
            (made.program.bytes().len() + folder) as u64
        });
        Ok(BuiltPrograms { store, cache, shared: config.modules.shared })
    }

    /// The program of this client's source, if it is in memory; or why it cannot be built.
    pub fn ready(
        &self,
        client: &Client,
        source: &Buildable,
        platform: Platform<'_>,
    ) -> Option<Cached<BuiltProgram>> {
        self.cache.ready(&self.key(client, source, platform))
    }

    /// The program of this client's source, which `build` builds if it has not been built before. Concurrent calls
    /// build it once; what a compiler refused stays refused.
    ///
    /// # Errors
    ///
    /// Those of `build`.
    pub async fn get(
        &self,
        client: &Client,
        source: &Buildable,
        platform: Platform<'_>,
        build: impl Future<Output = Result<NativeProgram, MakeError>>,
    ) -> Cached<BuiltProgram> {
        let key = self.key(client, source, platform);
        let load_or_build = async {
            if let Some(program) = self.store.load(&key).await.as_deref().and_then(unpacked) {
                return Ok(BuiltProgram::new(program));
            }
            let program = build.await?;
            self.store.save(&key, &packed(&program)).await;
            Ok(BuiltProgram::new(program))
        };
        self.cache.get_or_make(key, load_or_build).await.0
    }

    fn key(&self, client: &Client, source: &Buildable, platform: Platform<'_>) -> Digest {
        let print = match source {
            Buildable::Source(source) => Fingerprinter::of_source(source),
            Buildable::Files(files) => Fingerprinter::of_files(files),
        };
        let print = print.part(&Owner::of(client, self.shared).hash().0);
        let Fingerprint(key) = match platform {
            Platform::Native => print.finish(),
            Platform::Wasi(_) => print.part(WASM).finish(),
        };
        Digest(key)
    }
}

impl BuiltProgram {
    fn new(program: NativeProgram) -> BuiltProgram {
        let folder = program.folder().map(|left| Arc::new(Folder::new(left)));
        BuiltProgram { digest: Digest::of(program.bytes()), folder, program }
    }
}

/// A program as it is stored: its name and its bytes, each behind its length, and its folder's archive where it has
/// one.
fn packed(program: &NativeProgram) -> Vec<u8> {
    let name = program.name().as_bytes();
    let length = u8::try_from(name.len()).expect("names are short");
    let size = (program.bytes().len() as u64).to_le_bytes();
    let archive = program.folder().map_or(&[][..], |folder| folder.archive());
    [&[length], name, &size, program.bytes(), archive].concat()
}

fn unpacked(stored: &[u8]) -> Option<NativeProgram> {
    let (length, rest) = stored.split_first()?;
    let (name, rest) = rest.split_at_checked(usize::from(*length))?;
    let (size, rest) = rest.split_first_chunk()?;
    let (bytes, archive) = rest.split_at_checked(usize::try_from(u64::from_le_bytes(*size)).ok()?)?;
    let folder = if archive.is_empty() { None } else { Some(offload_native::Folder::read(archive)?) };
    Some(NativeProgram::new(str::from_utf8(name).ok()?, bytes).with_folder(folder))
}

/// The tools that are there, as they are now: another version is another file.
fn toolchain() -> Vec<(String, u64, Option<SystemTime>)> {
    let files = TOOL_FOLDERS.split(':').flat_map(|folder| TOOLS.map(|tool| Path::new(folder).join(tool)));
    files
        .chain([PathBuf::from(WASI_LIBRARY)])
        .filter_map(|file| {
            let file = fs::canonicalize(file).ok()?;
            let metadata = fs::metadata(&file).ok()?;
            Some((file.display().to_string(), metadata.len(), metadata.modified().ok()))
        })
        .collect()
}
