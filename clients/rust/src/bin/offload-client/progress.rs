//! A spinner for who waits at a terminal, and what is said meanwhile.

use std::future::Future;
use std::io::{IsTerminal, Write, stderr};
use std::pin::pin;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::mpsc;
use tokio::time::sleep;

/// Nobody needs to be told that a shorter wait goes on.
const PATIENCE: Duration = Duration::from_millis(500);

const TICK: Duration = Duration::from_millis(100);

/// Lines for stderr that wait to be shown.
const MAX_NOTES: usize = 16;

/// Lines for whoever waits.
pub type Notes = mpsc::Sender<String>;

/// Awaits `future`, and prints on stderr what that notes meanwhile. If it takes a while and stderr is a terminal, shows
/// there what goes on, if anything is to be shown; that line is cleared before this returns or is dropped.
pub async fn shown<F: Future>(what: impl Into<Option<String>>, future: impl FnOnce(Notes) -> F) -> F::Output {
    let what = what.into();
    let (sender, mut notes) = mpsc::channel(MAX_NOTES);
    let mut future = pin!(future(sender));
    let mut patience = pin!(sleep(PATIENCE));
    let mut spinner = None;
    let is_terminal = stderr().is_terminal();
    loop {
        tokio::select! {
            biased;
            output = &mut future => return output,
            Some(note) = notes.recv() => print_above(spinner.as_ref(), &note),
            () = &mut patience, if is_terminal && spinner.is_none() && what.is_some() => {
                spinner = what.clone().map(Spinner::start);
            }
        }
    }
}

fn print_above(spinner: Option<&Spinner>, note: &str) {
    match spinner {
        Some(spinner) => spinner.0.println(note),
        // Whoever closed stderr does not want to be told.
        None => drop(writeln!(stderr(), "{note}")),
    }
}

struct Spinner(ProgressBar);

impl Spinner {
    fn start(what: String) -> Self {
        let style =
            ProgressStyle::with_template("{spinner} {msg} {elapsed}").expect("the template is well-formed");
        let spinner = ProgressBar::new_spinner().with_style(style).with_message(what);
        spinner.enable_steady_tick(TICK);
        Spinner(spinner)
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
