//! Where the console's lines go, and in which colour.

use std::io::{self, IsTerminal, Write, stderr, stdout};

use super::prompt_printer::Printer;

/// What a line is, which decides where it goes and how it looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Acknowledgement,
    Refusal,
    Message,
    Notice,
    Error,
}

impl Kind {
    /// Select Graphic Rendition (ECMA-48, section 8.3.117).
    fn colour(self) -> &'static str {
        match self {
            Kind::Acknowledgement => "32",
            Kind::Refusal | Kind::Error => "31",
            Kind::Message => "36",
            Kind::Notice => "2",
        }
    }
}

/// Lines go above the one that is being typed, or to stdout and, if they are errors, to stderr.
pub struct Screen {
    printer: Option<Printer>,
    coloured_stdout: bool,
    coloured_stderr: bool,
}

impl Screen {
    pub fn terminal(printer: Printer) -> Self {
        Self { printer: Some(printer), ..Self::stdout() }
    }

    pub fn stdout() -> Self {
        // https://no-color.org
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self {
            printer: None,
            coloured_stdout: wanted && stdout().is_terminal(),
            coloured_stderr: wanted && stderr().is_terminal(),
        }
    }

    /// Whether somebody sits there who reads what is said about every command.
    pub fn is_terminal(&self) -> bool {
        self.printer.is_some()
    }

    /// Shows a line. An error when nobody can see it any more.
    pub fn show(&mut self, kind: Kind, line: &str) -> io::Result<()> {
        if let Some(printer) = &mut self.printer {
            return printer.print(in_colour(self.coloured_stdout, kind, line));
        }
        if kind == Kind::Error {
            return stderr().write_all(in_colour(self.coloured_stderr, kind, line).as_bytes());
        }
        let mut stdout = stdout();
        stdout.write_all(in_colour(self.coloured_stdout, kind, line).as_bytes())?;
        stdout.flush()
    }
}

fn in_colour(coloured: bool, kind: Kind, line: &str) -> String {
    if coloured { format!("\x1b[{}m{line}\x1b[0m\n", kind.colour()) } else { format!("{line}\n") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colour_is_put_around_a_line_and_ends_with_it() {
        assert_eq!(in_colour(true, Kind::Error, "no"), "\x1b[31mno\x1b[0m\n");
        assert_eq!(in_colour(false, Kind::Error, "no"), "no\n");
    }
}
