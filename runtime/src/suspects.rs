//! No request takes the gateway down for ever.
//!
//! Another broker delivers a request again that the gateway has not answered: one that crashes the process would crash
//! it again after each restart. So each execution of strangers' code in this process, a guest's run or the loading of
//! an artifact, is written down before it begins, in a file (`file.rs`) that outlives the process. Whatever was under
//! way when the process crashed is a suspect, and is executed alone from then on (`isolation.rs`); what crashes the
//! process twice so is not executed any more (`table.rs`).
//!
//! So does the gateway's own broker with what is in the journal. Without a journal it does not: what had been
//! acknowledged is gone with the process, and nothing needs to be known of it.

mod file;
mod isolation;
mod record;
mod table;

use crate::boot::boot;
use crate::client::Client;
use crate::data_dir::DataDir;
use crate::fingerprint::{Fingerprint, Fingerprinter};
use crate::telemetry;
use crate::wasm::engine::Tier;
use file::SuspectsFile;
use isolation::QUIET;
pub use isolation::{Isolation, Permit};
use offload_protocol::error::{ErrorKind, WireError};
use offload_protocol::request::Digest;
use std::collections::HashSet;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};
pub use table::Verdict;
use table::{Begun, Table};

/// Bytes of a fingerprint that a reference repeats: enough to find it in the log.
const REFERENCE_BYTES: usize = 6;

/// All that is known of executions in this process, and of those that earlier ones did not survive.
pub struct Suspects {
    file: SuspectsFile,
    table: Mutex<Table>,
    isolation: Arc<Isolation>,
    /// The poison that has been logged: one line for each is enough, however often it is sent.
    told: Mutex<HashSet<Fingerprint>>,
}

impl Suspects {
    /// Opens the suspects of a data directory.
    ///
    /// # Errors
    ///
    /// When the file cannot be made or mapped.
    pub fn open(data_dir: &DataDir) -> io::Result<Arc<Suspects>> {
        Suspects::open_with(data_dir, QUIET)
    }

    fn open_with(data_dir: &DataDir, quiet: Duration) -> io::Result<Arc<Suspects>> {
        let now = unix_time();
        let (file, table) = SuspectsFile::open(data_dir.path(), boot().unwrap_or_default(), now)?;
        let suspects = table.records().filter(|(_, record)| record.since == now).count();
        if suspects > 0 {
            tracing::warn!(
                suspects,
                "the gateway crashed, or was killed, while requests ran: if they come again, each runs alone"
            );
        }
        let (table, told) = (Mutex::new(table), Mutex::default());
        Ok(Arc::new(Suspects { file, table, isolation: Isolation::new(quiet), told }))
    }

    /// What keeps the executions apart.
    pub fn isolation(&self) -> &Arc<Isolation> {
        &self.isolation
    }

    /// The run of a request, before it begins.
    pub fn watch(self: &Arc<Self>, fingerprint: Fingerprint) -> Watched {
        Watched { suspects: self.clone(), fingerprint, permit: None }
    }

    /// The loading of an artifact, before it begins.
    pub fn watch_load(self: &Arc<Self>, digest: &Digest, tier: Tier) -> Watched {
        let print = Fingerprinter::new("load").part(env!("CARGO_PKG_VERSION").as_bytes()).part(&digest.0);
        self.watch(print.part(&[tier as u8]).finish())
    }

    /// This is no suspect any more: whoever looks after the gateway wants it run again.
    pub fn acquit(&self, fingerprint: &Fingerprint) {
        let mut table = self.lock();
        if let Some(change) = table.acquit(fingerprint) {
            self.file.store(change);
        }
    }

    /// Waits until an artifact may be loaded for a client.
    ///
    /// # Errors
    ///
    /// `internal` for one whose loading has crashed the gateway.
    pub async fn load(
        self: &Arc<Self>,
        client: &Client,
        digest: &Digest,
        tier: Tier,
    ) -> Result<Execution, WireError> {
        let mut watched = self.watch_load(digest, tier);
        watched.refuse_poison(|| format!("loading the module {digest}"))?;
        watched.permit = match watched.alone(client).await {
            Some(alone) => Some(alone),
            None => Some(self.isolation.share().await),
        };
        Ok(watched.begin())
    }

    /// The gateway was told to stop: what is under way from now on does not become suspect.
    fn stop(&self) {
        self.lock().stop();
        self.file.stop();
    }

    /// Whether nothing is suspect or poison.
    pub fn is_clear(&self) -> bool {
        self.lock().is_clear()
    }

    /// Whether a panic has left them in disorder.
    pub fn is_torn(&self) -> bool {
        self.table.is_poisoned() || self.isolation.is_torn()
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().expect("no panic while the lock is held")
    }
}

/// Marks a planned stop when it is dropped. A gateway that crashes never drops it.
pub struct PlannedStop(pub Arc<Suspects>);

impl Drop for PlannedStop {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// An execution that has not begun.
pub struct Watched {
    suspects: Arc<Suspects>,
    fingerprint: Fingerprint,
    permit: Option<Permit>,
}

impl Watched {
    /// What is known of this execution.
    pub fn verdict(&self) -> Verdict {
        let table = self.suspects.lock();
        if table.is_clear() { Verdict::Innocent } else { table.verdict(&self.fingerprint, unix_time()) }
    }

    /// What knows it again.
    pub fn fingerprint(&self) -> &Fingerprint {
        &self.fingerprint
    }

    /// How often it has crashed the gateway while nothing else ran, if that is too often.
    pub fn poison(&self) -> Option<u8> {
        match self.verdict() {
            Verdict::Poison(crashes) => Some(crashes),
            Verdict::Suspect | Verdict::Innocent => None,
        }
    }

    /// Whether it has to run alone.
    pub fn is_suspect(&self) -> bool {
        self.verdict() == Verdict::Suspect
    }

    /// Refuses what has crashed the gateway. `what` it is stands in the log, under a reference that the error repeats.
    ///
    /// # Errors
    ///
    /// `internal`.
    pub fn refuse_poison(&self, what: impl FnOnce() -> String) -> Result<(), WireError> {
        let Some(crashes) = self.poison() else { return Ok(()) };
        let reference = self.reference();
        if self.tell_once() {
            let what = what();
            tracing::error!(
                reference,
                crashes,
                "{what} has crashed the gateway while nothing else ran: it is not done any more"
            );
        }
        Err(self.poison_error())
    }

    /// Whether this is the first that the log hears of it.
    pub fn tell_once(&self) -> bool {
        self.suspects.told.lock().expect("no panic while the lock is held").insert(self.fingerprint)
    }

    /// The answer to a request that is not run because of this.
    pub fn poison_error(&self) -> WireError {
        let reference = self.reference();
        let message = format!("it has crashed the gateway, whose log says more under {reference}: not run");
        WireError::new(ErrorKind::Internal, message)
    }

    /// Its reference in the log.
    pub fn reference(&self) -> String {
        self.fingerprint.0[..REFERENCE_BYTES].iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Waits until nothing else is under way, if it has to be alone.
    pub async fn alone(&self, client: &Client) -> Option<Permit> {
        if !self.is_suspect() {
            return None;
        }
        let has_crashed = self.suspects.lock().crashes(&self.fingerprint) > 0;
        let alone = self.suspects.isolation.alone(client, has_crashed, || self.is_suspect()).await?;
        let client = telemetry::bounded(client.name());
        tracing::info!(%client, reference = self.reference(), "a request that ran when the gateway crashed runs alone");
        Some(alone)
    }

    /// Gives it the permit that it needs to begin.
    pub fn admit(&mut self, permit: Permit) {
        self.permit = Some(permit);
    }

    /// Whether it is to begin alone, and nothing else can.
    pub fn is_alone(&self) -> bool {
        matches!(self.permit, Some(Permit::Alone(_)))
    }

    /// Writes down that it begins.
    pub fn begin(self) -> Execution {
        let alone = self.is_alone();
        let Watched { suspects, fingerprint, permit } = self;
        let begun = {
            let mut table = suspects.lock();
            // Where there is no room it leaves no trace.
            table.begin(fingerprint, alone).map(|(begun, change)| {
                suspects.file.store(change);
                begun
            })
        };
        Execution { suspects, fingerprint, begun, permit }
    }
}

/// An execution that is under way. Dropped when it has ended, and the process with it has not.
pub struct Execution {
    suspects: Arc<Suspects>,
    fingerprint: Fingerprint,
    begun: Option<Begun>,
    /// Others may begin when the end of this one is written down.
    permit: Option<Permit>,
}

impl Execution {
    /// Whether nothing else is under way.
    pub fn is_alone(&self) -> bool {
        matches!(self.permit, Some(Permit::Alone(_)))
    }

    /// The same once more, before it begins.
    pub fn again(&self) -> Watched {
        self.suspects.watch(self.fingerprint)
    }
}

impl Drop for Execution {
    fn drop(&mut self) {
        if let Some(begun) = self.begun.take() {
            let mut table = self.suspects.lock();
            let change = table.end(begun);
            self.suspects.file.store(change);
        }
    }
}

fn unix_time() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;
    use tempfile::TempDir;

    const PRINT: Fingerprint = Fingerprint([1; 32]);
    const OTHER: Fingerprint = Fingerprint([2; 32]);

    /// A process of the gateway. Forgotten and not dropped where it crashes.
    fn process(folder: &TempDir) -> Arc<Suspects> {
        let data_dir = DataDir::open(&folder.path().join("data")).unwrap();
        Suspects::open_with(&data_dir, Duration::ZERO).unwrap()
    }

    fn client(flow: &str) -> Client {
        Client { principal: None, flow: flow.into(), account: flow.into(), web: false }
    }

    async fn run(suspects: &Arc<Suspects>, print: Fingerprint) -> Execution {
        let mut watched = suspects.watch(print);
        let permit = match watched.alone(&client("a")).await {
            Some(alone) => alone,
            None => suspects.isolation().try_share().unwrap(),
        };
        watched.admit(permit);
        watched.begin()
    }

    fn what() -> String {
        "a request of somebody".to_owned()
    }

    #[tokio::test]
    async fn what_crashes_the_process_twice_alone_is_refused_and_what_ran_beside_it_is_not() {
        let folder = TempDir::new().unwrap();
        let first = process(&folder);
        let both = (run(&first, PRINT).await, run(&first, OTHER).await);
        std::mem::forget(both);
        for _ in 0..2 {
            let next = process(&folder);
            let watched = next.watch(PRINT);
            assert!(watched.is_suspect() && watched.refuse_poison(what).is_ok());
            let alone = run(&next, PRINT).await;
            assert!(next.isolation().try_share().is_none(), "nothing begins beside it");
            std::mem::forget(alone);
        }
        let next = process(&folder);
        let watched = next.watch(PRINT);
        let error = watched.refuse_poison(what).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Internal);
        assert!(error.message.contains(&watched.reference()), "{error}");
        assert!(next.watch(OTHER).is_suspect());
        drop(run(&next, OTHER).await);
        assert_eq!(next.watch(OTHER).verdict(), Verdict::Innocent);
    }

    #[tokio::test]
    async fn poison_is_told_of_once_however_often_it_comes() {
        let folder = TempDir::new().unwrap();
        std::mem::forget(run(&process(&folder), PRINT).await);
        for _ in 0..2 {
            std::mem::forget(run(&process(&folder), PRINT).await);
        }
        let suspects = process(&folder);
        let mut told = 0;
        let mut tell = || {
            told += 1;
            what()
        };
        assert!(suspects.watch(PRINT).refuse_poison(&mut tell).is_err());
        assert!(suspects.watch(PRINT).refuse_poison(&mut tell).is_err());
        assert_eq!(told, 1);
    }

    #[tokio::test]
    async fn an_artifact_whose_loading_crashes_the_process_is_not_loaded_again() {
        let folder = TempDir::new().unwrap();
        let (digest, client) = (Digest([3; 32]), client("a"));
        for _ in 0..3 {
            let process = process(&folder);
            std::mem::forget(process.load(&client, &digest, Tier::Optimized).await.unwrap());
        }
        let process = process(&folder);
        let refused = process.load(&client, &digest, Tier::Optimized).await;
        assert!(refused.is_err_and(|error| error.kind == ErrorKind::Internal));
        // Another compiler's code, and another module.
        drop(process.load(&client, &digest, Tier::Baseline).await.unwrap());
        drop(process.load(&client, &Digest([4; 32]), Tier::Optimized).await.unwrap());
    }

    #[tokio::test]
    async fn a_planned_stop_accuses_nobody() {
        let folder = TempDir::new().unwrap();
        let first = process(&folder);
        std::mem::forget(run(&first, PRINT).await);
        drop(PlannedStop(first));
        assert_eq!(process(&folder).watch(PRINT).verdict(), Verdict::Innocent);
    }

    #[tokio::test]
    async fn the_second_of_two_that_are_the_same_need_not_be_alone_when_the_first_has_ended() {
        let folder = TempDir::new().unwrap();
        std::mem::forget(run(&process(&folder), PRINT).await);
        let suspects = process(&folder);
        let (one, two) = (suspects.watch(PRINT), suspects.watch(PRINT));
        let alone = run(&suspects, PRINT).await;
        assert!(one.is_suspect() && two.is_suspect());
        let client = client("a");
        let ((), two) = tokio::join!(async { drop(alone) }, two.alone(&client));
        assert!(two.is_none());
    }

    #[test]
    fn the_file_is_private() {
        use std::os::unix::fs::PermissionsExt;
        let folder = TempDir::new().unwrap();
        let _suspects = process(&folder);
        let path: &Path = &folder.path().join("data").join(file::NAME);
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }
}
