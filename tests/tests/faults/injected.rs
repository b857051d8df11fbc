//! A gateway whose wall clock and disk do what a test wants, by a library that is loaded before the C library
//! (`injected.c`). The gateway itself knows nothing of it.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use offload_tests::gateway::{Gateway, Launch};
use rustix::process::Signal;
use tempfile::TempDir;

const SOURCE: &str = include_str!("injected.c");

/// Fields of the control file, eight bytes each: their places are those in `injected.c`.
#[derive(Clone, Copy)]
pub enum Control {
    /// Seconds that are added to the wall clock.
    ClockSeconds,
    /// What fsync and fdatasync fail with.
    SyncErrno,
    /// Milliseconds that each of them takes before.
    SyncDelay,
    /// What a write to a file of the data directory fails with.
    WriteErrno,
    /// What opening a file there for writing fails with, making a folder, renaming and removing.
    ChangeErrno,
    /// How many calls were delayed or have failed.
    Injected,
}

/// How many fields there are.
const FIELDS: usize = 6;

/// The library and its control file. Gateways that are launched with it share them.
pub struct Faults {
    control: File,
    folder: TempDir,
}

impl Faults {
    /// None yet.
    pub fn none() -> Result<Faults> {
        let folder = TempDir::new()?;
        let source = folder.path().join("injected.c");
        fs::write(&source, SOURCE)?;
        let mut gcc = Command::new("gcc");
        gcc.args(["-O1", "-Wall", "-Werror", "-shared", "-fPIC", "-o"])
            .arg(folder.path().join("injected.so"));
        let output = gcc.arg(source).arg("-ldl").output().context("no gcc: run `cargo xtask setup`")?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let path = folder.path().join("control");
        fs::write(&path, [0; 8 * FIELDS])?;
        let control = File::options().read(true).write(true).open(path)?;
        Ok(Faults { control, folder })
    }

    /// Starts a gateway with it in this folder, as [`Gateway::start_in`] does.
    pub async fn launch(&self, folder: TempDir, flags: &[&str], configuration: &str) -> Result<Gateway> {
        let gateway = self.spawn(folder, flags, configuration)?;
        gateway.when_ready().await
    }

    /// Starts one that may never be ready.
    pub fn spawn(&self, folder: TempDir, flags: &[&str], configuration: &str) -> Result<Gateway> {
        let variables = self.variables(&folder.path().join("data"))?;
        let variables = variables.each_ref().map(|(name, value)| (*name, &**value));
        Gateway::spawn(folder, flags, configuration, Launch { variables: &variables, ..Launch::default() })
    }

    /// Stops one, and starts another one in its data directory.
    pub async fn restart(&self, gateway: Gateway, flags: &[&str], configuration: &str) -> Result<Gateway> {
        let variables = self.variables(&gateway.data_dir())?;
        let variables = variables.each_ref().map(|(name, value)| (*name, &**value));
        gateway.signal(Signal::TERM)?;
        gateway.replace(flags, configuration, Launch { variables: &variables, ..Launch::default() }).await
    }

    fn variables(&self, data: &Path) -> Result<[(&'static str, String); 3]> {
        let path = |path: &Path| path.to_str().map(str::to_owned).context("a path is not UTF-8");
        Ok([
            ("LD_PRELOAD", path(&self.folder.path().join("injected.so"))?),
            ("INJECTED_FAULTS", path(&self.folder.path().join("control"))?),
            ("INJECTED_FOLDER", path(data)?),
        ])
    }

    pub fn set(&self, control: Control, value: i64) -> Result<()> {
        Ok(self.control.write_all_at(&value.to_ne_bytes(), 8 * control as u64)?)
    }

    /// How many calls were delayed or have failed: none means that the test has tested nothing.
    pub fn injected(&self) -> Result<i64> {
        let mut bytes = [0; 8];
        self.control.read_exact_at(&mut bytes, 8 * Control::Injected as u64)?;
        Ok(i64::from_ne_bytes(bytes))
    }
}
