//! What can go wrong with a request, as every form of answer names it.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// An error line (`error: <kind>: <message>`) never has more bytes than this.
pub const MAX_ERROR_LINE: usize = 200;

/// A message in an envelope never has more bytes than this: the tail of a compiler's output fits.
pub const MAX_MESSAGE: usize = 64 * 1024;

/// What compilers, assemblers and linkers call an error, and then make. The mere word is in `-Werror` and in names of
/// files as well.
const BUILD_ERRORS: [&str; 6] =
    ["error: ", "Error: ", "undefined reference to ", "multiple definition of ", "cannot find -l", "*** "];

/// The kind of an error, closed and fixed: clients branch on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// Not one of the request forms, a field is wrong (the message names it), or not valid wasm.
    Malformed,
    /// The topic is permitted, this use of it is not.
    Unauthorized,
    /// No such program or digest, for this principal.
    NotFound,
    /// Module, source, arguments, environment or stdin over the limit.
    TooLarge,
    /// Queue or quota full; nothing was run.
    Busy,
    /// The request's time ran out before it was started.
    Expired,
    /// The request's time ran out while it ran.
    Timeout,
    /// The compiler or make failed.
    Build,
    /// Valid wasm that cannot be compiled within the limits.
    Compile,
    /// Non-zero exit and nothing printed.
    Exit,
    /// The guest trapped.
    Trap,
    /// The fuel limit ended the guest.
    Fuel,
    /// The memory limit ended the guest.
    Memory,
    /// Output over its limit, or an answer too large for its receiver.
    Output,
    /// The other site is not there.
    Unreachable,
    /// The gateway's own fault.
    Internal,
    /// Another request of its client has cancelled it.
    Cancelled,
}

impl ErrorKind {
    /// Every kind, in the order of the contract's table.
    pub const ALL: [ErrorKind; 17] = [
        ErrorKind::Malformed,
        ErrorKind::Unauthorized,
        ErrorKind::NotFound,
        ErrorKind::TooLarge,
        ErrorKind::Busy,
        ErrorKind::Expired,
        ErrorKind::Timeout,
        ErrorKind::Build,
        ErrorKind::Compile,
        ErrorKind::Exit,
        ErrorKind::Trap,
        ErrorKind::Fuel,
        ErrorKind::Memory,
        ErrorKind::Output,
        ErrorKind::Unreachable,
        ErrorKind::Internal,
        ErrorKind::Cancelled,
    ];

    /// The name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            ErrorKind::Malformed => "malformed",
            ErrorKind::Unauthorized => "unauthorized",
            ErrorKind::NotFound => "not-found",
            ErrorKind::TooLarge => "too-large",
            ErrorKind::Busy => "busy",
            ErrorKind::Expired => "expired",
            ErrorKind::Timeout => "timeout",
            ErrorKind::Build => "build",
            ErrorKind::Compile => "compile",
            ErrorKind::Exit => "exit",
            ErrorKind::Trap => "trap",
            ErrorKind::Fuel => "fuel",
            ErrorKind::Memory => "memory",
            ErrorKind::Output => "output",
            ErrorKind::Unreachable => "unreachable",
            ErrorKind::Internal => "internal",
            ErrorKind::Cancelled => "cancelled",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for ErrorKind {
    type Err = WireError;

    fn from_str(name: &str) -> Result<Self, WireError> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.as_str() == name)
            .ok_or_else(|| WireError::malformed("kind", "no such error kind"))
    }
}

/// An error as it goes over the wire; displayed as `<kind>: <message>`.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{kind}: {message}")]
pub struct WireError {
    /// The kind, for programs.
    pub kind: ErrorKind,
    /// What exactly, for people. Bounded and cleaned when it is encoded, not here.
    pub message: String,
}

impl WireError {
    /// An error of `kind`.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// A [`ErrorKind::Malformed`] error whose message names the field and what is wrong with it.
    pub fn malformed(field: impl fmt::Display, problem: impl fmt::Display) -> Self {
        Self::new(ErrorKind::Malformed, format!("{field}: {problem}"))
    }

    /// The one line that stands in for stdout in the line form of an answer: `error: <kind>: <message>`, at most
    /// [`MAX_ERROR_LINE`] bytes, control characters replaced, no line end.
    pub fn line(&self) -> String {
        let mut line = format!("error: {}: ", self.kind);
        // Each replacement is no longer than what it replaces, so that many bytes of the message are enough.
        let message = cut(self.first_error(), MAX_ERROR_LINE);
        line.extend(message.chars().map(|c| match c {
            '\u{2028}' | '\u{2029}' => ' ',
            c if c.is_control() && c.is_whitespace() => ' ',
            c if c.is_control() => '?',
            c => c,
        }));
        line.truncate(cut(&line, MAX_ERROR_LINE).len());
        line
    }

    /// What a line says: of a compiler's output the first error.
    fn first_error(&self) -> &str {
        match self.kind {
            ErrorKind::Build => {
                let mut lines = self.message.lines().filter(|line| !line.trim().is_empty());
                let first = lines.clone().next();
                let names_one = |line: &&str| BUILD_ERRORS.iter().any(|error| line.contains(error));
                lines.find(names_one).or(first).unwrap_or_default()
            }
            _ => &self.message,
        }
    }

    /// The message as an envelope carries it: at most [`MAX_MESSAGE`] bytes, of a compiler's output the last ones, and
    /// control characters but line feed and tab replaced.
    pub(crate) fn envelope_message(&self) -> String {
        let message = match self.kind {
            // What a compiler says last is what ended it.
            ErrorKind::Build => {
                let surplus = self.message.len().saturating_sub(MAX_MESSAGE);
                &self.message[self.message.ceil_char_boundary(surplus)..]
            }
            _ => cut(&self.message, MAX_MESSAGE),
        };
        message.chars().map(|c| if c.is_control() && c != '\n' && c != '\t' { '?' } else { c }).collect()
    }
}

/// The longest prefix of `text` that has at most `max` bytes and ends between two characters.
pub(crate) fn cut(text: &str, max: usize) -> &str {
    &text[..text.floor_char_boundary(max)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_are_those_of_the_contract_and_are_read_back() {
        let names: Vec<_> = ErrorKind::ALL.iter().map(|kind| kind.as_str()).collect();
        assert_eq!(
            names.join(" "),
            "malformed unauthorized not-found too-large busy expired timeout build compile exit trap fuel memory \
             output unreachable internal cancelled"
        );
        for kind in ErrorKind::ALL {
            assert_eq!(kind.as_str().parse(), Ok(kind));
        }
        assert!("Malformed".parse::<ErrorKind>().is_err());
    }

    #[test]
    fn a_line_replaces_control_characters() {
        let error = WireError::new(ErrorKind::Trap, "a\nb\r\tc\u{0}d\u{1b}e\u{85}f\u{2028}g");
        assert_eq!(error.line(), "error: trap: a b  c?d?e f g");
    }

    #[test]
    fn of_a_compilers_output_a_line_has_the_first_error_and_an_envelope_the_last_bytes() {
        let build = |message: String| WireError::new(ErrorKind::Build, message);
        let said = build("In file a.c:\na.c:1: error: no\na.c:2: error: never".into());
        assert_eq!(said.line(), "error: build: a.c:1: error: no");
        let echoed =
            build("gcc -Werror error.c\n/usr/bin/ld: undefined reference to `f'\nmake: *** Error 1".into());
        assert_eq!(echoed.line(), "error: build: /usr/bin/ld: undefined reference to `f'");
        assert_eq!(
            build("\nmake: *** no targets.\nbye".into()).line(),
            "error: build: make: *** no targets."
        );
        let long = build("ä".repeat(MAX_MESSAGE) + "x");
        assert_eq!(long.envelope_message().len(), MAX_MESSAGE - 1);
        assert!(long.envelope_message().ends_with("äx"));
    }

    #[test]
    fn an_envelope_keeps_the_lines_of_a_message() {
        let error = WireError::new(ErrorKind::Build, "a\n\tb\u{1b}[31m");
        assert_eq!(error.envelope_message(), "a\n\tb?[31m");
    }

    proptest! {
        #[test]
        fn a_line_is_one_bounded_line(message in any::<String>(), repeat in 1..40usize) {
            for kind in ErrorKind::ALL {
                let line = WireError::new(kind, message.repeat(repeat)).line();
                let prefix = format!("error: {kind}: ");
                prop_assert!(line.starts_with(&prefix));
                prop_assert!(line.len() <= MAX_ERROR_LINE);
                prop_assert!(!line.chars().any(char::is_control));
            }
        }
    }
}
