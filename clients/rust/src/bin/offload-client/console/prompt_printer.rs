//! Output above the line that is being typed, in the order in which it came.
//!
//! rustyline's own printer would keep a line for the next prompt when the user types ahead, and write the line after it
//! at once. So all lines wait here, and the one thread that edits takes them out: in front of the prompt whenever that
//! is painted, and when there is no prompt any more. rustyline's printer only has the prompt painted again.

use std::io::{self, Write, stdout};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use rustyline::ExternalPrinter;

/// Lines that wait for the next prompt. It is never far: whoever edits waits for nobody but the user.
const MAX_WAITING: usize = 256;

/// A message that shows nothing: up, and down again by the line's end, which rustyline would add if it were missing.
const NOTHING: &str = "\x1b[A\n";

/// The end where lines go in.
pub struct Printer {
    lines: SyncSender<String>,
    prompt_stands: Arc<AtomicBool>,
    rustyline: Box<dyn ExternalPrinter + Send>,
}

/// The end where they come out, on the thread that edits.
pub struct PromptPrinter {
    lines: Mutex<Receiver<String>>,
    /// There is a prompt, and nobody has asked since that it be painted again.
    prompt_stands: Arc<AtomicBool>,
}

/// Both ends.
pub fn channel(rustyline: impl ExternalPrinter + Send + 'static) -> (Printer, PromptPrinter) {
    let (sender, receiver) = sync_channel(MAX_WAITING);
    let prompt_stands = Arc::<AtomicBool>::default();
    let printer =
        Printer { lines: sender, prompt_stands: prompt_stands.clone(), rustyline: Box::new(rustyline) };
    (printer, PromptPrinter { lines: Mutex::new(receiver), prompt_stands })
}

impl Printer {
    /// Prints a line, which brings its end. An error when nobody can see it any more.
    pub fn print(&mut self, line: String) -> io::Result<()> {
        self.lines.send(line).map_err(|_| io::ErrorKind::BrokenPipe)?;
        if self.prompt_stands.swap(false, Ordering::SeqCst) {
            // Where the editor has just left, what waits is shown all the same.
            let _ = self.rustyline.print(NOTHING.to_owned());
        }
        Ok(())
    }
}

impl PromptPrinter {
    /// What belongs in front of the prompt that is about to be painted.
    pub fn take(&self) -> String {
        // Before the look at the lines: for a line that comes after it, the prompt is painted again.
        self.prompt_stands.store(true, Ordering::SeqCst);
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).try_iter().collect()
    }

    /// The user has entered a line; what comes now waits for the next prompt.
    pub fn prompt_is_gone(&self) {
        self.prompt_stands.store(false, Ordering::SeqCst);
    }

    /// Shows lines without a prompt until the [`Printer`] is dropped, or nobody can see them any more.
    pub fn show_the_rest(&self) {
        for line in self.lines.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            if stdout().write_all(line.as_bytes()).is_err() {
                return;
            }
        }
    }
}
