//! This machine's tools: where they are, and how a build finds others in their place.

use crate::bwrap_args::{BwrapArgs, FileInside};
use std::path::{Path, PathBuf};

/// Where this machine's compilers are, as `PATH` has it.
pub const TOOL_FOLDERS: &str = "/usr/local/bin:/usr/bin:/bin";

/// Puts a folder in front of this machine's compilers, in which one script, the file that is returned, has all these
/// names.
pub fn stand_in(bwrap: &mut BwrapArgs, folder: &str, names: &[&str], script: String) -> FileInside {
    bwrap.env("PATH", &format!("{folder}:{TOOL_FOLDERS}"));
    let (name, others) = names.split_first().expect("it has a name");
    for other in others {
        bwrap.add(["--symlink", name, &format!("{folder}/{other}")]);
    }
    (format!("{folder}/{name}"), "0555", script.into_bytes())
}

/// Where a tool of this machine's is.
pub fn tool(name: &str) -> Option<PathBuf> {
    TOOL_FOLDERS.split(':').map(|folder| Path::new(folder).join(name)).find(|path| path.is_file())
}

/// The command line of a shell that runs `script`, with these as `$1` and on.
pub fn shell(script: &str, args: &[&str]) -> Vec<String> {
    ["/bin/sh", "-c", script, "sh"].iter().chain(args).map(|word| (*word).to_owned()).collect()
}
