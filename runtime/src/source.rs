//! Source that requests carry: what is done with it here, and how it is built and run.
//!
//! [`SourceBackend`] is the whole. Containing programs is the business of `offload_native`; what was built for WASI
//! runs as any module.

mod buildable;
mod built;
mod comparison;
mod mode;
mod outcome;
mod permits;
mod sandbox;

use crate::client::Client;
use crate::config::{Config, NativeMode};
use crate::data_dir::DataDir;
use crate::wasm::guest::{Budget, Ended, Input};
use crate::wasm::workers::RunOutcome;
pub use buildable::Buildable;
pub use built::BuiltProgram;
use comparison::Comparisons;
pub use mode::Mode;
use offload_protocol::error::WireError;
use outcome::unauthorized;
use permits::Purpose;
use sandbox::SourceSandbox;
pub use sandbox::{RequestTimes, sandbox_config};
use tokio::sync::OwnedSemaphorePermit;

/// What a client is told whose source is not taken.
const TAKES_NONE: &str = "this gateway takes no source: send a wasm module, or ask its operator";

/// Builds and runs source, or says why not.
pub struct SourceBackend {
    /// For clients of whom no rule says otherwise; `None` where source is not taken.
    default_mode: Option<Mode>,
    /// Whether only this machine can send requests.
    local: bool,
    sandbox: Result<SourceSandbox, WireError>,
    takes_source: bool,
    comparisons: Comparisons,
}

impl SourceBackend {
    /// Finds out what becomes of source here, and whether this machine can contain and compile it; logs all of that.
    /// `local` tells whether only this machine can send requests.
    pub async fn start(config: &Config, local: bool, data_dir: &DataDir) -> SourceBackend {
        let ruled = config.access.rule.iter().filter_map(|rule| rule.native);
        let chosen = ruled.chain([config.native]);
        let modes: Vec<Mode> = chosen.filter_map(|chosen| Mode::of(chosen, local)).collect();
        let sandbox = if modes.is_empty() {
            tracing::info!("source is refused (--allow-native, or `native` in the configuration, allows it)");
            Err(unauthorized(TAKES_NONE))
        } else {
            let needs_wasi = modes.iter().any(|mode| mode.needs_wasi());
            SourceSandbox::start(config, data_dir, needs_wasi).await.map_err(|unavailable| {
                tracing::warn!("source is refused: {unavailable}");
                unavailable.told()
            })
        };
        let takes_source =
            sandbox.as_ref().is_ok_and(|sandbox| modes.iter().any(|mode| sandbox.can(*mode).is_ok()));
        SourceBackend {
            default_mode: Mode::of(config.native, local),
            local,
            sandbox,
            takes_source,
            comparisons: Comparisons::new(config.sandbox.compared),
        }
    }

    /// Whether it builds and runs the source of any client.
    pub fn takes_source(&self) -> bool {
        self.takes_source
    }

    /// Programs that run natively now.
    pub fn running(&self) -> usize {
        self.sandbox.as_ref().map_or(0, SourceSandbox::running)
    }

    /// What is done with the source of a client of whom the rules say this, if they do.
    ///
    /// # Errors
    ///
    /// `unauthorized`, with what to do instead.
    pub fn mode(&self, ruled: Option<NativeMode>) -> Result<Mode, WireError> {
        let mode = ruled.map_or(self.default_mode, |chosen| Mode::of(chosen, self.local));
        let mode = mode.ok_or_else(|| unauthorized(TAKES_NONE))?;
        self.sandbox()?.can(mode)?;
        Ok(mode)
    }

    /// Builds the source, unless it has been built before, and runs the program, within `budget`'s times and at most
    /// `memory` bytes, where the request asks for less than the sandbox gives. Dropping the future ends both.
    ///
    /// # Errors
    ///
    /// Where there is nothing to run: `build`, `unauthorized`, `too-large` for arguments, `internal`.
    pub async fn run(
        &self,
        client: &Client,
        source: &Buildable,
        input: Input,
        budget: &Budget,
        memory: Option<u64>,
        times: RequestTimes,
    ) -> Result<RunOutcome, WireError> {
        self.sandbox()?.run(client, source, input, budget, memory, times).await
    }

    /// This client's source as wasm, if it has been built and is at hand; or why it cannot be built.
    pub fn ready_wasm(&self, client: &Client, source: &Buildable) -> Option<Result<BuiltProgram, WireError>> {
        self.sandbox.as_ref().ok()?.ready_wasm(client, source)
    }

    /// Builds this client's source as wasm, unless it has been built before. Dropping the future ends the build.
    ///
    /// # Errors
    ///
    /// `build`, `unauthorized`, `internal`.
    pub async fn wasm(&self, client: &Client, source: &Buildable) -> Result<BuiltProgram, WireError> {
        self.sandbox()?.wasm(client, source, Purpose::Answer).await
    }

    /// As [`SourceBackend::wasm`], for comparison alone.
    ///
    /// # Errors
    ///
    /// Those of [`SourceBackend::wasm`].
    pub async fn wasm_to_compare(
        &self,
        client: &Client,
        source: &Buildable,
    ) -> Result<BuiltProgram, WireError> {
        self.sandbox()?.wasm(client, source, Purpose::Comparison).await
    }

    /// Leave to compare a run of this source with what it would be as wasm, until it is dropped. There is none while
    /// many are compared.
    pub fn compare(&self, client: &Client, source: &Buildable) -> Option<OwnedSemaphorePermit> {
        self.comparisons.begin(client, source)
    }

    /// Logs how this source differs as wasm from its native run, if that has not been logged.
    pub fn tell_difference(
        &self,
        client: &Client,
        source: &Buildable,
        native: &Ended,
        wasm: Result<&Ended, &WireError>,
    ) {
        self.comparisons.tell(client, source, native, wasm);
    }

    fn sandbox(&self) -> Result<&SourceSandbox, WireError> {
        self.sandbox.as_ref().map_err(Clone::clone)
    }
}
