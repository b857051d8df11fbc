//! Where a terminal's lines go, also those that another terminal causes while this one types.

use std::io::{self, Write as _, stdout};
use std::sync::{Arc, Mutex, PoisonError};

use rustyline::ExternalPrinter;

/// Standard output.
#[derive(Clone)]
pub struct Screen {
    /// Prints above the prompt.
    printer: Option<Arc<Mutex<dyn ExternalPrinter + Send>>>,
}

impl Screen {
    /// Nobody types.
    pub fn plain() -> Self {
        Self { printer: None }
    }

    /// Somebody types.
    pub fn above_prompt(printer: impl ExternalPrinter + Send + 'static) -> Self {
        Self { printer: Some(Arc::new(Mutex::new(printer))) }
    }

    /// Shows what a command of this terminal's own says: there is no prompt then.
    pub fn show(&self, text: &str) -> io::Result<()> {
        super::super::print(text)?;
        stdout().flush()
    }

    /// Shows what comes of another terminal's commands.
    pub fn interrupt(&self, text: &str) -> io::Result<()> {
        let Some(printer) = &self.printer else { return self.show(text) };
        let printed = printer.lock().unwrap_or_else(PoisonError::into_inner).print(text.to_owned());
        printed.map_err(io::Error::other)
    }
}
