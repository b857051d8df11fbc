//! A request that names itself: its answer is told from every other, whatever it comes with.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::key::Key;
use crate::random::Random;

/// How many random bytes the guest prints behind its input.
pub const RANDOM_BYTES: usize = 16;

/// What separates the key from what fills the input up.
const END_OF_KEY: u8 = b' ';

/// The module that all requests but sums run; `guest.wat` says what it does.
pub struct Guest {
    module: Vec<u8>,
    digest: String,
}

impl Guest {
    /// Assembles it.
    ///
    /// # Errors
    ///
    /// The text is no module.
    pub fn assemble() -> anyhow::Result<Guest> {
        let module = wat::parse_str(include_str!("guest.wat"))?;
        let hex: String = Sha256::digest(&module).iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Guest { module, digest: format!("sha256:{hex}") })
    }
}

/// How the code is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// Not at all: arguments for the gateway's default program, which adds them up.
    Sum,
    /// The guest by its bytes.
    Module,
    /// The guest by its digest.
    Digest,
}

/// All that a request consists of, beside its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// What runs.
    pub code: Code,
    /// Whether it has an `id`, which is its key. Sums have none.
    pub id: bool,
    /// The quality of service at which it is published.
    pub qos: u8,
    /// How long the guest sleeps.
    pub milliseconds: u32,
    /// Bytes that fill the input up.
    pub filler: u32,
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = if self.id { "with an id" } else { "without an id" };
        match self.code {
            Code::Sum => return write!(f, "sum {id}"),
            Code::Module => write!(f, "module {id}"),
            Code::Digest => write!(f, "digest {id}"),
        }?;
        write!(f, ", sleeping {} ms, with {} more bytes", self.milliseconds, self.filler)
    }
}

impl Request {
    /// Where it is published.
    pub fn topic(&self, reply: &str) -> String {
        let kind = if self.code == Code::Module { "inputCode" } else { "localCode" };
        format!("{kind}/{reply}")
    }

    /// What is published.
    pub fn payload(&self, key: Key, guest: &Guest) -> Bytes {
        let mut envelope = match self.code {
            Code::Sum => {
                let (client, number) = (key.in_one() - u64::from(key.number), key.number);
                return format!("{client} {number}").into();
            }
            Code::Module => json!({ "module": STANDARD.encode(&guest.module) }),
            Code::Digest => json!({ "digest": guest.digest }),
        };
        envelope["stdin"] = STANDARD.encode(self.stdin(key)).into();
        if self.id {
            envelope["id"] = key.to_string().into();
        }
        envelope.to_string().into()
    }

    /// Whether this is what it prints: all of it, but for the guest's random bytes.
    pub fn prints(&self, key: Key, stdout: &[u8]) -> bool {
        if self.code == Code::Sum {
            return stdout == format!("{}\n", key.in_one()).as_bytes();
        }
        let expected = self.stdin(key);
        stdout.len() == expected.len() + RANDOM_BYTES && stdout.starts_with(&expected)
    }

    /// How long to sleep, the key, and bytes that follow from it.
    fn stdin(&self, key: Key) -> Vec<u8> {
        let mut stdin = self.milliseconds.to_le_bytes().to_vec();
        stdin.extend(key.to_string().as_bytes());
        stdin.push(END_OF_KEY);
        let mut random = Random::new(key.in_one(), 0);
        let begin = stdin.len();
        while stdin.len() < begin + self.filler as usize {
            stdin.extend(random.number().to_le_bytes());
        }
        stdin.truncate(begin + self.filler as usize);
        stdin
    }
}

/// The request that has printed this, if it was one of ours.
pub fn key_of(stdout: &[u8]) -> Option<Key> {
    let sum = str::from_utf8(stdout).ok().and_then(|text| text.strip_suffix('\n'));
    if let Some(sum) = sum.and_then(|digits| digits.parse().ok()) {
        return Some(Key::from_one(sum));
    }
    let (_, named) = stdout.split_first_chunk::<4>()?;
    let end = named.iter().position(|byte| *byte == END_OF_KEY)?;
    str::from_utf8(&named[..end]).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: Key = Key { client: 3, number: 17 };

    #[test]
    fn what_it_prints_names_it() {
        let request = Request { code: Code::Digest, id: true, qos: 1, milliseconds: 300, filler: 100 };
        let mut stdout = request.stdin(KEY);
        assert!(!request.prints(KEY, &stdout), "without the random bytes");
        stdout.extend([0; RANDOM_BYTES]);
        assert!(request.prints(KEY, &stdout));
        assert_eq!(key_of(&stdout), Some(KEY));
        assert!(!request.prints(Key { client: 3, number: 18 }, &stdout));
        stdout[50] ^= 1;
        assert!(!request.prints(KEY, &stdout));
    }

    #[test]
    fn a_sum_names_it_too() {
        let request = Request { code: Code::Sum, id: false, qos: 1, milliseconds: 0, filler: 0 };
        let payload = request.payload(KEY, &Guest::assemble().expect("it is a module"));
        let numbers = payload.split(|byte| *byte == b' ').map(|text| str::from_utf8(text).expect("digits"));
        let sum: u64 = numbers.map(|digits| digits.parse::<u64>().expect("a number")).sum();
        let stdout = format!("{sum}\n");
        assert!(request.prints(KEY, stdout.as_bytes()));
        assert_eq!(key_of(stdout.as_bytes()), Some(KEY));
    }

    #[test]
    fn what_nobody_asked_for_names_nothing() {
        assert_eq!(key_of(b"hello\n"), None);
        assert_eq!(key_of(b""), None);
    }
}
