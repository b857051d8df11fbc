//! The fingerprint of a request, or of source: tells those apart that have one name.

use offload_protocol::request::{Files, Source};
use sha2::{Digest, Sha256};

/// SHA-256 over the parts of a request that decide its outcome: code, arguments, environment and stdin. Equal for equal
/// requests in different forms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub [u8; 32]);

/// Collects a request's parts into its [`Fingerprint`].
pub struct Fingerprinter(Sha256);

impl Fingerprinter {
    /// Begins with what kind of code it is.
    pub fn new(kind: &str) -> Fingerprinter {
        Fingerprinter(Sha256::new()).part(kind.as_bytes())
    }

    /// Begins with all of one file of source that shapes its program.
    pub fn of_source(source: &Source) -> Fingerprinter {
        Fingerprinter::new("source")
            .part(source.name.as_bytes())
            .part(&source.text)
            .part(source.build.as_str().as_bytes())
    }

    /// Begins with all of several files that shapes their program.
    pub fn of_files(Files { files, makefile, target }: &Files) -> Fingerprinter {
        let mut files: Vec<_> = files.iter().collect();
        files.sort();
        let files: Vec<&[u8]> =
            files.iter().flat_map(|(path, contents)| [path.as_bytes(), &contents[..]]).collect();
        Fingerprinter::new("files")
            .list(files.into_iter())
            .list(makefile.iter().map(String::as_bytes))
            .list(target.iter().map(String::as_bytes))
    }

    /// Adds one part. Each goes in with its length, so that no two lists of parts run together into the same bytes.
    pub fn part(mut self, part: &[u8]) -> Fingerprinter {
        self.0.update((part.len() as u64).to_le_bytes());
        self.0.update(part);
        self
    }

    /// Adds the parts of a list, and how many they are.
    pub fn list<'a>(self, parts: impl ExactSizeIterator<Item = &'a [u8]>) -> Fingerprinter {
        let count = parts.len() as u64;
        parts.fold(self.part(&count.to_le_bytes()), Fingerprinter::part)
    }

    /// All parts are in.
    pub fn finish(self) -> Fingerprint {
        Fingerprint(self.0.finalize().into())
    }
}
