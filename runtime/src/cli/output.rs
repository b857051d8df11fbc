//! What commands print on standard output, and how they end where it cannot be written.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

/// The exit code of a command whose output could not be written: that of `offload-client send`.
const EXIT_UNPRINTABLE: u8 = 125;

/// Standard output did not take what a command printed.
#[derive(Debug, thiserror::Error)]
#[error("output: {0}")]
pub struct Unprintable(#[from] io::Error);

impl Unprintable {
    /// How the command ends. Who has read enough and left, as in `offload-rt config | head`, need not be told.
    pub fn exit_code(&self) -> ExitCode {
        if self.0.kind() == io::ErrorKind::BrokenPipe {
            return ExitCode::SUCCESS;
        }
        complain(&format!("error: {self}"));
        ExitCode::from(EXIT_UNPRINTABLE)
    }
}

/// Prints a text as it is, at once.
///
/// # Errors
///
/// When standard output does not take it.
pub fn print(text: impl Display) -> Result<(), Unprintable> {
    let mut stdout = io::stdout().lock();
    write!(stdout, "{text}")?;
    Ok(stdout.flush()?)
}

/// Prints a line, at once.
///
/// # Errors
///
/// When standard output does not take it.
pub fn print_line(line: impl Display) -> Result<(), Unprintable> {
    print(format_args!("{line}\n"))
}

/// Columns of the terminal that standard output is; `None` where it is none.
pub fn columns() -> Option<usize> {
    let stdout = io::stdout();
    let size = stdout.is_terminal().then(|| rustix::termios::tcgetwinsize(&stdout).ok()).flatten()?;
    Some(usize::from(size.ws_col)).filter(|&columns| columns > 0)
}

/// Prints a line on standard error, if that is open.
pub fn complain(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Columns as wide as they need to be.
pub fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let line = |row: &[String; N]| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["A", "B"], ["long", "x"], ["é", ""]].map(|row| row.map(str::to_owned));
        assert_eq!(table(&rows), "A     B\nlong  x\né\n");
    }
}
