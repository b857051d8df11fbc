//! How much a request may carry: looked at while it is decoded, before anything is kept of what is too much.

use crate::envelope::MAX_VALUES;
use crate::error::{ErrorKind, WireError};

/// How much a request may carry. What is over a bound is `too-large`; the message has both figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Bytes of a module or component.
    pub module: usize,
    /// Bytes of source and how it is built; of several files their paths and contents.
    pub source: usize,
    /// Number of files.
    pub files: usize,
    /// Number of arguments.
    pub args: usize,
    /// Bytes of all arguments.
    pub args_bytes: usize,
    /// Number of environment variables.
    pub env: usize,
    /// Bytes of all environment variables, names and values.
    pub env_bytes: usize,
    /// Bytes of stdin.
    pub stdin: usize,
}

impl Bounds {
    /// For whoever trusts the sender.
    pub const NONE: Bounds = Bounds {
        module: usize::MAX,
        source: usize::MAX,
        files: usize::MAX,
        args: usize::MAX,
        args_bytes: usize::MAX,
        env: usize::MAX,
        env_bytes: usize::MAX,
        stdin: usize::MAX,
    };

    /// How many values of an envelope are looked at: all that may be in it, and as many again, so that what is too much
    /// is mostly counted and told with the request's id.
    pub(super) fn values(&self) -> usize {
        /// The fields, and what does not belong there.
        const FIELDS: usize = 512;
        let lists = self.args.saturating_add(self.env).saturating_add(self.files);
        lists.saturating_add(FIELDS).saturating_mul(2).min(MAX_VALUES)
    }
}

/// Refuses a number of things over its bound.
pub(super) fn check_number(field: &str, found: usize, bound: usize) -> Result<(), WireError> {
    if found <= bound {
        Ok(())
    } else {
        Err(too_large(format!("{field}: number {found}, the limit is {bound}")))
    }
}

/// Refuses bytes over their bound.
pub(super) fn check_bytes(field: &str, found: usize, bound: usize) -> Result<(), WireError> {
    if found <= bound {
        Ok(())
    } else {
        Err(too_large(format!("{field}: {found} bytes, the limit is {bound} bytes")))
    }
}

/// Splits arguments on white space, up to the first one too many.
pub(super) fn split_args(text: &str, bounds: &Bounds) -> Result<Vec<String>, WireError> {
    let mut bytes = 0;
    let mut words = Vec::new();
    for word in text.split_whitespace() {
        let Bounds { args, args_bytes, .. } = *bounds;
        if words.len() == args {
            return Err(too_large(format!("args: number {} or more, the limit is {args}", args + 1)));
        }
        bytes += word.len();
        if bytes > args_bytes {
            return Err(too_large(format!("args: {bytes} bytes or more, the limit is {args_bytes} bytes")));
        }
        words.push(word);
    }
    Ok(words.into_iter().map(str::to_owned).collect())
}

fn too_large(message: String) -> WireError {
    WireError::new(ErrorKind::TooLarge, message)
}
