//! A project: several files and a makefile, and which of what make leaves is the program.

use crate::Error;
use crate::hints::Hints;
use crate::left::TAKE;
use crate::platform::Platform;
use crate::tools::shell;
use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

/// The file that make reads where the makefile came apart from the files.
const MAKEFILE: &str = "Makefile";

/// Makes the project and leaves its program. `$1` is the target, `$2` the makefile, `$3` the platform's program format,
/// `$4` [`PREREQUISITES`].
const BUILD: &str = include_str!("project/build.sh");

/// Finds what the target is made of.
const PREREQUISITES: &str = include_str!("project/prerequisites.awk");

/// Several files that make turns into a program. How many and how large they are is bounded by the caller, and by the
/// work directory.
#[derive(Clone, Debug, Default)]
pub struct Project<'a> {
    /// Path and contents. Paths are relative and without `..`; folders come with them. What begins with `#!` can be
    /// executed, so that makefiles can call scripts.
    pub files: Vec<(&'a str, &'a [u8])>,
    /// The makefile, which takes the place of a file `Makefile`; without it, make looks for one among the files.
    pub makefile: Option<&'a [u8]>,
    /// What make makes, and the program to run. By default the makefile's own default target, and the first program
    /// that this one is, or is made of.
    pub target: Option<&'a str>,
}

impl Project<'_> {
    /// All files in one tar archive: it goes in by one descriptor, where each file of its own would take one, and all
    /// files have one time, so that make takes nothing among them for out of date.
    ///
    /// # Errors
    ///
    /// [`Error::Input`] for a path that is absolute, has `..` or a NUL in it, or is empty.
    pub(crate) fn archive(&self) -> Result<Vec<u8>, Error> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        let mut archive = tar::Builder::new(Vec::new());
        let makefile = self.makefile.map(|text| (MAKEFILE, text));
        for (path, contents) in self.files.iter().copied().chain(makefile) {
            let mut header = tar::Header::new_gnu();
            header.set_size(contents.len() as u64);
            header.set_mode(if contents.starts_with(b"#!") { 0o700 } else { 0o600 });
            header.set_mtime(now);
            let problem =
                |_: io::Error| Error::Input("a file's path is empty, absolute, or has .. or a NUL in it");
            archive.append_data(&mut header, path, contents).map_err(problem)?;
        }
        Ok(archive.into_inner()?)
    }

    /// What is run inside. It takes the archive from its standard input, has compilers and make speak on standard
    /// error, and leaves on standard output what [`Left`](crate::left::Left) reads.
    pub(crate) fn command(&self, platform: Platform<'_>) -> Vec<String> {
        let file = self.makefile.map_or("", |_| MAKEFILE);
        let target = self.target.unwrap_or_default();
        shell(&format!("{TAKE}{BUILD}"), &[target, file, platform.format(), PREREQUISITES])
    }

    /// What its errors are explained by.
    pub(crate) fn hints(&self) -> Hints<'_> {
        let makefile = self.makefile.map(|text| (MAKEFILE, text));
        Hints {
            taken_for: None,
            commands: None,
            files: makefile.into_iter().chain(self.files.iter().copied()).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn project<'a>(path: &'a str, contents: &'a [u8]) -> Project<'a> {
        Project { files: vec![(path, contents)], ..Project::default() }
    }

    #[test]
    fn files_keep_their_paths_and_scripts_can_be_executed() {
        let long = format!("{}/a.c", "folder/".repeat(30).trim_end_matches('/'));
        for (path, contents, mode) in
            [("a.c", &b"int x;"[..], 0o600), ("b/c d/run", b"#!/bin/sh", 0o700), (&long, b"\0\xff", 0o600)]
        {
            let archive = project(path, contents).archive().unwrap();
            let mut archive = tar::Archive::new(&archive[..]);
            let mut entries = archive.entries().unwrap();
            let mut entry = entries.next().unwrap().unwrap();
            let mut found = Vec::new();
            io::Read::read_to_end(&mut entry, &mut found).unwrap();
            assert_eq!(entry.path().unwrap().to_str(), Some(path));
            assert_eq!((found.as_slice(), entry.header().mode().unwrap()), (contents, mode));
            assert!(entries.next().is_none());
        }
    }

    #[test]
    fn paths_lead_nowhere_else() {
        for path in ["", "/etc/passwd", "..", "../a", "a/../b", "a\0b"] {
            assert!(matches!(project(path, b"").archive(), Err(Error::Input(_))), "{path:?}");
        }
    }
}
