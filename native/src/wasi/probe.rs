//! Whether programs can be built for WASI here: found out by building some.

use super::{COMPAT, Wasi};
use crate::diagnostics;
use crate::error::Error;
use crate::outcome::{Ending, Outcome};
use crate::platform::Platform;
use crate::sandbox::Sandbox;
use crate::tools::shell;

/// Finds out whether the toolchain is there. `$1` is [`COMPAT`], `$2` and `$3` are the programs.
const TRIAL: &str = include_str!("trial.sh");
const TRIAL_PROGRAMS: [&str; 2] = [include_str!("trial.c"), include_str!("trial.cpp")];

impl Sandbox {
    /// Finds out whether source can be built for WASI here, by doing it (some 0.3 s). Blocks.
    ///
    /// # Errors
    ///
    /// What is missing.
    pub fn probe_wasi(&self) -> Result<Wasi, String> {
        let nothing = Wasi { compiler: String::new(), library: Vec::new() };
        let (files, stdin, [in_c, in_cpp]) = (Vec::new(), Vec::new(), TRIAL_PROGRAMS);
        let work = self.making(files, shell(TRIAL, &[COMPAT, in_c, in_cpp]), stdin, Platform::Wasi(&nothing));
        let outcome = work.map_err(Error::from).and_then(|work| self.run_now(work));
        let Outcome { ending, stdout, stderr, .. } = outcome.map_err(|error| error.to_string())?;
        let shown = stdout.iter().position(|byte| *byte == b'\n').filter(|_| ending == Ending::Exit(0));
        match shown {
            Some(end) => Ok(Wasi {
                compiler: diagnostics::cleaned(&stdout[..end]),
                library: stdout[end + 1..].to_vec(),
            }),
            None => Err(diagnostics::first_error(&stderr)),
        }
    }
}
