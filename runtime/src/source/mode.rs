//! What is done with source: whether it is run at all, and as what.

use crate::config::NativeMode;

/// What is done with a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It is built and run in the sandbox.
    Native,
    /// It is built for WASI, and runs as a module.
    Wasm,
    /// It is run natively, and compared with what it would be as wasm.
    Compare,
}

impl Mode {
    /// What the configuration's choice comes to; `None` where source is not taken. `local` tells whether only this
    /// machine can send requests.
    pub fn of(chosen: NativeMode, local: bool) -> Option<Mode> {
        match chosen {
            NativeMode::Auto => local.then_some(Mode::Native),
            NativeMode::Native => Some(Mode::Native),
            NativeMode::Wasm => Some(Mode::Wasm),
            NativeMode::Compare => Some(Mode::Compare),
            NativeMode::Off => None,
        }
    }

    /// Whether source is built for WASI in this mode.
    pub fn needs_wasi(self) -> bool {
        matches!(self, Mode::Wasm | Mode::Compare)
    }
}
