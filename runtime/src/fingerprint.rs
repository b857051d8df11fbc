//! The fingerprint of a request, or of source: tells those apart that have one name.

use offload_protocol::request::{Code, Digest, Files, Request, Source};
use sha2::{Digest as _, Sha256};

/// SHA-256 over the parts of a request that decide its outcome: code, arguments, environment and stdin. Equal for equal
/// requests in different forms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub [u8; 32]);

impl Fingerprint {
    /// Hex digits.
    pub fn to_hex(self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// What [`to_hex`](Self::to_hex) has made.
    pub fn from_hex(text: &str) -> Option<Fingerprint> {
        let mut print = Fingerprint([0; 32]);
        if text.len() != 2 * print.0.len() || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        for (byte, pair) in print.0.iter_mut().zip(text.as_bytes().chunks(2)) {
            *byte = u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(print)
    }

    /// That of a request. `digest` is that of the module, if the request carries or names one; a request that names
    /// nothing runs `default_program`.
    pub fn of_request(request: &Request, digest: Option<Digest>, default_program: &str) -> Fingerprint {
        let code = match (&request.code, digest) {
            (Code::Modules(modules), digest) => Fingerprinter::new("modules")
                .part(modules.action().as_bytes())
                .list(digest.iter().map(|digest| &digest.0[..])),
            (_, Some(digest)) => Fingerprinter::new("wasm").part(&digest.0),
            (Code::Program(name), _) => Fingerprinter::new("program").part(name.as_bytes()),
            (Code::Source(source), _) => Fingerprinter::of_source(source),
            (Code::Files(files), _) => Fingerprinter::of_files(files),
            (Code::Cancel(id), _) => Fingerprinter::new("cancel").part(id.as_str().as_bytes()),
            _ => Fingerprinter::new("program").part(default_program.as_bytes()),
        };
        let mut env: Vec<&(String, String)> = request.env.iter().collect();
        env.sort();
        let env: Vec<&[u8]> =
            env.iter().flat_map(|(name, value)| [name.as_bytes(), value.as_bytes()]).collect();
        code.list(request.args.iter().map(String::as_bytes))
            .list(env.into_iter())
            .part(&request.stdin)
            .finish()
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    fn print(change: impl FnOnce(&mut Request)) -> Fingerprint {
        let mut request = Request::new(Code::Program("add".to_owned()));
        request.args = vec!["1".to_owned()];
        request.env = vec![("A".to_owned(), "1".to_owned()), ("B".to_owned(), "2".to_owned())];
        change(&mut request);
        Fingerprint::of_request(&request, None, "add")
    }

    #[test]
    fn requests_are_told_apart_by_what_decides_their_outcome_alone() {
        let first = print(|_| {});
        assert_eq!(print(|request| request.env.reverse()), first);
        assert_eq!(print(|request| request.code = Code::DefaultProgram), first);
        assert_eq!(print(|request| request.id = Some("other".try_into().unwrap())), first);
        assert_ne!(print(|request| request.args.push("2".to_owned())), first);
        assert_ne!(print(|request| request.env.truncate(1)), first);
        assert_ne!(print(|request| request.stdin = "x".into()), first);
        assert_ne!(print(|request| request.code = Code::Program("sub".to_owned())), first);
    }

    #[test]
    fn hex_digits_are_read_again_and_nothing_else_is() {
        let print = print(|_| {});
        assert_eq!(Fingerprint::from_hex(&print.to_hex()), Some(print));
        for text in ["", "00", &"g".repeat(64), &"+1".repeat(32), &"ä".repeat(32)] {
            assert_eq!(Fingerprint::from_hex(text), None, "{text}");
        }
    }

    #[test]
    fn parts_do_not_run_together() {
        let list = |parts: &[&str]| {
            let parts: Vec<&[u8]> = parts.iter().map(|part| part.as_bytes()).collect();
            Fingerprinter::new("wasm").list(parts.into_iter()).finish()
        };
        assert_ne!(list(&["ab", "c"]), list(&["a", "bc"]));
        assert_ne!(list(&["ab"]), list(&["ab", ""]));
        assert_eq!(list(&["ab"]), list(&["ab"]));
    }
}
