//! Where the lines that were typed are kept.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::{env, io};

/// Lines that are kept from one session to the next.
pub const MAX_LINES: usize = 1000;

/// The history's file in the user's state folder, which is made where it is missing, for nobody else to read.
pub fn file() -> io::Result<PathBuf> {
    let home = in_state_folder(env::var_os("XDG_STATE_HOME").map(Into::into), env::home_dir())
        .ok_or_else(|| io::Error::other("neither XDG_STATE_HOME nor HOME is an absolute path"))?;
    DirBuilder::new().recursive(true).mode(0o700).create(&home)?;
    Ok(home.join("history"))
}

/// By the XDG Base Directory Specification, which has relative paths ignored.
fn in_state_folder(state: Option<PathBuf>, home: Option<PathBuf>) -> Option<PathBuf> {
    let absolute = |path: &PathBuf| path.is_absolute();
    let state = state.filter(absolute);
    let state = state.or_else(|| home.filter(absolute).map(|home| home.join(".local/state")))?;
    Some(state.join("offload-client"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_stands_where_the_specification_says() {
        let path = |state: Option<&str>, home: Option<&str>| {
            in_state_folder(state.map(PathBuf::from), home.map(PathBuf::from))
        };
        assert_eq!(path(Some("/s"), Some("/h")), Some("/s/offload-client".into()));
        let default = Some("/h/.local/state/offload-client".into());
        for state in [None, Some(""), Some("relative")] {
            assert_eq!(path(state, Some("/h")), default);
            assert_eq!(path(state, None), None);
            assert_eq!(path(state, Some("relative")), None);
        }
    }
}
