//! Lines that are typed: editing, history, completion.

use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::Arc;

use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::FileHistory;
use rustyline::validate::Validator;
use rustyline::{ColorMode, Config, Context, Helper};
use tokio::sync::Notify;
use tokio::sync::mpsc::{self, error::TrySendError};

use super::command::{self, Command, MANUALS};
use super::history;
use super::prompt_printer::{self, Printer, PromptPrinter};
use super::{Line, MAX_WAITING_LINES};

const PROMPT: &str = "mqtt> ";

/// The line editor.
pub struct Editor {
    editor: rustyline::Editor<Commands, FileHistory>,
    prompt_printer: Arc<PromptPrinter>,
    history: Option<PathBuf>,
    interrupts: Arc<Notify>,
}

/// Opens the terminal; also gives what prints above the line that is being typed.
pub fn open() -> rustyline::Result<(Editor, Printer)> {
    let config = Config::builder()
        .max_history_size(history::MAX_LINES)?
        .history_ignore_space(true)
        .completion_type(rustyline::CompletionType::List)
        // Colours are the lines' own. Only with colours does rustyline let us paint the prompt, also where NO_COLOR is
        // set.
        .color_mode(ColorMode::Forced)
        .build();
    let mut editor = rustyline::Editor::with_config(config)?;
    let (printer, prompt_printer) = prompt_printer::channel(editor.create_external_printer()?);
    let prompt_printer = Arc::new(prompt_printer);
    editor.set_helper(Some(Commands { prompt_printer: prompt_printer.clone() }));
    let history = history::file().ok();
    if let Some(file) = &history {
        // The first time there is none.
        let _ = editor.load_history(file);
    }
    Ok((Editor { editor, prompt_printer, history, interrupts: Arc::default() }, printer))
}

impl Editor {
    /// Ctrl-c, which also gives up waiting for an acknowledgement.
    pub fn interrupts(&self) -> Arc<Notify> {
        self.interrupts.clone()
    }

    /// Hands out lines until `exit` or ctrl-d, and leaves the terminal as it was. Then shows what there is to show
    /// until the [`Printer`] is dropped.
    pub fn read(mut self, lines: mpsc::Sender<Line>) {
        // Anything but ctrl-c and ctrl-d is a terminal that is gone.
        loop {
            let typed = self.editor.readline(PROMPT);
            self.prompt_printer.prompt_is_gone();
            let typed = match typed {
                Ok(typed) => typed,
                Err(ReadlineError::Interrupted) => {
                    self.interrupts.notify_waiters();
                    continue;
                }
                Err(_) => break,
            };
            // Only a history that cannot be kept is lost, and that is no reason to stop.
            let _ = self.editor.add_history_entry(&typed);
            if !hand_out(&typed, &lines) {
                break;
            }
        }
        if let Some(file) = &self.history {
            let _ = self.editor.append_history(file);
        }
        // The printer no longer waits for the editor, nor the session for a line.
        drop((self.editor, lines));
        self.prompt_printer.show_the_rest();
    }
}

/// False when there is nothing left to read for. What was pasted may be several lines.
fn hand_out(typed: &str, lines: &mpsc::Sender<Line>) -> bool {
    for text in typed.lines() {
        let line = Line { number: None, text: Ok(text.to_owned()) };
        // Never waits: whoever takes the lines may be waiting for us to show something.
        match lines.try_send(line) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => {
                eprintln!("error: busy: {MAX_WAITING_LINES} lines wait for their turn; the rest is ignored");
                return true;
            }
            Err(TrySendError::Closed(_)) => return false,
        }
        // The next prompt would come before the session sees it.
        if command::parse(text) == Ok(Some(Command::Exit)) {
            return false;
        }
    }
    true
}

/// Completes the commands' names, and paints the prompt.
struct Commands {
    prompt_printer: Arc<PromptPrinter>,
}

impl Completer for Commands {
    type Candidate = String;

    fn complete(&self, line: &str, at: usize, _: &Context) -> rustyline::Result<(usize, Vec<String>)> {
        Ok((0, completions(&line[..at])))
    }
}

impl Helper for Commands {}
impl Hinter for Commands {
    type Hint = String;
}
impl Highlighter for Commands {
    fn highlight_prompt<'b, 's: 'b, 'p: 'b>(&'s self, prompt: &'p str, _: bool) -> Cow<'b, str> {
        Cow::Owned(self.prompt_printer.take() + prompt)
    }
}
impl Validator for Commands {}

/// In the letter case that was begun.
fn completions(begun: &str) -> Vec<String> {
    let lower = begun.starts_with(|c: char| c.is_ascii_lowercase());
    let names = MANUALS.iter().map(|manual| manual.name);
    let fitting =
        names.filter(|name| name.get(..begun.len()).is_some_and(|start| start.eq_ignore_ascii_case(begun)));
    fitting.map(|name| if lower { format!("{} ", name.to_lowercase()) } else { format!("{name} ") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_completed_in_their_letter_case() {
        assert_eq!(completions("su"), ["subscribe "]);
        assert_eq!(completions("P"), ["PUBLISH "]);
        assert_eq!(completions(""), MANUALS.map(|manual| format!("{} ", manual.name)));
        for none in ["x", "publish a", "publishing", "é"] {
            assert!(completions(none).is_empty(), "{none}");
        }
    }

    #[test]
    fn what_was_pasted_is_taken_line_by_line_up_to_exit() {
        let (sender, mut lines) = mpsc::channel(3);
        assert!(hand_out("conn\nsubs a", &sender));
        assert!(!hand_out("Exit\nhelp", &sender));
        let texts = std::iter::from_fn(|| lines.try_recv().ok()).map(|line| line.text.unwrap());
        assert_eq!(texts.collect::<Vec<_>>(), ["conn", "subs a", "Exit"]);
        drop(lines);
        assert!(!hand_out("help", &sender));
    }
}
